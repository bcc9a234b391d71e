"""The contract of the operators that every score shares: select and gather. Letters: ../contract.py."""

from ..contract import ENERGIES, FLOATS, VISUAL_INDEX, Operator, Tensor

_POSITIONS = Tensor("positions", ("B", "S", "P"), ("int64",))
_KEEP_INDEX = Tensor("keep_index", ("B", "S-V+k"), ("int64",))

SELECT = Operator(
    name="SpectrumSelect",
    folder=__name__.removesuffix(".contract"),
    # keep: visual tokens kept of all V; groups: each group keeps keep / groups of its own
    attributes=("keep", "groups"),
    inputs=(ENERGIES, VISUAL_INDEX, _POSITIONS),  # of positions only the length S is read
    outputs=(
        _KEEP_INDEX,  # surviving positions of the whole sequence, ascending
        Tensor("next_visual_index", ("B", "k"), ("int64",)),  # in the shortened sequence
        Tensor("kept", ("B", "k"), ("int64",)),  # ordinals 0 .. V-1 that survived, ascending
    ),
)

GATHER = Operator(
    name="GatherTokens",
    folder=__name__.removesuffix(".contract"),
    attributes=(),
    inputs=(Tensor("hidden", ("B", "S", "D"), FLOATS), _POSITIONS, _KEEP_INDEX),
    outputs=(
        Tensor("hidden_kept", ("B", "S-V+k", "D"), FLOATS),
        Tensor("positions_kept", ("B", "S-V+k", "P"), ("int64",)),
    ),
)
