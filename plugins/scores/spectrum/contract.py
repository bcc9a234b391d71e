"""The contract of the spectrum score: a band of frequencies along the tokens. Letters: ../../contract.py."""

import math

from ...contract import ENERGIES, FLOATS, VISUAL_INDEX, Operator, Tensor

BANDS = ("low", "high")
"""What is scored: the low-pass of each token, or what it takes away. Their numbers are the attribute's."""

SCORE = Operator(
    name="SpectrumScore",
    folder=__name__.removesuffix(".contract"),
    # cutoff: highest frequency bin of the low-pass, 0 <= cutoff <= (V / groups) / 2
    # groups: equal runs of V scored apart (1 = all visual tokens together)
    # band: 0 = the low-pass, 1 = the token less its low-pass; index of BANDS
    attributes=("cutoff", "groups", "band"),
    optional=("band",),
    inputs=(
        Tensor("signal", ("B", "S", "D"), FLOATS),
        VISUAL_INDEX,  # positions of the visual tokens in the sequence, ascending
        # row n = (cos, sin) of 2 pi n / (V / groups)
        Tensor("twiddle", ("V/groups", "2"), ("float32",)),
    ),
    outputs=(ENERGIES,),  # their sum over C is the score of each visual token
)


def cutoff_bin(cutoff: float, tokens: int) -> int:
    """Highest frequency bin of the low-pass, floor(cutoff * tokens / 2).

    Args:
        cutoff: share of the spectrum that passes, 0 to 1 (rho in the design; 0 is the mean, 1 every bin).
        tokens: length of the transformed axis, V / groups.
    """
    return math.floor(round(cutoff * tokens / 2, 9))  # 0.29 * 200 / 2 is 29, not 28.999...


def filters(band: str, cutoff: int, tokens: int) -> bool:
    """Whether the score differs from the energy of the tokens as they are.

    It does not where band "low" has all the bins of `tokens`.
    """
    return band != "low" or 2 * cutoff + 1 < tokens
