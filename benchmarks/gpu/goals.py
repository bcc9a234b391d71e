"""What the figures on a GPU are to reach, and whether they do.

A figure is judged only when it was measured; a missed goal needs a reason in reasons.toml.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REASONS = Path(__file__).parent / "reasons.toml"
LONG = 4096  # visual tokens from which the kernels are to lead
RELATIVE_ERROR = 1e-5
KERNEL_LEAD, FLOOR_SHARE = 1.5, 0.7
PREFILL, FIRST_TOKEN = 2.0, 1.9  # at ratio 2, times faster than ratio 1
SPU_SHARE = 0.01  # of prefill
SAME = 1.05  # ratio 1 takes at most this much of Hugging Face's time
KV_ERROR = 0.01

GOALS = {
    "energies": f"score within {RELATIVE_ERROR} of float64, relative to the largest energy",
    "select and gather": "exact",
    "memcheck": "compute-sanitizer finds nothing",
    "racecheck": "compute-sanitizer finds nothing",
    "memory floor": f"score at V = {LONG} reads at {FLOOR_SHARE:.0%} of the copy bandwidth or more",
    "slower floor": f"score at V = {LONG} at {FLOOR_SHARE:.0%} or more of the slower floor, bytes or fp32",
    "score, long": f"from V = {LONG} on {KERNEL_LEAD:g}x faster than the best other form",
    "score, short": "below, no slower than the best matrix form and a launch",
    "prefill at 2x": f"at least {PREFILL:g}x faster than ratio 1",
    "first token at 2x": f"at least {FIRST_TOKEN:g}x faster than ratio 1",
    "never slower": "no part at any ratio and batch size slower than ratio 1's slowest round",
    "SPU share": f"at most {SPU_SHARE:.0%} of prefill",
    "KV bytes": f"as planned, within {KV_ERROR:.0%}",
    "ratio 1": f"prefill at most {SAME:g} of the time of Hugging Face's unmodified forward",
    "parity": "every runtime equals PyTorch in float32 within the limits of engines/tolerance.py",
}


@dataclass(frozen=True)
class Verdict:
    """One figure and its goal.

    Attributes:
        goal: one of GOALS.
        where: which case.
        found: for people.
        reached: whether.
    """

    goal: str
    where: str
    found: str
    reached: bool


def kernels(data: dict[str, Any]) -> Iterator[Verdict]:
    """Checks and times of the SPU kernels."""
    checks, times = data["checks"], data.get("times", ())
    errors = [c["relative_error"] for c in checks]
    errors += [t["relative_error"]["kernel"] for t in times]
    above = [e for e in errors if not e <= RELATIVE_ERROR]  # or no number
    inexact = sum(not (c["select_exact"] and c["gather_exact"]) for c in checks)
    count, all_ran = f"{len(checks)} of {data['planned']} checks", len(checks) == data["planned"]
    said = f"at most {max(above or errors):.1e}, {len(above)} above"
    yield Verdict("energies", f"{count}, {len(times)} timed shapes", said, all_ran and not above)
    yield Verdict("select and gather", count, f"{inexact} not exact", all_ran and not inexact)
    for t in times:
        yield from _times(t, data["launch_us"])


def _times(t: dict[str, Any], launch_us: float) -> Iterator[Verdict]:
    B, V, D = t["shape"]
    where, score = f"B {B}, V {V}, D {D}", t["score_us"]["median"]
    others = {name: o["median"] for name, o in t["others_us"].items()}
    if V < LONG:
        products = [us for name, us in others.items() if name.startswith(("basis", "Gram"))]
        limit = min(products) + launch_us
        yield Verdict("score, short", where, f"{score:.1f} µs against {limit:.1f}", score <= limit)
        return
    if V == LONG:
        memory, arithmetic = t["score_floor_us"], t["score_fp32_us"] or 0
        for goal, floor in (("memory floor", memory), ("slower floor", max(memory, arithmetic))):
            yield Verdict(goal, where, f"{floor / score:.0%}", floor / score >= FLOOR_SHARE)
    lead = min(others.values()) / score
    yield Verdict("score, long", where, f"{lead:.2f}x", lead >= KERNEL_LEAD)


def sanitizer(data: dict[str, Any]) -> Iterator[Verdict]:
    """compute-sanitizer's verdicts."""
    for tool, found in data["tools"].items():
        said = "clean" if found["clean"] else found.get("problem") or f"{found['findings']} found"
        yield Verdict(tool, "kernels", said, bool(found["clean"]))


