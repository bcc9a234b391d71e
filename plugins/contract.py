"""What an operator is, as data: every form of it is held to the contract in its folder's contract.py.

The forms (torch reference, ONNX function body, TensorRT plugin, CUDA kernel) have the names,
attributes, inputs and outputs given there. Letters: B batch rows, S sequence length, V visual tokens
entering the stage, k visual tokens kept, D hidden size, P position components (1, or 3 for M-RoPE), C
partial sums (implementation-defined: 1 in the ONNX body, thread blocks in the kernel).

One stage is three calls, of which only the first knows how tokens are scored:
    energies = SpectrumScore(signal, visual_index, twiddle)
    keep_index, visual_index, kept = SpectrumSelect(energies, visual_index, positions)
    hidden, positions = GatherTokens(hidden, positions, keep_index)
"""

import importlib
import re
from dataclasses import dataclass
from types import ModuleType

DOMAIN = "luvc"
VERSION = 1

FLOATS = ("float16", "bfloat16", "float32")


@dataclass(frozen=True)
class Tensor:
    """One input or output: its name, shape letters and allowed element types."""

    name: str
    shape: tuple[str, ...]
    dtypes: tuple[str, ...]


@dataclass(frozen=True)
class Operator:
    """One operator: its name, folder, integer attributes in their fixed order, inputs and outputs.

    The order of `attributes` is part of the contract: TensorRT's ahead-of-time plugins receive
    attributes by position, so every node and every function lists all of them in this order.

    Attributes:
        folder: package with the operator's forms, each a module of the same name everywhere:
            reference, onnx_body, launch, cuda and tensorrt.
        optional: the last attributes, where graphs of earlier versions lack them; 0 there.
    """

    name: str
    folder: str
    attributes: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    optional: tuple[str, ...] = ()

    @property
    def function(self) -> str:
        """Its name as a function of torch: SpectrumScore is spectrum_score."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", self.name).lower()

    def form(self, name: str) -> ModuleType:
        """A module of its folder, imported when it is asked for: each form needs another library."""
        return importlib.import_module(f"{self.folder}.{name}")


VISUAL_INDEX = Tensor("visual_index", ("B", "V"), ("int64",))
ENERGIES = Tensor("energies", ("B", "C", "V"), ("float32",))
