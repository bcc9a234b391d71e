"""The methods by their names: a score, and how the ratio is spent.

A method is a line here; its score is a file in plugins/scores.
"""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pydantic import ValidationError

from ... import strict_json
from ...engines.bundle.schedule import ENERGY, Schedule, ScoreSpec
from ...errors import LuvcError, printable
from ...plugins.scores.base import QUESTION, TOWER, Score
from ...plugins.scores.registry import SCORES
from ...plugins.scores.registry import make as make_score
from .defaults import DEFAULTS, PAPER, Smaller, SolverOptions

USUAL = "luvc"


@dataclass(frozen=True)
class Method:
    """One line of `luvc-plan --methods`.

    Attributes:
        about: how it spends the ratio, and what is kept.
        options: of the solver, with the score.
    """

    about: str
    options: SolverOptions

    @property
    def score(self) -> Score:
        """Its score with the method's own options."""
        return score_of(self.options.score)


def _inside(score: str, about: str, *stages: float, **options: Any) -> Method:
    """A score inside the language model; the tokens that are left stay to the end."""
    solver: dict[str, Any] = {"elimination": "never"} | options
    return Method(about, SolverOptions(score=ScoreSpec(name=score), stages=stages, **solver))


def _before(score: str, about: str) -> Method:
    """A choice before the language model, equally many tokens of each tile."""
    return _inside(score, about, 0.0, scope="tile")


def _smaller(what: Smaller, about: str) -> Method:
    """Fewer visual tokens by a smaller grid; nothing is scored."""
    return Method(about, SolverOptions(stages=(), elimination="never", smaller=what))


METHODS = {
    USUAL: Method(
        "what a low-pass takes away, at an eighth, a quarter and half of the layers, none in the last",
        DEFAULTS,
    ),
    "paper": Method("LUVC as we read the paper: OIM in the vision tower, a low-pass", PAPER),
    "energy": Method("LUVC without a filter: a token's energy", replace(DEFAULTS, score=ENERGY)),
    "random": _before("random", "a random choice before the language model"),
    "uniform": _before("uniform", "tokens at equal steps before the language model"),
    "drop-all": Method(
        "VTW: all visual tokens up to the layer that makes the ratio, none from it on",
        SolverOptions(stages=(), elimination="fit"),
    ),
    "pool": _smaller("pool", "each tile's grid of visual tokens averaged down to a smaller one"),
    "dct": _smaller(
        "dct", "Fourier-VLM, the low frequencies of each tile's grid (DCT), as a smaller one"
    ),
    "downsample": _smaller("downsample", "the picture itself made smaller, by --image-size"),
    "fastervlm": _before("fastervlm", "FasterVLM, the CLS token's attention"),
    "vtc-cls": _before(
        "vtc-cls", "VTC-CLS, the CLS token's attention in half of the tower's layers"
    ),
    "fopru": _before("fopru", "FoPru, attention given or received in the tower"),
    "hiprune": _before("hiprune", "HiPrune, anchors, their neighbours and registers of the tower"),
    "visionzip": _before("visionzip", "VisionZip, dominant tokens and the rest merged"),
    "vflowopt": _before("vflowopt", "VFlowOpt, attention from the tower's most important tokens"),
    "divprune": _before("divprune", "DivPrune, the most diverse tokens"),
    "todre": _inside(
        "todre",
        "ToDRE, the most spread tokens; none in the last layer",
        0.0,
        scope="tile",
        elimination="last",
    ),
    "mmtok": _before("mmtok", "MMTok's vision half, the tokens that cover the others best"),
    "ivc": _inside("ivc", "IVC-Prune's constant places, before layer 2 of 32", 2 / 32),
    "visiondrop": _inside(
        "visiondrop",
        "VisionDrop, before the language model and at a quarter, half and three quarters of it",
        *(0.0, 0.25, 0.5, 0.75),
        keeps=(1.0, 35 / 48, 26 / 48, 19 / 48),
        scope="tile",
    ),
    "transprune": _inside(
        "transprune",
        "TransPrune's transition variation, before layers 7, 9 and 12 of 28",
        *(7 / 28, 9 / 28, 12 / 28),
        keeps=(1.0, 0.625 / 0.875, 0.125 / 0.875),
    ),
    "fastv": _inside("fastv", "FastV, before layer 2 of 32", 2 / 32),
    "pact": _inside("pact", "PACT's pruning score, before layer 4 of 28", 4 / 28),
    "k-norm": _inside("k-norm", "ViTCoP's stages inside the language model", 2 / 32, 22 / 32),
}


