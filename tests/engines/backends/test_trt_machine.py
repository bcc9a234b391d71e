"""What the machine must have: an engine for its GPU, a GPU, and room on it."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from luvc.engines.backends import backend
from luvc.engines.backends.trt import engine_choice as trt_pick
from luvc.engines.backends.trt.backend import tensorrt_rtx
from luvc.engines.backends.trt.cuda import Cuda, Memory
from luvc.engines.backends.trt.library import TENSORRT
from luvc.errors import LuvcError

from .fake_device import FakeCuda
from .fake_runner import CASE, entry


@pytest.mark.parametrize(
    ("entries", "version", "arch", "message"),
    [
        ([], "11.4", "sm90", "holds no TensorRT engines: run luvc-build"),
        ([{"backend": "tensorrt-rtx"}], "11.4", "sm90", "holds no TensorRT engines"),
        ([{"version": "11.2"}], "11.4", "sm90", "built with TensorRT 11.2, this machine has 11.4"),
        ([{"arch": "sm86"}], "11.4", "sm90", "engines are for sm86, the GPU .* is sm90"),
        ([{"arch": "portable"}], "11.4", "sm75", "for portable, the GPU .* is sm75"),
    ],
)
def test_no_engine_for_this_machine(workshop, entries, version, arch, message):
    bundle = workshop.bundle(CASE)
    engines = tuple(entry(bundle, **e) for e in entries)
    manifest = bundle.manifest.model_copy(update={"engines": engines})
    with pytest.raises(LuvcError, match=message):
        trt_pick.pick_engine(replace(bundle, manifest=manifest), TENSORRT, version, arch)


@pytest.mark.parametrize(
    ("arch", "gpu"), [("sm90", "sm90"), ("sm86+sm89", "sm89"), ("portable", "sm120")]
)
def test_the_engine_for_this_machine(workshop, arch, gpu):
    bundle = workshop.bundle(CASE)
    engines = tuple(entry(bundle, arch=a) for a in ("sm75", arch))
    manifest = bundle.manifest.model_copy(update={"engines": engines})
    found = trt_pick.pick_engine(replace(bundle, manifest=manifest), TENSORRT, "11.4", gpu)
    assert found.arch == arch


def test_no_gpu_is_a_clear_error(workshop):
    try:
        Cuda()
    except LuvcError as error:
        assert "no NVIDIA GPU can be used" in str(error) or "cuda-bindings" in str(error)
    else:
        pytest.skip("this machine has a GPU")
    bundle = workshop.bundle(CASE)
    with pytest.raises(LuvcError, match="GPU"):
        tensorrt_rtx.runner(bundle)
    assert backend("auto", bundle).NAME == "ort"


def test_a_gpu_without_room_is_a_clear_error(monkeypatch):
    """Creating the stream fails on a full GPU, and on one that another process holds alone."""
    fine, full = SimpleNamespace(value=0), SimpleNamespace(value=2)
    properties = SimpleNamespace(name=b"Fake\0", major=9, minor=0)
    runtime = SimpleNamespace(
        cudaError_t=SimpleNamespace(cudaSuccess=fine),
        cudaGetErrorString=lambda status: (fine, b"out of memory"),
        cudaGetDeviceCount=lambda: (fine, 1),
        cudaGetDevice=lambda: (fine, 0),
        cudaGetDeviceProperties=lambda device: (fine, properties),
        cudaStreamNonBlocking=1,
        cudaStreamCreateWithFlags=lambda flag: (full, None),
    )
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)
    with pytest.raises(LuvcError, match=r"GPU cannot be used .*out of memory.* --backend ort"):
        Cuda()


def test_memory_that_is_free_and_not_to_be_had(monkeypatch):
    def refuse(size):
        raise RuntimeError("cudaMalloc: out of memory")

    cuda = FakeCuda()
    monkeypatch.setattr(cuda, "allocate", refuse)
    with pytest.raises(LuvcError, match=r"the caches need 1 MiB .*out of memory.*: take less"):
        Memory(cuda, 2**20, "the caches", "take less")
