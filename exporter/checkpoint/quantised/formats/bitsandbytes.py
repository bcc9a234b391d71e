"""bitsandbytes: four bits that number a table (nf4, fp4), and eight-bit whole numbers.

Four bits: weight uint8 [N K / 2, 1], the first value in the HIGH half; weight.quant_map float32 [16];
weight.absmax [blocks], itself numbers of a table where weight.nested_absmax is there; weight.quant_state a
JSON text. Eight: weight int8 [N, K], SCB float32 [N], the largest of each output.
"""

import json
import math
from typing import Any, ClassVar

import torch

from ..format import Format
from ..parts import Parts

STATES = ("weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4")
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
PER_STEP = 7.874015718698502e-3
"""1 / 127, as the library has it."""
LONGEST = 4096  # bytes of a state


class Reader(Format):
    """bitsandbytes of four or eight bits."""

    PARTS: ClassVar[tuple[str, ...]] = (
        "weight",
        "weight.absmax",
        "weight.quant_map",
        "weight.nested_absmax",
        "weight.nested_quant_map",
        *STATES,
        "SCB",
        "weight_format",
    )

    def check(self) -> None:
        """Refuse what the config says and this reader does not know."""
        four, eight = bool(self.told("load_in_4bit")), bool(self.told("load_in_8bit"))
        if four == eight:
            raise self.unknown(
                f"load_in_4bit {four} and load_in_8bit {eight}", "one of them is read"
            )
        self.four = four
        if four:
            self.kind = self.only(("nf4", "fp4"), "bnb_4bit_quant_type", default="fp4")
            self.only(("uint8",), "bnb_4bit_quant_storage", default="uint8")

    @property
    def about(self) -> str:
        """The format for people."""
        if self.four:
            return f"bitsandbytes {self.kind}"
        return "bitsandbytes int8 with a scale for each output"

    @property
    def lost(self) -> list[str]:
        """What its runtime rounds besides weights."""
        eight = "activations are not rounded to eight bits, as bitsandbytes does but for outliers"
        return [] if self.four else [eight]

    def shape(self, parts: Parts) -> tuple[int, int]:
        """[N, K] of a weight."""
        if self.four:
            n, k = self._state(parts)["shape"]
            return n, k
        n, k = parts.entry("weight", "I8", ndim=2).shape
        return n, k

    def numbers(self, parts: Parts) -> torch.Tensor:
        """The weight [N, K] as the library makes numbers of it."""
        return self._numbers4(parts) if self.four else self._numbers8(parts)

    def _numbers8(self, parts: Parts) -> torch.Tensor:
        n, _ = self.shape(parts)
        if "weight_format" in parts and int(parts.read("weight_format", "U8").max()) != 0:
            raise parts.wrong("weight_format", "is not 0, for rows")
        largest = parts.read("SCB", "F32", "F16", "BF16", shape=(n,)).float()
        return (parts.read("weight").float().mul_(largest[:, None])).mul_(PER_STEP)

    def _numbers4(self, parts: Parts) -> torch.Tensor:
        state = self._state(parts)
        (n, k), size = state["shape"], state["blocksize"]
        packed = parts.entry("weight", "U8")
        if math.prod(packed.shape) != -(-n * k // 2):
            raise parts.wrong("weight", f"does not hold the {n} x {k} values of its state")
        largest = self._largest(parts, state, -(-n * k // size))
        table = parts.read("weight.quant_map", "F32", shape=(16,))
        found = torch.empty(n * k, dtype=DTYPES[state["dtype"]])
        codes, blocks = packed.read().view(-1), max(1, (1 << 20) // size)
        for start in range(0, largest.numel(), blocks):
            first, last = start * size, min((start + blocks) * size, n * k)
            data = codes[first // 2 : -(-last // 2)]
            both = torch.stack([data >> 4, data & 15], -1).view(-1)[: last - first]
            steps = largest[start : start + blocks].repeat_interleave(size)[: last - first]
            found[first:last] = (table[both.long()] * steps).to(found.dtype)
        return found.view(n, k)

    def _largest(self, parts: Parts, state: dict[str, Any], blocks: int) -> torch.Tensor:
        """float32 [blocks], the largest value of each."""
        if "weight.nested_absmax" not in parts:
            return parts.read("weight.absmax", "F32", shape=(blocks,))
        size = state["nested_blocksize"]
        codes = parts.read("weight.absmax", "U8", shape=(blocks,)).long()
        steps = parts.read("weight.nested_absmax", "F32", shape=(-(-blocks // size),))
        table = parts.read("weight.nested_quant_map", "F32", shape=(256,))
        return table[codes] * steps.repeat_interleave(size)[:blocks] + state["nested_offset"]

    def _state(self, parts: Parts) -> dict[str, Any]:
        """What the state says: shape, blocksize, dtype, of nested blocks too."""
        name = next((state for state in STATES if state in parts), STATES[0])
        entry = parts.entry(name, "U8", ndim=1)
        try:
            if entry.shape[0] > LONGEST:
                raise ValueError(f"{entry.shape[0]} bytes")
            state = json.loads(bytes(entry.read().tolist()))
            n, k = state["shape"]
            sizes = [n, k, state["blocksize"]]
            if "weight.nested_absmax" in parts:
                sizes.append(state["nested_blocksize"])
                state["nested_offset"] = torch.tensor(float(state["nested_offset"]))
            fits = all(type(size) is int and 0 < size < 1 << 31 for size in sizes)
            if not fits or state["dtype"] not in DTYPES or state["blocksize"] % 2:
                raise ValueError(str(state))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as e:
            raise parts.wrong(name, "does not say shape, blocksize and dtype") from e
        return state
