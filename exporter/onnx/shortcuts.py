"""Work that torch.onnx.export repeats, or does for what no graph keeps, left out: the same graphs, sooner.

For every graph it gathers all its translations anew (the torchlib registry), parsing the source of each for
the name of a domain that nobody reads, infers all shapes a second time (type promotion), and looks up which
lines of Python made each node. An option is there against the last alone, so what does the others is replaced
while luvc traces. With another PyTorch than that whose graphs were compared all runs as it is.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch

PROVEN = "2.13."
"""The PyTorch with which tests hold graphs against those without shortcuts, node for node."""


class Shortcut(NamedTuple):
    """A class or module of the exporter's, a name in it, and what takes its place."""

    owner: Any
    name: str
    ours: Any


@contextlib.contextmanager
def shortcuts() -> Iterator[None]:
    """Take the shortcuts that this PyTorch allows."""
    with contextlib.ExitStack() as stack:
        for shortcut in allowed():
            stack.enter_context(_taken(shortcut))
        yield


@cache
def allowed() -> tuple[Shortcut, ...]:
    """All of them, or none with a PyTorch that they were not proven with or that has other internals."""
    if not torch.__version__.startswith(PROVEN):
        return ()
    try:
        from onnxscript import TracedOnnxFunction
        from torch.fx import config
        from torch.onnx._internal.exporter._registration import ONNXRegistry
        from torch.onnx._internal.fx.passes import type_promotion

        promoter = type_promotion._TypePromotionInterpreter
        reader = staticmethod(read_once(ONNXRegistry.from_torchlib))
        found = (
            Shortcut(ONNXRegistry, "from_torchlib", reader),
            Shortcut(TracedOnnxFunction, "function_ir", unparsed(TracedOnnxFunction.function_ir)),
            Shortcut(promoter, "run_node", promoted(type_promotion.get_type_promotion_rule)),
            Shortcut(config, "do_not_emit_stack_traces", True),
        )
    except (ImportError, AttributeError):
        return ()
    return found if all(x.name in vars(x.owner) for x in found) else ()


@contextlib.contextmanager
def _taken(shortcut: Shortcut) -> Iterator[None]:
    """Put it in place; one that is in place already, in another thread or further out, is left there."""
    before = vars(shortcut.owner)[shortcut.name]
    if before is shortcut.ours:
        yield
        return
    setattr(shortcut.owner, shortcut.name, shortcut.ours)
    try:
        yield
    finally:
        setattr(shortcut.owner, shortcut.name, before)


def read_once(read: Callable[..., Any]) -> Callable[..., Any]:
    """A reader of translations that reads them once a process, for each opset.

    Args:
        read: gives a new registry; each caller gets a copy, to which an export adds translations.
    """
    kept = cache(read)

    def copied(**asked: Any) -> Any:
        registry = kept(**asked)
        if set(vars(registry)) != {"_opset_version", "functions"}:  # a copy might share more
            return read(**asked)
        found = copy.copy(registry)
        found.functions = {name: [*known] for name, known in registry.functions.items()}
        return found

    return copied


def unparsed(parsed: property) -> property:
    """What a translation's source says of it, parsed only where more than its domain is asked for.

    Args:
        parsed: parses the source.
    """

    class Parsed:
        def __init__(self, function: Any):
            self.function = function
            self.domain = function._opset.domain

        def __getattr__(self, name: str) -> Any:
            return getattr(parsed.__get__(self.function), name)

    return property(Parsed)


def promoted(rule_of: Callable[..., Any]) -> Callable[..., Any]:
    """The type promotion of a node, which then is what tracing said it is and is not inferred again.

    Args:
        rule_of: gives PyTorch's rule for a node, or None. Where it changes the node, PyTorch infers it and
            what it put beside it.
    """

    def run_node(self: Any, node: torch.fx.Node) -> Any:
        if rule := rule_of(node, self.type_promotion_table):
            with self._set_current_node(node):
                self._maybe_promote_node(node, rule)
        if node.op == "call_function" and "val" in node.meta:
            return node.meta["val"]
        return torch.fx.Interpreter.run_node(self, node)

    return run_node
