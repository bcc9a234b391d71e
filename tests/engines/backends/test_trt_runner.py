"""The TensorRT runner on a fake device: all of it but the CUDA and TensorRT calls themselves."""

import gc
import mmap
import os
import shutil
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from luvc.engines import VLM, Bundle
from luvc.engines.backends import backend
from luvc.engines.backends.base import PrefillFeed
from luvc.engines.backends.trt import caches as trt_caches
from luvc.engines.backends.trt import engine_choice as trt_pick
from luvc.engines.backends.trt import graph as trt_graph
from luvc.engines.backends.trt import kernel_cache as trt_kernels
from luvc.engines.backends.trt.backend import tensorrt_rtx
from luvc.engines.backends.trt.cuda import Cuda, Memory
from luvc.engines.backends.trt.library import TENSORRT
from luvc.engines.backends.trt.prompt_lengths import pad_prompts
from luvc.engines.backends.trt.runner import TrtRunner
from luvc.engines.backends.trt.session import Session, Sessions
from luvc.engines.bundle.manifest import Engine, EngineFile
from luvc.engines.bundle.swap import replacing
from luvc.errors import LuvcError

from ...conftest import ask
from .fake_device import FakeCuda, FakeSession, FakeSessions

CASE = "qwen2-fp16"
KERNELS = "runtime-sm90-Fake.cache"  # of the fake device


def entry(bundle, **change) -> Engine:
    """A manifest entry whose plans are the graphs themselves."""
    files = [
        EngineFile(
            graph=graph,
            file=graph,
            key="",
            profiles=trt_graph.profiles(bundle.manifest, layout, graph, (1, 1, 4), 4),
        )
        for layout in bundle.manifest.layouts
        for graph in layout.graphs.files
    ]
    about = {"backend": "tensorrt", "arch": "sm90", "version": "11.4", "plugins": "aot"} | change
    return Engine(graphs=tuple(files), **about)


def make(bundle, cuda) -> TrtRunner:
    return TrtRunner(bundle, entry(bundle), cuda, FakeSessions(cuda), "fake")


@pytest.fixture(scope="module")
def both(workshop):
    """The same bundle on the fake device and on ONNX Runtime."""
    bundle, cuda = workshop.bundle(CASE), FakeCuda()
    return VLM(bundle, make(bundle, cuda)), VLM.load(bundle.path, backend="ort", threads=1), cuda


def test_answers_equal_onnx_runtime(both, picture):
    ours, theirs, cuda = both
    messages = ask("What is this?", picture)
    cuda.captures = cuda.launches = 0
    a, b = (vlm.generate(messages, max_new_tokens=12) for vlm in (ours, theirs))
    assert a.token_ids == b.token_ids and a.stages == b.stages
    steps = len(a.token_ids) - 1
    # the first step runs as it is, the second is recorded, and all from then on are replayed
    assert (cuda.captures, cuda.launches) == (1, steps - 1)


def test_batches_and_turns_equal_onnx_runtime(both, picture):
    ours, theirs, _ = both
    batch = [ask("Hello", picture), ask("Which colours does the whole picture have?", picture)]
    answers = [vlm.generate(batch, max_new_tokens=6) for vlm in (ours, theirs)]
    assert [a.token_ids for a in answers[0]] == [a.token_ids for a in answers[1]]
    turns = []
    for vlm in (ours, theirs):
        chat = vlm.chat(max_new_tokens=5)
        turns.append([chat.ask("Hello", [picture]), chat.ask("And then?")])
    assert [t.token_ids for t in turns[0]] == [t.token_ids for t in turns[1]]


def test_a_crowd_and_a_conversation_share_the_device(both, picture):
    """Rows that come, move and go on the device: equal to ONNX Runtime, and steps are replayed."""
    from luvc.engines.serving import Limits, Scheduler

    ours, theirs, cuda = both
    cuda.captures = cuda.launches = 0
    scheduler = Scheduler(ours, Limits(rows=4, prefill=2))
    lengths = (9, 3, 14, 6, 11, 4)
    tickets = [scheduler.submit(ask("Hello", picture), max_new_tokens=n) for n in lengths]
    chat = theirs.chat(max_new_tokens=5)
    for text, images in (("What is this?", [picture]), ("And then?", [])):
        answer = scheduler.submit(ask(text, *images), conversation="s", max_new_tokens=5).answer
        expected = chat.ask(text, images)
        assert answer.token_ids == expected.token_ids
        assert answer.reused_tokens == expected.reused_tokens
    for length, ticket in zip(lengths, tickets, strict=True):
        expected = theirs.generate(ask("Hello", picture), max_new_tokens=length)
        assert ticket.answer.token_ids == expected.token_ids
    assert 0 < cuda.captures <= 4 and cuda.launches > cuda.captures, "one recording for each B"
    scheduler.close()


