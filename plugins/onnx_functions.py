"""The operators in ONNX: their schemas, and function bodies for runtimes without the plugins.

Each body is a FunctionProto of standard opset-24 operators under the operator's own name, so one
file serves ONNX Runtime (inlines the body), TensorRT without the plugins (parses the body) and
TensorRT with them (creates the plugin).
"""

import onnx
from onnxscript import OnnxFunction, values

from ..dtypes import DTYPES
from .contract import DOMAIN, VERSION, Operator

luvc = values.Opset(DOMAIN, VERSION)


def function_of(operator: Operator) -> OnnxFunction:
    """The body of an operator, from onnx_body.py of its folder."""
    return getattr(operator.form("onnx_body"), operator.name)


def schema(operator: Operator) -> onnx.defs.OpSchema:
    """The ONNX operator schema of a contract entry; float tensors share the type T."""
    S = onnx.defs.OpSchema

    def kind(dtype: str) -> str:
        return f"tensor({DTYPES[dtype].onnx.lower()})"

    def parameter(tensor):
        floats = len(tensor.dtypes) > 1
        return S.FormalParameter(tensor.name, "T" if floats else kind(tensor.dtypes[0]))

    floats = [kind(d) for t in operator.inputs if len(t.dtypes) > 1 for d in t.dtypes]
    return S(
        operator.name,
        DOMAIN,
        VERSION,
        inputs=[parameter(t) for t in operator.inputs],
        outputs=[parameter(t) for t in operator.outputs],
        type_constraints=[("T", floats, "")] if floats else [],
        attributes=[S.Attribute(a, S.AttrType.INT, "", required=True) for a in operator.attributes],
    )
