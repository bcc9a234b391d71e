"""luvc-bench: real workers on tiny bundles, held against what Hugging Face itself answers and stores."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.tables import bench as bench_table
from luvc.errors import LuvcError
from luvc.exporter.timing.interleaved import summary
from luvc.tools.bench import cli as bench
from luvc.tools.bench.systems import cache_bytes
from luvc.tools.bench.workers import System, measure

pytestmark = pytest.mark.xdist_group("bench")  # one run of the command for all of this file
ROOT = Path(__file__).parents[2]
FIGURES = ("vision_ms", "prefill_ms", "first_token_ms", "decode_ms_per_token")


@pytest.fixture(scope="module")
def report(workshop, tmp_path_factory):
    """One run of both ratios and Hugging Face, as its own process writes it."""
    one, two = (workshop.bundle("qwen2", ratio).path for ratio in (1, 2))
    target = tmp_path_factory.mktemp("bench") / "new" / "report.json"
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["--compare", "hf", "--batch", "1,2", "--rounds", "2", "--new-tokens", "6"]
        patch.setattr(
            sys,
            "argv",
            [
                "luvc-bench",
                str(one),
                str(two),
                *arguments,
                "--threads",
                "1",
                "--output",
                str(target),
            ],
        )
        with pytest.raises(SystemExit) as end:
            bench.main()
    assert not end.value.code
    return json.loads(target.read_text())


def cases(report, batch):
    return {c["system"].split("-")[-1]: c for c in report["cases"] if c["batch"] == batch}


def test_ratio_one_says_what_hugging_face_says(report):
    for batch in (1, 2):
        found = cases(report, batch)
        assert len(found["hf"]["token_ids"]) == batch
        assert found["1"]["token_ids"] == found["hf"]["token_ids"]


def test_bytes_are_those_of_a_real_cache(report):
    """The manifest's formula against the tensors Hugging Face's cache held."""
    for batch in (1, 2):
        found = cases(report, batch)
        assert found["1"]["kv_bytes"] == found["hf"]["kv_bytes"]
        assert found["2"]["kv_bytes"] < found["1"]["kv_bytes"] < found["1"]["kv_allocated_bytes"]


def test_figures_are_whole(report):
    assert report["systems"][0]["name"] == "hf"
    assert report["command"].startswith("luvc-bench ") and report["machine"]["cores"]
    for c in report["cases"]:
        for name in FIGURES:
            f = c[name]
            assert 0 < f["min"] <= f["median"] <= f["max"] and len(f["samples"]) == 2
        parts = c["pixels_ms"]["samples"], c["vision_ms"]["samples"], c["prefill_ms"]["samples"]
        for whole, *rest in zip(c["first_token_ms"]["samples"], *parts, strict=True):
            assert whole == pytest.approx(sum(rest), abs=0.01)
        assert c["peak_mib"] > 100


def test_the_table_shows_speed_ups(report, capsys, monkeypatch):
    from luvc import console
    from luvc.tools.bench.tables import tables

    monkeypatch.setattr(console.out, "width", 120)
    console.show(*tables(report))
    out = capsys.readouterr().out
    assert "batch 2" in out and "12 of 12" in out
    found = cases(report, 1)
    a, b = found["hf"]["prefill_ms"]["median"], found["2"]["prefill_ms"]["median"]
    assert f"{a / b:.2f}x" in out


def test_readme_tables_take_any_report(report):
    text = bench_table(report | {"did_not_run": {"someone": "no such model"}})
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1 and text.count("| batch ") == 2
    ms = cases(report, 1)["hf"]["prefill_ms"]["median"]
    assert f"| LLM prefill, ms | {ms:.0f} |" in text  # of two rounds no spread is shown
    assert "someone did not run: no such model." in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch", "1,x"), "not a list of batch sizes"),
        (("--layout", "9x9"), "has no layout '9x9'"),
        (("--new-tokens", "96"), "does not fit the 96 text tokens"),
        (("--backend", "abacus"), "'abacus' is not one of"),
        (("--compare", "hf", "--model", "/nowhere"), "there is no directory /nowhere"),
        (("--output", "/"), "--output / is a folder"),
        (("--output", "/dev/null/report.json"), "/dev/null is no folder with write access"),
    ],
)
def test_what_cannot_be_measured_is_refused(workshop, monkeypatch, capsys, options, message):
    path = workshop.bundle("qwen2").path
    monkeypatch.setattr(sys, "argv", ["luvc-bench", str(path), *options])
    with pytest.raises(SystemExit) as end:
        bench.main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_place_for_the_report_is_looked_at_first(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["luvc-bench", "/nowhere", "--output", "/"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "--output / is a folder" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_has_been_printed(report, tmp_path, capsys):
    (tmp_path / "full").write_text("")
    with pytest.raises(LuvcError, match=r"full/report.json cannot be written: a file"):
        bench.show(report, tmp_path / "full" / "report.json", as_json=True)
    assert json.loads(capsys.readouterr().out) == report


WORKER = """
import json, sys
print(json.dumps({"ready": {}}), flush=True)
for n, line in enumerate(sys.stdin):
    if n == 3: sys.exit("out of coffee")
    print(json.dumps({"figures": {"first_token_ms": 10 + n, "order": n}}), flush=True)
"""


def test_systems_are_interleaved_and_the_first_changes():
    log = []

    class Noted(System):
        def run(self, batch, new_tokens):
            log.append(self.name)
            return super().run(batch, new_tokens)

    systems = [Noted(name, [sys.executable, "-c", WORKER]) for name in "ab"]
    (a, _) = measure(systems, [1], rounds=2, warmup=1, new_tokens=1)
    assert "".join(log) == "abbaab"
    assert a["first_token_ms"]["samples"] == [11, 12], "the warm-up does not count"
    with pytest.raises(LuvcError, match="out of coffee"):
        systems[0].run(1, 1)
    for system in systems:
        system.close()


def test_summary():
    assert summary([3.0, 1.0, 8.0]) == {"median": 3, "min": 1, "max": 8, "samples": [3, 1, 8]}


@pytest.mark.parametrize("length", [7, 30])
def test_states_of_a_hugging_face_cache_count_as_they_are(length):
    """A linear layer keeps its convolution's and its own state, whatever the length; the other grows."""
    from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

    config = Qwen3_5TextConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=4,
        linear_value_head_dim=8,
        linear_conv_kernel_dim=4,
    )
    ids = torch.zeros(3, length, dtype=torch.int64)
    cache = Qwen3_5ForCausalLM(config).eval()(ids, use_cache=True).past_key_values
    convolution, state = (2 * 2 * 4 + 4 * 8) * 4, 4 * 4 * 8
    for tokens in (length, 5):
        keys = 2 * 1 * 8 * tokens
        assert cache_bytes(cache, tokens) == 4 * 3 * (convolution + state + keys)
