"""The greedy order as standard ONNX operators: a Scan over the places, so that it ends by its shapes.

A Loop would need a condition that a stranger's graph could make true for ever.
"""

import onnx
import onnx.parser

from ...contract import DOMAIN

_TEXT = f"""
<domain: "{DOMAIN}", opset_import: ["" : 24]>
GreedyOrder <keep> (distance, first, weight) => (order) {{
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    single_zero = Constant <value_int = 0> ()
    single_one = Constant <value_int = 1> ()
    unpicked = Constant <value_float = 0.0> ()
    lowest = Constant <value_float = -3.4e38> ()
    highest = Constant <value_float = 3.4e38> ()
    keep_number = Constant <value_int: int = @keep> ()
    keep_list = Reshape (keep_number, one)
    keep_float = Cast <to = 1> (keep_number)
    n = Shape <start = 1, end = 2> (first)
    n_number = Squeeze (n)
    place = Range (single_zero, n_number, single_one)
    places = Unsqueeze (place, zero)
    nothing = Sub (first, first)
    far = Add (nothing, highest)
    steps = Slice (place, zero, keep_list)
    order, last_value, last_nearest = Scan <
        num_scan_inputs = 1,
        body = pick (before, value, nearest, step) => (after, next_value, next_nearest) {{
            index = ArgMax <axis = 1, keepdims = 1> (value)
            picked = Equal (places, index)
            passed = Cast <to = 1> (step)
            rank = Sub (keep_float, passed)
            after = Where (picked, rank, before)
            row = GatherND <batch_dims = 1> (distance, index)
            next_nearest = Min (nearest, row)
            worth = Mul (weight, next_nearest)
            taken = Greater (after, unpicked)
            next_value = Where (taken, lowest, worth)
        }}
    > (nothing, first, far, steps)
}}
"""


class _Body:
    """Read as text: onnxscript has loops, and no Scan."""

    def to_function_proto(self) -> onnx.FunctionProto:
        """The function."""
        return onnx.parser.parse_function(_TEXT)


GreedyOrder = _Body()
