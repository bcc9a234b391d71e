"""What is TensorRT's own in the build path: GPU, plugins, timing cache; TensorRT-RTX stands in for it.

Both libraries have the same builder, parser and configuration, and without registered plugins both
build the function bodies.
"""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from luvc.engines import Bundle
from luvc.engines.backends import backend, trt_build, trt_library
from luvc.engines.backends.trt_build import BuildOptions
from luvc.engines.backends.trt_library import TENSORRT, Library
from luvc.errors import LuvcError

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


def test_other_kernels_build_again(stand_in, monkeypatch, tmp_path):
    monkeypatch.setattr(trt_build.nvrtc, "KERNELS", tmp_path)
    (tmp_path / "a.cu").write_text("one")
    first = trt_build._plugins_hash("aot", None)
    (tmp_path / "a.cu").write_text("two")
    assert trt_build._plugins_hash("aot", None) != first


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
    monkeypatch.delenv(trt_build.PLUGIN_LIBRARY, raising=False)
    with pytest.raises(LuvcError, match="give --plugin-library or set LUVC_PLUGIN_LIBRARY"):
        trt_build.register_plugins("library", None)


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
