"""Work that torch.onnx.export repeats for nothing, left out: the same graphs, sooner.

For every graph it gathers all its translations anew (the torchlib registry), parsing the source of each for
the name of a domain that nobody reads, and infers all shapes a second time (type promotion). It has no option
against any of it, so what does it is replaced while luvc traces. With another PyTorch than that whose graphs
were compared the exporter runs as it is.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch

PROVEN = "2.13."
"""The PyTorch with which tests hold graphs against those without shortcuts, node for node."""

Shortcut = tuple[type, str, Any]
"""A class of the exporter's, a name in it, and what takes its place."""


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
        from torch.onnx._internal.exporter._registration import ONNXRegistry
        from torch.onnx._internal.fx.passes import type_promotion

        promoter = type_promotion._TypePromotionInterpreter
        return (
            (ONNXRegistry, "from_torchlib", staticmethod(read_once(ONNXRegistry.from_torchlib))),
            (TracedOnnxFunction, "function_ir", unparsed(TracedOnnxFunction.function_ir)),
            (promoter, "run_node", promoted(type_promotion.get_type_promotion_rule)),
        )
    except (ImportError, AttributeError):
        return ()


@contextlib.contextmanager
def _taken(shortcut: Shortcut) -> Iterator[None]:
    """Put it in place; one that is in place already, in another thread or further out, is left there."""
    owner, name, ours = shortcut
    before = vars(owner)[name]
    if before is ours:
        yield
        return
    setattr(owner, name, ours)
    try:
        yield
    finally:
        setattr(owner, name, before)


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
