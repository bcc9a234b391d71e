"""The contracts of the two greedy orders. Letters: ../../contract.py; G runs of n tokens."""

from ...contract import Operator, Tensor

_ORDER = Tensor(
    "order", ("G", "n"), ("float32",)
)  # keep, keep - 1, ... 1 as picked; 0 for the rest

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

COVER = Operator(
    name="CoverOrder",
    folder=__name__.removesuffix(".contract"),
    attributes=("keep",),
    # how well a token (third axis) covers another one (second axis), 0 or more; always the token is picked
    # that adds most to what is covered, each counted by the best one picked
    inputs=(Tensor("cover", ("G", "n", "n"), ("float32",)),),
    outputs=(_ORDER,),
)
