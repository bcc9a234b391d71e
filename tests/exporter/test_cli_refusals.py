"""What `luvc-export` and `luvc-plan` refuse: wrong options and schedules, broken or other checkpoints."""

import json
import os
import subprocess
import sys

import pytest

from luvc.exporter import cli
from luvc.exporter import cli_plan as plan

from ..conftest import SMALL


def config(folder, **data):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ratio", "0.5"), "below 1"),
        (("--ratio", "fast"), "not a number"),
        (("--ratio", "50x"), "largest feasible ratio is"),
        (("--ratio", "2x", "--ratio", "2"), "--ratio is given twice: 2x, 2x"),
        (("--ratio", "2x", "--ratio", "3x", "--ratio-of", "latency"), "give one --ratio"),
        (("--method-option", "ratio=3"), "is no option of a score: give --ratio"),
        (("--image-size", "big"), "HEIGHTxWIDTH"),
        (("--image-size", "100x100"), "whole number of 112x112 tiles"),
        (("--image-size", "112x2240"), "cuts at most 12"),
        (("--dtype", "int8"), "--dtype: "),
        (("--backend", "teletype"), "teletype"),
        (("--ratio", "1", "--text-capacity", "9000"), "more than the model's 8192 positions"),
        (("--text-capacity", "3"), "--text-capacity: "),
        (("--oim-match",), "give --oim-share 0.5 or --oim-restore --tower-ratio 1.5 too"),
        (("--oim-restore", "--oim-match"), "give --oim-share 0.5 or --tower-ratio 1.5 too"),
        (("--tower-ratio", "1.5x"), "give --oim-restore too"),
        (("--tower-ratio", "slow"), "not a number"),
        (
            ("--tower-ratio", "1.5", "--oim-restore", "--oim-share", "0.5"),
            "leave one of them out",
        ),
        (("--tower-ratio", "9", "--oim-restore"), "which gives 1"),
        (("--oim-share", "2"), "--oim-share: "),
        (("--text-tokens", "0"), "--text-tokens: "),
        (("--text-tokens", "2048"), "--text-tokens 2048 is more than --text-capacity 1024"),
        (("--method-option", "cutoff=-1"), "score spectrum: cutoff: "),
        (
            ("--method-option", "band=low", "--method-option", "cutoff=0"),
            "give a cutoff above 0, or band high",
        ),
        (("--method-option", "cutoff=1"), "cutoff 1 with band high takes too much away"),
        (("--method-option", "band=middle"), "score spectrum: band: "),
        (("--method-option", "signal=loud"), "score spectrum: signal: "),
        (("--method-option", "volume=1"), "it has the options cutoff, band, signal"),
        (("--method", "fastv", "--method-option", "cutoff=1"), "it has no options"),
        (("--method-option", "cutoff"), "is not NAME=VALUE"),
        (("--method-option", "cutoff=1", "--method-option", "cutoff=1"), "is given twice"),
        (("--method-option", "stages=0.5"), "is no option of a score: give --stages"),
        (("--method", "magic"), "no method is called 'magic': there are luvc, "),
        (("--method", "random", "--keeps", "1,0.5"), "--keeps gives 2 parts for 1 stages"),
        (("--stages", "0.5,1"), "--stages"),
        (("--stages", "early"), "--stages 'early' are not numbers such as"),
        (("--keeps", "all"), "--keeps: "),
        (("--ratio", "1", "--images", "1", "--images", "1"), "named twice"),
        (("--schedule", "nowhere.json"), "nowhere.json cannot be read"),
    ],
)
def test_export_refuses_and_writes_nothing(command, workshop, tmp_path, options, message):
    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    target = tmp_path / "bundle"
    result = command(cli, "--model", model, "--output", target, *options)
    assert result.code == 2
    assert result.err.startswith("error: ") and message in result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("{", "not valid JSON"),
        ('{"language": [{"layer": 7, "keep": 1}]}', "language layer 7 does not exist"),
        ('{"language": [{"layer": 1, "keep": 400}]}', "prunes nothing"),
        ('{"vision": [{"layer": 0, "axis": "sideways", "group": 2}]}', "vision.0.axis"),
    ],
)
def test_schedule_files_are_checked(command, workshop, tmp_path, schedule, message):
    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    file = tmp_path / "schedule.json"
    file.write_text(schedule)
    result = command(cli, "--model", model, "--output", tmp_path / "b", "--schedule", file)
    assert result.code == 2 and message in result.err
    assert [p.name for p in tmp_path.iterdir()] == ["schedule.json"]


