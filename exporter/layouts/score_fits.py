"""Whether a model has what a schedule's score reads: refused before a weight is read."""

from collections.abc import Iterable

from ...engines.bundle.schedule import Schedule
from ...errors import LuvcError
from ...plugins.scores.base import BEHIND, HEADS, TOWER, Score
from ..checkpoint.family import Family
from ..config import MEASURED, ExportConfig
from ..planning.methods import METHODS, score_of
from ..vision.adapter import VisionAdapter

STATES = {"conv": "a convolution", "linear": "linear attention"}
"""Types of layers without queries and keys that a score could read, for people."""


def check_score(family: Family, schedule: Schedule) -> None:
    """Refuse a score that this model cannot be asked for.

    Args:
        family: of the model.
        schedule: of a layout; one that scores nothing passes.

    Raises:
        LuvcError: a stage before a layer without attention, a tower that merges, packs or looks into
            windows; says what there is instead.
    """
    if not schedule.scored:
        return
    score = score_of(schedule.score)
    if HEADS in score.reads:
        _check_attention(family, schedule, score)
    if BEHIND in score.reads:
        _check_behind(family, schedule, score)
    if TOWER in score.reads:
        _check_tower(family, schedule, score)


def check_probes(config: ExportConfig, family: Family) -> None:
    """Refuse to measure a score on a model of few layers that lack what it reads, or that is no smaller one.

    Raises:
        LuvcError: a ratio of time with such a score or model.
    """
    if family.traits.input_width or family.traits.shared:
        raise LuvcError(
            f"--ratio-of {config.ratio_of} measures models of few layers, and those of {_kind(family)} "
            "share one table of inputs or each other's keys and values: use --ratio-of flops"
        )
    score = score_of(config.solver.score)
    mixed = HEADS in score.reads and bool(STATES.keys() & set(family.traits.layer_types))
    if mixed or (TOWER in score.reads and family.encoder.window):
        raise LuvcError(
            f"--ratio-of {config.ratio_of} measures models of few layers, and those of {_kind(family)} "
            f"lack the attention that score {score.name} reads: use --ratio-of flops"
        )


def check_precision(config: ExportConfig, schedules: Iterable[Schedule]) -> None:
    """Refuse to choose in half precision, by comparisons that hang on each other, what will be validated.

    Raises:
        LuvcError: names the score.
    """
    if config.dtype == "float32" or not config.validates:
        return
    specs = {schedule.score for schedule in schedules if schedule.scored}
    if config.ratio_of in MEASURED:  # not solved yet
        specs.add(config.solver.score)
    for score in map(score_of, sorted(specs, key=str)):
        if score.chained:
            raise LuvcError(
                f"score {score.name} makes one choice upon another, and half precision makes others where "
                "two tokens are nearly alike, so it cannot be validated: use --dtype fp32 or --no-validate"
            )


def _check_attention(family: Family, schedule: Schedule, score: Score) -> None:
    """Stages before the language model may go by the tower alone."""
    types = family.traits.layer_types
    asked = [i for i in schedule.scored if i or TOWER not in score.reads]
    missing = [i for i in asked if types[i] in STATES]
    if missing:
        there = [i for i, kind in enumerate(types) if kind not in STATES]
        parts = ", ".join(f"{(i + 0.5) / len(types):.3g}" for i in there)
        raise LuvcError(
            f"score {score.name} reads queries and keys, and layer {missing[0]} of {_kind(family)} is "
            f"{STATES[types[missing[0]]]}: attention is in layers {_listed(there)}, so give some of --stages "
            f"{parts}, or a method that needs none, such as luvc"
        )


def _check_behind(family: Family, schedule: Schedule, score: Score) -> None:
    types = family.traits.layer_types
    for layer in schedule.scored:
        if not layer:
            raise LuvcError(
                f"score {score.name} reads the layer behind the stage, and before the first one there is "
                "none: give later --stages"
            )
        if types[layer - 1] in STATES:
            raise LuvcError(
                f"score {score.name} reads attention and MLP of the layer behind the stage, and layer "
                f"{layer - 1} of {_kind(family)} is {STATES[types[layer - 1]]}: give other --stages"
            )


def _check_tower(family: Family, schedule: Schedule, score: Score) -> None:
    if schedule.vision:
        raise LuvcError(
            f"score {score.name} measures the vision tower as it was trained, and this schedule merges in "
            "it: leave OIM out (--oim-share 0, or no vision steps), or give another method"
        )
    if family.adapter.pack is not VisionAdapter.pack:
        raise LuvcError(
            f"{_kind(family)} puts line ends between its visual tokens, for which score {score.name} has "
            f"measured nothing: give a method that does not look into the tower, such as {_others()}"
        )
    tower = family.encoder
    looked = score.layers(tower.layers)
    narrow = [i for i in looked if tower.window and i not in tower.full]
    if narrow:
        raise LuvcError(
            f"score {score.name} looks at layer {narrow[0]} of the vision tower, which sees windows: of "
            f"{_kind(family)} only layers {_listed(tower.full)} of {tower.layers} see the whole picture, so "
            f"give other options of the score that lead there, or another method, such as {_others()}"
        )


def _kind(family: Family) -> str:
    return family.config.model_type


def _listed(layers: Iterable[int]) -> str:
    return ", ".join(map(str, layers))


def _others() -> str:
    """Methods that choose before the language model without the tower's attention."""
    before = [n for n, m in METHODS.items() if m.options.stages == (0.0,)]
    return ", ".join(n for n in before if TOWER not in METHODS[n].score.reads)
