"""The contract of the gated delta rule. Letters: B rows, T tokens, H heads, d key size, e value size."""

from ..contract import Operator, Tensor

DELTA = Operator(
    name="GatedDelta",
    folder=__name__.removesuffix(".contract"),
    attributes=("heads",),  # H
    inputs=(
        Tensor("query", ("B", "T", "Hd"), ("float32",)),
        Tensor("key", ("B", "T", "Hd"), ("float32",)),
        Tensor("value", ("B", "T", "He"), ("float32",)),
        Tensor("state", ("B", "H", "d", "e"), ("float32",)),
        # of each token: the state fades by exp(decay) before it, and is corrected by its share of the miss
        Tensor("decay", ("B", "T", "H"), ("float32",)),
        Tensor("share", ("B", "T", "H"), ("float32",)),
    ),
    outputs=(
        Tensor("output", ("B", "T", "He"), ("float32",)),
        Tensor("after", ("B", "H", "d", "e"), ("float32",)),
    ),
)