def headline(data: dict[str, Any]) -> Iterator[Verdict]:
    """Ratios beside ratio 1, and ratio 1 beside Hugging Face."""
    for case in data["cases"]:
        if "ratios" not in case:
            continue
        where = f"{data['model']}, V {case['visual']}, batch {case['batch']}"
        for ratio, found in case["ratios"].items():
            if ratio != "1":
                yield from _ratio(case["ratios"]["1"], found, ratio, f"{where}, {ratio}x")
            error = found["kv_bytes"] / found["kv_plan_bytes"] - 1
            within = abs(error) <= KV_ERROR
            yield Verdict("KV bytes", f"{where}, {ratio}x", f"{error:+.1%}", within)
        if "eager" in case:
            ours, theirs = (case["eager"][s]["prefill_ms"]["median"] for s in ("luvc", "hf"))
            yield Verdict("ratio 1", where, f"{ours / theirs:.2f}", ours <= SAME * theirs)


def _ratio(one: dict, found: dict, ratio: str, where: str) -> Iterator[Verdict]:
    for part, goal in (("prefill", PREFILL), ("first_token", FIRST_TOKEN)):
        gain = one[f"{part}_ms"]["median"] / found[f"{part}_ms"]["median"]
        if ratio == "2":
            name = part.replace("_", " ")
            yield Verdict(f"{name} at 2x", where, f"{gain:.2f}x", gain >= goal)
    slower = [
        part
        for part in ("vision", "prefill", "first_token", "decode")
        if found[f"{part}_ms"]["median"] > one[f"{part}_ms"]["max"]
    ]
    said = ", ".join(slower).replace("_", " ") or "nothing"
    yield Verdict("never slower", where, f"{said} slower", not slower)
    if "spu_ms" in found:
        share = found["spu_ms"]["median"] / found["prefill_ms"]["median"]
        yield Verdict("SPU share", where, f"{share:.2%}", share <= SPU_SHARE)


def engines(data: dict[str, Any]) -> Iterator[Verdict]:
    """Bundles at ratio 1 and 2 on a backend."""
    by_case = {(c["batch"], c["system"]): c for c in data.get("cases", ())}
    for batch in sorted({batch for batch, _ in by_case}):
        one, two = by_case[batch, "1x"], by_case[batch, "2x"]
        where = f"{data['backend']}, {data['model']}, V {data['visual']}, batch {batch}"
        for part, goal in (("prefill", PREFILL), ("first_token", FIRST_TOKEN)):
            gain = one[f"{part}_ms"]["median"] / two[f"{part}_ms"]["median"]
            name = part.replace("_", " ")
            yield Verdict(f"{name} at 2x", where, f"{gain:.2f}x", gain >= goal)


def parity(data: dict[str, Any]) -> Iterator[Verdict]:
    """Every runtime that could be compared."""
    for bundle in data["bundles"]:
        for name, found in bundle["runtimes"].items():
            if found["status"] == "not available":
                continue
            failures = [f for r in found.get("reports", ()) for f in r["failures"]]
            said = "equal" if found.get("passed") else "; ".join(failures) or found["reason"]
            where = f"{bundle['name']} on {name}"
            yield Verdict("parity", where, said, bool(found.get("passed")))


def verdicts(results: dict[str, Any]) -> list[Verdict]:
    """Of all results, by their file's name without .json."""
    found: list[Verdict] = []
    for name, judge in (("kernels", kernels), ("sanitizer", sanitizer), ("parity", parity)):
        if name in results:
            found += judge(results[name])
    for name, data in results.items():
        if name.startswith("headline-"):
            found += headline(data)
        if name.startswith("engines-"):
            found += engines(data)
    return found


def reasons() -> dict[str, str]:
    """Why goals are missed, by their key."""
    return tomllib.loads(REASONS.read_text())
