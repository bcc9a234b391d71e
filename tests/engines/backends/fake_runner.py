"""The TensorRT runner of a bundle on the fake device."""

from typing import Any

from luvc.engines.backends.trt import graph as trt_graph
from luvc.engines.backends.trt.runner import TrtRunner
from luvc.engines.bundle.manifest import Engine, EngineFile

from .fake_device import FakeCuda, FakeSession, FakeSessions

CASE = "qwen2-fp16"


def entry(bundle, **change) -> Engine:
    """A manifest entry whose plans are the graphs themselves."""
    files = [
        EngineFile.model_construct(  # no manifest may list a graph as a plan
            graph=graph,
            file=graph,
            key="",
            profiles=trt_graph.profiles(bundle.manifest, layout, graph, (1, 1, 4), 4),
        )
        for layout in bundle.manifest.layouts
        for graph in layout.graphs.files
    ]
    about: dict[str, Any] = {"backend": "tensorrt", "arch": "sm90", "version": "11.4"}
    about |= {"plugins": "aot"} | change
    return Engine.model_construct(graphs=tuple(files), **about)


def make(bundle, cuda: FakeCuda, engine: Engine | None = None) -> TrtRunner:
    """A runner on the stand-ins, of an engine of the bundle or the one that `entry` makes."""
    device: Any = cuda
    sessions: Any = FakeSessions(cuda)
    return TrtRunner(bundle, engine or entry(bundle), device, sessions, "fake")


def opened(runner: TrtRunner) -> list[FakeSession]:
    """The stand-ins that `make`'s runner holds."""
    sessions: Any = runner._sessions
    return list(sessions.values())
