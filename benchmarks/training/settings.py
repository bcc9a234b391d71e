"""Settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from luvc.tools.pocket.dataset import TEST_QUESTIONS

from .checkpoint import LAYERS


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run; written beside its log."""

    steps: int = 20_000
    minutes: float | None = None
    """Time limit: the schedule ends with the steps or with the time, whichever is nearer."""
    stop_after: float | None = None
    """Minutes after which this process saves its state and stops, wherever the schedule is."""
    start: str | None = None
    """Checkpoint directory whose weights a new run begins with."""
    teacher: str | None = None
    """Checkpoint directory of a model of coarser pictures that a run learns to see like; without a start,
    it begins as that model."""
    device: str = "cpu"
    layers: int = LAYERS
    """Vision layers and language layers that a run begins with."""
    grow: float = 0.5
    """Part of the run after which they become LAYERS, by copies that add nothing at first."""
    singles: int = 4
    """One-picture records of a step."""
    pairs: int = 1
    """Two-picture records of a step that has them."""
    pair_every: int = 2
    """One step in so many has two-picture records."""
    rate: float = 3e-3
    warmup: int = 200
    decay: float = 0.05
    muon: bool = True
    patch_weight: float = 2.0
    """Weight of the patch labels in the loss; it falls to zero over the run."""
    vision_first: float = 0.1
    """Part of the run in which patch labels alone are learnt: five times as many pictures a second."""
    average: float = 0.999
    clip: float = 1.0
    workers: int = 1
    log_every: int = 50
    validate_every: int = 1000
    save_every: int = 500
    validation: int = 300
    test: int = TEST_QUESTIONS
    seed: int = 0
    half: bool = True
    """Run matrix products in bfloat16."""
    compile: bool = False
    """Compile the layers, each kind once."""
