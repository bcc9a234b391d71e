"""The generated repository and the reading of requests, without a server."""

import base64
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from luvc.engines.backends.trt import graph as trt_graph
from luvc.engines.bundle.folder import Bundle
from luvc.engines.bundle.manifest import Engine, EngineFile
from luvc.engines.serving import Limits
from luvc.errors import LuvcError
from luvc.tools.triton import cli, requests
from luvc.tools.triton.requests import Bounds

pytest.importorskip("tritonclient.grpc")
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from luvc.tools.triton import client
from luvc.tools.triton.config import INPUTS
from luvc.tools.triton.repository import Options, write

OPTIONS = Options(Limits(rows=4, prefill=3), Bounds())


def with_engines(bundle: Bundle, *archs: str, backend: str = "tensorrt") -> Bundle:
    """The bundle with engines whose plans are the graphs themselves."""
    engines = []
    for arch in archs:
        files = [
            EngineFile(graph=graph, file=graph, key="", profiles=trt_graph.profiles(
                bundle.manifest, layout, graph, (1, 1, 2), 4))
            for layout in bundle.manifest.layouts for graph in layout.graphs.files
        ]  # fmt: skip
        engines.append(Engine(backend=backend, arch=arch, version="11.4", plugins="aot",
                              graphs=tuple(files)))  # fmt: skip
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"engines": tuple(engines)}))


def read(path) -> pb.ModelConfig:
    return text_format.Parse(path.read_text(), pb.ModelConfig())


