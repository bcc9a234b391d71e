"""The gated delta rule as standard ONNX operators: a Scan over the tokens."""

import onnx
import onnx.parser

from ..contract import DOMAIN

_TEXT = f"""
<domain: "{DOMAIN}", opset_import: ["" : 24]>
GatedDelta <heads> (query, key, value, state, decay, share) => (output, after) {{
    heads_number = Constant <value_int: int = @heads> ()
    one = Constant <value_ints = [1]> ()
    heads_list = Reshape (heads_number, one)
    rest = Constant <value_ints = [-1]> ()
    kept = Constant <value_ints = [0, 0]> ()
    split = Concat <axis = 0> (kept, heads_list, rest)
    three = Constant <value_ints = [3]> ()
    last_two = Constant <value_ints = [3, 4]> ()
    q_heads = Reshape (query, split)
    k_heads = Reshape (key, split)
    v_heads = Reshape (value, split)
    q_tokens = Transpose <perm = [1, 0, 2, 3]> (q_heads)
    k_tokens = Transpose <perm = [1, 0, 2, 3]> (k_heads)
    v_tokens = Transpose <perm = [1, 0, 2, 3]> (v_heads)
    q_rows = Unsqueeze (q_tokens, three)
    k_rows = Unsqueeze (k_tokens, three)
    v_rows = Unsqueeze (v_tokens, three)
    factor = Exp (decay)
    factor_tokens = Transpose <perm = [1, 0, 2]> (factor)
    share_tokens = Transpose <perm = [1, 0, 2]> (share)
    factors = Unsqueeze (factor_tokens, last_two)
    shares = Unsqueeze (share_tokens, last_two)
    after, rows = Scan <
        num_scan_inputs = 5,
        body = token (before, q, k, v, f, s) => (next, row) {{
            faded = Mul (before, f)
            known = MatMul (k, faded)
            miss = Sub (v, known)
            change = Mul (miss, s)
            column = Transpose <perm = [0, 1, 3, 2]> (k)
            added = MatMul (column, change)
            next = Add (faded, added)
            row = MatMul (q, next)
        }}
    > (state, q_rows, k_rows, v_rows, factors, shares)
    by_row = Transpose <perm = [1, 0, 2, 3, 4]> (rows)
    flat = Constant <value_ints = [0, 0, -1]> ()
    output = Reshape (by_row, flat)
}}
"""


class _Body:
    """Read as text: onnxscript has loops, and no Scan."""

    def to_function_proto(self) -> onnx.FunctionProto:
        """The function."""
        return onnx.parser.parse_function(_TEXT)


GatedDelta = _Body()
