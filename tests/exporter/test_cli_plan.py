"""`luvc-plan` as people type it."""

import json

import pytest

from luvc.exporter import cli_plan as plan
from luvc.exporter.report import human


def test_plan_reads_no_weights_and_gives_json(command, broken):
    for shard in broken.glob("*.safetensors"):
        shard.unlink()
    result = command(
        plan, "--model", broken, "--ratio", "1.23", "--ratio", "90", "--text-tokens", "8", "--json"
    )
    assert result.code == 0, result.err
    data = json.loads(result.out)
    assert "largest feasible" in data["refused"]["90"]
    (found,) = data["plans"]
    assert found["layout"]["ratios"]["prefill"] == pytest.approx(1.23, rel=0.021)
    kv = sum(s["kv_bytes"] for s in found["stages"])
    layers = [n for s in found["stages"] for n in range(s["first"], s["last"] + 1)]
    assert layers == [0, 1, 2]
    # 2 (K and V) x kv heads x head_dim x 4 bytes x tokens, counted here again
    tokens = [
        s["visual_tokens"] + 8 for s in found["stages"] for _ in range(s["first"], s["last"] + 1)
    ]
    assert kv == sum(2 * 2 * 64 * 4 * t for t in tokens)


def test_the_weights_file_is_told(command, workshop):
    model = workshop.checkpoint(layers=4, vision_layers=2, image=168)
    line = ("--model", model, "--text-tokens", "8")
    sizes = {}
    for kind, options in (("full", ()), ("int8", ()), ("int4", ("--group-size", "64"))):
        told = command(plan, *line, "--weights", kind, *options, "--json")
        weights = json.loads(told.out)["weights"]
        sizes[kind] = weights["bytes"]
        assert (weights["products"] or {"kind": "full"})["kind"] == kind
    assert sizes["full"] > sizes["int8"] > sizes["int4"]
    out = command(plan, *line, "--weights", "int4", "--group-size", "64").out
    assert f"weights: {human(sizes['int4'])}B, float32, the language model's products int4" in out
    refused = command(plan, *line, "--weights", "int4", "--group-size", "100")
    assert refused.code == 2 and "--group-size" in refused.err


def test_plan_shows_what_was_left_out(command, workshop):
    model = workshop.checkpoint(layers=4, vision_layers=2, image=168)
    result = command(plan, "--model", model, "--text-tokens", "8")
    assert result.code == 0
    assert "ratios (baseline / compressed FLOPs)" in result.out
    assert "note: nothing is merged in the vision tower" in result.out
    merged = command(plan, "--model", model, "--text-tokens", "8", "--oim-share", "0.5")
    assert "note: OIM before vision layer" in merged.out
    options = ("--method-option", "band=high", "--method-option", "cutoff=0")
    high = command(plan, "--model", model, "--text-tokens", "8", *options)
    assert "chosen by how far a token is from the mean token" in " ".join(high.out.split())
    same = command(plan, "--model", model, "--ratio", "1")
    assert "the bundle equals the unmodified model" in same.out


def test_a_schedule_file_says_everything_itself(command, workshop, tmp_path):
    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    file = tmp_path / "schedule.json"
    file.write_text('{"language": [{"layer": 1, "keep": 5}], "cutoff": 0.5}')
    result = command(plan, "--model", model, "--schedule", file)
    assert result.code == 0 and f"asked {file}" in result.out
    for extra in (("--ratio", "3x"), ("--method", "luvc"), ("--keeps", "linear")):
        refused = command(plan, "--model", model, "--schedule", file, *extra)
        assert refused.code == 2 and f"give either --schedule or {extra[0]}:" in refused.err


def test_a_token_without_a_row_in_the_embedding_is_told(command, broken):
    """Hugging Face answers all the same as long as no question holds it."""
    from transformers import AutoTokenizer

    line = ("--model", broken, "--ratio", "1.23", "--text-tokens", "8")
    assert "no row" not in command(plan, *line).out
    tokenizer = AutoTokenizer.from_pretrained(broken)
    tokenizer.add_tokens([f"<new {n}>" for n in range(3000)])
    tokenizer.save_pretrained(broken)
    told = " ".join(command(plan, *line).out.split())
    rows = json.loads((broken / "config.json").read_text())["text_config"]["vocab_size"]
    lost = len(tokenizer) - rows
    assert f"no row for {lost} of the tokenizer's tokens, such as '<new " in told
