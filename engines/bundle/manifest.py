"""The bundle's manifest: what export and run time agree on, as frozen models that round-trip to JSON.

Letters: B batch, S sequence, V visual tokens at the language model's input, V_l those entering layer
l, C_l cache slots of layer l, k visual tokens kept.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ...dtypes import DTYPES
from .bounded import (
    Arch,
    Bytes,
    Count,
    Digest,
    Factor,
    FilePath,
    GraphPath,
    Layers,
    Line,
    Name,
    PlanPath,
    Position,
    Tokens,
    Version,
    Width,
    Words,
)
from .layout import Layout
from .schedule import Frozen, Solver

SCHEMA_VERSION = 4
OLDEST = 2
"""The first version of the manifest that is still read; what it says otherwise is read as today's form."""

Dtype = Literal["float32", "float16", "bfloat16"]
LayerType = Literal["full", "sliding", "conv", "linear"]
GROUP_SIZES = (16, 32, 64, 128, 256)
"""Inputs that share a scale of int4 weights, as runtimes know them."""


class LanguageModel(Frozen):
    """What the runtime must know of the decoder: cache shapes, special tokens, positions, limits.

    Attributes:
        model_type: of its Hugging Face config.
        layers: number of layers.
        kv_heads: heads of keys and values, H_kv.
        head_dim: size of a head, d.
        vocab_size: number of logits.
        image_token: text of the token that stands for a visual token in the prompt.
        image_token_id: its id.
        max_positions: longest sequence that it was made for.
        hidden: width, D.
        layer_types: of each layer; "conv" layers keep a short state instead of keys and values.
        window: positions a "sliding" layer looks back, itself included.
        conv_state: columns of a "conv" layer's state.
        position_axes: 3 for rotary positions in time, height and width (M-RoPE), otherwise 1.
        first_position: of the first token.
        time_scale: positions per second of video; 0 where every frame is one position apart.
        whole_prompt: the prompt looks at all of itself, so a later turn must be run afresh.
        linear: of a "linear" layer: channels of its convolution, and heads, key size and value size of its
            state.
        full_heads: heads and head size of the keys and values of "full" layers, where they have their own.
        shared: last layers that keep nothing: they read what the last layer of their type before them keeps.
    """

    model_type: Name
    layers: Layers
    kv_heads: Width
    head_dim: Width
    vocab_size: Tokens
    image_token: Words
    image_token_id: Tokens
    max_positions: Position
    hidden: Width
    layer_types: Annotated[tuple[LayerType, ...], Field(max_length=1024)]
    window: Position | None = None
    conv_state: Width = 0
    position_axes: Literal[1, 3] = 1
    first_position: Count = 0
    time_scale: Factor = 0.0
    whole_prompt: bool = False
    linear: tuple[Width, Width, Width, Width] | None = None
    full_heads: tuple[Width, Width] | None = None
    shared: Layers = 0

    @model_validator(mode="after")
    def _tells_every_layer(self) -> "LanguageModel":
        if len(self.layer_types) != self.layers:
            raise ValueError(f"{self.layers} layers, but {len(self.layer_types)} layer_types")
        if set(self.layer_types[self.caching :]) - set(self.layer_types[: self.caching]):
            raise ValueError(f"{self.shared} layers share what no layer before them keeps")
        return self

    @model_validator(mode="after")
    def _tells_linear_layers(self) -> "LanguageModel":
        if "linear" in self.layer_types and self.linear is None:
            raise ValueError("linear layers, but no sizes of theirs")
        return self

    @property
    def end_position(self) -> int:
        """The first position that it was not made for."""
        return self.first_position + self.max_positions

    @property
    def caching(self) -> int:
        """Number of the first layers, which keep something."""
        return max(0, self.layers - self.shared)

    def heads(self, layer: int) -> tuple[int, int]:
        """(H_kv, d) of a layer."""
        own = self.full_heads if self.layer_types[layer] == "full" else None
        return own or (self.kv_heads, self.head_dim)

    def kept_bytes(self, layer: int, tokens: int, item: int) -> int:
        """Bytes that a layer keeps of one row of `tokens` tokens: keys and values, or its state.

        Args:
            layer: its index.
            tokens: of the row.
            item: bytes of a number; the state of a "linear" layer has 4.
        """
        kind = self.layer_types[layer]
        if layer >= self.caching:
            return 0
        if kind == "conv":
            return item * self.hidden * self.conv_state
        if kind == "linear" and self.linear:
            channels, heads, key, value = self.linear
            return item * channels * self.conv_state + 4 * heads * key * value
        heads, size = self.heads(layer)
        return item * 2 * heads * size * tokens


class File(Frozen):
    """One file of the bundle: its size in `bytes`, and its `sha256` in hexadecimal."""

    bytes: Bytes
    sha256: Digest


class Quantisation(Frozen):
    """How the weights of the language model's products are stored.

    Attributes:
        kind: "int8", one scale an output, or "int4", one scale for each group of inputs.
        group_size: inputs of a group; None for int8.
    """

    kind: Literal["int8", "int4"]
    group_size: Literal[16, 32, 64, 128, 256] | None = None

    @model_validator(mode="after")
    def _groups_of_int4(self) -> "Quantisation":
        if (self.kind == "int4") == (self.group_size is None):
            raise ValueError(f"{self.kind} with groups of {self.group_size}")
        return self

    def __str__(self) -> str:
        """For people."""
        if self.group_size is None:
            return f"{self.kind} with a scale for each output"
        return f"{self.kind} with a scale for each {self.group_size} inputs"


