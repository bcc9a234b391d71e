"""Systems beside each other, as luvc-bench reports them."""

import re
import statistics
from collections.abc import Iterator

from ..peers.goals import WEIGHTS
from .words import command, cores, counted

PARTS = (
    ("vision, ms", "vision_ms"),
    ("LLM prefill, ms", "prefill_ms"),
    ("time to first token, ms", "first_token_ms"),
    ("decode, ms per token", "decode_ms_per_token"),
)
SIZES = (("K/V of the prompt, MiB", "kv_bytes", 2**20), ("peak memory, MiB", "peak_mib", 1))
FEWEST = 4  # of fewer rounds the quartiles are the extremes, or beyond them


def bench(data: dict, only: int | None = None) -> str:
    """A luvc-bench report: a table for each batch size, a column a system, ratios to the first."""
    blocks, shown = [], []
    for batch in [only] if only else data["settings"]["batches"]:
        cases = [c for c in data["cases"] if c["batch"] == batch]
        shown += cases
        names = [c["system"] for c in cases]
        lines = [f"| batch {batch} | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
        for title, key in PARTS:
            values = [c[key]["median"] if c[key] else None for c in cases]
            lines.append(row(title, values, [spread(c[key]) for c in cases]))
        for title, key, unit in SIZES:
            values = [c[key] / unit if c.get(key) else None for c in cases]
            lines.append(row(title, values, [""] * len(values)))
        means = [sum(c["visual_tokens"]) / len(c["visual_tokens"]) for c in cases]
        lines.append(
            "| visual tokens, mean of layers | " + " | ".join(f"{m:.0f}" for m in means) + " |"
        )
        blocks.append("\n".join(lines))
    s = data["settings"]
    blocks.append(
        f"{medians(s['rounds'])}, {data['date']}, {cores(data['machine'])}, "
        f"{counted(s['threads'], 'thread')}, {_numbers(shown)}, random weights. "
        + " ".join([*_missing(data.get("did_not_run", {})), f"`{command(data)}`"])
    )
    return "\n\n".join(blocks)


def medians(rounds: int) -> str:
    """What the figures are, and what stands beside each."""
    found = f"Medians of {counted(rounds, 'interleaved round')}"
    return f"{found}, ± half the range of their middle half" if rounds >= FEWEST else found


def _numbers(cases: list[dict]) -> str:
    """The type of all numbers, and of those weights that have another."""
    kinds = {c.get("weights", "fp32") for c in cases}
    if quantised := [w for w in WEIGHTS[1:] if w in kinds]:
        return f"float32, {' and '.join(quantised)} weights where the name says so"
    return "float32"


def _missing(reasons: dict[str, str]) -> Iterator[str]:
    """A sentence for each reason, with the systems that it kept from running."""
    systems: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        systems.setdefault(_in_words(reason), []).append(name)
    for reason, names in systems.items():
        yield f"{' and '.join(names)} did not run: {reason}."


def _in_words(reason: str) -> str:
    """What a peer's own message says to those who do not read its code."""
    unknown = re.search(
        r"Trying to export an? (\w+) model, that is a custom or unsupported", reason
    )
    return f"OpenVINO's export does not know the architecture {unknown[1]}" if unknown else reason


def spread(timed: dict | None) -> str:
    """Half the middle half of the rounds, as a part of the median; nothing of fewer than FEWEST."""
    if not timed or len(timed["samples"]) < FEWEST:
        return ""
    low, _, high = statistics.quantiles(timed["samples"], n=4)
    return f" ±{(high - low) / 2 / timed['median']:.0%}"


def row(title: str, values: list[float | None], spreads: list[str]) -> str:
    """A line of a table, with ratios to its first value."""
    first = values[0]
    cells = []
    for i, value in enumerate(values):
        if value is None:
            cells.append("-")
        else:
            ratio = f" ({first / value:.2f}x)" if i and first and value else ""
            cells.append(f"{value:.0f}{spreads[i]}{ratio}")
    return f"| {title} | " + " | ".join(cells) + " |"


def of_weights(data: dict, weights: str) -> str:
    """The systems with such weights beside the first of all."""
    first, *rest = data["cases"]
    kept = [c for c in rest if c.get("weights", "fp32") == weights]
    failed = data.get("did_not_run", {})
    failed = {name: why for name, why in failed.items() if _weights_of(name) == weights}
    if not kept:
        reasons = " ".join(_missing(failed))
        return f"Not measured yet: {reasons or f'`{command(data)}` had no {weights} weights.'}"
    return bench(data | {"cases": [first, *kept], "did_not_run": failed})


def _weights_of(name: str) -> str:
    """The weights that a system's name tells, whether it ran or not."""
    return next((w for w in WEIGHTS[1:] if name.endswith(f" {w}")), WEIGHTS[0])