def test_a_row_that_tensorrt_cannot_address_is_refused(both):
    from luvc.engines.backends.trt.caches import Caches
    from luvc.engines.bundle.tensors import CacheSpec

    caches = Caches(FakeCuda(), [CacheSpec("a", (2, 1, 3, 64), "float16")])  # rows of 384 bytes
    with pytest.raises(LuvcError, match="multiple of 256"):
        caches.window(None, 1, 1)
    assert caches.window(None, 0, 1) is caches.window(None, 0, 1)


def test_a_scheduler_refuses_such_rows_before_any_request(both, monkeypatch):
    from luvc.engines.serving import Limits, Scheduler

    ours, _, _ = both
    monkeypatch.setattr(trt_caches, "ALIGNED", 241)  # divides no row
    Scheduler(ours, Limits(rows=1)).close()
    with pytest.raises(LuvcError, match="row 1 of the caches does not begin at a multiple of 241"):
        Scheduler(ours, Limits(rows=2))


def test_engines_for_several_rows_only_cannot_serve(both):
    """Requests join and leave one by one; said when the scheduler starts, not to a request."""
    from luvc.engines.serving import Limits, Scheduler

    bundle = both[0].bundle
    runner, step = make(bundle, FakeCuda()), bundle.manifest.layouts[0].graphs.step
    profiles = tuple({**p, "B": (2, 2, 4)} for p in runner.files[step].profiles)
    runner.files[step] = runner.files[step].model_copy(update={"profiles": profiles})
    with pytest.raises(LuvcError, match=r"batch of 1 .* 2 to 4: luvc-build --batch 1,2,4"):
        Scheduler(VLM(bundle, runner), Limits(rows=4))


def test_prompts_are_padded_to_few_lengths(workshop):
    def padded(length, longest):
        ids = np.ones((2, length), np.int64)
        feed = PrefillFeed(ids, ids[..., None], ids, np.repeat(ids[..., None], 3, -1), ids[:, 0])
        found = pad_prompts(feed, longest)
        assert found.position_ids.shape == (*found.input_ids.shape, 3)
        assert found.input_ids.sum() == 2 * length and (found.input_ids[:, :length] == 1).all()
        assert found.visual_index is ids and found.last_index is feed.last_index
        return found.input_ids.shape[1]

    cases = ((3, 200), (64, 200), (65, 200), (130, 150), (151, 150))
    assert [padded(*case) for case in cases] == [64, 64, 128, 150, 151]
    bundle = workshop.bundle(CASE)
    (layout,) = bundle.manifest.layouts
    runner, prefill = make(bundle, FakeCuda()), layout.graphs.prefill
    runner.prepare(layout, vision=False)
    assert runner._sessions[prefill]._shapes[0]["input_ids"] == (1, 64)


def test_caches_stay_on_the_device(both, picture):
    ours, _, cuda = both
    cuda.moved.clear()
    ours.generate(ask("What is this?", picture), max_new_tokens=4)
    layout = ours.manifest.layouts[0]
    smallest = np.prod(ours.runner.new_caches(layout, 1).specs[-1].shape) * 2
    pixels = np.prod(layout.pixel_shape) * 4
    assert [m for m in cuda.moved if m >= smallest] == [pixels]


def test_memory_goes_back_with_the_caches(both):
    ours, _, cuda = both
    layout = ours.manifest.layouts[0]
    gc.collect()
    before = cuda.memory()[0]
    caches = ours.runner.new_caches(layout, 2)
    assert all(not c.any() for c in ours.runner.read_caches(caches).values())
    assert before - cuda.memory()[0] >= 2 * ours.manifest.kv_bytes(layout)
    del caches
    gc.collect()
    assert cuda.memory()[0] == before


def test_close_gives_all_device_memory_back(workshop, picture):
    """With a chat, a stream and a scheduler's rows still held by their owners."""
    from luvc.engines.serving import Limits, Scheduler

    bundle, cuda = workshop.bundle(CASE), FakeCuda()
    vlm = VLM(bundle, make(bundle, cuda))
    chat, stream = vlm.chat(max_new_tokens=5), vlm.generate(ask("Why?", picture), stream=True)
    chat.ask("Hello", [picture])
    next(stream)
    caches = chat._rows.caches
    with Scheduler(vlm, Limits(rows=3)) as scheduler:
        before = len(cuda.held)
        assert scheduler.submit(ask("Hello", picture), max_new_tokens=5).answer
    assert len(cuda.held) < before, "a closed scheduler holds no caches"
    weights = [weakref.ref(session._session) for session in vlm.runner._sessions.values()]
    assert cuda.held and len(weights) == 3
    vlm.close()
    assert not cuda.held and not any(w() for w in weights)
    vlm.close()
    assert vlm.runner._opener.closed == 1
    for closed in (
        lambda: chat.ask("And?"),
        lambda: next(stream),
        lambda: stream.answer,
        lambda: vlm.runner.read_caches(caches),
    ):
        with pytest.raises(LuvcError, match="the model is closed"):
            closed()


