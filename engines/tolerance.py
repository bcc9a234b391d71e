"""How far a backend may be from PyTorch, for each precision."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """What passes, for one dtype.

    Attributes:
        error: largest absolute error / scale of the stage.
        cosine: least cosine similarity.
        norm: largest |norm ratio - 1|.
        overlap: least share of kept tokens in common, ties aside.
        tie: scores that are nearer to the k-th than this share of its size (or of the median size) tie.
        tokens: greedy tokens compared; all must be equal, unless logits tie.
        logit_tie: two logits within this share of their scale are a tie.
    """

    error: float
    cosine: float
    norm: float
    overlap: float
    tie: float
    logit_tie: float
    tokens: int = 32


TOLERANCES = {
    "float32": Tolerance(
        error=1e-4, cosine=0.99999, norm=1e-4, overlap=1.0, tie=1e-4, logit_tie=1e-4
    ),
    "float16": Tolerance(
        error=5e-2, cosine=0.999, norm=1e-2, overlap=0.99, tie=2e-2, logit_tie=2e-2
    ),
    # 8 bits of mantissa against 11: not measured yet, no backend without a GPU runs it
    "bfloat16": Tolerance(
        error=2e-1, cosine=0.99, norm=5e-2, overlap=0.95, tie=1e-1, logit_tie=1e-1
    ),
}

ROUNDED = TOLERANCES["bfloat16"]
"""Of kernels that round activations to 8 bits: as many as bfloat16's mantissa has."""
