"""What validation found, as it is kept inside a bundle: each stage of a layout against PyTorch."""

from pydantic import BaseModel, ConfigDict, Field

from ..tolerance import ROUNDED, TOLERANCES, Tolerance
from .manifest import Dtype
from .schedule import Axis


class StageReport(BaseModel):
    """One stage compared. `visual` is what it sees of the visual tokens, None outside the LLM."""

    model_config = ConfigDict(frozen=True)

    name: str
    visual: int | None = None
    max_abs_error: float
    relative_error: float
    cosine: float
    norm_ratio: float
    passed: bool


class KeptReport(BaseModel):
    """One SPU stage compared: overlap of kept tokens, and how many differ inside the tie margin.

    `alike` is the share of all its tokens whose score is within that margin of the last one kept.
    """

    model_config = ConfigDict(frozen=True)

    layer: int
    keep: int
    overlap: float
    overlap_without_ties: float
    ties: int
    passed: bool
    alike: float = 0.0


class JoinReport(BaseModel):
    """One matched OIM step compared: overlap of joined tokens, and how many differ by ties alone.

    `joins` is the number of joined tokens in all lines, `alike` the share of the tokens that could be joined
    which are as near to a neighbour as the last one joined. The defaults are of a choice that no step makes.
    """

    model_config = ConfigDict(frozen=True)

    layer: int
    axis: Axis
    joins: int
    overlap: float = 0.0
    overlap_without_ties: float = 0.0
    ties: int = 0
    alike: float = 0.0
    passed: bool


class Report(BaseModel):
    """All that was compared for one layout.

    Attributes:
        compared: language layers that were compared.
        layers: language layers of the model; 0: as many.
        rounded: the backend's kernels round activations, and were held to the limits for that.
        joined: the tower's matched OIM steps; PyTorch went on with what the backend joined.
    """

    model_config = ConfigDict(frozen=True)

    layout: str
    backend: str
    dtype: Dtype
    stages: tuple[StageReport, ...] = Field(min_length=1)
    kept: tuple[KeptReport, ...]
    greedy_tokens: int
    greedy_equal: int
    greedy_tie: bool
    passed: bool
    compared: int = 0
    layers: int = 0
    rounded: bool = False
    joined: tuple[JoinReport, ...] = ()

    @property
    def limits(self) -> Tolerance:
        """What it was held to."""
        return ROUNDED if self.rounded else TOLERANCES[self.dtype]

    def failures(self) -> list[str]:
        """What did not pass, one line each."""
        lines = [
            f"{s.name}: relative error {s.relative_error:.1e}, cosine {s.cosine:.6f}, "
            f"norm ratio {s.norm_ratio:.6f}"
            for s in self.stages
            if not s.passed
        ]
        lines += [
            f"OIM before layer {j.layer}, {j.axis}: {j.overlap_without_ties:.4f} of {j.joins} joined tokens "
            "equal"
            for j in self.joined
            if not j.passed
        ]
        lines += [
            f"SPU before layer {k.layer}: {k.overlap_without_ties:.4f} of {k.keep} kept tokens equal"
            for k in self.kept
            if not k.passed
        ]
        if self.greedy_equal < self.greedy_tokens and not self.greedy_tie:
            lines.append(f"greedy tokens: {self.greedy_equal} of {self.greedy_tokens} equal")
        return lines
