"""The list of the study: what each method is called and how it spends a budget.

Methods of the product are taken by their names; its own variants of LUVC are the solver's options moved.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any

from luvc.engines.bundle.schedule import Schedule, ScoreSpec
from luvc.exporter.planning.defaults import DEFAULTS, PAPER, SolverOptions
from luvc.exporter.planning.methods import METHODS as PRODUCT

from . import plans
from . import scores as scores  # makes them known to the graphs
from .plans import Budget, Plan

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
        drawn: depends on a seed, so it runs SEEDS times.
        product: it is the product's method of this name.
        smaller_picture: it shows the model a smaller picture, which is no schedule.
    """

    name: str
    kind: str
    note: str
    plan: Plan
    drawn: bool = False
    product: bool = False
    smaller_picture: bool = False

    def schedule(self, budget: Budget, seed: int = 0) -> Schedule:
        """What it does with a budget.

        Raises:
            LuvcError: nothing fits, or the product has no such method.
        """
        return self.plan(budget, seed)


FILTERS = tuple(("low", cutoff) for cutoff in (0.05, 0.1, 0.25, 0.5, 0.75, 1.0))
FILTERS += tuple(("high", cutoff) for cutoff in (0.0, 0.05, 0.25))
MOVES: dict[str, tuple] = {
    "filter": FILTERS,
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
"""What the study tries of each of the solver's options; a filter is the score's band and its cutoff."""

_NOTES = {
    "filter": "SPU scores the spectrum's band {}",
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


def value_of(options: SolverOptions, option: str) -> object:
    """What an option of MOVES is."""
    now = flat(options)
    return (now["band"], now["cutoff"]) if option == "filter" else now[option]


def moved(options: SolverOptions, option: str, value: Any) -> SolverOptions:
    """The options with one of MOVES at another value."""
    if option == "filter":
        return options.with_score(band=value[0], cutoff=value[1])
    if option in options.score.options:
        return options.with_score(**{option: value})
    return replace(options, **{option: value})


def _text(value: object) -> str:
    match value:
        case str(band), float(cutoff):
            return f"{band} {cutoff:g}"
        case tuple():
            return " ".join(str(Fraction(part).limit_denominator(64)) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def name_of(option: str, value: object) -> str:
    """What the study calls an option's value: "filter low 0.25", "stages 1/4 1/2 3/4"."""
    return f"{option.replace('_', ' ')} {_text(value)}"


def luvc(name: str, note: str, kind: str = "variant", options: SolverOptions = DEFAULTS) -> Method:
    """LUVC with options of one's own."""
    return Method(name, kind, note, plans.solved(options))


def _variants() -> Iterator[Method]:
    """The defaults with one option moved, to what tells most; the choice measures every value."""
    for option, values in {
        "filter": (("low", 0.25), ("low", 0.5), ("high", 0.0), ("high", 0.25)),
        "signal": ("raw",),
        "scope": ("image",),
        "keeps": ("linear",),
        "stages": ((0.25, 0.5, 0.75), (0.125,)),
        "oim_share": (0.5,),
    }.items():
        for value in values:
            note = _NOTES[option].format(_text(value))
            yield luvc(name_of(option, value), note, options=moved(DEFAULTS, option, value))


def _score(name: str, note: str) -> Method:
    """LUVC's plan with another score at its own defaults."""
    return luvc(f"score {name}", note, options=replace(DEFAULTS, score=ScoreSpec(name=name)))


def _named(name: str, kind: str, note: str, drawn: bool = False, **options: Any) -> Method:
    """A method of the product, with other options of the solver."""
    return Method(name, kind, note, plans.named(name, drawn, **options), drawn, product=True)


_LUVC = (
    _named("luvc", "luvc", "the solver's defaults"),
    _named("paper", "luvc", "OIM and SPU with a low-pass, as we read the paper"),
    Method("oim", "part", "OIM only", plans.oim_only()),
    Method("oim match", "part", "OIM only, most similar neighbours", plans.oim_only(match=True)),
    luvc("paper spu", "SPU only, with the paper's low-pass", "part", replace(PAPER, oim_share=0.0)),
    luvc("oim share 0.5 match", "OIM's factor up to ratio ** 0.5, most similar neighbours",
         options=replace(DEFAULTS, oim_share=0.5, match=True)),
    Method("--ratio", "export", "luvc-export's own ratio, of FLOPs at 64 text tokens",
           plans.of_flops),
    *_variants(),
    _named("energy", "variant", "SPU scores a token's energy, without a filter"),
    _score("random", "LUVC's plan, tokens drawn at random, once"),
    _score("uniform", "LUVC's plan, tokens at equal steps"),
)  # fmt: skip
_BASELINES = (
    _named("random", "baseline", "random tokens before the LLM", drawn=True),
    _named("uniform", "baseline", "tokens at equal steps before the LLM"),
    replace(_named("downsample", "baseline", "the picture made smaller"), smaller_picture=True),
    _named("pool", "baseline", "the token grid averaged down"),
    _named("drop-all", "baseline", "all visual tokens dropped from a layer on"),
)
_METHODS = (
    _named("divprune", "method", "DivPrune"),
    _named("fastervlm", "method", "FasterVLM, CLS attention"),
    _named("visionzip", "method", "VisionZip, attention received"),
    _named("hiprune", "method", "HiPrune"),
    _named("visiondrop", "method", "VisionDrop"),
    _named("pact", "method", "PACT's pruning score, at 1/7 of the layers"),
    _named("fastv", "method", "FastV, before layer 1"),
    _named("k-norm", "method", "ViTCoP's K-norm"),
    _named("transprune", "method", "TransPrune's TTV", stages=(0.25, 0.375, 0.5)),
    _named("vtc-cls", "method", "VTC-CLS, CLS attention of half of the layers"),
    _named("fopru", "method", "FoPru, attention given or received"),
    _named("vflowopt", "method", "VFlowOpt, attention from what receives most"),
    _named("todre", "method", "ToDRE, k-centre"),
    _named("mmtok", "method", "MMTok's vision half"),
    _named("ivc", "method", "IVC-Prune's constant places, then the energy"),
    _named("dct", "method", "Fourier: DCT of the token grid, cropped"),
)
_LISTED = {method.name: method for method in (*_LUVC, *_BASELINES, *_METHODS)}
_NEW = {
    name: _named(name, "method", method.about)
    for name, method in PRODUCT.items()
    if name not in _LISTED
}
METHODS = _LISTED | _NEW
"""By name; what the product has and no line above words is there under the product's own words."""
