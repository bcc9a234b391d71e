"""What a run of the peers is asked for and held against; ratios counted by hand."""

import json
import shutil

import pytest
import typer

from benchmarks import tables
from benchmarks.peers import goals, instructions, profile, run, systems

KEYS = ("vision_ms", "prefill_ms", "first_token_ms", "decode_ms_per_token")


def case(system, weights, *times):
    """A case whose three rounds took 1, 2 and 3 times as long."""
    samples = {
        k: {"median": 2 * t, "samples": [t, 2 * t, 3 * t]} for k, t in zip(KEYS, times, strict=True)
    }
    more = {"batch": 1, "kv_bytes": 0, "peak_mib": 100.0, "visual_tokens": [8]}
    return {"system": system, "weights": weights} | samples | more


CASES = [
    case("hugging face", "fp32", 10, 100, 110, 40),
    case("openvino", "fp32", 12, 90, 102, 20),
    case("luvc 1x", "fp32", 10, 100, 110, 22),
    case("openvino int8", "int8", 12, 90, 102, 12),
    case("openvino 52 % int8", "int8", 12, 20, 32, 5),
    case("luvc 1x int8", "int8", 10, 80, 90, 10),
    case("luvc 2x int8", "int8", 10, 25, 35, 10),
    case("luvc 1x int4", "int4", 10, 100, 110, 6),
]
RUN = json.loads((tables.RESULTS / "peers-internvl-small.json").read_text()) | {
    "cases": CASES,
    "instructions": ["avx2"],
    "did_not_run": {},
    "profiles": {},
}


TIMES = {"fp32": (10, 100, 110, 30), "int8": (10, 40, 50, 12), "int4": (10, 40, 50, 10)}
ALL = RUN | {
    "cases": [
        case(systems.label(name, weights), weights, *times)
        for weights, times in TIMES.items()
        for name in ("openvino", "openvino 52 %", "luvc 1x", "luvc 2x")
    ]
}
"""Every system ran, OpenVINO as fast as ours, int8 2.5 times and int4 3 times as fast as fp32."""


def decoding(run, system, *samples):
    """The run with other times of a token."""
    timed = {KEYS[3]: {"median": sorted(samples)[1], "samples": [*samples]}}
    return run | {"cases": [c | (timed if c["system"] == system else {}) for c in run["cases"]]}


def without(run, *names):
    """The run without the systems whose names begin so."""
    return run | {"cases": [c for c in run["cases"] if not c["system"].startswith(names)]}


