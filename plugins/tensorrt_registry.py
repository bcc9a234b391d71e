"""The SPU operators as TensorRT plugins, compiled ahead of time into the engine.

`register()` makes the operators known to this process; TensorRT then asks for shapes, launch
parameters and PTX while it builds, and the serialized engine needs neither Python nor this
package. Signatures are generated from contract.py, so names and order of inputs and attributes
agree with the ONNX nodes by construction. Source: tensorrt.plugin of TensorRT 11 (`register`,
`aot_impl`).

V, D, keep and groups are fixed when the engine is built; batch and sequence length may vary.
"""

import importlib
import inspect
from functools import partial
from pathlib import Path

from ..errors import LuvcError
from . import nvrtc
from .scores.spectrum import launch
from .scores.spectrum.contract import DOMAIN, GATHER, OPERATORS, SCORE, SELECT, Operator

INSTALL = "pip install 'tensorrt>=11'"
REGISTRY_VERSION = "1"  # the only version tensorrt.plugin registers


def available() -> bool:
    """Whether TensorRT with ahead-of-time plugins can be imported."""
    try:
        _import_tensorrt()
    except LuvcError:
        return False
    return True


def register() -> None:
    """Registers the operators with TensorRT's plugin registry; a second call changes nothing.

    Raises:
        LuvcError: when TensorRT is not installed, or too old for ahead-of-time plugins.
    """
    trt, trtp = _import_tensorrt()
    registry = trt.get_plugin_registry()
    for operator in OPERATORS:
        if registry.get_creator(operator.name, REGISTRY_VERSION, DOMAIN) is not None:
            continue
        plugin = f"{DOMAIN}::{operator.name}"
        describe, compile_ = _FORMS[operator.name]
        trtp.register(plugin)(_described(operator, partial(describe, trt, trtp), trtp))
        trtp.aot_impl(plugin)(_compiled(operator, partial(compile_, trt, trtp), trtp))


def load_library(path: str | Path) -> None:
    """Registers the operators from the C++ library of cpp/ instead.

    Engines built with it need it again at run time: pass it to trtexec as --dynamicPlugins, or load
    it here.

    Raises:
        LuvcError: when the file is missing, is no plugin library, or comes after `register()`.
    """
    trt, _ = _import_tensorrt()
    if not Path(path).is_file():
        raise LuvcError(
            f"the plugin library {path} does not exist; build it with: cmake -S "
            f"{Path(__file__).parent / 'cpp'} -B build && cmake --build build"
        )
    if registered():
        raise LuvcError(
            f"the SPU operators are registered already, so {path} cannot be loaded; load the "
            "library first, in a new process."
        )
    if trt.get_plugin_registry().load_library(str(path)) is None or not registered():
        raise LuvcError(f"TensorRT does not accept {path} as a plugin library; build it again.")


def registered() -> bool:
    """Whether every operator is in TensorRT's plugin registry, from here or from a library."""
    trt, _ = _import_tensorrt()
    registry = trt.get_plugin_registry()
    found = [registry.get_creator(op.name, REGISTRY_VERSION, DOMAIN) for op in OPERATORS]
    return all(creator is not None for creator in found)


def _import_tensorrt():
    """The modules tensorrt and tensorrt.plugin."""
    try:
        trt = importlib.import_module("tensorrt")
        trtp = importlib.import_module("tensorrt.plugin")
    except (ImportError, OSError) as error:
        raise LuvcError(
            f"the TensorRT plugins need TensorRT 11, which cannot be imported here ({error}); "
            f"run: {INSTALL}"
        ) from error
    if not hasattr(trtp, "aot_impl"):
        raise LuvcError(
            f"TensorRT {trt.__version__} has no ahead-of-time plugins; version 11 is needed. "
            f"Run: {INSTALL}"
        )
    return trt, trtp


