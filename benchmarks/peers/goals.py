"""What a run of the peers is held against: gains of quantised weights, and OpenVINO at equal terms.

Ratios are medians of those within interleaved rounds, so that what slows all systems down counts for none.
"""

import statistics
from collections.abc import Iterator
from typing import Any

from .instructions import OF_WHOLE_NUMBERS

RATIOS = ("1x", "2x")
WANTED = (
    ("int8", "LLM prefill", "prefill_ms", 2.3),
    ("int8", "decode", "decode_ms_per_token", 2.2),
    ("int4", "decode", "decode_ms_per_token", 3.0),
)
"""Weights, what it is, figure, and how many times as fast as our own float32 it is to be."""
WAITED_FOR = (("first token", "first_token_ms"), ("decode", "decode_ms_per_token"))
BESIDE = (("vision", "vision_ms"), ("LLM prefill", "prefill_ms"), *WAITED_FOR)
AHEAD = 1.15
MOST_ROUNDS = 0.75
"""OpenVINO, in so many rounds that many times as fast in what people wait for, would be worth a backend."""
EQUAL = 0.98  # ratios from here on are "at least as fast": rounds do not tell 2 % apart


def goals(data: dict[str, Any]) -> str:
    """The goals with what was measured, and what follows from it."""
    run = _Run(data)
    if not run.weights - {"fp32"}:
        return "Not measured yet."
    lines = ["| goal | ratio 1 | ratio 2 |", "|---|---|---|"]
    missed = []
    for weights, title, key, wanted in WANTED:
        name = f"{weights} {title}, {wanted:g}x our fp32"
        gains = [run.gain(ratio, weights, key) for ratio in RATIOS]
        lines.append(f"| {name} | {' | '.join(_held(g, wanted) for g in gains)} |")
        missed += [
            f"{name} at {r}: {g:.2f}x"
            for r, g in zip(RATIOS, gains, strict=True)
            if g and g < wanted
        ]
    lines += [
        "",
        *_beside(run),
        "",
        *_missed(missed, data.get("instructions", [])),
        "",
        _decision(run),
    ]
    return "\n".join(lines)


def _held(found: float | None, wanted: float) -> str:
    """A figure beside a goal."""
    if found is None:
        return "-"
    met = found >= wanted
    return f"**{found:.2f}x**" if met else f"{found:.2f}x, {100 * (1 - found / wanted):.0f} % short"


def _beside(run: "_Run") -> Iterator[str]:
    """OpenVINO's time over ours, at equal weights and as many visual tokens."""
    yield "| OpenVINO's time / ours | " + " | ".join(title for title, _ in BESIDE) + " |"
    yield "|---|" + "---:|" * len(BESIDE)
    for weights in run.ordered:
        for ratio in RATIOS:
            found = [run.ahead(ratio, weights, key) for _, key in BESIDE]
            cells = [
                "-" if f is None else f"**{f:.2f}x**" if f >= EQUAL else f"{f:.2f}x" for f in found
            ]
            yield f"| {weights}, ratio {ratio[0]} | {' | '.join(cells)} |"


def _missed(missed: list[str], instructions: list[str]) -> Iterator[str]:
    """The goals that were missed, and what the processor has to do with it."""
    yield f"Missed: {'; '.join(missed)}." if missed else "All goals of quantised weights are met."
    has = [name for name in instructions if name in OF_WHOLE_NUMBERS]
    if not has:
        yield (
            f"The processor ({', '.join(instructions)}) has none of {', '.join(OF_WHOLE_NUMBERS)}: bytes are "
            "widened to 16 bits before they are multiplied, which takes back most of what prompts could gain."
        )
    else:
        yield f"The processor multiplies bytes by {', '.join(has)}."


def _decision(run: "_Run") -> str:
    """Whether a backend would pay, by the rule of AHEAD."""
    paying = [
        f"{title}, {weights}, ratio {ratio[0]} ({1 / found:.2f}x)"
        for weights in run.ordered
        for ratio in RATIOS
        for title, key in WAITED_FOR
        if (found := run.ahead(ratio, weights, key)) and run.surely_behind(ratio, weights, key)
    ]
    if not paying:
        return (
            f"In nothing that people wait for is OpenVINO more than {100 * (AHEAD - 1):.0f} % faster in most "
            "rounds: no backend of its own."
        )
    return (
        f"More than {100 * (AHEAD - 1):.0f} % faster in most rounds is OpenVINO in: {'; '.join(paying)}. "
        "There a backend of its own would pay."
    )


def profile(data: dict[str, Any]) -> str:
    """ms of each kind of operator in our bundles at ratio 1, by weights."""
    found = data.get("profiles", {})
    if not found:
        return "Not measured yet."
    blocks = []
    for part in ("prefill", "step"):
        kinds = sorted({k for of_weights in found.values() for k in of_weights[part]})
        lines = [f"| {part}, ms | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found)]
        for kind in kinds:
            cells = [f"{f[part].get(kind, 0):.1f}" for f in found.values()]
            lines.append(f"| {kind} | {' | '.join(cells)} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


class _Run:
    """Ratios between systems of a results file."""

    def __init__(self, data: dict[str, Any]):
        self._cases = {c["system"]: c for c in data["cases"]}
        self._peers = [name for name in self._cases if name.startswith("openvino")]
        self.weights = {c.get("weights", "fp32") for c in data["cases"]}
        self.ordered = [w for w in ("fp32", "int8", "int4") if w in self.weights]

    def gain(self, ratio: str, weights: str, key: str) -> float | None:
        """How many times as fast as our float32 such weights are."""
        found = self._ratios(f"luvc {ratio}", f"luvc {ratio} {weights}", key)
        return statistics.median(found) if found else None

    def ahead(self, ratio: str, weights: str, key: str) -> float | None:
        """OpenVINO's time over ours at equal weights; at 2x it keeps as many visual tokens."""
        found = self._beside_openvino(ratio, weights, key)
        return statistics.median(found) if found else None

    def surely_behind(self, ratio: str, weights: str, key: str) -> bool:
        """Whether OpenVINO is `AHEAD` times as fast in `MOST_ROUNDS`."""
        found = self._beside_openvino(ratio, weights, key)
        return sum(r < 1 / AHEAD for r in found) >= MOST_ROUNDS * len(found)

    def _beside_openvino(self, ratio: str, weights: str, key: str) -> list[float]:
        tail = "" if weights == "fp32" else f" {weights}"
        of_kind = [p for p in self._peers if self._cases[p].get("weights", "fp32") == weights]
        peer = [p for p in of_kind if ("%" in p) == (ratio != "1x")]
        return self._ratios(peer[0], f"luvc {ratio}{tail}", key) if peer else []

    def _ratios(self, a: str, b: str, key: str) -> list[float]:
        """The time of `a` over that of `b` in each round; none where one of them did not run."""
        if a not in self._cases or b not in self._cases:
            return []
        pairs = zip(self._cases[a][key]["samples"], self._cases[b][key]["samples"], strict=True)
        return [x / y for x, y in pairs]
