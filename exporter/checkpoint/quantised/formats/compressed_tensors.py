"""compressed-tensors, as llm-compressor and vLLM store it.

pack-quantized: weight_packed int32 [N, K bits / 32], lowest bits first, of codes + 2^(bits - 1); weight_shape
[2]; weight_zero_point int32 [N bits / 32, G], packed along the outputs. int-, float- and naive-quantized:
weight int8 or float8 (E4M3) [N, K], weight_zero_point int8. weight_scale [1], [N, 1], [N, G] or of blocks.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from .....engines.bundle.manifest import Quantisation
from .....errors import shown
from ..coded import Coded, unpacked
from ..float8 import scaled, weight_shape
from ..format import FLOATS, Format, group_count, kept_groups
from ..parts import Parts
from .gptq import group_order

PACKED = "pack-quantized"
STORED = {
    PACKED: ("int",),
    "int-quantized": ("int",),
    "float-quantized": ("float",),
    "naive-quantized": ("int", "float"),
}
"""Types of weights that each format holds."""
STRATEGIES = {"int": ("tensor", "channel", "group"), "float": ("tensor", "channel", "block")}


class Reader(Format):
    """compressed-tensors with one scheme."""

    PARTS: ClassVar[tuple[str, ...]] = (
        "weight_packed",
        "weight",
        "weight_scale",
        "weight_shape",
        "weight_zero_point",
        "weight_g_idx",
    )
    UNREAD: ClassVar[Mapping[str, str]] = dict.fromkeys(
        [
            *(f"{of}_{what}" for of in ("input", "output") for what in ("scale", "zero_point")),
            *(f"{of}_{what}" for of in "qkv" for what in ("scale", "zero_point")),
        ],
        "scales of activations or caches",
    )

    def check(self) -> None:
        """Refuse what the config says and this reader does not know."""
        self.absent("transform_config")
        sparse = self.told("sparsity_config")
        if sparse and (not isinstance(sparse, Mapping) or sparse.get("format") != "dense"):
            raise self.unknown(f"sparsity_config {shown(sparse)}", "none is read")
        group = self._group()
        weights = group.get("weights")
        self.weights: Mapping[str, Any] = weights if isinstance(weights, Mapping) else {}
        self.activations = group.get("input_activations")
        self.format = group.get("format") or self.told("format")
        if not isinstance(self.format, str) or self.format not in STORED:
            raise self.unknown(f"format {shown(self.format)}", f"{', '.join(STORED)} is read")
        self.type = self._one_of("type", STORED[self.format], "int")
        self.bits = self._one_of("num_bits", (4, 8) if self.type == "int" else (8,), None)
        size = self.weights.get("group_size")
        usual = "group" if size not in (None, -1) else "channel"
        self.strategy = self._one_of("strategy", STRATEGIES[self.type], usual)
        self.symmetric = self._one_of("symmetric", (True, False), True)
        sizes = size if self.strategy == "group" else self.weights.get("block_structure")
        self.sizes = self._sizes(sizes)

    def _group(self) -> Mapping[str, Any]:
        """The one way that weights are quantised.

        Raises:
            LuvcError: there are several, or none.
        """
        groups = self.told("config_groups")
        found = list(groups.values()) if isinstance(groups, Mapping) else []
        if not found or not all(isinstance(group, Mapping) for group in found):
            raise self.unknown(f"config_groups {shown(groups)}", "a scheme in full is read")
        ways = [(group.get("weights"), group.get("format")) for group in found]
        if any(way != ways[0] for way in ways):
            raise self.unknown(
                f"{len(found)} schemes in config_groups", "one for all weights is read"
            )
        return found[0]

    def _one_of(self, name: str, known: tuple[Any, ...], usual: Any) -> Any:
        value = self.weights.get(name)
        value = usual if value is None else value
        if not any(value == k and type(value) is type(k) for k in known):
            read = ", ".join(map(str, known))
            raise self.unknown(
                f"weights of {name} {shown(value)}", f"{read} is read for {self.format}"
            )
        return value

    def _sizes(self, sizes: Any) -> tuple[int, ...]:
        """(inputs,) of a group, (outputs, inputs) of a block; empty where there are neither."""
        wanted = {"group": 1, "block": 2}.get(self.strategy, 0)
        found = tuple(sizes) if isinstance(sizes, (list, tuple)) else (sizes,)
        if wanted and not (len(found) == wanted and all(type(s) is int and s > 0 for s in found)):
            raise self.unknown(f"{self.strategy}s of {shown(sizes)}", "numbers of weights are read")
        return found if wanted else ()

    @property
    def about(self) -> str:
        """The format for people."""
        kind = "FP8 (E4M3)" if self.type == "float" else f"{self.bits}-bit whole numbers"
        size = " x ".join(map(str, self.sizes))
        of = {
            "tensor": "each weight",
            "channel": "each output",
            "group": f"each {size} inputs",
            "block": f"blocks of {size}",
        }
        zero = "" if self.symmetric else " and a zero"
        return (
            f"compressed-tensors {self.format}, {kind} with a scale{zero} for {of[self.strategy]}"
        )

    @property
    def keeps(self) -> Quantisation | None:
        """Symmetric whole numbers: of eight bits for outputs, of four in groups that lie in order."""
        ordered = self.weights.get("actorder") in (None, False, "weight", "static")
        if self.type != "int" or not self.symmetric or not ordered:
            return None
        if self.bits == 8 and self.strategy == "channel":
            return Quantisation(kind="int8")
        grouped = self.bits == 4 and self.strategy == "group"
        return kept_groups(self.sizes[0]) if grouped else None

    @property
    def lost(self) -> list[str]:
        """What its runtime rounds besides weights."""
        found = []
        if self.activations:
            found.append("activations are not rounded, as the checkpoint's own runtime does")
        if self.told("kv_cache_scheme"):
            found.append("keys and values of the caches are not rounded, as its own runtime does")
        return found

    def shape(self, parts: Parts) -> tuple[int, int]:
        """[N, K] of a weight."""
        if self.type == "float":
            return weight_shape(parts)
        if self.format != PACKED:
            n, k = parts.entry("weight", "I8", ndim=2).shape
            return n, k
        packed = parts.entry("weight_packed", "I32", ndim=2)
        n, k = parts.read("weight_shape", "I64", "I32", shape=(2,)).tolist()
        if packed.shape != (n, -(-k * self.bits // 32)):
            raise parts.wrong("weight_packed", f"does not hold the {n} x {k} of its weight_shape")
        return n, k

    def numbers(self, parts: Parts) -> torch.Tensor:
        """The weight [N, K] as the library makes numbers of it."""
        if self.type == "int":
            return self.coded(parts).numbers()
        if "weight_zero_point" in parts and parts.read("weight_zero_point").float().any():
            raise parts.wrong("weight_zero_point", "is not 0 for floating point")
        n, k = self.shape(parts)
        blocks = {"tensor": (n, k), "channel": (1, k)}
        block = blocks.get(self.strategy) or (self.sizes[0], self.sizes[1])
        kind = parts.entry("weight_scale", *FLOATS).read().dtype
        return scaled(parts, "weight_scale", block).to(kind)

    def coded(self, parts: Parts) -> Coded:  # of whole numbers
        """The weight as whole numbers and scales."""
        n, k = self.shape(parts)
        scales = self._scales(parts, n, k)
        groups = scales.shape[1]
        part, order = "weight_g_idx", None
        if part in parts and not (parts.read(part) == -1).all():  # which says nothing
            order = group_order(parts, part, k, groups)
        zeros = self._zeros(parts, n, groups)
        if self.format != PACKED:
            return Coded(parts.read("weight"), scales, zeros, order)
        codes = unpacked(parts.read("weight_packed"), self.bits)[:, :k].contiguous()
        middle = 1 << self.bits - 1
        return Coded(codes, scales, zeros + middle, order)

    def _scales(self, parts: Parts, n: int, k: int) -> torch.Tensor:
        """[N, G]."""
        entry = parts.entry("weight_scale", *FLOATS)
        if self.strategy == "tensor":
            if entry.shape not in ((), (1,), (1, 1)):
                raise parts.wrong("weight_scale", "should be one scale")
            return entry.read().view(1, 1).expand(n, 1)
        groups = entry.shape[1] if len(entry.shape) == 2 else 1
        if entry.shape not in ((n, groups), (n,)):
            raise parts.wrong("weight_scale", f"should be of {n} outputs")
        size = self.sizes[0] if self.strategy == "group" else -1
        group_count(parts, "weight_scale", k, size, groups)
        return entry.read().view(n, groups)

    def _zeros(self, parts: Parts, n: int, groups: int) -> torch.Tensor | int:
        """int16 [N, G] around 0; 0 where the weights are symmetric."""
        part = "weight_zero_point"
        if self.symmetric:
            if part in parts and parts.read(part, "I8").any():
                raise parts.wrong(part, "is not 0, and the config says that weights are symmetric")
            return 0
        entry = parts.entry(part, "I8", "I32")
        if entry.dtype == "I8":
            if entry.shape in ((1,), ()) and self.strategy == "tensor":
                return entry.read().view(1, 1).expand(n, 1).short()
            return parts.read(part, shape=(n, groups)).short()
        words = parts.read(part, shape=(-(-n * self.bits // 32), groups))
        found = unpacked(words.T, self.bits)[:, :n].T
        return found.short() - (1 << self.bits - 1)
