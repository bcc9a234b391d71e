"""The list of the study: what each method is called, how it spends a budget and how it chooses."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import partial
from typing import Any

from torch import Tensor

from luvc.exporter.planning.defaults import DEFAULTS, PAPER, SolverOptions
from luvc.exporter.planning.methods import score_of
from luvc.plugins.scores.spectrum.score import Spectrum

from . import plans, scores, selections
from .draws import Draws
from .language import After, Rule
from .plans import Budget, Plan
from .selections import Selection
from .vision import Seen

HIGH = DEFAULTS.with_score(band="high", cutoff=0.05)
CUTOFF = 0.25
"""The paper's, as we read it."""
SEEDS = 5
"""Draws of everything random."""


@dataclass(frozen=True)
class Method:
    """One line of the study.

    Attributes:
        name: unique, also for --method.
        kind: "luvc" (the defaults, and the paper's options), "part" and "variant" (of LUVC), "export",
            "baseline" or "method".
        note: what it is, for the table.
        plan: spends a budget.
        rule: makes the pruning rule of the language model for (draws, pictures); None: there is none.
        select: makes the selection before the language model for draws.
        reduce: makes a smaller grid of tokens.
        resize: the picture itself is made smaller.
        match: OIM merges the most similar neighbours.
        renumber: positions count anew after each pruning.
        drawn: depends on a seed, so it runs SEEDS times.
        options: the solver's, where the product offers this variant.
    """

    name: str
    kind: str
    note: str
    plan: Callable[[Budget], Plan]
    rule: Callable[[Draws, int], Rule | tuple[Rule, After]] | None = None
    select: Callable[[Draws], Selection] | None = None
    reduce: Callable[[Seen, int, int], Tensor] | None = None
    resize: bool = False
    match: bool = False
    renumber: bool = False
    drawn: bool = False
    options: SolverOptions | None = None


MOVES: dict[str, tuple] = {
    "cutoff": (0.05, 0.1, 0.25, 0.5, 0.75, 1.0),
    "signal": ("normed", "raw"),
    "scope": ("prompt", "image"),
    "match": (False, True),
    "stages": (
        (0.25, 0.5, 0.75),
        (0.125, 0.25, 0.5),
        (0.5, 0.625, 0.75),
        (0.25, 0.5),
        (0.125,),
        (0.25,),
        (0.5,),
    ),
    "keeps": ("geometric", "linear"),
    "oim_share": (0.0, 0.25, 0.5, 0.75, 1.0),
}
"""What the study tries of each of the solver's options."""

_NOTES = {
    "cutoff": "low-pass keeps {} of the spectrum",
    "signal": "SPU scores the {} hidden states",
    "scope": "SPU scores the tokens of each {} together",
    "stages": "SPU at {} of the layers",
    "keeps": "keeps fall in a {} row",
    "oim_share": "OIM's factor up to ratio ** {}",
}


def flat(options: SolverOptions) -> dict[str, Any]:
    """The options with those of their score beside them."""
    own = {f.name: getattr(options, f.name) for f in fields(options) if f.name != "score"}
    return own | options.score.options


