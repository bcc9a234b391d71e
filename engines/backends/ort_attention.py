"""Causal attention without the half that is masked, for ONNX Runtime on a CPU.

Its kernel computes all S x S scores of a prompt and masks half of them. In n blocks of queries, each
against the keys up to its own end, (n + 1) / 2n of them are computed, and every result is the same
to the last bit. Measured figures: docs/cpu.md.
"""

from typing import Any

DOMAIN = "luvc.cpu"
BLOCKS = 4
SHORTEST = 256
"""Tokens of a prompt from which on blocks pay."""


def causal_in_blocks(model: Any) -> int:
    """Let every causal attention over a whole prompt run in blocks; returns how many there are.

    Given: y = Attention(q, k, v, is_causal = 1)
    Result: y = CausalAttention(q, k, v), a function of the model
    """
    from onnx import helper, parser

    found = 0
    for node in model.graph.node:
        causal = any(a.name == "is_causal" and a.i for a in node.attribute)
        if node.op_type == "Attention" and causal and len([i for i in node.input if i]) == 3:
            found += 1
            node.op_type, node.domain = "CausalAttention", DOMAIN
            scale = [a for a in node.attribute if a.name == "scale"]
            del node.attribute[:]
            node.attribute.extend(scale)
    if found:
        opset = next(o.version for o in model.opset_import if not o.domain)
        model.functions.append(parser.parse_function(_function(opset)))
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return found


def _function(opset: int) -> str:
    """CausalAttention in ONNX's text form.

    q: [B, H_q, S, d]; k, v: [B, H_kv, S, d]; y like q. Block i holds the queries from S i / BLOCKS on;
    the keys before it are its past.
    """
    parts, joined = [], []
    for i in range(BLOCKS):
        start, end = f"e{i}", f"e{i + 1}"
        parts += [f"{x}{i} = Slice ({x}, {start}, {end}, axis)" for x in "qkv"]
        parts += [f"past_{x}{i} = Slice ({x}, e0, {start}, axis)" for x in "kv"] * (i > 0)
        past = f", , past_k{i}, past_v{i}" if i else ""
        made = f"y{i}, new_k{i}, new_v{i}" if i else "y0"
        parts.append(
            f"{made} = Attention <is_causal = 1, scale: float = @scale> (q{i}, k{i}, v{i}{past})"
        )
        joined.append(f"y{i}")
    edges = "\n".join(
        f"n{i} = Constant <value_ints = [{i}]> ()\n"
        f"s{i} = Mul (length, n{i})\n"
        f"e{i} = Div (s{i}, count)"
        for i in range(BLOCKS + 1)
    )
    return f"""
<domain: "{DOMAIN}", opset_import: ["" : {opset}]>
CausalAttention <scale> (q, k, v) => (y)
{{
    length = Shape <start = 2, end = 3> (q)
    shortest = Constant <value_ints = [{SHORTEST}]> ()
    axis = Constant <value_ints = [2]> ()
    count = Constant <value_ints = [{BLOCKS}]> ()
    {edges}
    is_long = GreaterOrEqual (length, shortest)
    y = If (is_long) <
        then_branch = blocks () => (y_blocks) {{
            {chr(10).join(parts)}
            y_blocks = Concat <axis = 2> ({", ".join(joined)})
        }},
        else_branch = whole () => (y_whole) {{
            y_whole = Attention <is_causal = 1, scale: float = @scale> (q, k, v)
        }}
    >
}}
"""
