"""What is TensorRT's own in the build path: GPU, plugins, timing cache; TensorRT-RTX stands in for it.

Both libraries have the same builder, parser and configuration, and without registered plugins both
build the function bodies.
"""

import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from luvc.engines import Bundle
from luvc.engines.backends import backend
from luvc.engines.backends.base import BuildOptions
from luvc.engines.backends.trt import build as trt_build
from luvc.engines.backends.trt import library as trt_library
from luvc.engines.backends.trt import plugins as trt_plugins
from luvc.engines.backends.trt.library import TENSORRT, Library
from luvc.engines.backends.trt.timing_cache import TimingCache
from luvc.errors import LuvcError
from luvc.plugins import nvrtc

INSTALLED = TENSORRT.problem() is None


@pytest.fixture
def stand_in(monkeypatch, tmp_path) -> Library:
    """TensorRT's switch on TensorRT-RTX's module, a GPU, and plugins that are never registered."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    pytest.importorskip("polygraphy", reason="Polygraphy is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(trt_build, "Cuda", lambda: SimpleNamespace(arch="sm90"))
    monkeypatch.setattr(trt_build, "register_plugins", lambda form, path: None)
    return replace(TENSORRT, module="tensorrt_rtx")


def test_builds_with_plugins_and_timing_cache(stand_in, workshop, tmp_path):
    bundle = Bundle.load(shutil.copytree(workshop.bundle("qwen2-fp16").path, tmp_path / "bundle"))
    built, done = trt_build.build(stand_in, bundle, BuildOptions())
    (engine,) = built.manifest.engines
    assert engine.folder.startswith("engines/tensorrt-sm90-") and engine.plugins == "aot"
    assert all(d.seconds for d in done)
    (timing,) = tmp_path.joinpath("cache/luvc-export").glob("timing-tensorrt-*-sm90.bin")
    assert timing.stat().st_size > 0
    _, done = trt_build.build(stand_in, built, BuildOptions())
    assert not any(d.seconds for d in done)
    _, done = trt_build.build(stand_in, built, BuildOptions(plugin_form="body"))
    assert all(d.seconds for d in done)


def test_builds_go_on_without_a_place_for_the_timing_cache(monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    draft = tmp_path / "draft"
    engine: Any = SimpleNamespace(backend="tensorrt", version="11.4", arch="sm90")
    timing = TimingCache(engine)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # in which no folder can be made
    timing.take(draft)
    assert not draft.exists()
    draft.write_bytes(b"times")
    timing.keep(draft)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    timing.keep(draft)
    draft.unlink()
    timing.take(draft)
    assert draft.read_bytes() == b"times"
    assert len(list(tmp_path.joinpath("cache/luvc-export").iterdir())) == 1


def test_other_kernels_build_again(monkeypatch, tmp_path):
    monkeypatch.setattr(nvrtc, "SOURCES", {"a.cu": tmp_path / "a.cu"})
    (tmp_path / "a.cu").write_text("one")
    first = trt_plugins.plugins_hash("aot", None)
    (tmp_path / "a.cu").write_text("two")
    assert trt_plugins.plugins_hash("aot", None) != first


def test_targets_are_for_rtx(stand_in):
    bundle = SimpleNamespace(manifest=SimpleNamespace(dtype="float16"), path="B")
    with pytest.raises(LuvcError, match="--target is for tensorrt-rtx"):
        trt_build.build(stand_in, bundle, BuildOptions(targets=("sm89",)))  # type: ignore[arg-type]


@pytest.mark.skipif(INSTALLED, reason="TensorRT is installed")
def test_not_installed():
    with pytest.raises(
        LuvcError, match=r"TensorRT cannot be imported .* pip install 'luvc-export\[gpu\]'"
    ):
        backend("tensorrt")


def test_the_plugin_library_must_be_named(monkeypatch):
    monkeypatch.delenv(trt_plugins.PLUGIN_LIBRARY, raising=False)
    monkeypatch.setattr(trt_plugins, "_forms", set())
    with pytest.raises(LuvcError, match="give --plugin-library or set LUVC_PLUGIN_LIBRARY"):
        trt_plugins.register_plugins("library", None)


def test_one_process_registers_one_plugin_form(monkeypatch):
    """TensorRT prefers what is registered, and it cannot be taken back."""
    calls = []
    monkeypatch.setattr(trt_plugins, "_forms", set())
    monkeypatch.setattr(trt_plugins.nvrtc, "check_version", lambda: None)
    monkeypatch.setattr(trt_plugins.tensorrt_registry, "register", lambda: calls.append("aot"))
    for form in ("body", "aot", "aot"):
        trt_plugins.register_plugins(form, None)
    assert calls == ["aot", "aot"]
    for form in ("library", "body"):
        with pytest.raises(LuvcError, match=f"use the form '{form}' in a new process"):
            trt_plugins.register_plugins(form, None)


def test_a_missing_compiler_is_said_before_plugins_are_registered(monkeypatch):
    def missing():
        raise LuvcError("no NVRTC here")

    monkeypatch.setattr(trt_plugins, "_forms", set())
    monkeypatch.setattr(nvrtc, "load", missing)
    monkeypatch.setattr(trt_plugins.tensorrt_registry, "register", lambda: pytest.fail("too early"))
    with pytest.raises(LuvcError, match="no NVRTC here"):
        trt_plugins.register_plugins("aot", None)
    assert not trt_plugins._forms


def test_a_compiler_newer_than_the_driver_is_refused(monkeypatch):
    """Drivers load the PTX of their own version of CUDA and of older ones; 0 is no driver."""
    driver = [0]
    runtime = SimpleNamespace(cudaDriverGetVersion=lambda: (SimpleNamespace(value=0), driver[0]))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)
    monkeypatch.setattr(nvrtc, "load", lambda: SimpleNamespace(nvrtcVersion=lambda: (0, 13, 1)))
    for version in (0, 13010, 14000):
        driver[0] = version
        nvrtc.check_version()
    driver[0] = 13000
    with pytest.raises(LuvcError, match=r"NVRTC 13\.1 .* CUDA 13\.0, .* pip install"):
        nvrtc.check_version()


def test_one_process_builds_for_one_library(monkeypatch):
    pytest.importorskip("polygraphy", reason="Polygraphy is not installed")
    other = trt_library.TENSORRT_RTX
    other.polygraphy()
    with pytest.raises(LuvcError, match="TensorRT engines in a new process"):
        TENSORRT.polygraphy()
    other.polygraphy()


def test_unknown_backends():
    with pytest.raises(LuvcError, match="'cuda' is not one of auto, tensorrt, tensorrt-rtx, ort"):
        backend("cuda")
