"""Codes and scales of weights, against their definition in numpy and onnx's own reading of packed codes."""

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch

from luvc.engines.bundle.manifest import Quantisation
from luvc.exporter.quantised import rounding
from luvc.exporter.quantised.rounding import Rounding

INT8 = Quantisation(kind="int8")
INT4 = Quantisation(kind="int4", group_size=16)
TYPES = {
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: np.dtype(ml_dtypes.bfloat16),
}


def weights(n=70, k=48):
    """Normal rows, one of zeros, one all negative, one so small that float16 has few numbers for it."""
    w = np.random.default_rng(0).normal(size=(n, k)).astype(np.float32)
    w[3] = 0
    w[5] = -np.abs(w[5])
    w[7] *= 1e-6
    return w


def defined(w, how, dtype):
    """The smallest scale of the type at which the largest and the smallest weight have a code."""
    top = {"int8": 127, "int4": 7}[how.kind]
    groups = w.reshape(len(w), -1, how.group_size or w.shape[1]).astype(np.float64)
    exact = np.maximum(groups.max(-1) / top, -groups.min(-1) / (top + 1))
    scales = exact.astype(dtype)
    above = np.nextafter(scales, dtype.type(np.inf))
    scales = np.where(scales.astype(np.float64) < exact * (1 - 1e-7), above, scales)
    scales = np.where(exact == 0, dtype.type(1), scales)
    codes = np.rint(groups / scales.astype(np.float64)[..., None]).astype(int)
    return codes.reshape(w.shape), scales


def numpy_of(x, dtype):
    return x.view(torch.int16).numpy().view(dtype) if dtype.itemsize == 2 else x.numpy()


@pytest.mark.parametrize("how", [INT8, INT4], ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_codes_and_scales_are_as_defined(how, dtype):
    w = weights()
    codes, scales = Rounding(how, dtype).encoded(torch.from_numpy(w))
    wanted, steps = defined(w, how, TYPES[dtype])
    found = numpy_of(scales, TYPES[dtype]).reshape(steps.shape)
    np.testing.assert_allclose(found.astype(np.float64), steps.astype(np.float64), rtol=2e-7)
    whole = Rounding(how, dtype).unpacked(codes).numpy()
    far = np.abs(whole - wanted)
    assert far.max() <= 1 and (far > 0).mean() < 1e-3  # a tie may fall to either side
    assert whole.min() >= -(2 ** (7 if how.kind == "int8" else 3))


@pytest.mark.parametrize("how", [INT8, INT4], ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_no_weight_is_further_than_half_a_step(how, dtype):
    w = weights()
    codes, scales = Rounding(how, dtype).encoded(torch.from_numpy(w))
    whole = Rounding(how, dtype).unpacked(codes).numpy().astype(np.float64)
    steps = scales.double().numpy().reshape(len(w), -1).repeat(how.group_size or w.shape[1], 1)
    assert (np.abs(whole * steps - w) <= steps / 2 * (1 + 1e-4)).all()


@pytest.mark.parametrize("how", [INT8, INT4], ids=str)
def test_decoded_are_the_codes_times_the_scales(how):
    w = torch.from_numpy(weights()).bfloat16()
    plan = Rounding(how, torch.float16)
    codes, scales = plan.encoded(w)
    steps = scales.view(len(w), -1).repeat_interleave(how.group_size or w.shape[1], 1)
    assert torch.equal(plan.decoded(w), (plan.unpacked(codes).float() * steps.float()).half())


def test_codes_lie_in_the_file_as_onnx_reads_them():
    """int4: the even input in the low half; int8: inputs first."""
    w = torch.from_numpy(weights())
    four, eight = Rounding(INT4, torch.float32), Rounding(INT8, torch.float32)
    codes, _ = four.encoded(w)
    tensor = onnx.TensorProto(
        data_type=onnx.TensorProto.INT4, dims=w.shape, raw_data=codes.numpy().tobytes()
    )
    read = onnx.numpy_helper.to_array(tensor).astype(np.int8)
    np.testing.assert_array_equal(read, four.unpacked(codes).numpy())
    assert len(np.unique(read)) == 16
    assert tuple(eight.encoded(w)[0].shape) == w.shape[::-1]
    for plan in (four, eight):
        codes, scales = plan.encoded(w)
        assert tuple(codes.shape) == plan.codes_shape(w.shape) and codes.dtype == plan.stored
        assert tuple(scales.shape) == plan.scales_shape(w.shape)
        assert plan.weight_shape(codes.shape) == list(w.shape)


@pytest.mark.parametrize("how", [INT8, INT4], ids=str)
def test_many_rows_are_rounded_in_parts(how, monkeypatch):
    w = torch.from_numpy(weights(n=300))
    whole = Rounding(how, torch.float32).encoded(w)
    monkeypatch.setattr(rounding, "AT_ONCE", 1)
    for a, b in zip(whole, Rounding(how, torch.float32).encoded(w), strict=True):
        assert torch.equal(a, b)
