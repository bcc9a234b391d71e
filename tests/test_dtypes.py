"""The one table of element types, against the libraries that it names them for."""

import onnx
import pytest
import torch
from safetensors.torch import save

from luvc import dtypes


@pytest.mark.parametrize("kind", dtypes.DTYPES.values(), ids=lambda kind: kind.name)
def test_names_are_those_of_the_libraries(kind):
    one = torch.ones(1, dtype=kind.torch)
    assert one.itemsize == kind.bytes == kind.numpy.itemsize == kind.onnx_ir.itemsize
    assert dtypes.of_torch(one.dtype) is kind
    number = onnx.TensorProto.DataType.Value(kind.onnx)
    assert onnx.helper.tensor_dtype_to_np_dtype(number) == kind.numpy
    assert kind.onnx_ir == number
    assert f'"dtype":"{kind.safetensors}"'.encode() in save({"one": one})
    assert f"tensor({kind.onnx.lower()})" in onnx.defs.get_schema("Identity").inputs[0].types


def test_what_no_graph_holds_has_no_entry():
    with pytest.raises(KeyError):
        dtypes.of_torch(torch.float64)