def test_everything_a_server_needs(workshop, tmp_path):
    bundle, target = workshop.bundle("qwen2"), tmp_path / "repository"
    assert write(bundle, target, OPTIONS) == ["luvc_vlm", "luvc_vision"]
    copy = Bundle.load(target / "luvc_vlm" / "1" / "bundle", verify=True)
    assert copy.manifest == bundle.manifest
    (layout,) = bundle.manifest.layouts
    for model in ("luvc_vlm", "luvc_vision"):
        config = read(target / model / "config.pbtxt")
        assert config.name == model and config.backend == "python"
        assert config == read(target / model / "configs" / "cpu.pbtxt"), "there are no engines"
        assert (target / model / "1" / "model.py").is_file()
    vlm, vision = (read(target / m / "config.pbtxt") for m in ("luvc_vlm", "luvc_vision"))
    assert vlm.model_transaction_policy.decoupled and vlm.max_batch_size == 0
    assert vlm.parameters["rows"].string_value == "4"
    assert json.loads(vlm.parameters["vision"].string_value) == {
        layout.graphs.vision: "luvc_vision"
    }
    assert vision.max_batch_size == 3 and vision.HasField("dynamic_batching")
    assert list(vision.input[0].dims) == list(layout.pixel_shape[1:])
    assert list(vision.output[0].dims) == [layout.tokens_per_image // layout.tiles, 256]


def test_a_model_for_each_vision_graph(workshop, tmp_path):
    bundle = workshop.bundle("qwen2-layouts", 1)
    models = write(bundle, tmp_path / "r", OPTIONS)
    graphs = {x.graphs.vision for x in bundle.manifest.layouts}
    assert len(models) == 1 + len(graphs)
    named = json.loads(read(tmp_path / "r/luvc_vlm/config.pbtxt").parameters["vision"].string_value)
    assert set(named) == graphs and set(named.values()) == set(models[1:])
    for graph, model in named.items():
        config = read(tmp_path / "r" / model / "config.pbtxt")
        assert config.parameters["graph"].string_value == graph
        most = max(
            x.pixel_shape[0] * x.images for x in bundle.manifest.layouts if x.graphs.vision == graph
        )
        assert config.max_batch_size == 3 * most


def test_vision_inside(workshop, tmp_path):
    options = replace(OPTIONS, vision_inside=True)
    assert write(workshop.bundle("qwen2"), tmp_path / "r", options) == ["luvc_vlm"]
    config = read(tmp_path / "r" / "luvc_vlm" / "config.pbtxt")
    assert config.parameters["vision"].string_value == "{}"


def test_engines_make_a_tensorrt_plan(workshop, tmp_path):
    bundle = with_engines(workshop.bundle("qwen2-fp16"), "sm90", "sm120")
    write(bundle, tmp_path / "r", OPTIONS)
    vision = tmp_path / "r" / "luvc_vision"
    config, cpu = read(vision / "config.pbtxt"), read(vision / "configs" / "cpu.pbtxt")
    assert config.platform == "tensorrt_plan" and cpu.backend == "python"
    assert dict(config.cc_model_filenames) == {
        "9.0": "model_sm90.plan",
        "12.0": "model_sm120.plan",
    }
    assert all((vision / "1" / name).is_file() for name in config.cc_model_filenames.values())
    assert (config.max_batch_size, cpu.max_batch_size) == (2, 3), "not above the engine's profile"
    assert config.instance_group[0].kind == pb.ModelInstanceGroup.Kind.Value("KIND_GPU")
    assert cpu.instance_group[0].kind == pb.ModelInstanceGroup.Kind.Value("KIND_CPU")
    assert config.output[0].data_type == pb.DataType.Value("TYPE_FP16")
    vlm = tmp_path / "r" / "luvc_vlm"
    assert read(vlm / "config.pbtxt").parameters["backend"].string_value == "auto"
    assert read(vlm / "configs" / "cpu.pbtxt").parameters["backend"].string_value == "ort"


def test_python_models_take_the_first_gpu(workshop, tmp_path):
    """One process, not one for each GPU: sessions and caches are in one place."""
    write(with_engines(workshop.bundle("qwen2-fp16"), "sm90"), tmp_path / "r", OPTIONS)
    vlm, plan = (read(tmp_path / "r" / m / "config.pbtxt") for m in ("luvc_vlm", "luvc_vision"))
    assert list(vlm.instance_group[0].gpus) == [0] and vlm.instance_group[0].count == 1
    assert not plan.instance_group[0].gpus, "Triton's own backend runs on every GPU"
    cpu = read(tmp_path / "r" / "luvc_vlm" / "configs" / "cpu.pbtxt")
    assert not cpu.instance_group[0].gpus


def test_rtx_engines_bound_the_batch(workshop, tmp_path):
    bundle = with_engines(workshop.bundle("qwen2-fp16"), "portable", backend="tensorrt-rtx")
    write(bundle, tmp_path / "r", OPTIONS)
    vision = tmp_path / "r" / "luvc_vision"
    config, cpu = read(vision / "config.pbtxt"), read(vision / "configs" / "cpu.pbtxt")
    assert config.backend == "python" and list(config.instance_group[0].gpus) == [0]
    assert (config.max_batch_size, cpu.max_batch_size) == (2, 3), "not above the engine's profile"


def test_a_repository_is_replaced_and_nothing_else(workshop, tmp_path):
    bundle = workshop.bundle("qwen2")
    write(bundle, tmp_path / "r", OPTIONS)
    write(bundle, tmp_path / "r", replace(OPTIONS, vision_inside=True))
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["luvc_vlm"]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(LuvcError, match="not a repository"):
        write(bundle, tmp_path / "notes", OPTIONS)


def test_places_that_cannot_be_written(workshop, tmp_path, monkeypatch):
    bundle, target = workshop.bundle("qwen2"), tmp_path / "r"
    write(bundle, target, OPTIONS)
    monkeypatch.chdir(target)
    for place in (Path("."), target, tmp_path):
        with pytest.raises(LuvcError, match="current folder"):
            write(bundle, place, OPTIONS)
    (tmp_path / "file").write_text("x")
    with pytest.raises(LuvcError, match="cannot be written"):
        write(bundle, tmp_path / "file" / "r", OPTIONS)


def run(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["luvc-triton", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command(workshop, tmp_path, monkeypatch, capsys):
    bundle = workshop.bundle("qwen2")
    mib = bundle.manifest.kv_bytes(bundle.manifest.layouts[0]) / 2**20
    line = (bundle.path, "--output", tmp_path / "r", "--rows", "5")
    code, out, _ = run(monkeypatch, capsys, *line)
    assert code == 0 and f"{mib:.1f}" in out and f"luvc-serve {tmp_path / 'r'}" in out
    code, out, _ = run(monkeypatch, capsys, *line, "--json")
    assert json.loads(out)["cache_mib"] == {"168x168": pytest.approx(mib)}
    code, _, err = run(monkeypatch, capsys, *line[:-1], "0")
    assert code == 2 and "limit rows is 0" in err
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    monkeypatch.delitem(sys.modules, "luvc.tools.triton.repository")
    monkeypatch.delitem(sys.modules, "luvc.tools.triton.config")
    monkeypatch.delattr("luvc.tools.triton.config")
    code, _, err = run(monkeypatch, capsys, *line)
    assert code == 2 and "pip install 'luvc-export[triton]'" in err


# ---- requests
def png(width: int = 8, height: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def parse(bounds: Bounds | None = None, **fields) -> requests.Asked:
    arrays = {}
    for name, value in fields.items():
        values = value if isinstance(value, list) else [value]
        texts = isinstance(values[0], (str, bytes))
        values = [v.encode() if isinstance(v, str) else v for v in values]
        arrays[name] = np.array(values, object if texts else None)
    return requests.read(arrays.get, bounds or Bounds())


def test_a_request_of_everything():
    data = base64.b64encode(png()).decode()
    asked = parse(text_input="Why?", image=[png(), data, f"data:image/png;base64,{data}"],
                  max_tokens=3, temperature=0.5, top_p=0.9, top_k=4, repetition_penalty=1.5, seed=7,
                  stop=["a", "b"], session="s", stream=True)  # fmt: skip
    assert asked.options == {"max_new_tokens": 3, "temperature": 0.5, "top_p": 0.9, "top_k": 4,
                             "repetition_penalty": 1.5, "seed": 7, "stop": ("a", "b")}  # fmt: skip
    assert asked.session == "s" and asked.stream is True
    kinds = [part["type"] for part in asked.messages[0]["content"]]
    assert kinds == ["image", "image", "image", "text"]


def test_base64_may_be_broken_into_lines():
    lines = base64.encodebytes(png(300, 200)).decode()
    assert lines.count("\n") > 1
    for data in (lines, lines.replace("\n", "\r\n"), f"data:image/png;base64,{lines}"):
        asked = parse(text_input="Why?", image=data)
        assert asked.messages[0]["content"][0]["image"].size == (300, 200)


def test_pictures_go_where_messages_name_them():
    text = {"type": "text", "text": "Why?"}
    messages = [{"role": "user", "content": [{"type": "image"}, text, {"type": "image"}]}]
    asked = parse(messages=json.dumps(messages), image=[png(8, 8), png(9, 8)])
    content = asked.messages[0]["content"]
    assert [p["image"].width for p in content if p["type"] == "image"] == [8, 9]
    with pytest.raises(LuvcError, match="3 images were sent, messages have places for 2"):
        parse(messages=json.dumps(messages), image=[png()] * 3)
    with pytest.raises(LuvcError, match="more image parts than images"):
        parse(messages=json.dumps(messages), image=[png()])


@pytest.mark.parametrize("key", ["image", "path", "url", "image_url"])
@pytest.mark.parametrize("form", ["{}", "file://{}", "data:{}", "data:image/png,{}", "http://x{}"])
def test_texts_are_never_paths(tmp_path, key, form):
    """Not even where a picture lies that the server could read."""
    path = tmp_path / "photo.png"
    path.write_bytes(png())
    source = form.format(path)
    for value in (source, {"url": source}):
        part = {"type": key if key == "image_url" else "image", key: value}
        with pytest.raises(LuvcError, match=r"no known format|base64"):
            parse(messages=json.dumps([{"role": "user", "content": [part]}]))
    with pytest.raises(LuvcError, match="no known format"):
        parse(text_input="Why?", image=source)


def test_a_picture_is_a_text():
    part = {"type": "image", "image": 5}
    with pytest.raises(LuvcError, match="is a base64 string"):
        parse(messages=json.dumps([{"role": "user", "content": [part]}]))


@pytest.mark.parametrize("kind", ["video", "audio", None])
@pytest.mark.parametrize("source", ["/etc", ["/etc/hosts"]])
def test_no_other_part_is_handed_on(kind, source):
    """The processor opens the frames of a video from paths."""
    part = {"type": kind, str(kind): source}
    with pytest.raises(LuvcError, match="is of type 'text', 'image' or 'image_url'"):
        parse(messages=json.dumps([{"role": "user", "content": [part]}]))


def test_bounds_of_pictures():
    bounds = Bounds(image_mib=1, megapixels=1)
    with pytest.raises(LuvcError, match="the limit is 1 MiB"):
        parse(bounds, text_input="Why?", image=bytes(2 << 20))
    with pytest.raises(LuvcError, match="1100x1000 pixels, the limit is 1 megapixels"):
        parse(bounds, text_input="Why?", image=png(1100, 1000))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either text_input or messages"),
        ({"text_input": "a", "messages": "[]"}, "either text_input or messages"),
        ({"text_input": b"\xff"}, "not UTF-8"),
        ({"messages": '{"role": "user"}'}, "JSON list"),
    ],
)
def test_what_cannot_be_read(fields, message):
    with pytest.raises(LuvcError, match=message):
        parse(**fields)


def test_the_client_sends_what_the_model_takes(monkeypatch):
    kinds = {n: kind.removeprefix("TYPE_").replace("STRING", "BYTES") for n, kind, _ in INPUTS}
    assert set(requests.OPTIONS) < set(kinds)
    asked = {}
    line = ("a question", "--top-k", "4", "--repetition-penalty", "1.5", "--max-tokens", "3")
    monkeypatch.setattr(sys, "argv", ["client.py", *line])
    monkeypatch.setattr(client, "ask", lambda server, fields: asked.update(fields))
    client.main()
    sent = {tensor.name(): tensor.datatype() for tensor in client.tensors(asked)}
    assert set(sent) == {"text_input", "stream", "top_k", "repetition_penalty", "max_tokens"}
    assert sent.items() <= kinds.items()
    assert all(kinds[name] == kind for name, (kind, _) in client.TYPES.items())
