"""The list of the study: what each method is called and how it spends a budget.

Methods of the product are taken by their names; its own variants of LUVC are the solver's options moved.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any

from luvc.engines.bundle.schedule import Schedule, ScoreSpec
from luvc.exporter.planning.defaults import DEFAULTS, PAPER, SolverOptions

from . import plans
from . import scores as scores  # makes them known to the graphs
from .plans import Budget, Plan

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
        drawn: depends on a seed, so it runs SEEDS times.
        product: it is the product's method of this name.
    """

    name: str
    kind: str
    note: str
    plan: Plan
    drawn: bool = False
    product: bool = False

    def schedule(self, budget: Budget, seed: int = 0) -> Schedule:
        """What it does with a budget.

        Raises:
            LuvcError: nothing fits, or the product has no such method.
        """
        return self.plan(budget, seed)


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
    return Method(name, kind, note, plans.solved(options))


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
    luvc("band high", "SPU scores what a low-pass takes away", options=HIGH),
    luvc("band high 0", "SPU scores the distance from the mean token",
         options=HIGH.with_score(cutoff=0.0)),
    luvc("band high 0.25", "score: largest distance from the low-pass, that is the high-pass",
         options=HIGH.with_score(cutoff=CUTOFF)),
    _score("cosine", "score: cosine of a token and its low-pass"),
    _score("residual", "score: least distance from the low-pass"),
    _score("share", "score: norm of the low-pass / norm of the token"),
    _score("random", "LUVC's plan, tokens drawn at random, once"),
    _score("uniform", "LUVC's plan, tokens at equal steps"),
)  # fmt: skip
_BASELINES = (
    _named("random", "baseline", "random tokens before the LLM", drawn=True),
    _named("uniform", "baseline", "tokens at equal steps before the LLM"),
    _named("downsample", "baseline", "the picture made smaller"),
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
METHODS = {method.name: method for method in (*_LUVC, *_BASELINES, *_METHODS)}
OLDER = {
    "drop all": "drop-all",
    "cls attention": "fastervlm",
    "dct crop": "dct",
    "score high": "band high 0.25",
    "score high 0.05": "band high",
}
"""What methods were called before they had the product's names, as committed results call them."""