def rows(text):
    """The cells of the tables by their first one."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in lines}


def test_a_goal_is_held_against_the_run():
    found = rows(goals.goals(RUN))
    assert found["int8 LLM prefill, 2.3x our fp32"] == ["1.25x, 46 % short", "-"]
    assert found["int8 decode, 2.2x our fp32"] == ["**2.20x**", "-"]
    assert found["int4 decode, 3x our fp32"] == ["**3.67x**", "-"]


def test_openvino_is_compared_at_equal_weights_and_tokens():
    found = rows(goals.goals(RUN))
    assert found["fp32, ratio 1"] == ["**1.20x**", "0.90x", "0.93x", "0.91x"]
    assert found["int8, ratio 1"] == ["**1.20x**", "**1.12x**", "**1.13x**", "**1.20x**"]
    assert found["int8, ratio 2"] == ["**1.20x**", "0.80x", "0.91x", "0.50x"]
    assert found["fp32, ratio 2"] == found["int4, ratio 1"] == ["-"] * 4


def test_the_first_token_is_held_against_its_goal():
    assert "--ratio-of first-token" not in goals.goals(RUN)
    name = f"luvc 2x {systems.FIRST_TOKEN}"
    said = "ratio 1: **2.20x** (goal 2x); 2.20x of hugging face's, 2.04x of openvino's."
    assert said in goals.goals(RUN | {"cases": [*CASES, case(name, "fp32", 5, 45, 50, 22)]})
    slower = goals.goals(RUN | {"cases": [*CASES, case(name, "fp32", 8, 60, 68, 22)]})
    assert "beside our own ratio 1: 1.62x, 19 % short (goal 2x)" in slower


def test_what_follows_is_said():
    text = goals.goals(RUN)
    assert "Missed: int8 LLM prefill, 2.3x our fp32 at 1x: 1.25x. Not measured: int8 LLM" in text
    assert "The processor (avx2) has none of avx512_vnni" in text
    lead = "decode, int8, ratio 2 (2.00x; 3 of 3 rounds beyond 15 %)"
    asked = "The rule asks for a backend: by the median OpenVINO is more than 15 % faster in"
    assert text.splitlines()[-1] == f"{asked} {lead}."


def test_all_goals_are_met_where_all_were_measured():
    text = goals.goals(ALL)
    assert "All goals of quantised weights are met." in text and "Not measured" not in text
    text = goals.goals(without(ALL, "luvc 2x int4"))
    assert "Not measured: int4 decode, 3x our fp32 at 2x." in text and "are met" not in text
    text = goals.goals(without(ALL, "luvc"))
    assert all(f"{row[0]} {row[1]}, {row[3]:g}x our fp32 at 1x" in text for row in goals.WANTED)


def test_the_median_decides_and_its_rounds_are_told():
    ours = "luvc 2x int8"  # beside 12, 24 and 36 ms of OpenVINO
    decided = goals.goals(decoding(ALL, ours, 24, 26, 36)).splitlines()[-1]
    assert decided.startswith(
        "The rule asks for no backend: by the median OpenVINO is nowhere more"
    )
    assert "nearest is decode, int8, ratio 2 (1.08x; 1 of 3 rounds beyond 15 %)" in decided
    decided = goals.goals(decoding(ALL, ours, 24, 30, 30)).splitlines()[-1]
    assert decided.startswith("The rule asks for a backend: ")
    assert decided.endswith("in decode, int8, ratio 2 (1.25x; 2 of 3 rounds beyond 15 %).")


def test_what_did_not_run_decides_nothing():
    def decided(*names):
        return goals.goals(without(ALL, *names)).splitlines()[-1]

    assert decided("openvino") == "Not decided: OpenVINO did not run."
    assert decided("luvc").startswith("Not decided: OpenVINO and ours never ran at equal weights")
    found = decided("openvino int4", "openvino 52 % int8")
    assert found.startswith("Not decided: not measured at int8, ratio 2; int4, ratio 1. Elsewhere")


def test_a_processor_is_described_as_far_as_it_is_known():
    def said(known):
        return goals.goals(ALL | {"instructions": known})

    assert "multiplies bytes by avx_vnni." in said(["avx2", "avx_vnni"])
    assert "The processor has none of avx512_vnni" in said([])
    assert "The system does not tell the processor's instructions." in said(None)


def test_a_run_without_quantised_weights_says_so():
    plain = RUN | {"cases": CASES[:3]}
    assert goals.goals(plain) == goals.profile(plain) == "Not measured yet."
    assert "had no int8 weights" in tables.of_weights(plain, "int8")


def test_a_table_of_weights_stands_beside_the_first_system():
    head, *_, caption = tables.of_weights(RUN, "int8").splitlines()
    assert "float32, int8 weights where the name says so, random weights" in caption
    names = ["hugging face", *(c["system"] for c in CASES if c["weights"] == "int8")]
    assert head == f"| batch 1 | {' | '.join(names)} |"


def test_operators_are_summed_up_by_kind():
    def event(op, ms, kind="Node", name="x_kernel_time"):
        return {"cat": kind, "name": name, "dur": ms * 1e3, "args": {"op_name": op}}

    first = [event("FusedMatMul", 50), event("If", 9), event("Attention", 7), event("Add", 3)]
    last = [event("FusedMatMul", 20), event("If", 9), event("Attention", 5), event("Add", 1)]
    others = [event("FusedMatMul", 4, name="x_fence_before"), event("session", 8, kind="Session")]
    found = profile.of_kinds([*first, *others, *last], 2)
    assert found == {"products": 20, "attention": 5, "all else": 1}
    text = goals.profile(RUN | {"profiles": {"fp32": {"prefill": found, "step": found}}})
    assert rows(text)["products"] == ["20.0"]


def test_weights_are_measured_in_one_order():
    assert run.chosen("int4,fp32") == ["fp32", "int4"]
    with pytest.raises(typer.BadParameter, match="fp16: choose of fp32,int8,int4"):
        run.chosen("fp32,fp16")
    assert systems.label("luvc 1x", "fp32") == "luvc 1x"
    assert systems.label("luvc 1x", "int8") == "luvc 1x int8"


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ("model name\t: A\nflags\t\t: fpu avx2 avx_vnni\n", ["avx2", "avx_vnni"]),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp\n", ["asimd", "asimddp"]),
        ("flags\t\t: fpu sse2\n", []),
        ("processor\t: 0\nisa\t\t: rv64imafdc\n", None),
    ],
)
def test_the_processor_is_asked(told, found, tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text(told)
    assert instructions.found(file) == found
    assert instructions.found(tmp_path / "none") is None


def test_an_environment_of_other_requirements_is_not_ready(tmp_path):
    wanted, ready = tmp_path / systems.REQUIREMENTS, tmp_path / systems.READY
    wanted.write_text("openvino==1\n")
    assert not systems.is_ready(tmp_path)
    ready.parent.mkdir()
    ready.touch()
    assert not systems.is_ready(tmp_path)  # of a time when nothing was kept of the requirements
    shutil.copyfile(wanted, ready)
    assert systems.is_ready(tmp_path)
    wanted.write_text("openvino==1\nnncf==3\n")
    assert not systems.is_ready(tmp_path)
