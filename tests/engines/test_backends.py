"""Which backend "auto" takes, and why a bundle cannot be run with one here."""

from types import SimpleNamespace

import pytest

from luvc.engines.backends import backend, tensorrt, tensorrt_rtx, trt_pick
from luvc.engines.manifest import Engine
from luvc.errors import LuvcError


def test_auto_takes_the_best_backend_that_can_run_the_bundle(workshop, monkeypatch):
    bundle, refused = workshop.bundle("qwen2"), set()
    for module in (tensorrt, tensorrt_rtx):

        def usable(bundle, name=module.NAME):
            return "not here" if name in refused else None

        monkeypatch.setattr(module, "usable", usable)
        monkeypatch.setattr(module, "available", lambda: None)
    assert backend("auto").NAME == "ort", "without a bundle nothing is known of engines"
    for best in ("tensorrt", "tensorrt-rtx", "ort"):
        found = backend("auto", bundle).NAME
        assert found == best
        refused.add(best)


def why_not(**engine):
    """What is said of a bundle with one engine, on a machine with TensorRT 11.4."""
    about = {"backend": "tensorrt", "arch": "sm90", "version": "11.4"} | engine
    entry = Engine(plugins="aot", graphs=(), **about)
    bundle = SimpleNamespace(manifest=SimpleNamespace(engines=(entry,)), path="B")
    library = SimpleNamespace(
        name="tensorrt", title="TensorRT", version="11.4", problem=lambda: None
    )
    return trt_pick.why_not(library, bundle)


@pytest.mark.parametrize(
    ("engine", "gpu", "reason"),
    [
        ({}, "sm90", None),
        ({"arch": "sm86+sm90"}, "sm90", None),
        ({}, "sm86", "the engines are for sm90, the GPU of this machine is sm86"),
        ({"version": "11.2"}, "sm90", "built with TensorRT 11.2, this machine has 11.4"),
        ({"backend": "tensorrt-rtx"}, "sm90", "B holds no TensorRT engines"),
    ],
)
def test_engines_are_held_against_this_machine(monkeypatch, engine, gpu, reason):
    monkeypatch.setattr(trt_pick, "Cuda", lambda: SimpleNamespace(arch=gpu))
    found = why_not(**engine)
    assert found is None if reason is None else reason in found


def test_engines_without_a_gpu(monkeypatch):
    def no_gpu():
        raise LuvcError("no NVIDIA GPU can be used here")

    monkeypatch.setattr(trt_pick, "Cuda", no_gpu)
    assert why_not() == "no NVIDIA GPU can be used here"
