"""The greedy order as standard ONNX operators: a Scan over the places, so that it ends by its shapes.

A Loop would need a condition that a stranger's graph could make true for ever.
"""

import onnx
import onnx.parser

from ...contract import DOMAIN

_CONSTANTS = """
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    single_zero = Constant <value_int = 0> ()
    single_one = Constant <value_int = 1> ()
    unpicked = Constant <value_float = 0.0> ()
    lowest = Constant <value_float = -3.4e38> ()
    keep_number = Constant <value_int: int = @keep> ()
    keep_list = Reshape (keep_number, one)
    keep_float = Cast <to = 1> (keep_number)
    n_number = Squeeze (n)
    place = Range (single_zero, n_number, single_one)
    places = Unsqueeze (place, zero)
    steps = Slice (place, zero, keep_list)
"""
_PICK = """
            picked = Equal (places, index)
            passed = Cast <to = 1> (step)
            rank = Sub (keep_float, passed)
            after = Where (picked, rank, before)
            taken = Greater (after, unpicked)
"""
_ORDER = f"""
<domain: "{DOMAIN}", opset_import: ["" : 24]>
GreedyOrder <keep> (distance, first, weight) => (order) {{
    n = Shape <start = 1, end = 2> (first)
    {_CONSTANTS}
    highest = Constant <value_float = 3.4e38> ()
    nothing = Sub (first, first)
    far = Add (nothing, highest)
    order, last_value, last_nearest = Scan <
        num_scan_inputs = 1,
        body = pick (before, value, nearest, step) => (after, next_value, next_nearest) {{
            index = ArgMax <axis = 1, keepdims = 1> (value)
            {_PICK}
            row = GatherND <batch_dims = 1> (distance, index)
            next_nearest = Min (nearest, row)
            worth = Mul (weight, next_nearest)
            next_value = Where (taken, lowest, worth)
        }}
    > (nothing, first, far, steps)
}}
"""
_COVER = f"""
<domain: "{DOMAIN}", opset_import: ["" : 24]>
CoverOrder <keep> (cover) => (order) {{
    n = Shape <start = 1, end = 2> (cover)
    {_CONSTANTS}
    by_token = Transpose <perm = [0, 2, 1]> (cover)
    sums = ReduceSum <keepdims = 0> (cover, one)
    nothing = Sub (sums, sums)
    two = Constant <value_ints = [2]> ()
    order, last_gain, last_covered = Scan <
        num_scan_inputs = 1,
        body = pick (before, gain, covered, step) => (after, next_gain, next_covered) {{
            index = ArgMax <axis = 1, keepdims = 1> (gain)
            {_PICK}
            column = GatherND <batch_dims = 1> (by_token, index)
            next_covered = Max (covered, column)
            base = Unsqueeze (next_covered, two)
            more = Sub (cover, base)
            added = Relu (more)
            worth = ReduceSum <keepdims = 0> (added, one)
            next_gain = Where (taken, lowest, worth)
        }}
    > (nothing, sums, nothing, steps)
}}
"""


class _Body:
    """Read as text: onnxscript has loops, and no Scan."""

    def __init__(self, text: str):
        self.text = text

    def to_function_proto(self) -> onnx.FunctionProto:
        """The function."""
        return onnx.parser.parse_function(self.text)


GreedyOrder = _Body(_ORDER)
CoverOrder = _Body(_COVER)
