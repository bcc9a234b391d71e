"""What a run of the peers is held against: gains of quantised weights, and OpenVINO at equal terms.

Ratios are medians of those within interleaved rounds, so that what slows all systems down counts for none.
"""

import itertools
import statistics
from collections.abc import Iterator
from typing import Any

from .instructions import OF_WHOLE_NUMBERS
from .systems import FIRST_TOKEN

WEIGHTS = ("fp32", "int8", "int4")
RATIOS = ("1x", "2x")
WANTED = (
    ("int8", "LLM prefill", "prefill_ms", 2.3),
    ("int8", "decode", "decode_ms_per_token", 2.2),
    ("int4", "decode", "decode_ms_per_token", 3.0),
)
"""Weights, what it is, figure, and how many times as fast as our own float32 it is to be."""
FASTER = 2.0
"""How many times sooner FIRST_TOKEN's bundle is to have its first token than our ratio 1."""
WAITED_FOR = (("first token", "first_token_ms"), ("decode", "decode_ms_per_token"))
BESIDE = (("vision", "vision_ms"), ("LLM prefill", "prefill_ms"), *WAITED_FOR)
AHEAD = 1.15
"""OpenVINO more than so many times as fast, by the median, in what people wait for is worth a backend."""
MORE = f"{100 * (AHEAD - 1):.0f} %"
EQUAL = 0.98  # ratios from here on are "at least as fast": rounds do not tell 2 % apart


def goals(data: dict[str, Any]) -> str:
    """The goals with what was measured, and what follows from it."""
    run = _Run(data)
    if not run.weights - {"fp32"}:
        return "Not measured yet."
    lines = ["| goal | ratio 1 | ratio 2 |", "|---|---|---|"]
    missed, unmeasured = [], []
    for weights, title, key, wanted in WANTED:
        name = f"{weights} {title}, {wanted:g}x our fp32"
        gains = {ratio: run.gain(ratio, weights, key) for ratio in RATIOS}
        lines.append(f"| {name} | {' | '.join(_held(g, wanted) for g in gains.values())} |")
        unmeasured += [f"{name} at {r}" for r, g in gains.items() if g is None]
        missed += [
            f"{name} at {r}: {g:.2f}x" for r, g in gains.items() if g is not None and g < wanted
        ]
    lines += ["", *_beside(run), "", *_first_token(run), _outcome(missed, unmeasured)]
    lines += [_processor(data.get("instructions")), "", _decision(run)]
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


def _first_token(run: "_Run") -> Iterator[str]:
    """How much sooner the first token is where tower and prefill together have ratio 2."""
    ours = f"luvc 2x {FIRST_TOKEN}"
    if gains := run.ratios("luvc 1x", ours, "first_token_ms"):
        others = (name for name in run.peers if run.of(name) == "fp32")
        beside = [
            f"{statistics.median(found):.2f}x of {name}'s"
            for name in ("hugging face", *others)
            if (found := run.ratios(name, ours, "first_token_ms"))
        ]
        yield (
            f"The first token where `--ratio-of first-token` has 2x, beside our own ratio 1: "
            f"{_held(statistics.median(gains), FASTER)} (goal {FASTER:g}x); {', '.join(beside)}."
        )


def _outcome(missed: list[str], unmeasured: list[str]) -> str:
    """The goals that were missed, and those of which nothing is known."""
    parts = (("Missed", missed), ("Not measured", unmeasured))
    said = [f"{what}: {'; '.join(names)}." for what, names in parts if names]
    return " ".join(said) or "All goals of quantised weights are met."


def _processor(instructions: list[str] | None) -> str:
    """What the processor has to do with it."""
    if instructions is None:
        return "The system does not tell the processor's instructions."
    if has := [name for name in instructions if name in OF_WHOLE_NUMBERS]:
        return f"The processor multiplies bytes by {', '.join(has)}."
    known = f" ({', '.join(instructions)})" if instructions else ""
    return (
        f"The processor{known} has none of {', '.join(OF_WHOLE_NUMBERS)}: bytes are widened to 16 bits "
        "before they are multiplied, which takes back most of what prompts could gain."
    )


def _decision(run: "_Run") -> str:
    """Whether the rule of AHEAD asks for a backend; every weight and ratio must be known to deny it."""
    leads, unmeasured = [], []
    for weights, ratio in itertools.product(WEIGHTS, RATIOS):
        where = f"{weights}, ratio {ratio[0]}"
        for title, key in WAITED_FOR:
            if rounds := run.beside_openvino(ratio, weights, key):
                leads.append(_Lead(f"{title}, {where}", rounds))
            elif where not in unmeasured:
                unmeasured.append(where)
    if paying := [str(lead) for lead in leads if lead.median > AHEAD]:
        return (
            f"The rule asks for a backend: by the median OpenVINO is more than {MORE} faster in "
            f"{'; '.join(paying)}."
        )
    if not run.peers:
        return "Not decided: OpenVINO did not run."
    if not leads:
        return "Not decided: OpenVINO and ours never ran at equal weights and visual tokens."
    nothing = f"by the median OpenVINO is nowhere more than {MORE} faster in what people wait for"
    nearest = f"nearest is {max(leads, key=lambda lead: lead.median)}"
    if unmeasured:
        return (
            f"Not decided: not measured at {'; '.join(unmeasured)}. Elsewhere {nothing}; {nearest}."
        )
    return f"The rule asks for no backend: {nothing}; {nearest}."


class _Lead:
    """How much faster OpenVINO is than we are in one figure.

    Args:
        name: of the figure.
        ratios: OpenVINO's time over ours in each round.
    """

    def __init__(self, name: str, ratios: list[float]):
        self.name, self.times = name, [1 / ratio for ratio in ratios]
        self.median = statistics.median(self.times)

    def __str__(self):
        beyond = sum(times > AHEAD for times in self.times)
        return (
            f"{self.name} ({self.median:.2f}x; {beyond} of {len(self.times)} rounds beyond {MORE})"
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
        self.peers = [name for name in self._cases if name.startswith("openvino")]
        self.weights = {c.get("weights", "fp32") for c in data["cases"]}
        self.ordered = [w for w in WEIGHTS if w in self.weights]

    def of(self, system: str) -> str:
        """The weights of a system that ran."""
        return self._cases[system].get("weights", "fp32")

    def gain(self, ratio: str, weights: str, key: str) -> float | None:
        """How many times as fast as our float32 such weights are."""
        found = self.ratios(f"luvc {ratio}", f"luvc {ratio} {weights}", key)
        return statistics.median(found) if found else None

    def ahead(self, ratio: str, weights: str, key: str) -> float | None:
        """OpenVINO's time over ours at equal weights; at 2x it keeps as many visual tokens."""
        found = self.beside_openvino(ratio, weights, key)
        return statistics.median(found) if found else None

    def beside_openvino(self, ratio: str, weights: str, key: str) -> list[float]:
        """The same in each round; empty where one of the two did not run."""
        tail = "" if weights == "fp32" else f" {weights}"
        of_kind = [p for p in self.peers if self.of(p) == weights]
        peer = [p for p in of_kind if ("%" in p) == (ratio != "1x")]
        return self.ratios(peer[0], f"luvc {ratio}{tail}", key) if peer else []

    def ratios(self, a: str, b: str, key: str) -> list[float]:
        """The time of `a` over that of `b` in each round; none where one of them did not run."""
        if a not in self._cases or b not in self._cases:
            return []
        pairs = zip(self._cases[a][key]["samples"], self._cases[b][key]["samples"], strict=True)
        return [x / y for x, y in pairs]
