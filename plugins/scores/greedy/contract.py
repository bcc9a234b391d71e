"""The contract of the greedy order. Letters: ../../contract.py; G runs of n tokens."""

from ...contract import Operator, Tensor

ORDER = Operator(
    name="GreedyOrder",
    folder=__name__.removesuffix(".contract"),
    attributes=("keep",),  # tokens picked of each run, 1 <= keep <= n
    inputs=(
        Tensor("distance", ("G", "n", "n"), ("float32",)),
        Tensor("first", ("G", "n"), ("float32",)),  # the highest is picked first
        # then the highest product of its weight and its distance from the nearest one picked
        Tensor("weight", ("G", "n"), ("float32",)),
    ),
    outputs=(
        Tensor("order", ("G", "n"), ("float32",)),
    ),  # keep, keep - 1, ... 1 as picked; 0 for the rest
)
