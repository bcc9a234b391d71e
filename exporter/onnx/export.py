"""From a graph module to an ONNX file: trace, passes, function bodies, shared external weights."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnxscript import values
from onnxscript.onnx_opset import opset24 as op
from torch import nn

from ...plugins.scores.spectrum import contract, reference
from ...plugins.scores.spectrum.onnx_function import SCHEMAS, luvc
from ..language import caches
from ..ops import layer_marks
from ..ops.layer_marks import Run
from .layer_copies import GAP, MARK, stamp
from .passes import attach_spu, simplify, static_reshape
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
        name, contract.DOMAIN, contract.VERSION,
        inputs=[_S.FormalParameter(inputs[0], "T0"), *rest],
        outputs=[_S.FormalParameter("out", "T0")],
        type_constraints=[(f"T{n}", _ANY, "") for n in range(len(inputs))], attributes=attributes,
    )  # fmt: skip


MARK_SCHEMA = _border_schema(MARK, ("x",), place=True)
GAP_SCHEMA = _border_schema(GAP, layer_marks.PLACES, place=False)


def _spectrum_score(signal, visual_index, twiddle, cutoff: int, groups: int):
    call = values.Op(luvc, contract.SCORE.name, SCHEMAS[contract.SCORE.name])
    return call(signal, visual_index, twiddle, cutoff=cutoff, groups=groups)


def _spectrum_select(energies, visual_index, positions, keep: int, groups: int):
    call = values.Op(luvc, contract.SELECT.name, SCHEMAS[contract.SELECT.name])
    return call(energies, visual_index, positions, keep=keep, groups=groups)


def _gather_tokens(hidden, positions, keep_index):
    call = values.Op(luvc, contract.GATHER.name, SCHEMAS[contract.GATHER.name])
    return call(hidden, positions, keep_index)


def _layer_mark(x, layer: int, place: str):
    return values.Op(luvc, MARK, MARK_SCHEMA)(x, layer=layer, place=place)


def _layer_gap(start, cos, sin, mask, positions, slots, last, layer: int):
    entering = start, cos, sin, mask, positions, slots, last
    return values.Op(luvc, GAP, GAP_SCHEMA)(*entering, layer=layer)


def _tensor_scatter(cache, update, index):
    return op.TensorScatter(cache, update, index, axis=2)


TRANSLATIONS = {
    reference.spectrum_score._opoverload: _spectrum_score,
    reference.spectrum_select._opoverload: _spectrum_select,
    reference.gather_tokens._opoverload: _gather_tokens,
    caches.tensor_scatter._opoverload: _tensor_scatter,
    layer_marks.layer_mark._opoverload: _layer_mark,
    layer_marks.layer_gap._opoverload: _layer_gap,
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


def trace(request: Trace) -> ir.Model:
    """Trace to onnx_ir and run all passes."""
    with torch.no_grad(), _quiet(), _emptied(request):
        program = torch.onnx.export(
            request.module, request.args, dynamo=True, opset_version=OPSET, optimize=False,
            input_names=list(request.inputs), output_names=list(request.outputs),
            dynamic_shapes=request.dynamic, custom_translation_table=TRANSLATIONS, verbose=False,
        )  # fmt: skip
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model = program.model
    simplify(model, dict(request.module.named_parameters(remove_duplicate=False)))
    static_reshape(model)
    stamp(model, request.runs)
    attach_spu(model)
    return model


def save(model: ir.Model, path: Path, weights: WeightsFile) -> None:
    """Write `path`; parameters become references into the bundle's one weights file.

    Initializers that are no parameters of the checkpoint (tables, scalars) stay inside the file.
    """
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
def _quiet() -> Iterator[None]:
    """Silence the tracer's progress lines and version warnings; errors still raise."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(action="ignore"):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