Range = tuple[Position, Position, Position]  # minimum, optimum, maximum


class EngineFile(Frozen):
    """The compiled form of one graph; its size and hash stand in Manifest.files.

    Attributes:
        graph: path of the ONNX graph.
        file: path of the plan.
        key: SHA-256 of all that shaped the plan; a build with an equal key is not repeated.
        profiles: sizes the engine takes, by dimension symbol, e.g. {"B": (1, 1, 8), "T": (1, 1, 1)}.
    """

    graph: GraphPath
    file: PlanPath
    key: Line
    profiles: Annotated[tuple[dict[Name, Range], ...], Field(max_length=16)]


class Engine(Frozen):
    """A bundle's graphs compiled by one library for one kind of GPU.

    Attributes:
        backend: "tensorrt" or "tensorrt-rtx".
        arch: GPUs it runs on: "sm90", "sm86+sm89", or "portable" (compute capability 8.0 and up).
        version: of the library; engines run with the version that built them.
        plugins: how the SPU operators are in it: "aot", "library" or "body".
        graphs: one for each graph of each layout.
    """

    backend: Annotated[str, Field(pattern=r"^tensorrt(-rtx)?$")]
    arch: Arch
    version: Version
    plugins: Literal["aot", "library", "body"]
    graphs: Annotated[tuple[EngineFile, ...], Field(max_length=1024)]

    @model_validator(mode="after")
    def _keeps_to_its_folder(self) -> "Engine":
        if not all(plan.file.startswith(f"{self.folder}/") for plan in self.graphs):
            raise ValueError(f"a plan lies outside of {self.folder}")
        return self

    @property
    def folder(self) -> str:
        """Where its plans lie in the bundle, and nothing else."""
        return f"engines/{self.backend}-{self.arch}-{self.version}"


class Manifest(Frozen):
    """`manifest.json` of a bundle.

    Attributes:
        schema_version: of the manifest's form.
        created: when, as an ISO date and time in UTC.
        model: the checkpoint as it was named at export.
        revision: commit of a hub id; None for a directory, and missing in older bundles.
        family: Hugging Face model_type.
        dtype: of weights and computation.
        weights: how those of the language model's products are stored; None: as the others.
        quantised_as: what the checkpoint's own weights were stored as, where they were quantised; missing
            in older bundles.
        calibrated: questions that the codes of the products were chosen by; 0: they are the nearest, or the
            checkpoint's, as in older bundles.
        language: what the runtime must know of the decoder.
        layouts: what the bundle can be asked about, those with images first.
        text_capacity: text tokens (prompt and generated) one conversation can hold.
        slots: of the caches. "free": the step graphs of all layouts are one, which is told the visual tokens
            of each row; their files differ in the sizes of caches that they name, and a runtime may set
            others. "fixed", as in older bundles: every step graph is made for its layout's.
        reference_text: text tokens of the reference prompt that the ratios are computed at.
        solver: what the schedules were solved for, measured time too; None where one was given. Older
            bundles have none where it was measured, and those before it came have none at all.
        parameters: number of weights.
        files: every file of the bundle but the manifest, by relative path.
        versions: library versions at export.
        validated: the whole model was compared with PyTorch.
        validated_layers: language layers that were compared.
        engines: compiled forms of the graphs, added by luvc-build.
    """

    schema_version: int = SCHEMA_VERSION
    created: Line
    model: Line
    revision: Line | None = None
    family: Name
    dtype: Dtype
    weights: Quantisation | None = None
    quantised_as: Line | None = None
    calibrated: Tokens = 0
    language: LanguageModel
    layouts: tuple[Layout, ...] = Field(min_length=1, max_length=1024)
    text_capacity: Annotated[Tokens, Field(gt=0)]
    slots: Literal["fixed", "free"] = "fixed"
    reference_text: Tokens
    solver: Solver | None = None
    parameters: Bytes
    files: dict[FilePath, File] = Field(default_factory=dict, max_length=4096)
    versions: dict[Name, Line] = Field(default_factory=dict, max_length=100)
    validated: bool = False
    validated_layers: Layers = 0
    engines: tuple[Engine, ...] = Field(default=(), max_length=100)

    @property
    def pictured(self) -> tuple[Layout, ...]:
        """The layouts with images or videos; export puts them first."""
        return tuple(layout for layout in self.layouts if layout.images)

    def together(self, layout: Layout) -> tuple[Layout, ...]:
        """The layouts whose step graphs are one, a layout itself among them."""
        return (layout,) if self.slots == "fixed" else self.layouts

    def kv_bytes(self, layout: Layout, text: int | None = None) -> int:
        """Bytes of K and V of one row: `text` tokens in every layer (default: the full capacity).

        Layers without attention keep their state of fixed size.
        """
        text, lm = self.text_capacity if text is None else text, self.language
        visual = layout.schedule.visual_per_layer(lm.layers, layout.visual_tokens)
        item = DTYPES[self.dtype].bytes
        return sum(lm.kept_bytes(i, text + v, item) for i, v in enumerate(visual))