def test_prepare_runs_everything_once(workshop):
    bundle, cuda = workshop.bundle(CASE), FakeCuda()
    runner = make(bundle, cuda)
    runner.prepare(bundle.manifest.layouts[0])
    assert [s.runs for s in runner._sessions.values()] == [1, 1, 1]
    assert not cuda.queue


def test_a_question_without_a_picture(workshop):
    bundle, cuda = workshop.bundle("qwen2-text-fp16"), FakeCuda()
    layout = bundle.manifest.layouts[1]
    runner = make(bundle, cuda)
    runner.prepare(layout)
    assert set(runner._sessions) == {layout.graphs.prefill, layout.graphs.step}
    ort = VLM.load(bundle.path, backend="ort", threads=1)
    wanted = ort.generate(ask("Why?"), max_new_tokens=12)
    assert (
        VLM(bundle, runner).generate(ask("Why?"), max_new_tokens=12).token_ids == wanted.token_ids
    )


def test_a_part_of_the_model_is_prepared_alone(workshop):
    bundle = workshop.bundle(CASE)
    (layout,) = bundle.manifest.layouts
    graphs = layout.graphs
    for part, loaded in (("vision", {graphs.prefill, graphs.step}), ("language", {graphs.vision})):
        runner = make(bundle, FakeCuda())
        runner.prepare(layout, **{part: False})
        assert set(runner._sessions) == loaded


def test_an_engine_is_not_opened_from_another_bundle(workshop, tmp_path):
    """The vision engine is open when the bundle is replaced; the plans of the language model are not."""
    bundle = Bundle.load(shutil.copytree(workshop.bundle(CASE).path, tmp_path / "bundle"))
    (layout,) = bundle.manifest.layouts
    runner = make(bundle, FakeCuda())
    runner.prepare(layout, language=False)
    with replacing(bundle.path) as work:
        shutil.copytree(workshop.bundle("qwen2").path, work, dirs_exist_ok=True)
    with pytest.raises(LuvcError, match=r"was replaced .* restart the service"):
        runner.prepare(layout, vision=False)
    assert set(runner._sessions) == {layout.graphs.vision}


def test_other_shapes_are_recorded_again(both, picture):
    """A batch in between changes the context's shapes: the old recording must not be replayed."""
    ours, theirs, cuda = both
    chats = [vlm.chat(max_new_tokens=6) for vlm in (ours, theirs)]
    first = [c.ask("Hello", [picture]).token_ids for c in chats]
    for vlm in (ours, theirs):
        vlm.generate([ask("Hello", picture)] * 2, max_new_tokens=4)
    cuda.captures = 0
    second = [c.ask("Go on").token_ids for c in chats]
    assert first[0] == first[1] and second[0] == second[1]
    assert cuda.captures == 1


def test_a_step_that_cannot_be_recorded_runs_without_a_graph(both, picture, monkeypatch):
    ours, theirs, cuda = both

    def refuse(work):
        raise RuntimeError("not permitted")

    monkeypatch.setattr(cuda, "capture", refuse)
    messages = ask("What is this?", picture)
    with pytest.warns(UserWarning, match="without a CUDA graph: not permitted"):
        answer = ours.generate(messages, max_new_tokens=6)
    assert answer.token_ids == theirs.generate(messages, max_new_tokens=6).token_ids


def test_short_memory_is_said_in_numbers(both):
    ours, _, _ = both
    runner = make(ours.bundle, FakeCuda(total=2**19))
    with pytest.raises(LuvcError, match=r"caches of 4 conversations need 1 MiB .* 0 of 0 MiB"):
        runner.new_caches(ours.manifest.layouts[0], 4)


def test_a_batch_outside_the_engine(both):
    ours, _, _ = both
    with pytest.raises(LuvcError, match=r"batch of 5 .* 1 to 4: luvc-build --batch 1,1,5"):
        ours.runner.new_caches(ours.manifest.layouts[0], 5)


