"""The contract of the SPU operators, written once as data.

Every form of an operator (torch reference, ONNX function body, TensorRT plugin, CUDA kernel) has the
names, attributes, inputs and outputs given here. Letters: B batch rows, S sequence length, V visual
tokens entering the stage, k visual tokens kept, D hidden size, P position components (1, or 3 for
M-RoPE), C partial sums (implementation-defined: 1 in the ONNX body, thread blocks in the kernel).

One stage is three calls:
    energies = SpectrumScore(signal, visual_index, twiddle)
    keep_index, visual_index, kept = SpectrumSelect(energies, visual_index, positions)
    hidden, positions = GatherTokens(hidden, positions, keep_index)
"""

import math
from dataclasses import dataclass

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
    """One operator: its name, integer attributes in their fixed order, inputs and outputs.

    The order of `attributes` is part of the contract: TensorRT's ahead-of-time plugins receive
    attributes by position, so every node and every function lists all of them in this order.
    """

    name: str
    attributes: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


_VISUAL_INDEX = Tensor("visual_index", ("B", "V"), ("int64",))
_POSITIONS = Tensor("positions", ("B", "S", "P"), ("int64",))
_ENERGIES = Tensor("energies", ("B", "C", "V"), ("float32",))
_KEEP_INDEX = Tensor("keep_index", ("B", "S-V+k"), ("int64",))

SCORE = Operator(
    name="SpectrumScore",
    # cutoff: highest frequency bin kept, 0 <= cutoff <= (V / groups) / 2
    # groups: equal runs of V scored apart (1 = all visual tokens together)
    attributes=("cutoff", "groups"),
    inputs=(
        Tensor("signal", ("B", "S", "D"), FLOATS),
        _VISUAL_INDEX,  # positions of the visual tokens in the sequence, ascending
        # row n = (cos, sin) of 2 pi n / (V / groups)
        Tensor("twiddle", ("V/groups", "2"), ("float32",)),
    ),
    outputs=(_ENERGIES,),  # their sum over C is the score of each visual token
)

SELECT = Operator(
    name="SpectrumSelect",
    # keep: visual tokens kept of all V; groups: each group keeps keep / groups of its own
    attributes=("keep", "groups"),
    inputs=(_ENERGIES, _VISUAL_INDEX, _POSITIONS),  # of positions only the length S is read
    outputs=(
        _KEEP_INDEX,  # surviving positions of the whole sequence, ascending
        Tensor("next_visual_index", ("B", "k"), ("int64",)),  # in the shortened sequence
        Tensor("kept", ("B", "k"), ("int64",)),  # ordinals 0 .. V-1 that survived, ascending
    ),
)

GATHER = Operator(
    name="GatherTokens",
    attributes=(),
    inputs=(Tensor("hidden", ("B", "S", "D"), FLOATS), _POSITIONS, _KEEP_INDEX),
    outputs=(
        Tensor("hidden_kept", ("B", "S-V+k", "D"), FLOATS),
        Tensor("positions_kept", ("B", "S-V+k", "P"), ("int64",)),
    ),
)

OPERATORS = (SCORE, SELECT, GATHER)


def cutoff_bin(cutoff: float, tokens: int) -> int:
    """Highest frequency bin kept, floor(cutoff * tokens / 2).

    Args:
        cutoff: share of the spectrum kept, 0 to 1 (rho in the design; 1 keeps every bin).
        tokens: length of the transformed axis, V / groups.
    """
    return math.floor(round(cutoff * tokens / 2, 9))  # 0.29 * 200 / 2 is 29, not 28.999...


def keeps_all(cutoff: int, tokens: int) -> bool:
    """Whether bins up to `cutoff` are all that `tokens` have, so that the low-pass changes nothing."""
    return 2 * cutoff + 1 >= tokens
