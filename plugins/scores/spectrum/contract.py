"""The contract of the spectrum score, an ideal low-pass along the tokens. Letters: ../../contract.py."""

import math

from ...contract import ENERGIES, FLOATS, VISUAL_INDEX, Operator, Tensor

SCORE = Operator(
    name="SpectrumScore",
    folder=__name__.removesuffix(".contract"),
    # cutoff: highest frequency bin kept, 0 <= cutoff <= (V / groups) / 2
    # groups: equal runs of V scored apart (1 = all visual tokens together)
    attributes=("cutoff", "groups"),
    inputs=(
        Tensor("signal", ("B", "S", "D"), FLOATS),
        VISUAL_INDEX,  # positions of the visual tokens in the sequence, ascending
        # row n = (cos, sin) of 2 pi n / (V / groups)
        Tensor("twiddle", ("V/groups", "2"), ("float32",)),
    ),
    outputs=(ENERGIES,),  # their sum over C is the score of each visual token
)


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
