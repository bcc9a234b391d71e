"""Attention as ONNX Runtime computes it fastest on a CPU; measured figures: docs/cpu.md.

Causal: the kernel of the standard node computes all S x S scores of a prompt and masks half of them. In
n blocks of queries, each against the keys up to its own end, (n + 1) / 2n of them are computed, and
every result is the same to the last bit.

Both ways (vision towers): com.microsoft's MultiHeadAttention never writes the scores to memory.

Steps: the kernel multiplies each query head alone and so reads its keys and values once for each. Heads that
share keys and values become queries of one head, read once.
"""

from typing import Any

import numpy as np

DOMAIN, CONTRIB = "luvc.cpu", "com.microsoft"
FLOAT = 1  # TensorProto.FLOAT: MultiHeadAttention runs nothing else on a CPU
SCATTER = "TensorScatter"
BLOCKS = 4
SHORTEST = 256
"""Tokens of a prompt from which on blocks pay."""


def fuse_attention(model: Any) -> dict[str, int]:
    """Replace every Attention(q, k, v) without a mask; returns how many of each kind.

    Given: y = Attention(q, k, v), is_causal = 1 or not
    Result: y = CausalAttention(q, k, v) or y = FullAttention(q, k, v), functions of the model
    """
    values = [*model.graph.input, *model.graph.value_info]
    heads = {v.name: _heads(v) for v in values if len(v.type.tensor_type.shape.dim) == 4}
    counts = {"CausalAttention": 0, "FullAttention": 0}
    for node in model.graph.node:
        kind = _kind(node, heads)
        if kind is not None:
            counts[kind] += 1
            _replace(node, kind, heads)
    if any(counts.values()):
        _declare(model, [kind for kind, count in counts.items() if count])
    return counts


def group_queries(model: Any, threads: int = 1) -> int:
    """Let the query heads of a key head be queries of one head, where keys are a cache's; returns how many.

    Given: y = Attention(q [B, G H, T, d], k [B, H, C, d], v, mask [B, 1, T, C]), k = TensorScatter(...)
    Result: y [B, H, G T, d] = Attention(q [B, H, G T, d], k, v, mask [B, 1, G T, C]), as [B, G H, T, d]

    Args:
        model: changed in place.
        threads: of a session; where they are more than H, the kernel needs all heads to keep them busy.
    """
    from onnx import helper, numpy_helper

    cached = {n.output[0] for n in model.graph.node if n.op_type == SCATTER}
    shapes, count = shapes_of(model), 0
    nodes: list[Any] = []
    masks: set[str] = set()
    for node in model.graph.node:
        groups = _groups(node, shapes, threads) if cached.intersection(node.input) else 1
        if groups == 1:
            nodes.append(node)
            continue
        (q, k, _, mask), (y,) = node.input, node.output
        for name, heads in ((f"{y}.heads", shapes[k][1]), (f"{y}.queries", shapes[q][1])):
            sizes = np.array([0, heads, -1, shapes[q][3]])
            model.graph.initializer.append(numpy_helper.from_array(sizes, name))
        if mask not in masks:
            nodes.append(helper.make_node("Concat", [mask] * groups, [f"{mask}.grouped"], axis=2))
            masks.add(mask)
        nodes.append(helper.make_node("Reshape", [q, f"{y}.heads"], [f"{y}.query"]))
        node.input[0], node.input[3] = f"{y}.query", f"{mask}.grouped"
        node.output[0] = f"{y}.grouped"
        nodes += [node, helper.make_node("Reshape", [f"{y}.grouped", f"{y}.queries"], [y])]
        count += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return count


def _groups(node: Any, shapes: dict[str, list[Any]], threads: int) -> int:
    """Query heads of each key head that one product can take together; 1 where they stay."""
    if node.op_type != "Attention" or len(node.input) != 4 or len(node.output) != 1:
        return 1
    q, k, mask = (shapes.get(node.input[i], []) for i in (0, 1, 3))
    if shapes.get(node.input[2]) != k or not len(q) == len(k) == len(mask) == 4:
        return 1
    if (
        mask[1] != 1
        or mask[2] != q[2]
        or any(a.name == "is_causal" and a.i for a in node.attribute)
    ):
        return 1
    sizes = q[1], k[1], q[3]
    if not all(isinstance(n, int) for n in sizes) or k[1] < threads:
        return 1
    return q[1] // k[1]


def shapes_of(model: Any) -> dict[str, list[Any]]:
    """Sizes of the values that a graph tells, by name: numbers, or symbols."""
    graph = model.graph
    tensors = (
        (v.name, v.type.tensor_type) for v in (*graph.input, *graph.value_info, *graph.output)
    )
    return {
        name: [d.dim_value or d.dim_param for d in tensor.shape.dim] for name, tensor in tensors
    }