def moved(options: SolverOptions, option: str, value: object) -> SolverOptions:
    """The options with one of them, or of their score's, at another value."""
    if option in options.score.options:
        return options.with_score(**{option: value})
    return replace(options, **{option: value})


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(str(Fraction(part).limit_denominator(64)) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def name_of(option: str, value: object) -> str:
    """What the study calls an option's value: "cutoff 0.25", "stages 1/4 1/2 3/4"."""
    return f"{option.replace('_', ' ')} {_text(value)}"


def luvc(name: str, note: str, kind: str = "variant", options: SolverOptions = DEFAULTS) -> Method:
    """LUVC with options of one's own."""
    score, image = score_of(options.score), options.scope == "image"
    assert isinstance(score, Spectrum)
    raw = score.signal == "raw"

    def rule(_: Draws, pictures: int) -> Rule:
        return scores.spectrum(score.cutoff, raw, pictures if image else 1, score.band)

    return Method(name, kind, note, plans.luvc(options), rule, match=options.match, options=options)


def _variants() -> Iterator[Method]:
    """The defaults with one option moved, to what tells most; the choice measures every value."""
    for option, values in {
        "cutoff": (0.25, 0.5),
        "signal": ("raw",),
        "scope": ("image",),
        "keeps": ("linear",),
        "stages": ((0.25, 0.5, 0.75), (0.125,)),
        "oim_share": (0.5,),
    }.items():
        for value in values:
            note = _NOTES[option].format(_text(value))
            yield luvc(name_of(option, value), note, options=moved(DEFAULTS, option, value))


def _score(name: str, note: str, rho: float = CUTOFF) -> Method:
    """LUVC's plan with another score."""
    rule = partial(scores.spectrum_variant, name, rho)
    label = f"score {name}" if rho == CUTOFF else f"score {name} {rho:g}"
    return Method(label, "variant", note, plans.luvc(), lambda *_: rule())


def _before(name: str, note: str, select: Selection, kind: str = "method") -> Method:
    """A selection before the language model."""
    return Method(name, kind, note, plans.before, select=lambda _: select)


def _inside(name: str, note: str, parts, weights, rule) -> Method:
    """One rule inside the language model, at one layer or several."""
    return Method(name, "method", note, plans.cascade(parts, weights), lambda *_: rule())


_LUVC = (
    luvc("luvc", "the solver's defaults", "luvc"),
    luvc("paper", "OIM and SPU with a low-pass, as we read the paper", "luvc", PAPER),
    Method("oim", "part", "OIM only", plans.oim_only),
    Method("oim match", "part", "OIM only, most similar neighbours", plans.oim_only, match=True),
    luvc("paper spu", "SPU only, with the paper's low-pass", "part", replace(PAPER, oim_share=0.0)),
    luvc("oim share 0.5 match", "OIM's factor up to ratio ** 0.5, most similar neighbours",
         options=replace(DEFAULTS, oim_share=0.5, match=True)),
    Method("--ratio", "export", "luvc-export's own ratio, of FLOPs at 64 text tokens", plans.product,
           lambda *_: scores.spectrum()),
    *_variants(),
    luvc("band high", "SPU scores what a low-pass takes away", options=HIGH),
    luvc("band high 0", "SPU scores the distance from the mean token",
         options=HIGH.with_score(cutoff=0.0)),
    _score("cosine", "score: cosine of a token and its low-pass"),
    _score("residual", "score: least distance from the low-pass"),
    _score("share", "score: norm of the low-pass / norm of the token"),
    _score("high", "score: largest distance from the low-pass, that is the high-pass"),
    _score("high", "the same with a narrower low-pass", 0.05),
    Method("score random", "variant", "LUVC's plan, tokens drawn at random, once", plans.luvc(),
           lambda draws, _: scores.random(draws)),
    Method("score uniform", "variant", "LUVC's plan, tokens at equal steps", plans.luvc(),
           lambda *_: scores.uniform()),
)  # fmt: skip
_BASELINES = (
    Method("random", "baseline", "random tokens before the LLM", plans.before,
           select=selections.random, drawn=True),
    _before("uniform", "tokens at equal steps before the LLM", selections.uniform, "baseline"),
    Method("downsample", "baseline", "the picture made smaller", plans.smaller_grid, resize=True),
    Method("pool", "baseline", "the token grid averaged down", plans.smaller_grid,
           reduce=selections.pool),
    Method("drop all", "baseline", "all visual tokens dropped from a layer on", plans.drop_all,
           lambda *_: scores.uniform()),
)  # fmt: skip
_METHODS = (
    _before("divprune", "DivPrune", selections.divprune),
    _before("cls attention", "FasterVLM, CLS attention", selections.cls_attention),
    _before("visionzip", "VisionZip, attention received", selections.visionzip),
    _before("hiprune", "HiPrune", selections.hiprune),
    Method("visiondrop", "method", "VisionDrop", plans.visiondrop, lambda *_: scores.visiondrop(),
           select=lambda _: selections.visionzip, renumber=True),
    _inside("pact", "PACT's pruning score, at 1/7 of the layers", [4 / 28], [0.5], scores.pact),
    _inside("fastv", "FastV, before layer 1", [1 / 16], [0.5], scores.fastv),
    Method("transprune", "method", "TransPrune's TTV",
           plans.cascade([7 / 28, 9 / 28, 12 / 28], [0.875, 0.625, 0.125]),
           lambda *_: scores.transprune(1), renumber=True),
    Method("dct crop", "method", "Fourier: DCT of the token grid, cropped", plans.smaller_grid,
           reduce=selections.dct_crop),
)  # fmt: skip
METHODS = {method.name: method for method in (*_LUVC, *_BASELINES, *_METHODS)}
