"""What the solver is told beside the ratio, and the defaults.

An option is added here, with its range and its help, and used in solver.py: the configuration, the commands,
the manifest and the report take their fields from this class.
"""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from ...engines.bundle.schedule import Band, Schedule, Scope, Signal, Solver

Keeps = Literal["geometric", "linear"]

_SCHEDULE = Schedule()


def _typed(help: str, flag: str | None = None, metavar: str | None = None) -> dict[str, str | None]:
    """What the command line says of a field."""
    return {"help": help, "flag": flag, "metavar": metavar}


@dataclass(frozen=True)
class SolverOptions:
    """What the solver does not decide. The defaults won on validation (docs/accuracy.md).

    Attributes:
        cutoff: share of the spectrum that passes the SPU's low-pass; see Schedule.
        band: which side of the cutoff it scores; see Schedule.
        signal: hidden states that it scores; see Schedule.
        scope: what it scores together; see Schedule.
        match: OIM merges the most similar neighbours; see Schedule.
        stages: where the SPU prunes, as parts of the layers; the layer before the last is its own.
        keeps: how the stages' keeps fall from V: "geometric" (V r, V r^2, ...) or "linear" (by equal
            numbers).
        oim_share: OIM's token factor is at most ratio ** oim_share; 0 leaves OIM out.
    """

    cutoff: Annotated[float, Field(ge=0, le=1)] = field(
        default=_SCHEDULE.cutoff,
        metadata=_typed(
            "Share of the spectrum that passes the SPU's low-pass; 1 leaves the filter out, 0 is the mean "
            "token."
        ),
    )
    band: Band = field(
        default=_SCHEDULE.band,
        metadata=_typed(
            "What the SPU scores: low, what passes, or high, what the low-pass takes away (cutoff 0.5 at "
            "most)."
        ),
    )
    signal: Signal = field(
        default=_SCHEDULE.signal,
        metadata=_typed("Hidden states the SPU scores: normed or raw."),
    )
    scope: Scope = field(
        default=_SCHEDULE.scope,
        metadata=_typed("What the SPU scores together: prompt or image."),
    )
    stages: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = field(
        default=(0.125, 0.25, 0.5),
        metadata=_typed(
            "Where the SPU prunes, as parts of the language layers.", metavar="PART,PART,..."
        ),
    )
    keeps: Keeps = field(
        default="geometric",
        metadata=_typed(
            "How the stages' tokens fall: geometric, by an equal factor, or linear, by an equal number."
        ),
    )
    oim_share: Annotated[float, Field(ge=0, le=1)] = field(
        default=0.0,
        metadata=_typed(
            "OIM merges in the vision tower up to ratio ** this and the SPU does the rest; 0 leaves OIM "
            "out."
        ),
    )
    match: bool = field(
        default=_SCHEDULE.match,
        metadata=_typed(
            "OIM merges the most similar neighbours, not the last ones; needs --oim-share.",
            flag="oim-match",
        ),
    )

    @property
    def scoring(self) -> dict[str, Any]:
        """What a schedule says of how tokens are scored, as fields of Schedule."""
        return {name: getattr(self, name) for name in ("cutoff", "band", "signal", "scope")}

    def recorded(self, ratio: float) -> Solver:
        """What a manifest keeps of the options, beside the ratio they were asked with."""
        return Solver(ratio=ratio, **asdict(self))

    @classmethod
    def of(cls, solver: Solver) -> "SolverOptions":
        """The options that a manifest recorded; one that names no band is older than the choice."""
        given: dict[str, Any] = {"band": "low"} | (solver.model_extra or {})
        return cls(**given)


def shown(value: Any) -> str:
    """An option's value as it is typed on the command line."""
    if isinstance(value, tuple):
        return ",".join(f"{part:g}" for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


DEFAULTS = SolverOptions()
PAPER = SolverOptions(
    cutoff=0.25,
    band="low",
    signal="normed",
    scope="prompt",
    match=False,
    stages=(0.25, 0.5, 0.75),
    keeps="geometric",
    oim_share=0.5,
)
"""LUVC (arXiv 2512.09010) as we read it: OIM and SPU share the work, a quarter of the spectrum passes."""