NOT_BUILT = {
    "ZOO-Prune": "its 128 passes through the projector cost 2.2 TFLOPs for each tile of an 8B model, about "
    "what a ratio of 2 saves there",
    "PyramidDrop, SparseVLM, CDPruner": "they score by the question, as `fastv` does, which stands for them",
    "PruMerge, PACT's clustering, Recoverable Compression, VFlowOpt's merging": "how many tokens they keep "
    "depends on the picture, and shapes are fixed at export",
    "ToMe": "it merges anywhere, so that the grid is no rectangle, which projectors and positions need",
    "DART": "its pivots are keys of the question's tokens, too",
}
"""Methods of the field that `--method` does not take, with the reason."""


def score_of(spec: ScoreSpec) -> Score:
    """The score that a schedule names.

    Raises:
        LuvcError: no score of this name, or an option that it does not have or that is out of range.
    """
    if spec.name not in SCORES:
        raise LuvcError(f"no score is called {spec.name!r:.80}: there are {', '.join(SCORES)}")
    try:
        return make_score(spec.name, spec.options)
    except ValidationError as error:
        said = strict_json.first_error(error)
        raise LuvcError(f"score {spec.name}: {said}; it has {_options_of(spec.name)}") from error


def measured_score(schedule: Schedule) -> Score | None:
    """The score of a schedule that looks into the vision tower; None where none does."""
    score = score_of(schedule.score)
    return score if schedule.scored and TOWER in score.reads else None


def in_tower(schedule: Schedule) -> Schedule:
    """The schedule without what is the language model's, so that equal ones have equal towers."""
    if measured_score(schedule) is not None:
        return schedule
    language = {"ratio": 1.0, "language": (), "score": ENERGY, "scope": "prompt"}
    return schedule.model_copy(update=language)


def _options_of(name: str) -> str:
    names = ", ".join(f.name for f in fields(SCORES[name]))  # type: ignore[arg-type]
    return f"the options {names}" if names else "no options"


def spec_of(score: Score) -> ScoreSpec:
    """What a schedule records of a score: every option, so that defaults may move."""
    return ScoreSpec(
        name=score.name,
        options=asdict(score),  # type: ignore[call-overload]
        question=QUESTION in score.reads,
    )


def find(name: str) -> Method:
    """A method by its name.

    Raises:
        LuvcError: there is none; lists them.
    """
    if name not in METHODS:
        raise LuvcError(
            f"no method is called {printable(repr(name), 80)}: there are {', '.join(METHODS)}; "
            "docs/methods.md says which are not built, and why"
        )
    return METHODS[name]


def _check_smaller(method: str, base: SolverOptions, options: dict[str, Any]) -> None:
    """Refuse options beside a method that has none, and what only another method does."""
    wanted = options.get("smaller", base.smaller)
    if wanted != base.smaller:
        raise LuvcError(
            f"smaller={wanted!r:.80} is no option of method {method}, which has {base.smaller!r}: it is the "
            "method's own, so give another --method"
        )
    own = {f.name: f.metadata for f in fields(SolverOptions)}
    given = [
        f"--{own[name]['flag'] or name.replace('_', '-')}"
        if name in own
        else f"--method-option {name}"
        for name in sorted(options)
        if name not in ("score", "smaller")
    ]
    if given and base.smaller != "none":
        raise LuvcError(
            f"--method {method} neither scores nor prunes, so that {', '.join(given)} would say nothing: "
            "leave it out, or take another method"
        )


def asked(method: str, options: dict[str, Any]) -> SolverOptions:
    """The solver's options for a method and what was asked beside it.

    Args:
        method: its name.
        options: fields of SolverOptions and of the method's score, by their own names.

    Raises:
        LuvcError: no such method, or a score's option out of range.
    """
    base = find(method).options
    _check_smaller(method, base, options)
    try:
        spec = ScoreSpec.model_validate(options.get("score", base.score))
    except ValidationError as error:
        raise LuvcError(
            f"score: {strict_json.first_error(error)}; give a method by name"
        ) from error
    own = options.keys() - {f.name for f in fields(SolverOptions)}
    wanted = spec.options | {name: options[name] for name in own}
    score = score_of(spec.model_copy(update={"options": wanted}))
    rest = {name: value for name, value in options.items() if name not in own | {"score"}}
    return replace(base, score=spec_of(score), **rest)
