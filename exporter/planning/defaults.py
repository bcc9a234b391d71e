"""What the solver is told beside the ratio, and the defaults.

An option is added here, with its range and its help, and used in solver.py: the configuration, the commands,
the manifest and the report take their fields from this class.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from ...engines.bundle.schedule import ENERGY, Schedule, Scope, ScoreSpec, Solver

Keeps = Literal["geometric", "linear"] | tuple[Annotated[float, Field(gt=0, le=1)], ...]
Elimination = Literal["last", "never", "fit"]
Smaller = Literal["none", "pool", "dct", "downsample"]

SPECTRUM = ENERGY.having(band="high", cutoff=0.05)
"""The usual score: what a low-pass of the lowest twentieth takes away; see docs/accuracy.md for why."""
_SCHEDULE = Schedule()


def _typed(help: str, flag: str | None = None, metavar: str | None = None) -> dict[str, str | None]:
    """What the command line says of a field."""
    return {"help": help, "flag": flag, "metavar": metavar}


@dataclass(frozen=True)
class SolverOptions:
    """What the solver does not decide. The defaults won on validation (docs/accuracy.md).

    Attributes:
        score: what the stages keep tokens by, with all its options; of the method, so it is no option
            of the command line by itself. Where nothing is scored it is what schedules mean without one.
        scope: what it scores together; see Schedule.
        match: OIM merges the most similar neighbours; see Schedule.
        stages: where tokens are pruned, as parts of the layers; 0 is before the language model.
        keeps: how the stages' keeps fall from V: "geometric" (V r, V r^2, ...), "linear" (by equal
            numbers), or one number a stage, whose proportions they have.
        elimination: what becomes of the rest: "last" leaves it out of the last layer, "never" keeps it,
            "fit" leaves all of it out from the layer on that makes the ratio.
        smaller: what becomes smaller in place of all that: nothing, the grid of visual tokens at the
            tower's exit ("pool", "dct"), or the picture ("downsample"); of the method, as the score is.
        oim_share: OIM's token factor is at most ratio ** oim_share, or with `restore` the tower's ratio; 0
            leaves OIM out.
        restore: the tower's exit gives OIM's grid back; see Schedule.
        tower_ratio: baseline / compressed FLOPs of the tower, in place of a share; 1 asks for none.
    """

    score: ScoreSpec = field(default=ENERGY)
    smaller: Smaller = "none"
    scope: Scope = field(
        default=_SCHEDULE.scope,
        metadata=_typed(
            "What is scored together, with an equal quota each: prompt, image or tile."
        ),
    )
    stages: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = field(
        default=(0.125, 0.25, 0.5),
        metadata=_typed(
            "Where tokens are pruned, as parts of the language layers; 0 is before the first.",
            metavar="PART,PART,...",
        ),
    )
    keeps: Keeps = field(
        default="geometric",
        metadata=_typed(
            "How the stages' tokens fall: geometric, by an equal factor, linear, by an equal number, or one "
            "part for each stage, such as 1,0.7,0.5, whose proportions they have."
        ),
    )
    elimination: Elimination = field(
        default="last",
        metadata=_typed(
            "What becomes of the visual tokens that are left: last leaves them out of the last layer, never "
            "keeps them, fit leaves all out from the layer on that makes the ratio."
        ),
    )
    oim_share: Annotated[float, Field(ge=0, le=1)] = field(
        default=0.0,
        metadata=_typed(
            "OIM merges in the vision tower up to ratio ** this and the SPU does the rest, or all with "
            "--oim-restore; 0 leaves OIM out."
        ),
    )
    match: bool = field(
        default=_SCHEDULE.match,
        metadata=_typed(
            "OIM merges the most similar neighbours, not the last ones; needs --oim-share or "
            "--tower-ratio.",
            flag="oim-match",
        ),
    )
    restore: bool = field(
        default=_SCHEDULE.restore,
        metadata=_typed(
            "OIM shortens the vision tower alone: its exit gives the whole grid back, and --ratio is the "
            "SPU's; needs --oim-share or --tower-ratio.",
            flag="oim-restore",
        ),
    )
    tower_ratio: Annotated[float, Field(ge=1)] = field(
        default=1.0,
        metadata=_typed(
            "Baseline / compressed FLOPs of the vision tower, by OIM; needs --oim-restore; 1 leaves it "
            "whole.",
            metavar="RATIO",
        ),
    )

    @property
    def scoring(self) -> dict[str, Any]:
        """What a schedule says of how tokens are scored, as fields of Schedule."""
        return {"score": self.score, "scope": self.scope}

    def with_score(self, **options: Any) -> "SolverOptions":
        """The same with other options of the score."""
        return replace(self, score=self.score.having(**options))

    def recorded(self, ratio: float, method: str, ratio_of: str) -> Solver:
        """What a manifest keeps of the options, beside the ratio and the method they were asked with.

        The score stands in the schedules, and the method says what becomes smaller.
        """
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata}
        asked = {"ratio": ratio, "method": method, "ratio_of": ratio_of}
        return Solver.model_validate(options | asked)

    @classmethod
    def of(cls, solver: Solver, score: ScoreSpec) -> "SolverOptions":
        """The options that a manifest recorded, for a schedule with this score."""
        given: dict[str, Any] = solver.model_extra or {}
        own = {f.name for f in fields(cls) if f.metadata}
        return cls(score=score, **{name: given[name] for name in own & given.keys()})


def check_merging(solver: SolverOptions, shares: bool) -> None:
    """Refuse options of OIM that say nothing, or two things.

    Args:
        solver: its options.
        shares: whether the ratio is shared between tower and language model, which settles OIM.

    Raises:
        ValueError: names the options.
    """
    if solver.tower_ratio > 1 and not solver.restore and not shares:
        raise ValueError(
            f"--tower-ratio {solver.tower_ratio:g} is the ratio of a tower that gives its grid back: give "
            "--oim-restore too"
        )
    if solver.tower_ratio > 1 and solver.oim_share:
        raise ValueError(
            f"--tower-ratio {solver.tower_ratio:g} and --oim-share {solver.oim_share:g} both say how far OIM "
            "merges: leave one of them out (--oim-share 0)"
        )
    asked = {"--oim-match": solver.match, "--oim-restore": solver.restore}
    idle = [flag for flag, given in asked.items() if given]
    if idle and not (solver.tower_ratio > 1 or solver.oim_share or shares):
        more = "or --oim-restore --tower-ratio 1.5 " if not solver.restore else ""
        more = "or --tower-ratio 1.5 " if solver.restore else more
        raise ValueError(
            f"{' and '.join(idle)} says how OIM merges, and --oim-share 0 leaves OIM out: give "
            f"--oim-share 0.5 {more}too"
        )


def shown(value: Any) -> str:
    """An option's value as it is typed on the command line."""
    if isinstance(value, tuple):
        return ",".join(f"{part:g}" for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


DEFAULTS = SolverOptions(score=SPECTRUM)
PAPER = SolverOptions(
    score=ENERGY.having(cutoff=0.25),
    scope="prompt",
    match=False,
    stages=(0.25, 0.5, 0.75),
    keeps="geometric",
    oim_share=0.5,
)
"""LUVC (arXiv 2512.09010) as we read it: OIM and SPU share the work, a quarter of the spectrum passes."""
