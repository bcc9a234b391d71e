"""The systems side by side, and what each is started with: Hugging Face, OpenVINO GenAI, our bundles."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYTHON = HERE / ".venv" / "bin" / "python"
REQUIREMENTS = "requirements.txt"
READY = ".venv/ready"
"""What was installed: the requirements as they were."""
SIZE = (896, 896)
QUESTION = "What is in the picture? Describe the objects, their colours and where they stand."
RATIOS = (1.0, 2.0)
FIRST_TOKEN = "first token"
"""Our bundle in which the tower and the prefill together make ratio 2 (`--ratio-of first-token`)."""
GROUP = 128
"""Inputs that share a scale of int4 weights, here and in openvino_compress."""


def say(step: str) -> None:
    """Progress, apart from what the command prints."""
    print(" ", step, file=sys.stderr)


@dataclass
class Systems:
    """All systems of a checkpoint that can be started.

    Args:
        model: the checkpoint's folder; exports are written beside it.
        weights: "fp32", "int8" and "int4", those that are wanted.
        threads: of every system.
        failed: why a system does not run, by its label; added to.
    """

    model: Path
    weights: Sequence[str]
    threads: int
    failed: dict[str, str] = field(default_factory=dict)

    def prepare(self) -> None:
        """Write all bundles and exports, so that a run only measures.

        Raises:
            ValueError: OpenVINO's export or its compression refuses.
        """
        for weights in self.weights:
            self._bundles(weights)
            openvino_export(self.model, weights)
        if "fp32" in self.weights:
            self._first_token()

    def plan(self) -> Iterator[tuple[str, str, Callable[[], Any]]]:
        """Label, weights and start of each system, in the order of the tables."""
        bundles = {weights: self._bundles(weights) for weights in self.weights}
        made = [bundle for of_kind in bundles.values() for bundle in of_kind.values()]
        if made:
            plain = {"kind": "hf", "path": str(made[0].path), "model": str(self.model)}
            yield "hugging face", "fp32", lambda: self._ours("hugging face", plain)
        else:
            self.failed["hugging face"] = "its prompt is made by our bundle"
        for weights, of_kind in bundles.items():
            full, percent = pruning(of_kind.get(RATIOS[-1]))
            for pruned in (0, percent):
                name = label(f"openvino {pruned} %" if pruned else "openvino", weights)
                yield (
                    name,
                    weights,
                    lambda n=name, w=weights, p=pruned, f=full: self._openvino(n, w, f, p),
                )
            for ratio, bundle in of_kind.items():
                name = label(f"luvc {ratio:g}x", weights)
                yield name, weights, lambda n=name, b=bundle: self._ours(n, served(b))
            if weights == "fp32" and (bundle := self._first_token()):
                name = f"luvc {RATIOS[-1]:g}x {FIRST_TOKEN}"
                yield name, weights, lambda n=name, b=bundle: self._ours(n, served(b))

    def _first_token(self) -> Any:
        """Our bundle of FIRST_TOKEN; None where it cannot be exported."""
        from luvc.errors import LuvcError, brief

        try:
            return our_bundle(self.model, RATIOS[-1], "fp32", ratio_of="first-token")
        except LuvcError as e:
            self.failed[f"luvc {RATIOS[-1]:g}x {FIRST_TOKEN}"] = brief(e)
            return None

    def _bundles(self, weights: str) -> dict[float, Any]:
        """Our bundles with such weights by ratio, those that can be exported."""
        from luvc.errors import LuvcError, brief

        found = {}
        for ratio in RATIOS:
            try:
                found[ratio] = our_bundle(self.model, ratio, weights)
            except LuvcError as e:
                self.failed[label(f"luvc {ratio:g}x", weights)] = brief(e)
        return found

    def _ours(self, name: str, request: dict[str, Any]) -> Any:
        """The worker of a bundle or of Hugging Face's model."""
        from luvc.tools.bench.cli import start

        shared = {
            "layout": f"{SIZE[0]}x{SIZE[1]}",
            "question": QUESTION,
            "images": [],
            "threads": self.threads,
        }
        return start(name, request | shared, self.threads)

    def _openvino(self, name: str, weights: str, visual: int, percent: int) -> Any:
        """OpenVINO GenAI on an export of the same checkpoint, in the peers' environment."""
        from luvc.engines.generated_pictures import generated_picture
        from luvc.tools.bench.workers import System

        exported, picture = openvino_export(self.model, weights), self.model.parent / "picture.npy"
        np.save(picture, generated_picture(SIZE, 0))
        request = {
            "model": str(exported),
            "picture": str(picture),
            "question": QUESTION,
            "visual_tokens": visual,
            "pruning": percent,
            "threads": self.threads,
        }
        command = [str(PYTHON), "-m", "benchmarks.peers.openvino_system", json.dumps(request)]
        return System(name, command, environment())


