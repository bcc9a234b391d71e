"""What lets large models through: streamed weights, and validation of the first layers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from luvc.engines import VLM
from luvc.errors import LuvcError
from luvc.exporter import ExportConfig, export
from luvc.exporter.check import parity
from luvc.exporter.check.memory import free_memory
from luvc.exporter.check.parity import reports
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.checkpoint.mapped import release
from luvc.exporter.checkpoint.weights import load_model
from luvc.exporter.onnx.weights_file import WeightsFile

from ..conftest import TINY, ask


def half_checkpoint(workshop, folder):
    """A bfloat16 checkpoint in several shards, its embeddings tied."""
    from transformers import AutoModelForImageTextToText

    source = workshop.checkpoint(**TINY, text="qwen2")
    model = AutoModelForImageTextToText.from_pretrained(source, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="200KB")
    for file in source.iterdir():
        if "safetensors" not in file.name and not (folder / file.name).exists():
            (folder / file.name).write_bytes(file.read_bytes())
    assert len(list(folder.glob("*.safetensors"))) > 3
    return folder


def test_parameters_stay_mapped_files(workshop, tmp_path):
    """Loading reads nothing: the kernel says that the parameters' pages belong to the files."""
    folder = half_checkpoint(workshop, tmp_path / "half")
    model = load_model(Family.load(str(folder)))
    lines = Path("/proc/self/maps").read_text().splitlines()
    maps = [line.split() for line in lines if str(folder) in line]
    ranges = [[int(x, 16) for x in line[0].split("-")] for line in maps]
    for name, p in model.named_parameters():
        assert p.dtype == torch.bfloat16
        assert any(a <= p.data_ptr() < b for a, b in ranges), name


def test_weights_are_converted_one_by_one(workshop, tmp_path):
    folder = half_checkpoint(workshop, tmp_path / "half")
    config = {"reference_text": 8, "text_capacity": 96, "dtype": "float16", "check": False}
    export(ExportConfig.make(model=str(folder), output=tmp_path / "bundle", **config))
    wanted = dict(load_model(Family.load(str(folder))).named_parameters())
    with safe_open(str(tmp_path / "bundle/onnx/weights.safetensors"), "pt") as found:
        assert set(found.keys()) == set(wanted)  # tied weights once
        for name in wanted:
            assert torch.equal(found.get_tensor(name), wanted[name].half()), name


def test_releasing_pages_loses_nothing(tmp_path):
    x = torch.randn(300, 1000)
    path = tmp_path / "x.safetensors"
    WeightsFile(path, {"x": x, "n": torch.arange(5)}, torch.float32).write()
    before = x.clone()
    release(x)
    assert torch.equal(x, before)
    with safe_open(str(path), "pt") as f:
        assert torch.equal(f.get_tensor("x"), x) and f.get_tensor("n").tolist() == list(range(5))


def test_a_model_too_large_is_checked_in_its_first_layers(workshop, tmp_path, monkeypatch, picture):
    monkeypatch.setattr(parity, "fitting_layers", lambda family, manifest: 3)
    source = workshop.checkpoint(layers=5, vision_layers=2, image=168, text="qwen2")
    config = ExportConfig.make(
        model=str(source),
        output=tmp_path / "bundle",
        reference_text=8,
        text_capacity=96,
        images=(1, 0),
    )
    bundle = export(config)
    manifest, (report, text) = bundle.manifest, reports(bundle)
    assert text.passed and (text.layout, text.compared) == ("text", 3)
    assert (manifest.validated, manifest.validated_layers) == (False, 3)
    assert (report.compared, report.layers) == (3, 5)
    assert [s.name for s in report.stages][-2] == "layers 2-2" and len(report.kept) == 2
    assert manifest.language.layers == 5
    answer = VLM.load(bundle.path, threads=1).generate(ask("Why?", picture), max_new_tokens=3)
    assert len(answer.stages) == len(manifest.layouts[0].schedule.language)
    assert not list(tmp_path.glob(".luvc-*")), "the shallow bundle is gone"
    assert json.loads((bundle.path / "manifest.json").read_text())["validated"] is False


@pytest.mark.slow
def test_less_memory_than_the_first_stage_needs_is_refused(workshop, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "fitting_layers", lambda family, manifest: 1)
    source = workshop.checkpoint(layers=5, vision_layers=2, image=168, text="qwen2")
    config = {"reference_text": 8, "text_capacity": 96, "output": tmp_path / "bundle"}
    with pytest.raises(LuvcError, match=r"1 of the model's 5 .* first SPU stage needs 2"):
        export(ExportConfig.make(model=str(source), **config))
    assert not (tmp_path / "bundle").exists()


def test_layers_that_fit(workshop, monkeypatch):
    import psutil

    bundle = workshop.bundle("qwen2")
    family = Family.load(bundle.manifest.model)
    layers = bundle.manifest.language.layers
    for free, wanted in ((2**40, layers), (0, 0)):
        memory = type("Memory", (), {"available": free})
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        assert parity.fitting_layers(family, bundle.manifest) == wanted
    need = 12 * bundle.manifest.parameters / parity.SHARE
    memory = type("Memory", (), {"available": need * 0.97})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert 0 < parity.fitting_layers(family, bundle.manifest) < layers
    assert np.isfinite(need)


@pytest.mark.parametrize(
    "names",
    [
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ],
)
def test_a_container_may_hold_less_than_the_machine(tmp_path, names):
    limit, used = (tmp_path / name for name in names)
    limit.parent.mkdir(exist_ok=True)
    whole = free_memory(tmp_path)
    limit.write_text("max\n")
    used.write_text("3000000\n")
    assert free_memory(tmp_path) == pytest.approx(whole, rel=0.2)
    limit.write_text("5000000\n")
    assert free_memory(tmp_path) == 2_000_000
    (limit.parent / "memory.stat").write_text("anon 9\ninactive_file 500000\nfile 7\n")
    assert free_memory(tmp_path) == 2_500_000
