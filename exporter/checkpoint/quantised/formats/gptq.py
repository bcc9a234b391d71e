"""GPTQ, as AutoGPTQ, GPTQModel and transformers store it.

qweight int32 [K bits / 32, N] along the inputs, qzeros int32 [G, N bits / 32] along the outputs, scales
[G, N], g_idx int32 [K], the group of each input; lowest bits first. In format "gptq" 1 was taken from every
zero, word by word, so a zero of 0 borrows from the next; "gptq_v2" has the zeros themselves.
"""

from typing import ClassVar

import torch

from .....engines.bundle.manifest import Quantisation
from ..coded import Coded, unpacked
from ..format import FLOATS, CodedFormat, group_count, kept_groups
from ..parts import Parts

ONES = {4: 0x11111111, 8: 0x01010101}
"""A 1 in every zero of a word."""


class Reader(CodedFormat):
    """GPTQ of four or eight bits."""

    PARTS: ClassVar[tuple[str, ...]] = ("qweight", "qzeros", "scales", "g_idx")

    def check(self) -> None:
        """Refuse what the config says and this reader does not know."""
        self.bits = self.only((4, 8), "bits")
        kind = "checkpoint_format" if self.told("checkpoint_format") else "format"
        self.version = self.only(("gptq", "gptq_v2"), kind, default="gptq")
        self.size = self.group_size("group_size", default=128)
        self.only(("int32",), "pack_dtype", default="int32")
        self.absent("dynamic", "is_marlin_format", "adapter", "planar")

    @property
    def about(self) -> str:
        """The format for people."""
        order = ", groups in the order of activations" if self.told("desc_act") else ""
        return f"GPTQ, {self.bits} bits with a scale for each {self.size} inputs{order}"

    @property
    def keeps(self) -> Quantisation | None:
        """Symmetric codes of four bits in groups that lie in order."""
        kept = self.bits == 4 and self.told("sym", default=False) and not self.told("desc_act")
        return kept_groups(self.size) if kept else None

    def shape(self, parts: Parts) -> tuple[int, int]:
        """[N, K] of a weight."""
        words = parts.entry("qweight", "I32", ndim=2)
        groups, n = parts.entry("scales", *FLOATS, ndim=2).shape
        k = words.shape[0] * 32 // self.bits
        if words.shape[1] != n or n * self.bits % 32:
            raise parts.wrong("scales", f"does not fit {words}")
        group_count(parts, "scales", k, self.size, groups)
        return n, k

    def coded(self, parts: Parts) -> Coded:
        """The weight as whole numbers and scales."""
        n, k = self.shape(parts)
        groups = parts.entry("scales").shape[0]
        words = parts.read("qzeros", "I32", shape=(groups, n * self.bits // 32))
        if self.version == "gptq":
            words = (words.long() + ONES[self.bits]).to(torch.int32)  # modulo 2^32
        zeros = unpacked(words, self.bits).T.contiguous()
        codes = unpacked(parts.read("qweight").T, self.bits)
        scales = parts.read("scales").T.contiguous()
        return Coded(codes, scales, zeros, self._groups(parts, k, groups))

    def _groups(self, parts: Parts, k: int, groups: int) -> torch.Tensor | None:
        """The group of each input; None where they lie in order."""
        if "g_idx" not in parts and not self.told("desc_act"):
            return None
        return group_order(parts, "g_idx", k, groups)


def group_order(parts: Parts, part: str, inputs: int, groups: int) -> torch.Tensor | None:
    """int64 [K], the group of each input as a part says it; None where they lie in order.

    Raises:
        LuvcError: the part is missing, or names groups that have no scale.
    """
    found = parts.read(part, "I32", "I64", shape=(inputs,)).long()
    if found.numel() and not 0 <= int(found.min()) <= int(found.max()) < groups:
        raise parts.wrong(part, f"names groups beyond the {groups} that have scales")
    in_order = torch.arange(inputs) // max(1, inputs // groups)
    return None if torch.equal(found, in_order) else found