def test_models_that_are_not_supported(command, tmp_path):
    folder = tmp_path / "model"
    cases = [
        ({"model_type": "mllama", "vision_config": {}, "text_config": {}}, "'mllama' is not"),
        ({"model_type": "martian"}, "'martian' is not"),
        ({"model_type": "qwen2"}, "without a vision tower"),
        ({"model_type": "internvl_chat", "auto_map": {"AutoConfig": "x.y"}}, "never run"),
    ]
    for data, message in cases:
        config(folder, **data)
        result = command(cli, "--model", folder, "--output", tmp_path / "b")
        assert result.code == 2 and message in result.err, result.err
        assert "internvl" in result.err
    (folder / "config.json").write_text("{nonsense")
    assert "not valid JSON" in command(plan, "--model", folder).err
    (folder / "config.json").unlink()
    assert "no config.json" in command(plan, "--model", folder).err
    assert "no checkpoint can be read" in command(plan, "--model", "no/such-model").err
    assert "there is no directory ./nowhere" in command(plan, "--model", "./nowhere").err


def test_code_of_a_hub_checkpoint_is_never_run(command, tmp_path, monkeypatch):
    """A hub id with code of its own, as a cached snapshot; the answer to any prompt would be yes."""
    snapshot = tmp_path / "hub" / "models--someone--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    config(snapshot, model_type="internvl_chat", auto_map={"AutoConfig": "code.Config"})
    (snapshot / "code.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\n"
        "from transformers import PretrainedConfig\n"
        "class Config(PretrainedConfig):\n    model_type = 'internvl_chat'\n"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-m", "luvc.exporter.cli_plan", "--model", "someone/model"],
        input="y\n",
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert result.returncode == 2 and "never run" in result.stderr
    assert not (tmp_path / "ran").exists()


def test_a_missing_shard(command, broken, tmp_path):
    sorted(broken.glob("model-*.safetensors"))[1].unlink()
    result = command(cli, "--model", broken, "--output", tmp_path / "b", "--ratio", "1", *SMALL)
    assert result.code == 2 and "weights cannot be loaded" in result.err
    assert not (tmp_path / "b").exists()


def test_a_truncated_shard(command, broken, tmp_path):
    shard = sorted(broken.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1000])
    result = command(cli, "--model", broken, "--output", tmp_path / "b", "--ratio", "1", *SMALL)
    assert result.code == 2 and "weights cannot be loaded" in result.err


def test_a_weight_that_is_absent(command, broken, tmp_path):
    index = broken / "model.safetensors.index.json"
    data = json.loads(index.read_text())
    gone = next(n for n in data["weight_map"] if "layers.1.mlp.up_proj" in n)
    from safetensors.numpy import load_file, save_file

    file = broken / data["weight_map"].pop(gone)
    tensors = load_file(file)
    del tensors[gone]
    save_file(tensors, file, metadata={"format": "pt"})
    index.write_text(json.dumps(data))
    result = command(cli, "--model", broken, "--output", tmp_path / "b", "--ratio", "1", *SMALL)
    assert result.code == 2 and "up_proj" in result.err and "missing" in result.err


def test_processor_files_that_are_absent(command, broken):
    (broken / "preprocessor_config.json").unlink()
    result = command(plan, "--model", broken, "--ratio", "1")
    assert result.code == 2 and "preprocessor_config.json cannot be read" in result.err


def test_a_tokenizer_file_that_holds_something_else(command, broken):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7031645\n"
    (broken / "tokenizer.json").write_text(pointer)
    result = command(plan, "--model", broken, "--ratio", "1")
    assert result.code == 2 and "tokenizer files cannot be read" in result.err
