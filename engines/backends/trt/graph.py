"""What is checked in a bundle's graph before a TensorRT parser sees it, and the sizes it is built for.

Beyond what bundle/graph_file.py checks for every runtime: TensorRT-RTX ends the process when a node
creates a plugin, so that is refused here. Letters: B batch, S prompt length, T new tokens, V visual tokens,
V_l those entering a stage, k kept, N tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ....errors import LuvcError
from ....plugins.contract import DOMAIN
from ....plugins.tokens.contract import SELECT
from ...bundle.graph_file import STANDARD
from ...bundle.layout import Layout
from ...bundle.manifest import Manifest, Range

if TYPE_CHECKING:
    import onnx  # late: what runs engines need not have it

SINGLE_QUERY_HEADS = 4  # fewest of TensorRT-RTX 1.7.1's attention kernel for one query
CREATOR_VERSION = "1"  # what the parser looks for when a node names no plugin_version
Profile = dict[str, Range]


def check_operators(model: onnx.ModelProto, graph: str, registry: Any, plugins: bool) -> None:
    """Refuse nodes that the parser could not, or must not, make plugins of.

    Args:
        model: the graph.
        graph: its name, for messages.
        registry: the library's plugin registry.
        plugins: whether the library takes plugins.

    Raises:
        LuvcError: an operator is unknown, or would create a plugin in a library that takes none.
    """
    functions = {(f.domain, f.name) for f in model.functions}
    bodies = [node for function in model.functions for node in function.node]
    for node in (*model.graph.node, *bodies):
        where = (
            f"{graph}: node {node.name or '(unnamed)'} ({node.domain or 'ai.onnx'}::{node.op_type})"
        )
        registered = _creator(registry, node) is not None
        if registered and not plugins:
            raise LuvcError(
                f"{where}: a plugin of this name is registered in the process, and TensorRT-RTX ends "
                "the process when it creates one; build in a process that loads no plugin library"
            )
        known = node.domain in STANDARD or (node.domain, node.op_type) in functions
        if not known and not registered:
            raise LuvcError(
                f"{where}: no plugin is registered for it and the file holds no function body; "
                "register the plugin (--plugin-form), or export the bundle again"
            )


def _creator(registry: Any, node: onnx.NodeProto) -> Any:
    """The plugin creator the parser would find for a node, or None."""
    import onnx

    texts = {a.name: a.s.decode() for a in node.attribute if a.type == onnx.AttributeProto.STRING}
    version = texts.get("plugin_version", CREATOR_VERSION)
    spaces = {texts.get("plugin_namespace", ""), node.domain, ""}
    found = (registry.get_creator(node.op_type, version, space) for space in sorted(spaces))
    return next((creator for creator in found if creator is not None), None)


def check_stages(model: onnx.ModelProto, graph: str, layout: Layout) -> None:
    """Hold every stage's counts to the layout: 1 <= k <= V_l, so that no index leaves its tensor.

    Raises:
        LuvcError: no visual tokens, or a stage keeps none or more than enter it.
    """
    entering = layout.visual_tokens
    if layout.images and entering < 1:
        raise LuvcError(f"{graph}: layout {layout.name} has V = 0 visual tokens; export it again")
    for node in model.graph.node:
        if (node.domain, node.op_type) != (DOMAIN, SELECT.name):
            continue
        keep = next((a.i for a in node.attribute if a.name == "keep"), 0)
        if not 1 <= keep <= entering:
            raise LuvcError(
                f"{graph}: node {node.name} keeps {keep} of {entering} visual tokens; it must keep "
                "1 or more and not more than enter it: export the bundle again"
            )
        entering = keep


def query_heads(model: onnx.ModelProto) -> int:
    """Fewest query heads [B, H, T, d] of the graph's attention nodes; 0 without any."""
    known = {value.name: value.type.tensor_type.shape.dim for value in model.graph.value_info}
    queries = [n.input[0] for n in model.graph.node if n.op_type == "Attention"]
    return min((known[q][1].dim_value for q in queries if len(known.get(q, ())) == 4), default=0)


def profiles(
    manifest: Manifest, layout: Layout, graph: str, batch: Range, heads: int
) -> tuple[Profile, ...]:
    """Sizes to build a graph for, by dimension symbol; one profile each.

    The step graph has two profiles: attention over one new token and over several are different
    kernels, and the first is only there when a profile allows nothing else than T = 1. A model of
    fewer than SINGLE_QUERY_HEADS has no such kernel, so its first profile allows two tokens.

    Args:
        manifest: of the bundle.
        layout: of the graph.
        graph: path of the graph.
        batch: fewest, usual and most conversations in a batch.
        heads: query heads of the graph.
    """
    V, capacity = layout.visual_tokens, manifest.text_capacity
    usual = min(max(manifest.reference_text, 2), capacity)
    if graph == layout.graphs.vision:
        return ({"N": _scaled(batch, layout.pixel_shape[0] * layout.images)},)
    if graph == layout.graphs.prefill:
        return ({"B": batch, "S": (V + 2, V + usual, V + capacity)},)
    one = (1, 1, 1) if heads >= SINGLE_QUERY_HEADS else (1, 1, 2)
    return {"B": batch, "T": one}, {"B": batch, "T": (2, usual, capacity)}


def _scaled(batch: Range, factor: int) -> Range:
    low, usual, high = batch
    return low * factor, usual * factor, high * factor


def input_shapes(model: onnx.ModelProto, profile: Profile, graph: str) -> dict[str, list[tuple]]:
    """Minimum, optimum and maximum shape of every input that has a dynamic dimension.

    Raises:
        LuvcError: a dimension has a symbol that the profile does not know.
    """
    shapes = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        symbols = {d.dim_param for d in dims if not d.HasField("dim_value")}
        if not symbols:
            continue
        if not symbols <= profile.keys():
            raise LuvcError(
                f"{graph}: input {value.name} varies in {', '.join(sorted(symbols - profile.keys()))}; "
                f"only {', '.join(profile)} may vary: export the bundle again"
            )
        shapes[value.name] = [
            tuple(profile[d.dim_param][i] if d.dim_param in symbols else d.dim_value for d in dims)
            for i in range(3)
        ]
    return shapes