def test_an_engine_that_copies_caches_is_refused(both, monkeypatch):
    ours, _, _ = both
    monkeypatch.setattr(FakeSession, "in_place", lambda *_: False)
    runner = make(ours.bundle, FakeCuda())
    with pytest.raises(LuvcError, match="does not update cache_key_0 in place"):
        runner.prepare(ours.manifest.layouts[0])


def test_small_caches_are_copied_back(both, picture, monkeypatch):
    """Positions and states of convolutions: no engine updates those in place. Here all are such."""
    monkeypatch.setattr(trt_caches, "COPIED", ("key", "value"))
    monkeypatch.setattr(FakeSession, "in_place", lambda *_: False)
    ours, theirs, _ = both
    cuda = FakeCuda()
    copying = VLM(ours.bundle, make(ours.bundle, cuda))
    messages = ask("What is this?", picture)
    a, b = (vlm.generate(messages, max_new_tokens=12) for vlm in (copying, theirs))
    assert a.token_ids == b.token_ids
    assert (cuda.captures, cuda.launches) == (1, len(a.token_ids) - 2)


def test_a_step_that_an_engine_does_not_let_record_is_said(both, picture, monkeypatch):
    ours, theirs, cuda = both
    monkeypatch.setattr(FakeSession, "capturable", lambda *_: False)
    messages, before = ask("What is this?", picture), cuda.captures
    with pytest.warns(UserWarning, match="without a CUDA graph: the engine allows none"):
        answer = ours.generate(messages, max_new_tokens=6)
    assert answer.token_ids == theirs.generate(messages, max_new_tokens=6).token_ids
    assert cuda.captures == before


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
        trt_pick.pick_engine(SimpleNamespace(manifest=manifest, path="B"), TENSORRT, version, arch)


@pytest.mark.parametrize(
    ("arch", "gpu"), [("sm90", "sm90"), ("sm86+sm89", "sm89"), ("portable", "sm120")]
)
def test_the_engine_for_this_machine(workshop, arch, gpu):
    bundle = workshop.bundle(CASE)
    engines = tuple(entry(bundle, arch=a) for a in ("sm75", arch))
    manifest = bundle.manifest.model_copy(update={"engines": engines})
    found = trt_pick.pick_engine(
        SimpleNamespace(manifest=manifest, path="B"), TENSORRT, "11.4", gpu
    )
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


# ---- the session, on a stand-in for TensorRT


class Engine_:
    """A deserialized engine with two profiles."""

    num_optimization_profiles, device_memory_size_v2 = 2, 4096

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


def test_a_session_sets_shapes_once_and_runs(stand_in):
    library, engine, folder = stand_in
    session = Sessions(library, FakeCuda(), folder)(folder / "x.plan")
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
    with pytest.raises(RuntimeError, match="outside profile 1"):
        session.set_shapes(1, {"x": (9, 3)})
    engine.contexts[0].runs = False
    with pytest.raises(RuntimeError, match="execution failed"):
        session.enqueue(0, {}, 77, 5000)


def test_compiled_kernels_are_kept(stand_in):
    library, engine, folder = stand_in
    sessions = Sessions(library, FakeCuda(), folder)
    sessions(folder / "x.plan")
    sessions.save()
    assert (folder / KERNELS).read_bytes() == b"kernels" and not engine.loaded
    Sessions(library, FakeCuda(), folder)(folder / "x.plan")
    assert engine.loaded == [b"kernels"]
    decoding, others = engine.configs[:2]
    assert decoding.dynamic_shapes_kernel_specialization_strategy == "eager"
    assert not hasattr(others, "dynamic_shapes_kernel_specialization_strategy")


def test_kernels_of_new_shapes_are_kept_too(stand_in, monkeypatch):
    """At most once a minute, and when the process ends."""
    library, _, folder = stand_in
    clock = [0.0]
    monkeypatch.setattr(trt_kernels, "monotonic", lambda: clock[0])
    sessions, file = Sessions(library, FakeCuda(), folder), folder / KERNELS
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
    sessions = Sessions(library, FakeCuda(), folder)
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
        Sessions(library, FakeCuda(), folder)(Path(folder / "empty.plan"))
    with pytest.raises(LuvcError, match=r"weights of x\.plan need .* fewer image sizes"):
        Sessions(library, FakeCuda(total=1), folder)(folder / "x.plan")


def test_an_engine_that_cannot_be_prepared(stand_in, monkeypatch):
    library, _, folder = stand_in
    sessions = Sessions(library, FakeCuda(), folder)
    sessions.log.messages.append("no room for 9 GiB")
    monkeypatch.setattr(Engine_, "create_execution_context", lambda self, how: None)
    with pytest.raises(LuvcError, match=r"cannot prepare .*no room for 9 GiB.*: free memory"):
        sessions(folder / "x.plan")
