"""Repositories for the tests: options, engines that are none, reading a config."""

import importlib
from dataclasses import replace
from typing import Any

import pytest

from luvc.engines.backends.trt import graph as trt_graph
from luvc.engines.bundle.folder import Bundle
from luvc.engines.bundle.manifest import Engine, EngineFile
from luvc.engines.serving import Limits
from luvc.tools.client_messages import Bounds

pytest.importorskip("tritonclient.grpc")
from google.protobuf import text_format

from luvc.tools.triton.repository import Options

pb: Any = importlib.import_module("tritonclient.grpc.model_config_pb2")  # it makes its classes then
OPTIONS = Options(Limits(rows=4, prefill=3), Bounds())


def with_engines(bundle: Bundle, *archs: str, backend: str = "tensorrt") -> Bundle:
    """The bundle with engines whose plans are the graphs themselves."""
    engines = []
    for arch in archs:
        files = [
            EngineFile.model_construct(  # no manifest may list a graph as a plan
                graph=graph,
                file=graph,
                key="",
                profiles=trt_graph.profiles(bundle.manifest, layout, graph, (1, 1, 2), 4),
            )
            for layout in bundle.manifest.layouts
            for graph in layout.graphs.files
        ]
        engines.append(
            Engine.model_construct(
                backend=backend, arch=arch, version="11.4", plugins="aot", graphs=tuple(files)
            )
        )
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"engines": tuple(engines)}))


def read(path) -> Any:
    return text_format.Parse(path.read_text(), pb.ModelConfig())
