"""The generated repository, without a server."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from luvc.engines.backends.ort.backend import ort
from luvc.engines.bundle.folder import Bundle
from luvc.errors import LuvcError
from luvc.tools.triton import cli

pytest.importorskip("tritonclient.grpc")
from luvc.tools.triton.repository import check_target, write

from .repositories import OPTIONS, pb, read, with_engines


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


def test_the_plan_of_a_matched_tower_names_all_its_outputs(workshop, tmp_path):
    """Triton loads no plan with an output that no configuration names."""
    bundle = with_engines(workshop.bundle("qwen2-two-images"), "sm90")
    assert write(bundle, tmp_path / "r", OPTIONS) == ["luvc_vlm", "luvc_vision"]
    vision = tmp_path / "r" / "luvc_vision"
    config, cpu = read(vision / "config.pbtxt"), read(vision / "configs" / "cpu.pbtxt")
    (layout,) = bundle.manifest.layouts
    with ort.runner(bundle) as runner:
        session = runner.session(layout.graphs.vision)
        outputs = {x.name: x.shape[1:] for x in session.get_outputs()}
    assert len(outputs) == 1 + len(layout.schedule.vision) > 1
    assert {x.name: list(x.dims) for x in config.output} == outputs
    assert {x.data_type for x in config.output} == {pb.DataType.Value("TYPE_FP32")}
    assert [x.name for x in cpu.output] == ["visual_embeds"], "the model in Python gives no other"


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
    with pytest.raises(LuvcError, match=r"not a repository .* holds mine\.txt"):
        write(bundle, tmp_path / "notes", OPTIONS)


def test_what_is_not_of_luvc_triton_in_a_repository_is_named(workshop, tmp_path):
    target = tmp_path / "r"
    write(with_engines(workshop.bundle("qwen2"), "sm86+sm89"), target, OPTIONS)
    (target / "luvc_vlm/1/__pycache__").mkdir()
    (target / "luvc_vlm/1/__pycache__/model.cpython-312.pyc").write_text("")
    check_target(target)
    for name in (
        "notes.txt",
        "luvc_vlm_of_a_colleague/config.pbtxt",
        "luvc_vision/2/model.py",
        "luvc_vision/1/my.plan",
        "luvc_vlm/1/weights.bin",
        "luvc_vlm/1/bundle/report/my-notes.txt",
        "luvc_vlm/1/bundle/thesis.docx",
    ):
        new = [p for p in (target / name, *(target / name).parents) if not p.exists()]
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("mine")
        with pytest.raises(LuvcError, match=f"it holds {new[-1].relative_to(target)};"):
            check_target(target)
        shutil.rmtree(new[-1]) if new[-1].is_dir() else new[-1].unlink()
    check_target(target)


def test_nothing_is_overwritten(tmp_path, monkeypatch):
    """Also where the file system has no hard links."""
    from luvc.tools.triton import repository

    source, target = tmp_path / "source", tmp_path / "folder" / "target"
    source.write_text("new")
    repository._place(source, target)
    assert target.read_text() == "new" and target.samefile(source)
    for links in (True, False):
        if not links:
            monkeypatch.setattr(os, "link", lambda *a: (_ for _ in ()).throw(PermissionError()))
            repository._place(source, tmp_path / "copied")
            assert (tmp_path / "copied").read_text() == "new"
        target.unlink()
        target.write_text("of somebody else")
        with pytest.raises(FileExistsError):
            repository._place(source, target)
        assert target.read_text() == "of somebody else"


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
