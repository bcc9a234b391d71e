"""The list of the study: what each method is called, how it spends a budget and how it chooses."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from luvc.exporter.problem import DEFAULTS, Options

from . import plans, scores, selections
from .draws import Draws
from .language import After, Stage
from .plans import Budget, Plan
from .selections import Selection
from .vision import Seen

SEEDS = 5
"""Draws of everything random."""


@dataclass(frozen=True)
class Method:
    """One line of the study.

    Attributes:
        name: unique, also for --method.
        kind: "luvc" (the default), "part" and "variant" (of LUVC), "export", "baseline" or "method".
        note: what it is, for the table.
        plan: spends a budget.
        stage: makes the stage of the language model for (draws, pictures); None: there is none.
        select: makes the selection before the language model for draws.
        reduce: makes a smaller grid of tokens.
        resize: the picture itself is made smaller.
        match: OIM merges the most similar neighbours.
        renumber: positions count anew after each stage.
        drawn: depends on a seed, so it runs SEEDS times.
        options: the solver's, where the product offers this variant.
    """

    name: str
    kind: str
    note: str
    plan: Callable[[Budget], Plan]
    stage: Callable[[Draws, int], Stage | tuple[Stage, After]] | None = None
    select: Callable[[Draws], Selection] | None = None
    reduce: Callable[[Seen, int, int], Tensor] | None = None
    resize: bool = False
    match: bool = False
    renumber: bool = False
    drawn: bool = False
    options: Options | None = None


def _spu(rho: float = DEFAULTS.cutoff, raw: bool = DEFAULTS.signal == "raw", image: bool = False):
    return lambda _, pictures: scores.spectrum(rho, raw, pictures if image else 1)


def _luvc(name: str, note: str, kind: str = "variant", **changes) -> Method:
    """LUVC with some of the solver's options moved."""
    options = replace(DEFAULTS, **changes)
    stage = _spu(options.cutoff, options.signal == "raw", options.scope == "image")
    return Method(
        name, kind, note, plans.luvc(options), stage, match=options.match, options=options
    )


def _score(name: str, note: str) -> Method:
    """LUVC's plan with another score."""
    stage = partial(scores.spectrum_variant, name)
    return Method(f"score {name}", "variant", note, plans.luvc(), lambda *_: stage())


def _before(name: str, note: str, select: Selection, kind: str = "method") -> Method:
    """A selection before the language model."""
    return Method(name, kind, note, plans.before, select=lambda _: select)


def _inside(name: str, note: str, parts, weights, stage) -> Method:
    """Stages inside the language model."""
    return Method(name, "method", note, plans.cascade(parts, weights), lambda *_: stage())


_LUVC = (
    _luvc("luvc", "the solver's defaults", "luvc"),
    Method("oim", "part", "OIM only", plans.oim_only),
    _luvc("spu", "SPU only", "part", oim_share=0.0),
    Method("--ratio", "export", "luvc-export's own ratio, of FLOPs at 64 text tokens", plans.product,
           _spu()),
    _luvc("match", "OIM merges the most similar neighbours", match=True),
    Method("oim match", "part", "OIM only, most similar neighbours", plans.oim_only, match=True),
    _luvc("signal raw", "SPU scores the hidden states as they are", signal="raw"),
    *(_luvc(f"cutoff {rho:g}", f"low-pass keeps {rho:g} of the spectrum", cutoff=rho)
      for rho in (0.05, 0.1, 0.5, 1.0)),
    _luvc("per image", "SPU scores each picture with an equal quota", scope="image"),
    *(_luvc(f"oim share {share:g}", f"OIM's factor up to ratio ** {share:g}", oim_share=share)
      for share in (0.25, 0.75, 1.0)),
    _luvc("keeps linear", "keeps fall by equal numbers", keeps="linear"),
    _luvc("stages early", "SPU at 1/8, 1/4 and 1/2 of the layers", stages=(0.125, 0.25, 0.5)),
    _luvc("stages late", "SPU at 1/2, 5/8 and 3/4 of the layers", stages=(0.5, 0.625, 0.75)),
    _luvc("stages one", "SPU at 1/2 of the layers", stages=(0.5,)),
    _luvc("stages two", "SPU at 1/4 and 1/2 of the layers", stages=(0.25, 0.5)),
    _score("cosine", "score: cosine of a token and its low-pass"),
    _score("residual", "score: least distance from the low-pass"),
    _score("share", "score: norm of the low-pass / norm of the token"),
    _score("high", "score: largest distance from the low-pass (control)"),
    Method("score random", "variant", "LUVC's plan, tokens drawn at random", plans.luvc(),
           lambda draws, _: scores.random(draws), drawn=True),
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


def chosen(options: Options) -> Method:
    """LUVC with options of one's own, as the method "chosen"."""
    return _luvc("chosen", "LUVC with the options that won on validation", "luvc", **vars(options))
