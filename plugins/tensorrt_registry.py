"""Registers the operators with TensorRT as plugins, compiled ahead of time into the engine.

`register()` makes the operators known to this process; TensorRT then asks for shapes, launch
parameters and PTX while it builds, which each folder's tensorrt.py answers, and the serialized engine
needs neither Python nor this package. Signatures are generated from the contract, so names and order
of inputs and attributes agree with the ONNX nodes by construction. Source: tensorrt.plugin of
TensorRT 11 (`register`, `aot_impl`).

V, D, keep and groups are fixed when the engine is built; batch and sequence length may vary.
"""

import importlib
import inspect
from functools import partial
from pathlib import Path

from ..errors import LuvcError
from . import nvrtc
from .contract import DOMAIN, Operator
from .operators import OPERATORS
from .tensorrt_shapes import element

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
        describe, compile_ = operator.form("tensorrt").FORMS[operator.name]
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
        return describe(*tensors, **(dict.fromkeys(operator.optional, 0) | attributes))

    descs = (trtp.TensorDesc,) * len(operator.outputs)
    returns = descs[0] if len(descs) == 1 else tuple[descs]
    function.__signature__ = _signature(operator, trtp, (), returns)
    return function


def _compiled(operator: Operator, compile_, trtp):
    """The function for trtp.aot_impl: (entry, PTX, launch parameters, extra integers).

    TensorRT passes the node's attributes by position, followed by the outputs and the tactic; the
    operators have one tactic and learn nothing from the outputs.
    """

    def function(*values):
        inputs = len(operator.inputs)
        given = dict(zip(operator.attributes, values[inputs:-2], strict=False))
        attributes = dict.fromkeys(operator.optional, 0) | given
        planned, grid, scalars = compile_(*values[:inputs], **attributes)
        x, y, z = grid
        params = trtp.KernelLaunchParams(grid_x=x, grid_y=y, grid_z=z, block_x=planned.threads)
        integers = trtp.SymIntExprs.from_tuple([trtp.SymInt32(value) for value in scalars])
        return planned.entry, nvrtc.compile_launch(planned), params, integers

    text = str | bytes
    returns = tuple[text, text, trtp.KernelLaunchParams, trtp.SymExprs]
    function.__signature__ = _signature(operator, trtp, ("outputs", "tactic"), returns)
    return function


def _check_inputs(operator: Operator, tensors) -> None:
    """Holds element types and ranks to the contract."""
    for wanted, tensor in zip(operator.inputs, tensors, strict=True):
        dtype, rank = element(tensor), len(tensor.shape_expr)
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
