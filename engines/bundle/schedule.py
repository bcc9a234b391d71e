"""Where visual tokens go, as integers that fix every shape, and what they were solved for.

Letters: V visual tokens at the language model's input, V_l those entering layer l.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .bounded import Factor, Layers, Line, Name, Pixels, Tokens

Axis = Literal["width", "height"]
Scope = Literal["prompt", "image", "tile"]


def groups_of(scope: Scope, images: int, tiles: int) -> int:
    """Runs of visual tokens that are scored apart.

    Args:
        scope: what is scored together.
        images: of the prompt.
        tiles: of all its images.
    """
    return {"prompt": 1, "image": images, "tile": tiles}[scope]


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


class Reduction(Frozen):
    """A smaller grid of visual tokens behind the projector; the exporter's matter, engines never read it.

    Attributes:
        how: "pool" averages neighbours, "dct" keeps the low frequencies of a cosine transform.
        rows: of a tile's visual tokens after it.
        columns: the same.
    """

    how: Literal["pool", "dct"]
    rows: Annotated[Pixels, Field(ge=1)]
    columns: Annotated[Pixels, Field(ge=1)]


class ScoreSpec(Frozen):
    """Which score the stages keep visual tokens by: its name and options, as plugins/scores knows them.

    Engines keep and never read them: the score is in the graphs.

    Attributes:
        question: it reads what stands behind the picture, so that a pruned picture is another one for
            another question.
    """

    name: Name = "spectrum"
    options: Annotated[dict[Name, bool | int | float | Line], Field(max_length=100)] = {}
    question: bool = False

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_form(cls, data: Any) -> Any:
        """FastV reads the question: bundles did not say so where it was asked for by its name alone."""
        named = isinstance(data, dict) and data.get("name") == "fastv"
        return data | {"question": True} if named else data

    def having(self, **options: bool | int | float | str) -> "ScoreSpec":
        """The same score with other options."""
        return self.model_copy(update={"options": self.options | options})

    def __hash__(self) -> int:
        """Of the name and the options."""
        return hash((self.name, tuple(sorted(self.options.items()))))

    def __str__(self) -> str:
        """Name and options, for people."""
        options = ", ".join(f"{name} {value}" for name, value in self.options.items())
        return f"{self.name} ({options})" if options else self.name


ENERGY = ScoreSpec(options={"cutoff": 1.0, "band": "low", "signal": "normed"})
"""What schedules mean that name no score, or only some of its options: a token's energy."""


class Schedule(Frozen):
    """Where tokens are merged and pruned; all integers, so every shape is known at export.

    Attributes:
        ratio: as asked for: baseline / compressed FLOPs of the language model's prefill, unless the
            manifest's solver says that it counts something else.
        vision: OIM steps, in order of layer.
        exit: a smaller grid at the tower's exit, in place of all others.
        language: SPU stages, in order of layer, keeps not rising.
        score: what the stages keep tokens by.
        scope: "prompt" scores all visual tokens together, "image" each image with an equal quota, "tile"
            each tile (or step of a video).
        match: OIM merges the most similar neighbours instead of fixed groups.
        restore: the tower's exit gives OIM's grid back: all behind it sees every token of the full one.
    """

    ratio: Annotated[Factor, Field(ge=1)] = 1.0
    vision: Annotated[tuple[Merge, ...], Field(max_length=1024)] = ()
    exit: Reduction | None = None
    language: Annotated[tuple[Prune, ...], Field(max_length=1024)] = ()
    score: ScoreSpec = ENERGY
    scope: Scope = "prompt"
    match: bool = False
    restore: bool = False

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_form(cls, data: Any) -> Any:
        """Options of the spectrum's score stood beside the stages before scores had names."""
        known = ENERGY.options.keys()
        if not isinstance(data, dict) or "score" in data or not known & data.keys():
            return data
        options = ENERGY.options | {name: data[name] for name in known & data.keys()}
        rest = {name: value for name, value in data.items() if name not in known}
        return rest | {"score": {"name": ENERGY.name, "options": options}}

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
        return self

    @model_validator(mode="after")
    def _one_way(self) -> "Schedule":
        if self.exit and self.vision:
            raise ValueError(
                "exit makes a smaller grid of equally wide tokens, and OIM in vision leaves unequal ones: "
                "leave one of them out"
            )
        if self.exit and self.language:
            raise ValueError(
                "exit keeps its smaller grid whole, and language prunes it: leave one of them out"
            )
        return self

    @property
    def lasting(self) -> tuple[Merge, ...]:
        """OIM steps whose grid leaves the tower; none where it is given back."""
        return () if self.restore else self.vision

    @property
    def own(self) -> bool:
        """Whether it is one's own and names no ratio, as at ratio 1 there is nothing to do."""
        return self.ratio == 1 and bool(self.vision or self.exit or self.language)

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

    Attributes:
        ratio: as it was asked for.
        ratio_of: what it counts: "flops" (of the prefill), "first-token" (FLOPs of tower and prefill),
            "latency" or "first-token-latency" (measured milliseconds of the same).
        method: the exporter's name for how tokens are scored and the ratio is spent.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, bool | Factor | Line | tuple[Factor, ...]]

    ratio: Factor
    ratio_of: Line = "flops"
    method: Line = "luvc"

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
