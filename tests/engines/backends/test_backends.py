"""Which backend "auto" takes, and why a bundle cannot be run with one here, or no longer."""

import shutil
from types import SimpleNamespace
from typing import Any

import pytest

from luvc.engines import VLM
from luvc.engines.backends import backend
from luvc.engines.backends.trt import engine_choice as trt_pick
from luvc.engines.backends.trt.backend import tensorrt, tensorrt_rtx
from luvc.engines.bundle.manifest import Engine
from luvc.engines.bundle.swap import replacing
from luvc.errors import LuvcError

from ...conftest import ask


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
    bundle: Any = SimpleNamespace(manifest=SimpleNamespace(engines=(entry,)), path="B")
    library: Any = SimpleNamespace(
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


def test_a_layout_is_not_opened_from_another_bundle(workshop, picture, tmp_path):
    """A bundle is replaced under a process that has used its first layout: that goes on to answer."""
    bundle = shutil.copytree(workshop.bundle("qwen2-layouts", 1).path, tmp_path / "bundle")
    vlm = VLM.load(bundle, backend="ort", threads=1)
    first, *_, last = vlm.manifest.layouts
    messages = ask("Why?", *[picture] * first.images)
    before = vlm.generate(messages, layout=first.name, max_new_tokens=4)
    with replacing(bundle) as work:
        shutil.copytree(workshop.bundle("qwen2").path, work, dirs_exist_ok=True)
    for _ in range(2):
        with pytest.raises(LuvcError, match=r"was replaced .* restart the service"):
            vlm.runner.prepare(last, vision=False)
    after = vlm.generate(messages, layout=first.name, max_new_tokens=4)
    assert after.token_ids == before.token_ids
