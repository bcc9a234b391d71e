"""From a graph module to an ONNX file: trace, passes, function bodies, shared external weights."""

import contextlib
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnxscript import values
from onnxscript.onnx_opset import opset24 as op
from torch import nn

from ...errors import brief
from ...plugins import contract
from ...plugins.onnx_functions import luvc, schema
from ...plugins.operators import BODIES
from ..ops import layer_marks, scatter
from ..ops.layer_marks import Run
from .codes import read_codes
from .composites import COMPOSITES, undecomposed
from .layer_copies import GAP, MARK, stamp
from .passes import attach_spu, simplify, static_reshape
from .shortcuts import shortcuts
from .weights_file import WeightsFile

OPSET = 24
_S = onnx.defs.OpSchema
_ANY = sorted(onnx.defs.get_schema("Identity", OPSET).inputs[0].types)


def _border_schema(name: str, inputs: Sequence[str], place: bool) -> onnx.defs.OpSchema:
    """Of a node that layer_copies.py takes out again: any tensors, all but the first optional."""
    options = _S.FormalParameterOption
    rest = [
        _S.FormalParameter(x, f"T{n}", param_option=options.Optional)
        for n, x in enumerate(inputs[1:], 1)
    ]
    attributes = [_S.Attribute("layer", _S.AttrType.INT, "", required=True)]
    attributes += [_S.Attribute("place", _S.AttrType.STRING, "", required=True)] * place
    return _S(
        name,
        contract.DOMAIN,
        contract.VERSION,
        inputs=[_S.FormalParameter(inputs[0], "T0"), *rest],
        outputs=[_S.FormalParameter("out", "T0")],
        type_constraints=[(f"T{n}", _ANY, "") for n in range(len(inputs))],
        attributes=attributes,
    )


MARK_SCHEMA = _border_schema(MARK, ("x",), place=True)
GAP_SCHEMA = _border_schema(GAP, layer_marks.PLACES, place=False)


def _node(schema: onnx.defs.OpSchema, attributes: dict[str, type]) -> Callable:
    """What the tracer calls for one node: the schema's inputs, then these attributes, in order."""
    call, inputs = values.Op(luvc, schema.name, schema), len(schema.inputs)

    def translation(*arguments, **named):
        by_position = dict(zip(attributes, arguments[inputs:], strict=False))
        return call(*arguments[:inputs], **by_position, **named)

    # By its signature and annotations the tracer tells inputs from attributes.
    names = [*(x.name for x in schema.inputs), *attributes]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in names]
    translation.__signature__ = inspect.Signature(parameters)
    translation.__annotations__ = dict(attributes)
    return translation


def _tensor_scatter(cache, update, index):
    return op.TensorScatter(cache, update, index, axis=2)


OPERATOR_TRANSLATIONS = {
    getattr(o.form("reference"), o.function)._opoverload: _node(
        schema(o), dict.fromkeys(o.attributes, int)
    )
    for o in BODIES
}
TRANSLATIONS = OPERATOR_TRANSLATIONS | {
    scatter.tensor_scatter._opoverload: _tensor_scatter,
    layer_marks.layer_mark._opoverload: _node(MARK_SCHEMA, {"layer": int, "place": str}),
    layer_marks.layer_gap._opoverload: _node(GAP_SCHEMA, {"layer": int}),
}


@dataclass(frozen=True)
class Trace:
    """One graph to trace: module, its weights' dtype, example arguments, names, dimensions, runs."""

    module: nn.Module
    dtype: torch.dtype
    args: tuple[Any, ...]
    inputs: Sequence[str]
    outputs: Sequence[str]
    dynamic: dict[str, Any]
    runs: tuple[Run, ...] = ()


def trace(request: Trace, told: Callable[[str], None] = lambda why: None) -> ir.Model:
    """Trace to onnx_ir and run all passes.

    Args:
        request: what to trace.
        told: called with a reason where the graph must be decomposed, which takes twice as long.
    """
    with torch.no_grad(), _quiet(), shortcuts(), _emptied(request):
        model = _as_it_stands(request, told) or _translated(request, request.module, TRANSLATIONS)
    simplify(model, dict(request.module.named_parameters(remove_duplicate=False)))
    static_reshape(model)
    stamp(model, request.runs)
    attach_spu(model)
    return model


def _as_it_stands(request: Trace, told: Callable[[str], None]) -> ir.Model | None:
    """The traced graph without decompositions (composites.py), or None where it needs them."""
    try:
        with _capturing():
            program = torch.export.export(
                request.module,
                request.args,
                dynamic_shapes=request.dynamic,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
        return _translated(request, undecomposed(program), TRANSLATIONS | COMPOSITES)
    except Exception as error:  # whatever it is, the ordinary way passes or tells it
        told(brief(_first_cause(error)))
        return None


def _first_cause(error: Exception) -> Exception:
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _translated(
    request: Trace, model: nn.Module | torch.export.ExportedProgram, table: dict[Any, Callable]
) -> ir.Model:
    """Through torch.onnx.export."""
    program = torch.onnx.export(
        model,
        request.args,
        dynamo=True,
        opset_version=OPSET,
        optimize=False,
        input_names=list(request.inputs),
        output_names=list(request.outputs),
        dynamic_shapes=request.dynamic,
        custom_translation_table=table,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return program.model


def save(model: ir.Model, path: Path, weights: WeightsFile) -> None:
    """Write `path`; parameters become references into the bundle's one weights file.

    Initializers that are no parameters of the checkpoint (tables, scalars) stay inside the file.
    """
    read_codes(model, weights, path.parent)
    for name, value in model.graph.initializers.items():
        if name in weights:
            value.const_value = weights.reference(name, path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    ir.save(model, path)


@contextlib.contextmanager
def _emptied(request: Trace) -> Iterator[None]:
    """A module of what is traced alone: no other layers, and parameters without values.

    Tracing reads shapes, and `save` refers to a file; so a mapped checkpoint is neither read nor
    converted, and untouched memory is never allocated.
    """
    name = request.runs[0].name if request.runs else ""
    layers: Any = request.module.get_submodule(name) if request.runs else ()
    traced = {run.first for run in request.runs}
    absent = {i: layer for i, layer in enumerate(layers) if i not in traced}
    try:
        for i in absent:
            layers[i] = nn.Module()
        kept = {p: p.data for p in request.module.parameters()}
        for p, data in kept.items():
            if data.is_floating_point():
                p.data = torch.empty(data.shape, dtype=request.dtype)
        yield
    finally:
        for p, data in kept.items():
            p.data = data
        for i, layer in absent.items():
            layers[i] = layer


@contextlib.contextmanager
def _capturing() -> Iterator[None]:
    """PyTorch's settings, of this thread alone, under which a program is captured."""
    from torch._dynamo import config as dynamo
    from torch.fx.experimental import _config as shapes

    # As torch.onnx.export captures. Shapes with unknowns cost more to find in the cache than to infer.
    with (
        shapes.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]
        dynamo.patch(fake_tensor_cache_enabled=False),  # type: ignore[attr-defined]
    ):
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the tracer's progress lines and version warnings; errors still raise."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(action="ignore"):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