def _signature(operator: Operator, trtp, extra: tuple[str, ...], returns) -> inspect.Signature:
    """(inputs..., attributes..., extra...) as tensorrt.plugin reads it from a function."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        inspect.Parameter(tensor.name, kind, annotation=trtp.TensorDesc)
        for tensor in operator.inputs
    ]
    parameters += [inspect.Parameter(name, kind, annotation=int) for name in operator.attributes]
    parameters += [inspect.Parameter(name, kind) for name in extra]
    return inspect.Signature(parameters, return_annotation=returns)


def _described(operator: Operator, describe, trtp):
    """The function for trtp.register: descriptors of the inputs -> descriptors of the outputs."""

    def function(*tensors, **attributes):
        _check_inputs(operator, tensors)
        return describe(*tensors, **attributes)

    descs = (trtp.TensorDesc,) * len(operator.outputs)
    returns = descs[0] if len(descs) == 1 else tuple[descs]
    function.__signature__ = _signature(operator, trtp, (), returns)
    return function


def _compiled(operator: Operator, compile_, trtp):
    """The function for trtp.aot_impl: (entry, PTX, launch parameters, extra integers).

    TensorRT passes all attributes by position, followed by the outputs and the tactic; the
    operators have one tactic and learn nothing from the outputs.
    """

    def function(*values):
        inputs = len(operator.inputs)
        attributes = values[inputs : inputs + len(operator.attributes)]
        named = dict(zip(operator.attributes, attributes, strict=True))
        planned, grid, scalars = compile_(*values[:inputs], **named)
        x, y, z = grid
        params = trtp.KernelLaunchParams(grid_x=x, grid_y=y, grid_z=z, block_x=planned.threads)
        integers = trtp.SymIntExprs.from_tuple([trtp.SymInt32(value) for value in scalars])
        return planned.entry, nvrtc.compile_launch(planned), params, integers

    text = str | bytes
    returns = tuple[text, text, trtp.KernelLaunchParams, trtp.SymExprs]
    function.__signature__ = _signature(operator, trtp, ("outputs", "tactic"), returns)
    return function


def _dtype(tensor) -> str:
    """Name of the element type, as in contract.py."""
    names = {"HALF": "float16", "BF16": "bfloat16", "FLOAT": "float32", "INT64": "int64"}
    name = str(tensor.dtype.name)
    return names.get(name, name.lower())


def _check_inputs(operator: Operator, tensors) -> None:
    """Holds element types and ranks to the contract."""
    for wanted, tensor in zip(operator.inputs, tensors, strict=True):
        dtype, rank = _dtype(tensor), len(tensor.shape_expr)
        if dtype not in wanted.dtypes:
            raise LuvcError(
                f"{operator.name}: input {wanted.name} is {dtype}; it must be "
                f"{' or '.join(wanted.dtypes)}. Add a Cast before the node."
            )
        if rank != len(wanted.shape):
            raise LuvcError(
                f"{operator.name}: input {wanted.name} has {rank} axes; it must have "
                f"{len(wanted.shape)}: [{', '.join(wanted.shape)}]."
            )


def _fixed(operator: Operator, tensor, axis: int, meaning: str) -> int:
    """Size of an axis that must be known when the engine is built."""
    size = tensor.shape_expr[axis]
    if not size.is_constant:
        raise LuvcError(
            f"{operator.name}: {meaning} varies at run time; the kernels are compiled for one "
            "value. Fix it in the ONNX graph."
        )
    return size.constant_value()


def _score_launch(signal, visual_index, twiddle, cutoff: int, groups: int) -> launch.Launch:
    tokens = _fixed(SCORE, visual_index, 1, "V, the number of visual tokens,")
    channels = _fixed(SCORE, signal, 2, "D, the hidden size,")
    planned = launch.score_launch(tokens, groups, channels, cutoff, _dtype(signal))
    rows = _fixed(SCORE, twiddle, 0, "the length of twiddle")
    if rows != tokens // groups:
        raise LuvcError(
            f"{SCORE.name}: twiddle has {rows} rows; it must have V / groups = {tokens // groups}."
        )
    return planned


def _describe_score(trt, trtp, signal, visual_index, twiddle, cutoff, groups):
    tokens = visual_index.shape_expr[1]
    # Before shapes are known TensorRT asks for types alone, with fake sizes.
    fake = tokens.is_fake
    chunks = 1 if fake else _score_launch(signal, visual_index, twiddle, cutoff, groups).chunks
    return trtp.from_shape_expr((signal.shape_expr[0], chunks, tokens), dtype=trt.float32)


def _compile_score(trt, trtp, signal, visual_index, twiddle, cutoff, groups):
    planned = _score_launch(signal, visual_index, twiddle, cutoff, groups)
    batch, sequence, channels = signal.shape_expr
    return planned, *launch.score_call(planned, batch, sequence, channels, cutoff)


def _select_launch(visual_index, keep: int, groups: int) -> launch.Launch:
    tokens = _fixed(SELECT, visual_index, 1, "V, the number of visual tokens,")
    return launch.select_launch(tokens, groups, keep)


def _describe_select(trt, trtp, energies, visual_index, positions, keep, groups):
    batch, tokens = visual_index.shape_expr
    if not tokens.is_fake:
        _select_launch(visual_index, keep, groups)
    shapes = (
        (batch, positions.shape_expr[1] - tokens + keep),
        (batch, keep),
        (batch, keep),
    )
    return tuple(trtp.from_shape_expr(shape, dtype=trt.int64) for shape in shapes)


def _compile_select(trt, trtp, energies, visual_index, positions, keep, groups):
    planned = _select_launch(visual_index, keep, groups)
    batch, sequence = visual_index.shape_expr[0], positions.shape_expr[1]
    chunks = energies.shape_expr[1]
    return planned, *launch.select_call(planned, batch, sequence, chunks, keep)


def _describe_gather(trt, trtp, hidden, positions, keep_index):
    batch, rows = keep_index.shape_expr
    return (
        trtp.from_shape_expr((batch, rows, hidden.shape_expr[2]), dtype=hidden.dtype),
        trtp.from_shape_expr((batch, rows, positions.shape_expr[2]), dtype=trt.int64),
    )


def _compile_gather(trt, trtp, hidden, positions, keep_index):
    channels = _fixed(GATHER, hidden, 2, "D, the hidden size,")
    dtype = _dtype(hidden)
    batch, rows = keep_index.shape_expr
    sequence, components = hidden.shape_expr[1], positions.shape_expr[2]
    call = launch.gather_call(channels, dtype, batch, sequence, rows, components)
    return launch.gather_launch(channels, dtype), *call


_FORMS = {
    SCORE.name: (_describe_score, _compile_score),
    SELECT.name: (_describe_select, _compile_select),
    GATHER.name: (_describe_gather, _compile_gather),
}
