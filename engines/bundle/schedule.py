"""Where visual tokens go, as integers that fix every shape, and what they were solved for.

Letters: V visual tokens at the language model's input, V_l those entering layer l.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .bounded import Factor, Layers, Line, Tokens

Axis = Literal["width", "height"]
Signal = Literal["normed", "raw"]
Scope = Literal["prompt", "image"]
Band = Literal["low", "high"]


WIDEST = 0.5
"""Largest cutoff of band "high": every stage of two tokens or more has frequencies above it."""


def check_band(band: Band, cutoff: float) -> None:
    """Refuse a band that holds nothing to tell tokens by.

    Raises:
        ValueError: "low" at cutoff 0, where only the mean passes, or "high" above WIDEST.
    """
    if band == "low" and cutoff == 0:
        raise ValueError(
            "cutoff 0 with band low scores the mean token alone, so that all score alike: give a cutoff "
            "above 0, or band high"
        )
    if band == "high" and cutoff > WIDEST:
        raise ValueError(
            f"cutoff {cutoff:g} with band high takes too much away: give a cutoff of at most {WIDEST:g}, "
            "such as 0.05, or band low"
        )


def groups_of(scope: Scope, images: int) -> int:
    """Runs of visual tokens that the SPU scores apart, of a prompt of so many images."""
    return images if scope == "image" else 1


class Frozen(BaseModel):
    """Base of every manifest entry: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Merge(Frozen):
    """One OIM step: before vision layer `layer`, every `group` tokens along `axis` become group - 1."""

    layer: Layers
    axis: Axis
    group: int = Field(ge=2, le=1 << 16)


class Prune(Frozen):
    """One SPU stage: before language layer `layer`, `keep` visual tokens survive."""

    layer: Layers
    keep: Tokens


class Schedule(Frozen):
    """Where tokens are merged and pruned; all integers, so every shape is known at export.

    Attributes:
        ratio: baseline language-model prefill FLOPs / compressed, as asked for.
        vision: OIM steps, in order of layer.
        language: SPU stages, in order of layer, keeps not rising.
        cutoff: share of the spectrum that passes the low-pass (rho); see check_band.
        band: "low" scores what passes (all of it at cutoff 1: tokens as they are), "high" what the
            low-pass takes away: the token less its low-pass, less the mean token at cutoff 0. Its
            default is what bundles mean that do not name it.
        signal: "normed" scores the layer's normalised input, "raw" the hidden states.
        scope: "prompt" scores all visual tokens together, "image" each image with an equal quota.
        match: OIM merges the most similar neighbours instead of fixed groups.
    """

    ratio: Annotated[Factor, Field(ge=1)] = 1.0
    vision: Annotated[tuple[Merge, ...], Field(max_length=1024)] = ()
    language: Annotated[tuple[Prune, ...], Field(max_length=1024)] = ()
    cutoff: float = Field(default=1.0, ge=0, le=1)
    band: Band = "low"
    signal: Signal = "normed"
    scope: Scope = "prompt"
    match: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "Schedule":
        layers = [p.layer for p in self.language]
        if layers != sorted(set(layers)):
            raise ValueError(f"language layers must rise, got {layers}")
        keeps = [p.keep for p in self.language]
        if keeps != sorted(keeps, reverse=True):
            raise ValueError(f"language keeps must not rise, got {keeps}")
        steps = [m.layer for m in self.vision]
        if steps != sorted(steps):
            raise ValueError(f"vision layers must not fall, got {steps}")
        check_band(self.band, self.cutoff)
        return self

    @property
    def score(self) -> str:
        """What the SPU keeps tokens by, for people."""
        if self.band == "high":
            low = f"its low-pass at {self.cutoff:g}" if self.cutoff else "the mean token"
            return f"how far a token is from {low}"
        return f"a token's energy below {self.cutoff:g}" if self.cutoff < 1 else "a token's energy"

    @property
    def scored(self) -> list[int]:
        """Layers before which the SPU scores; where nothing is kept there is nothing to score."""
        return [p.layer for p in self.language if p.keep]

    def visual_per_layer(self, layers: int, visual: int) -> tuple[int, ...]:
        """V_l for l = 0 .. layers-1, given V = `visual` tokens at the input."""
        keep = {p.layer: p.keep for p in self.language}
        counts = []
        for layer in range(layers):
            visual = keep.get(layer, visual)
            counts.append(visual)
        return tuple(counts)


class Solver(BaseModel):
    """What the schedules were solved for: the ratio, and the exporter's options by their names.

    The options are the exporter's matter (planning/defaults.py): engines keep and never read them.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, bool | Factor | Line | tuple[Factor, ...]]

    ratio: Factor

    @model_validator(mode="after")
    def _named(self) -> "Solver":
        names = self.__pydantic_extra__
        if len(names) > 100 or not all(name.isidentifier() for name in names):
            raise ValueError("its options are named like those of no exporter")
        return self


class Stage(Frozen):
    """A run of language layers, from `first` to `last`, each of which sees `visual` visual tokens."""

    first: Layers
    last: Layers
    visual: Tokens


def stages_of(visual: tuple[int, ...]) -> tuple[Stage, ...]:
    """Group layers with equal V_l into stages."""
    stages: list[Stage] = []
    for layer, count in enumerate(visual):
        if stages and stages[-1].visual == count:
            stages[-1] = stages[-1].model_copy(update={"last": layer})
        else:
            stages.append(Stage(first=layer, last=layer, visual=count))
    return tuple(stages)
