"""`luvc-export` as people type it: what it prints, and what it writes."""

import json
import shutil

import pytest
import torch

from luvc.engines import Bundle
from luvc.engines.bundle.schedule import Schedule
from luvc.exporter import ExportConfig, cli
from luvc.exporter import cli_plan as plan
from luvc.exporter.check import parity
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.prepare import Prepared
from luvc.exporter.timing.latency import StageCosts, Timed

from ..conftest import SMALL


def test_export_prints_plan_steps_and_validation(command, workshop, tmp_path):
    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    target = tmp_path / "bundle"
    result = command(cli, "--model", model, "--ratio", "1.23x", "--output", target, *SMALL)
    assert result.code == 0, result.err
    assert "112x112: 1 image, 1 tile each, 16 -> " in result.out
    assert "greedy tokens equal pass" in result.out and f"wrote {target}" in result.out
    assert "done tracing prefill-112x112" in result.err
    bundle = Bundle.load(target, verify=True)
    assert bundle.manifest.validated
    assert 1.23 <= bundle.manifest.layouts[0].ratios.prefill <= 1.23 * 1.02


def test_export_as_json(command, workshop, tmp_path):
    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    line = ("--model", model, "--output", tmp_path / "bundle", *SMALL, "--json")
    result = command(cli, *line, "--ratio", "1.23x")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    files = [p for p in (tmp_path / "bundle").rglob("*") if p.is_file()]
    size = sum(p.stat().st_size for p in files if p.name != "manifest.json")
    assert found["bundle"] == str(tmp_path / "bundle") and found["bytes"] == size
    assert found["validated"] is True and found["validated_layers"] == 3
    asked = ("--model", model, "--ratio", "1.23x", "--text-tokens", "8", "--json")
    assert found["plans"] == json.loads(command(plan, *asked).out)["plans"]
    assert found["latency"] is None and found["engines"] == []
    refused = command(cli, *line, "--ratio", "50x")
    assert refused.code == 2 and refused.out == "" and "largest feasible ratio is" in refused.err


def test_export_as_json_with_measured_times(workshop):
    bundle = workshop.bundle("qwen2")
    timed = Timed(Schedule(), 1.5, 1.52, 1.51, 30.2, 20.0, StageCosts(0, 0, 0, 1, 0))
    prepared = Prepared(ExportConfig(model="x"), Family.load(bundle.manifest.model), plans=())
    found = json.dumps(cli._result(bundle, prepared, timed))
    assert json.loads(found)["latency"] == {
        "of": "latency",
        "asked": 1.5,
        "predicted": 1.52,
        "measured": 1.51,
        "baseline_ms": 30.2,
        "compressed_ms": 20.0,
    }


@pytest.mark.slow
def test_export_tells_which_generation_settings_are_left_out(command, broken, tmp_path):
    file = broken / "generation_config.json"
    settings = {"no_repeat_ngram_size": 3, "bad_words_ids": [[5]], "num_beams": 1, "top_k": 7}
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    line = ("--model", broken, "--output", tmp_path / "b", "--ratio", "1", "--no-validate", *SMALL)
    result = command(cli, *line)
    assert result.code == 0, result.err
    left = "generation settings not carried over: no_repeat_ngram_size=3, bad_words_ids=[[5]]; "
    assert left in result.out


def test_an_export_that_differs_from_pytorch(command, workshop, tmp_path, monkeypatch):
    stored = parity._as_stored

    def negative(model, family, manifest):
        model = stored(model, family, manifest)
        model.lm_head.weight = torch.nn.Parameter(-model.lm_head.weight)
        return model

    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    line = ("--model", model, "--output", tmp_path / "b", "--ratio", "1", *SMALL)
    monkeypatch.setattr(parity, "_as_stored", negative)
    result = command(cli, *line)
    assert result.code == 1 and "does not match PyTorch" in result.err
    report = tmp_path / "b-failed-validation.json"
    assert json.loads(report.read_text())["passed"] is False and not (tmp_path / "b").exists()
    monkeypatch.undo()
    assert command(cli, *line).code == 0 and not report.exists()


def test_a_full_disk(command, workshop, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    result = command(cli, "--model", model, "--output", tmp_path / "b", "--ratio", "1", *SMALL)
    assert result.code == 2 and "make room" in result.err
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_something_else(command, workshop, tmp_path):
    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    (tmp_path / "notes.txt").write_text("mine")
    result = command(cli, "--model", model, "--output", tmp_path, "--ratio", "1", *SMALL)
    assert result.code == 2 and "not a bundle" in result.err
    assert (tmp_path / "notes.txt").read_text() == "mine"
