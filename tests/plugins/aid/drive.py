"""Asks the registered plugins what TensorRT's builder would ask, without the builder and a GPU.

Run by test_tensorrt_plugins.py in a process of its own:
    python drive.py PACKAGES SCRATCH < requests.json > answers.json
PACKAGES holds tensorrt_bindings and tensorrt_lean_libs, SCRATCH takes the stand-in libraries. The
registry and tensorrt.plugin are the real ones; of the objects that only the builder can make,
symbolic sizes and their arithmetic, Python stand-ins take the place.

A request is {"operator", "attributes", "inputs": [[dtype, shape], ...]} where a string in a shape
is a size known only at run time. Builder and parser are null here: never use them.
"""

import ctypes
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

HERE = Path(__file__).parent
TYPES = {"float16": "HALF", "bfloat16": "BF16", "float32": "FLOAT", "int64": "INT64"}
TYPES |= {"int32": "INT32"}


def load_tensorrt(packages: Path, scratch: Path):
    """The module tensorrt, on stand-ins for the three libraries it needs."""
    lean = packages / "tensorrt_lean_libs"
    build = ["g++", "-shared", "-fPIC"]
    names = ("libnvinfer.so.11", "libnvinfer_plugin.so.11", "libnvonnxparser.so.11")
    for name in names:
        source, link = ["-x", "c++", "/dev/null"], []
        if name == names[0]:
            source = [str(HERE / "stub.cpp")]
            link = ["-Wl,--no-as-needed", str(lean / "libnvinfer_lean.so.11"), f"-Wl,-rpath,{lean}"]
        out = str(scratch / name)
        subprocess.run([*build, *source, "-o", out, f"-Wl,-soname,{name}", *link], check=True)
        ctypes.CDLL(out, mode=ctypes.RTLD_GLOBAL)
    sys.path.insert(0, str(packages))
    sys.modules["tensorrt"] = importlib.import_module("tensorrt_bindings")
    return sys.modules["tensorrt"]


class Size:
    """Stand-in for IDimensionExpr: a number, or the text of an expression in run-time sizes."""

    def __init__(self, value):
        self.value = value

    def is_constant(self):
        return isinstance(self.value, int)

    def get_constant_value(self):
        return self.value


class SizeBuilder:
    """Stand-in for IExprBuilder."""

    def __init__(self, trt):
        op = trt.DimensionOperation
        self.operations = {
            op.SUM: ("+", lambda a, b: a + b),
            op.SUB: ("-", lambda a, b: a - b),
            op.PROD: ("*", lambda a, b: a * b),
        }

    def constant(self, value):
        return Size(value)

    def operation(self, kind, first, second):
        sign, compute = self.operations[kind]
        if first.is_constant() and second.is_constant():
            return Size(compute(first.value, second.value))
        return Size(f"({first.value} {sign} {second.value})")


def use_stand_ins(trt):
    """Lets tensorrt.plugin work on Size where it would take objects of the builder."""
    _tensor: Any = importlib.import_module("tensorrt.plugin._tensor")
    trt.IDimensionExpr = Size
    trt.DimsExprs = lambda length: [None] * length
    _tensor.SymExprImpl = lambda expression: expression._expr.value


def description(trt, dtype, shape, optimum=64):
    """Descriptor of one input or output as configure_plugin gets it."""
    result = trt.DynamicPluginTensorDesc()
    result.desc.type = getattr(trt.DataType, TYPES[dtype])
    result.desc.format = trt.TensorFormat.LINEAR
    result.desc.dims = trt.Dims([size if isinstance(size, int) else -1 for size in shape])
    known = trt.Dims([size if isinstance(size, int) else optimum for size in shape])
    result.min = result.max = result.opt = known
    return result


class Record(SimpleNamespace):
    """Takes any attribute; stands in for the builder's launch parameters and extra arguments."""

    def __init__(self):
        super().__init__(items={})

    def __setitem__(self, index, value):
        self.items[index] = value


def drive(trt, request):
    """The plugin's answers to one request."""
    creator = trt.get_plugin_registry().get_creator(request["operator"], "1", "luvc")
    fields = [
        trt.PluginField(name, np.array([value]), trt.PluginFieldType.INT64)
        for name, value in request["attributes"].items()
    ]
    plugin = creator.create_plugin(
        request["operator"],
        "luvc",
        trt.PluginFieldCollection(fields),
        trt.TensorRTPhase.BUILD,
        trt.QuickPluginCreationRequest.STRICT_AOT,
    )
    inputs = request["inputs"]
    types = [getattr(trt.DataType, TYPES[dtype]) for dtype, _ in inputs]
    names = {getattr(trt.DataType, member): name for name, member in TYPES.items()}
    dtypes = [names[t] for t in plugin.get_output_data_types(types, [len(s) for _, s in inputs])]
    sizes, builder = [[Size(size) for size in shape] for _, shape in inputs], SizeBuilder(trt)
    shapes = [[s.value for s in dims] for dims in plugin.get_output_shapes(sizes, [], builder)]
    outputs = list(zip(dtypes, shapes, strict=True))
    all_of_them = [description(trt, *tensor) for tensor in [*inputs, *outputs]]
    formats = plugin.get_supported_format_combinations(all_of_them, len(inputs))
    plugin.configure_plugin(all_of_them[: len(inputs)], all_of_them[len(inputs) :])
    params, extras = Record(), Record()
    plugin.set_tactic(0)
    plugin.get_launch_params(sizes, all_of_them, len(inputs), params, extras, builder)
    descs = [tensor.desc for tensor in all_of_them]
    entry, ptx = plugin.get_kernel(descs[: len(inputs)], descs[len(inputs) :])
    return {
        "outputs": outputs,
        "formats": [[names[f.type], f.format.name] for f in formats],
        "tactics": plugin.get_valid_tactics(),
        "grid": [params.grid_x, params.grid_y, params.grid_z],
        "block": [params.block_x, params.block_y, params.block_z],
        "shared_mem": params.shared_mem,
        "scalars": [extras.items[i] for i in range(extras.nbSymExprs)],
        "entry": entry,
        "ptx": ptx.decode(),
    }


def main():
    trt = load_tensorrt(Path(sys.argv[1]), Path(sys.argv[2]))
    from luvc.plugins import tensorrt_registry as plugins

    before = plugins.registered()
    plugins.register()
    plugins.register()  # a second call must do nothing
    facts = {"version": trt.__version__, "before": before, "after": plugins.registered()}
    use_stand_ins(trt)
    answers = []
    for request in json.load(sys.stdin):
        try:
            answers.append(drive(trt, request))
        except Exception as error:
            answers.append({"error": type(error).__name__, "message": str(error)})
    # TensorRT logs to standard output, so the answers come last, on a line of their own.
    print("\n" + json.dumps({"facts": facts, "answers": answers}))


if __name__ == "__main__":
    main()
