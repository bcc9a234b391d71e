"""The TensorRT session and the kernels it keeps, on a stand-in for TensorRT."""

import mmap
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from luvc.engines.backends.trt import kernel_cache as trt_kernels
from luvc.engines.backends.trt.session import Session, Sessions
from luvc.errors import LuvcError

from .fake_device import FakeCuda

KERNELS = "runtime-sm90-Fake.cache"  # of the fake device


class Engine_:
    """A deserialized engine with two profiles."""

    num_optimization_profiles, device_memory_size_v2 = 2, 4096
    num_io_tensors, get_tensor_name = 2, "xy".__getitem__

    def __init__(self):
        self.contexts, self.configs = [], []

    def create_runtime_config(self):
        cache = SimpleNamespace(deserialize=self.loaded.append, serialize=lambda: b"kernels")
        config = SimpleNamespace(
            create_runtime_cache=lambda: cache, set_runtime_cache=lambda c: None
        )
        config.set_execution_context_allocation_strategy = lambda strategy: None
        self.configs.append(config)
        return config

    loaded: list = []  # noqa: RUF012

    def create_execution_context(self, how):
        calls = []
        context = SimpleNamespace(calls=calls, runs=True)
        context.set_optimization_profile_async = lambda p, s: calls.append(("profile", p))
        context.set_input_shape = lambda n, s: calls.append((n, s)) or s[0] < 9
        context.set_tensor_address = lambda n, a: calls.append((n, a))
        context.set_device_memory = lambda a, s: calls.append(("memory", a, s))
        context.execute_async_v3 = lambda s: context.runs
        self.contexts.append(context)
        return context


@pytest.fixture
def stand_in(tmp_path):
    """A library whose runtime loads Engine_ from a plan that is not read into memory."""
    engine = Engine_()
    engine.loaded.clear()

    def load(plan):
        return engine if isinstance(plan, mmap.mmap) and plan[:] == b"plan" else None

    runtime = SimpleNamespace(deserialize_cuda_engine=load)
    trt = SimpleNamespace(
        ILogger=type("ILogger", (), {"ERROR": 1}),
        Runtime=lambda log: runtime,
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="ours"),
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager"),
    )
    library = SimpleNamespace(
        load=lambda: trt, title="TensorRT-RTX", name="tensorrt-rtx", plugins=False
    )
    (tmp_path / "x.plan").write_bytes(b"plan")
    (tmp_path / "empty.plan").write_bytes(b"")
    return library, engine, tmp_path


def opener(library, folder: Path, **memory) -> Sessions:
    cuda: Any = FakeCuda(**memory)
    return Sessions(library, cuda, folder)


def test_a_session_sets_shapes_once_and_runs(stand_in):
    library, engine, folder = stand_in
    session = opener(library, folder)(folder / "x.plan")
    assert isinstance(session, Session) and session.workspace == 4096
    assert [c.calls for c in engine.contexts] == [[("profile", 0)], [("profile", 1)]]
    for _ in range(2):
        session.set_shapes(0, {"x": (2, 3)})
    session.enqueue(0, {"x": 11, "y": 12}, 77, 5000)
    assert engine.contexts[0].calls[1:] == [
        ("x", (2, 3)),
        ("x", 11),
        ("y", 12),
        ("memory", 77, 5000),
    ]
    assert session.epochs == [1, 0] and session.capturable(0)
    assert [session.has(name) for name in ("x", "y", "z")] == [True, True, False]
    with pytest.raises(RuntimeError, match="outside profile 1"):
        session.set_shapes(1, {"x": (9, 3)})
    engine.contexts[0].runs = False
    with pytest.raises(RuntimeError, match="execution failed"):
        session.enqueue(0, {}, 77, 5000)


def test_compiled_kernels_are_kept(stand_in):
    library, engine, folder = stand_in
    sessions = opener(library, folder)
    sessions(folder / "x.plan")
    sessions.save()
    assert (folder / KERNELS).read_bytes() == b"kernels" and not engine.loaded
    opener(library, folder)(folder / "x.plan")
    assert engine.loaded == [b"kernels"]
    decoding, others = engine.configs[:2]
    assert decoding.dynamic_shapes_kernel_specialization_strategy == "eager"
    assert not hasattr(others, "dynamic_shapes_kernel_specialization_strategy")


def test_kernels_of_new_shapes_are_kept_too(stand_in, monkeypatch):
    """At most once a minute, and when the process ends."""
    library, _, folder = stand_in
    clock = [0.0]
    monkeypatch.setattr(trt_kernels, "monotonic", lambda: clock[0])
    sessions, file = opener(library, folder), folder / KERNELS
    session = sessions(folder / "x.plan")

    def saved(sessions, session, seconds, shape) -> bool:
        clock[0] = seconds
        session.set_shapes(0, {"x": shape})
        sessions.keep()
        found = file.exists()
        file.unlink(missing_ok=True)
        return found

    both = sessions, session
    assert not saved(*both, 10, (1, 3))
    assert saved(*both, 70, (2, 3))
    assert not saved(*both, 200, (1, 3)), "its kernels are in the file"
    assert saved(*both, 300, (3, 3)) and not saved(*both, 310, (4, 3))
    sessions.close()
    assert file.exists()
    file.unlink()
    sessions.close()
    assert not file.exists(), "closed once"


def test_gpu_models_do_not_share_kernels():
    names = [
        trt_kernels.cache_name(SimpleNamespace(arch="sm89", name=name))
        for name in ("NVIDIA L4", "NVIDIA GeForce RTX 4090")
    ]
    assert names == ["runtime-sm89-NVIDIA-L4.cache", "runtime-sm89-NVIDIA-GeForce-RTX-4090.cache"]


def test_processes_do_not_share_a_draft_of_the_kernels(stand_in, monkeypatch):
    library, _, folder = stand_in
    sessions = opener(library, folder)
    sessions(folder / "x.plan")
    drafts = []
    monkeypatch.setattr(Path, "replace", lambda draft, target: drafts.append(draft.name))
    for pid in (1, 2):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        sessions.save()
    assert len(set(drafts)) == 2


def test_a_plan_that_does_not_load(stand_in):
    library, _, folder = stand_in
    with pytest.raises(LuvcError, match=r"does not load .*empty.plan.* luvc-build --backend"):
        opener(library, folder)(Path(folder / "empty.plan"))
    with pytest.raises(LuvcError, match=r"weights of x\.plan need .* fewer image sizes"):
        opener(library, folder, total=1)(folder / "x.plan")


def test_an_engine_that_cannot_be_prepared(stand_in, monkeypatch):
    library, _, folder = stand_in
    sessions = opener(library, folder)
    sessions.log.messages.append("no room for 9 GiB")
    monkeypatch.setattr(Engine_, "create_execution_context", lambda self, how: None)
    with pytest.raises(LuvcError, match=r"cannot prepare .*no room for 9 GiB.*: free memory"):
        sessions(folder / "x.plan")
