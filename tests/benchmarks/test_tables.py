"""What the tables' captions say of a result, beside its figures."""

import json

import pytest

from benchmarks import tables
from benchmarks.tables.bench import spread
from benchmarks.tables.words import counted

RECORDED = json.loads((tables.RESULTS / "peers-internvl-small.json").read_text())
UNKNOWN = (
    "ValueError: Trying to export a internvl model, that is a custom or unsupported architecture"
)
PEERS = RECORDED | {
    "cases": [c for c in RECORDED["cases"] if c.get("weights", "fp32") == "fp32"],
    "did_not_run": {"openvino": UNKNOWN, "openvino 51 %": UNKNOWN},
    "settings": {"batches": [1], "rounds": 11, "threads": 2},
}
"""A run of float32 alone, whatever else is recorded by now."""


@pytest.mark.parametrize(
    ("recorded", "printed"),
    [
        ("python benchmarks/peers/run.py --rounds 3", "python -m benchmarks.peers.run --rounds 3"),
        ("python -m benchmarks.cpu --batch 1", "python -m benchmarks.cpu --batch 1"),
    ],
)
def test_the_command_printed_is_one_that_works(recorded, printed):
    assert f"`{printed}`" in tables.bench(PEERS | {"command": recorded})


def test_a_reason_is_said_once_and_in_words():
    caption = tables.bench(PEERS).splitlines()[-1]
    assert caption.count("did not run") == 1 and "Error" not in caption
    assert "openvino and openvino 51 % did not run: OpenVINO's export does not know" in caption


def test_other_reasons_stay_as_they_are():
    caption = tables.bench(PEERS | {"did_not_run": {"a": "no disk", "b": "no model"}})
    assert "a did not run: no disk. b did not run: no model. `" in caption


def test_what_did_not_run_is_told_by_the_table_of_its_weights():
    run = PEERS | {"did_not_run": {"openvino": "no disk", "luvc 1x int8": "no model"}}
    caption = tables.of_weights(run, "fp32").splitlines()[-1]
    assert "openvino did not run: no disk. `" in caption and "no model" not in caption
    told = "Not measured yet: luvc 1x int8 did not run: no model."
    assert tables.of_weights(run, "int8") == told


def test_a_caption_names_the_weights_of_its_systems():
    first, *rest = PEERS["cases"]
    mixed = [first, *(c | {"weights": w} for c, w in zip(rest, ("int4", "int8"), strict=True))]
    caption = tables.bench(PEERS | {"cases": mixed}).splitlines()[-1]
    assert "2 threads, float32, int8 and int4 weights where the name says so, random" in caption
    assert "2 threads, float32, random weights." in tables.bench(PEERS)


def test_few_rounds_have_no_quartiles():
    assert spread({"samples": [1, 2, 3, 4], "median": 2.5}) == " ±50%"
    assert spread({"samples": [1, 2, 3], "median": 2}) == spread(None) == ""
    few = PEERS | {"settings": PEERS["settings"] | {"rounds": 3, "threads": 1}}
    caption = tables.bench(few).splitlines()[-1]
    assert caption.startswith("Medians of 3 interleaved rounds, 20") and ", 1 thread, " in caption


def test_one_is_no_plural():
    assert [counted(n, "core") for n in (0, 1, 2)] == ["0 cores", "1 core", "2 cores"]


@pytest.mark.parametrize(
    ("mark", "mend"),
    [
        ("peers-internvl-small weights", "`weights` with fp32 or int8 or int4"),
        ("peers-internvl-small weights int9", "`weights` with fp32 or int8 or int4"),
        ("peers-internvl-small batch", "`batch` with 1,"),
        ("bench_cpu batch 7", "`batch` with 1 or 4 or 8,"),
        ("peers-internvl-small goals now", "`goals` and `profile`"),
        ("peers-internvl-small wieghts int8", "the parts of peers-internvl-small.json are"),
        ("linear goals", "linear has no parts"),
        ("nothing", "nothing.json is not there"),
    ],
)
def test_a_mark_that_names_no_table_is_refused(mark, mend):
    with pytest.raises(SystemExit) as refused:
        tables.fill(f"<!-- table:{mark} -->\nold\n<!-- /table -->")
    assert f"<!-- table:{mark} -->: " in str(refused.value) and mend in str(refused.value)
