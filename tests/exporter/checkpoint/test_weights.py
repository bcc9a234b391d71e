"""Checkpoints whose weights the loader would take for others, and files that lead somewhere else."""

import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from luvc.errors import LuvcError
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.checkpoint.stored import check_stored
from luvc.exporter.checkpoint.weights import load_model
from luvc.exporter.onnx.weights_file import WeightsFile

SHAPE = {"text": "qwen2", "layers": 4, "vision_layers": 2, "image": 168}
LAYER = "layers.1.self_attn.q_proj.weight"


@pytest.fixture
def checkpoint(workshop, tmp_path):
    """A checkpoint that a test may change."""
    return Path(shutil.copytree(workshop.checkpoint(**SHAPE), tmp_path / "checkpoint"))


def weights(folder: Path, change) -> None:
    """Change the tensors of the file, by a function of their dictionary and the name of one weight."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors, next(n for n in tensors if n.endswith(LAYER)))
    save_file(tensors, file, metadata={"format": "pt"})


def config(folder: Path, change) -> None:
    file = folder / "config.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


# ---- quantised weights


def float8(tensors, name):
    """As quantisers of float8 write them: a scale beside each weight."""
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    tensors[f"{name}_scale"] = torch.ones(1)


def integer(tensors, name):
    tensors[name] = tensors[name].to(torch.int8)


def scale(tensors, name):
    tensors[f"{name}_scale_inv"] = torch.ones(1)


def packed(tensors, name):
    tensors[name.replace("weight", "qweight")] = torch.zeros(4, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (float8, "has type F8_E4M3, so the checkpoint is quantised: give the one it was made from"),
        (integer, "has type I8, so the checkpoint is quantised"),
        (scale, r"no place for 1 of the weights, such as .*q_proj\.weight_scale_inv"),
        (packed, r"no place for 1 of the weights, such as .*q_proj\.qweight"),
    ],
)
def test_weights_that_a_plain_loader_takes_for_others_are_refused(checkpoint, change, message):
    weights(checkpoint, change)
    with pytest.raises(LuvcError, match=message):
        load_model(Family.load(str(checkpoint)))


def test_tables_of_older_versions_are_no_weights(checkpoint):
    def tables(tensors, name):
        tensors[name.replace("q_proj.weight", "rotary_emb.inv_freq")] = torch.ones(32)

    weights(checkpoint, tables)
    said: list[str] = []
    load_model(Family.load(str(checkpoint)), said.append)
    assert re.match(r"passing over \d+ tables .* such as .*rotary_emb.inv_freq", said[0])


@pytest.mark.parametrize(
    "name", ["hf_quant_config.json", "quantize_config.json", "quant_config.json"]
)
def test_files_that_say_quantised_are_heard(checkpoint, name):
    (checkpoint / name).write_text("{}")
    with pytest.raises(LuvcError, match=rf"is quantised \({name}\)"):
        Family.load(str(checkpoint))


@pytest.mark.parametrize("part", [None, "text_config", "vision_config"])
def test_a_nested_quantisation_is_heard(checkpoint, part):
    def change(values):
        (values if part is None else values[part])["quantization_config"] = {"quant_method": "aqlm"}

    config(checkpoint, change)
    with pytest.raises(LuvcError, match=r"is quantised \('aqlm'\)"):
        Family.load(str(checkpoint))


# ---- adapters


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_is_refused_with_peft_and_without(checkpoint, monkeypatch, installed, alone):
    monkeypatch.setitem(sys.modules, "peft", SimpleNamespace() if installed else None)
    (checkpoint / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    if alone:
        (checkpoint / "config.json").unlink()
    with pytest.raises(LuvcError, match=r"holds an adapter .* merge it into its model first"):
        Family.load(str(checkpoint))


# ---- the bundle's weights beside the files


def written(family: Family, target: Path, dtype=torch.float32, change=None) -> Path:
    tensors = {n: p.detach() for n, p in load_model(family).named_parameters()}
    if change:
        change(tensors)
    WeightsFile(target, tensors, dtype).write()
    return target


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_bundles_weights_are_those_of_the_files(checkpoint, tmp_path, dtype):
    family = Family.load(str(checkpoint))
    assert check_stored(family, written(family, tmp_path / "weights", dtype)) >= 20


def test_weights_that_a_loader_changed_are_found(checkpoint, tmp_path):
    family = Family.load(str(checkpoint))

    def scaled(tensors):
        for name in tensors:
            if "q_proj" in name:
                tensors[name] = tensors[name] * 1.01

    with pytest.raises(LuvcError, match=r"q_proj\S* was loaded with other values than its file"):
        check_stored(family, written(family, tmp_path / "weights", change=scaled))


def test_a_weight_that_is_no_number_is_named(checkpoint, tmp_path):
    weights(checkpoint, lambda tensors, name: tensors[name][0, 0].fill_(float("nan")))
    family = Family.load(str(checkpoint))
    with pytest.raises(LuvcError, match=r"q_proj\.weight holds NaN or infinity: the checkpoint is"):
        written(family, tmp_path / "weights")


def test_a_weight_beyond_half_precision_is_named(checkpoint, tmp_path):
    weights(checkpoint, lambda tensors, name: tensors[name][0, 0].fill_(1e5))
    family = Family.load(str(checkpoint))
    with pytest.raises(LuvcError, match=r"larger than float16 holds: export with --dtype bf16"):
        written(family, tmp_path / "weights", torch.float16)
    written(family, tmp_path / "weights", torch.bfloat16)


# ---- files and numbers of strangers


@pytest.mark.parametrize(
    "index",
    [
        {"weight_map": {"a": "/dev/zero"}},
        {"weight_map": {"a": "../other/model.safetensors"}},
        {"weight_map": {"a": ".."}},
        {"weight_map": {"a": 5}},
        {"weight_map": ["a"]},
        [],
    ],
)
def test_shards_lie_beside_their_index(checkpoint, index):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(LuvcError, match=r"names .* no file beside it|does not list the shards"):
        load_model(Family.load(str(checkpoint)))


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("vision_config", "num_hidden_layers", 1 << 63),
        ("text_config", "num_hidden_layers", 1e9),
        ("text_config", "vocab_size", 1 << 40),
        ("text_config", "max_position_embeddings", float("inf")),
        ("vision_config", "image_size", [1 << 40, 1]),
    ],
)
def test_numbers_of_a_config_have_bounds(checkpoint, part, name, value):
    config(checkpoint, lambda values: values[part].update({name: value}))
    with pytest.raises(LuvcError, match=rf"{name} is .* in config\.json, the limit is"):
        Family.load(str(checkpoint))


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


def test_a_pickle_runs_no_code(checkpoint, tmp_path):
    (checkpoint / "model.safetensors").unlink()
    torch.save({"a": Touch(tmp_path / "ran")}, checkpoint / "pytorch_model.bin")
    with pytest.raises(LuvcError, match="the weights cannot be loaded"):
        load_model(Family.load(str(checkpoint)))
    assert not (tmp_path / "ran").exists()


def test_weights_without_code_in_a_pickle_are_read(checkpoint):
    tensors = load_file(checkpoint / "model.safetensors")
    torch.save(tensors, checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    loaded = dict(load_model(Family.load(str(checkpoint))).named_parameters())
    wanted = next(t for n, t in tensors.items() if n.endswith(LAYER))
    assert any(n.endswith(LAYER) and torch.equal(p, wanted) for n, p in loaded.items())