def _heads(value: Any) -> int:
    """H of a float32 [B, H, S, d]; 0 of other types, or if the graph does not tell."""
    tensor = value.type.tensor_type
    return tensor.shape.dim[1].dim_value if tensor.elem_type == FLOAT else 0


def _kind(node: Any, heads: dict[str, int]) -> str | None:
    """The function that does the node's work, None for nodes that stay."""
    if node.op_type != "Attention" or len([name for name in node.input if name]) != 3:
        return None
    if any(a.name == "is_causal" and a.i for a in node.attribute):
        return "CausalAttention"
    q, k = node.input[:2]
    return "FullAttention" if heads.get(q) and heads.get(q) == heads.get(k) else None


def _replace(node: Any, kind: str, heads: dict[str, int]) -> None:
    """Make a node a call of the function."""
    from onnx import helper

    kept = [a for a in node.attribute if a.name == "scale"]
    if kind == "FullAttention":
        kept.append(helper.make_attribute("heads", heads[node.input[0]]))
    node.op_type, node.domain = kind, DOMAIN
    del node.attribute[:]
    node.attribute.extend(kept)


def _declare(model: Any, kinds: list[str]) -> None:
    """Add the functions and their domains to the model."""
    from onnx import helper, parser

    have = {o.domain: o.version for o in model.opset_import}
    head = f'<domain: "{DOMAIN}", opset_import: ["" : {have[""]}, "{CONTRIB}" : 1]>\n'
    for kind in kinds:
        text = _causal() if kind == "CausalAttention" else FULL
        model.functions.append(parser.parse_function(head + text))
    new = [domain for domain in (DOMAIN, CONTRIB) if domain not in have]
    model.opset_import.extend(helper.make_opsetid(domain, 1) for domain in new)


FULL = """
FullAttention <heads, scale> (q, k, v) => (y)
{
    flat = Constant <value_ints = [0, 0, -1]> ()
    q_rows = Transpose <perm = [0, 2, 1, 3]> (q)
    k_rows = Transpose <perm = [0, 2, 1, 3]> (k)
    v_rows = Transpose <perm = [0, 2, 1, 3]> (v)
    q_flat = Reshape (q_rows, flat)
    k_flat = Reshape (k_rows, flat)
    v_flat = Reshape (v_rows, flat)
    y_flat = com.microsoft.MultiHeadAttention <num_heads: int = @heads, scale: float = @scale>
        (q_flat, k_flat, v_flat)
    shape = Shape (q_rows)
    y_rows = Reshape (y_flat, shape)
    y = Transpose <perm = [0, 2, 1, 3]> (y_rows)
}
"""
"""q, k, v, y: [B, H, S, d]."""


def _causal() -> str:
    """CausalAttention in ONNX's text form.

    q, y: [B, H_q, S, d]; k, v: [B, H_kv, S, d]. Block i holds the queries from S i / BLOCKS on; the keys
    before it are its past.
    """
    attend = "Attention <is_causal = 1, scale: float = @scale>"
    edges: list[str] = []
    blocks: list[str] = []
    joined: list[str] = []
    for i in range(BLOCKS + 1):
        edges.append(f"n{i} = Constant <value_ints = [{i}]> ()")
        edges.append(f"s{i} = Mul (length, n{i})")
        edges.append(f"e{i} = Div (s{i}, count)")
    for i in range(BLOCKS):
        blocks += [f"{x}{i} = Slice ({x}, e{i}, e{i + 1}, axis)" for x in "qkv"]
        if i:
            blocks += [f"past_{x}{i} = Slice ({x}, e0, e{i}, axis)" for x in "kv"]
            past = f"q{i}, k{i}, v{i}, , past_k{i}, past_v{i}"
            blocks.append(f"y{i}, new_k{i}, new_v{i} = {attend} ({past})")
        else:
            blocks.append(f"y0 = {attend} (q0, k0, v0)")
        joined.append(f"y{i}")
    lines = "\n".join
    return f"""
CausalAttention <scale> (q, k, v) => (y)
{{
    length = Shape <start = 2, end = 3> (q)
    shortest = Constant <value_ints = [{SHORTEST}]> ()
    axis = Constant <value_ints = [2]> ()
    count = Constant <value_ints = [{BLOCKS}]> ()
    {lines(edges)}
    is_long = GreaterOrEqual (length, shortest)
    y = If (is_long) <
        then_branch = in_blocks () => (y_blocks) {{
            {lines(blocks)}
            y_blocks = Concat <axis = 2> ({", ".join(joined)})
        }},
        else_branch = whole () => (y_whole) {{ y_whole = {attend} (q, k, v) }}
    >
}}
"""