def label(name: str, weights: str) -> str:
    """A system's name in tables: float32 is not said."""
    return name if weights == "fp32" else f"{name} {weights}"


def served(bundle: Any) -> dict[str, Any]:
    """What a worker is told of a bundle."""
    return {"kind": "bundle", "path": str(bundle.path), "backend": "ort"}


def pruning(compressed: Any) -> tuple[int, int]:
    """Visual tokens, and per cent of them that OpenVINO leaves out to keep the mean of a bundle's layers."""
    full = SIZE[0] * SIZE[1] // 28**2
    kept = full / 2
    if compressed is not None:
        layout, lm = compressed.manifest.layouts[0], compressed.manifest.language
        full = layout.baseline_visual_tokens
        kept = sum(layout.schedule.visual_per_layer(lm.layers, layout.visual_tokens)) / lm.layers
    return full, round(100 * (1 - kept / full))


def our_bundle(model: Path, ratio: float, weights: str, ratio_of: str = "flops") -> Any:
    """The bundle of a ratio, exported unless it is there as it would be made."""
    from luvc.engines import Bundle
    from luvc.exporter import ExportConfig, export

    whole = {} if ratio_of == "flops" else {"ratio_of": ratio_of}
    name = " ".join([label(f"{ratio:g}x", weights), *whole.values()])
    path = model.parent / name.replace(" ", "-")
    config = ExportConfig.make(
        model=str(model),
        output=path,
        ratio=ratio,
        image_sizes=(SIZE,),
        check=False,
        **{
            "fp32": {},
            "int8": {"weights": "int8"},
            "int4": {"weights": "int4", "group_size": GROUP},
        }[weights],
        **whole,
    )
    if path.is_dir() and (found := Bundle.load(path)).manifest.solver == config.solved_for:
        return found
    say(f"exporting {path.name}")
    return export(config, say)


def openvino_export(model: Path, weights: str) -> Path:
    """The checkpoint as OpenVINO reads it, written unless it is there.

    Raises:
        ValueError: OpenVINO's export or its compression refuses; its last words.
    """
    peers_environment()
    path = model.parent / label("openvino", weights).replace(" ", "-")
    if path.is_dir():
        return path
    module, arguments = "openvino_export", [str(model)]
    if weights != "fp32":
        module, arguments = "openvino_compress", [str(openvino_export(model, "fp32"))]
    draft = path.with_name(f"{path.name}-draft")
    shutil.rmtree(draft, ignore_errors=True)
    kind = [weights] if weights != "fp32" else []
    say(f"writing {path.name}")
    run = subprocess.run(
        [PYTHON, "-m", f"benchmarks.peers.{module}", *arguments, draft, *kind],
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
    )
    if run.returncode:
        raise ValueError(run.stderr.strip().splitlines()[-1])
    draft.rename(path)
    return path


def environment() -> dict[str, str]:
    """Variables of processes in the peers' environment, which find the project in the checkout."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


def peers_environment() -> None:
    """Make the peers' own environment, and again when its requirements are others."""
    if is_ready():
        return
    (HERE / READY).unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "venv", HERE / ".venv"], check=True)
    packages = ["--quiet", "--requirement", HERE / REQUIREMENTS]
    subprocess.run([PYTHON, "-m", "pip", "install", *packages], check=True)
    shutil.copyfile(HERE / REQUIREMENTS, HERE / READY)


def is_ready(folder: Path = HERE) -> bool:
    """Whether the environment in a folder was made of the requirements beside it as they are now."""
    ready = folder / READY
    return ready.is_file() and ready.read_bytes() == (folder / REQUIREMENTS).read_bytes()
