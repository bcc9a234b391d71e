"""Writes the tables between marks, `<!-- table:NAME -->` or `<!-- table:NAME batch 1 -->`.

NAME is a file of benchmarks/results, or pocket for what the pocket VLM answers. Peers' files have parts,
`<!-- table:NAME weights int8 -->`, `<!-- table:NAME goals -->` and `<!-- table:NAME profile -->`.

    python -m benchmarks.tables README.md docs/cpu.md docs/serving.md tools/pocket/README.md [--check]
"""

import json
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from .peers.goals import goals, profile

RESULTS = Path(__file__).parent / "results"
POCKET = Path(__file__).parent.parent / "tools" / "pocket" / "model" / "results.json"


def _command(data: dict) -> str:
    """What made a result: recorded as a script's path before every benchmark was a module."""

    def module(script: re.Match) -> str:
        return "python -m benchmarks." + script[1].replace("/", ".")

    return re.sub(r"python benchmarks/([\w/]+)\.py", module, data["command"])


def serving(data: dict) -> str:
    """Ratio 1 beside ratio 2 at each number of clients, of both servers."""
    lines = [
        "| tokens | clients | server | requests/s, ratio 1 → 2 | gain | against Triton "
        "| TTFT p50, ms | TTFT p95, ms | failures |",
        "|---:|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for tokens, loads in data["loads"].items():
        for clients, row in loads.items():
            for kind, ratios in row.items():
                cells = [tokens, clients, kind, *_serving_cells(ratios, row["Triton"])]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _serving_note(data)])


def _serving_cells(ratios: dict, triton: dict) -> list[str]:
    a, b = ratios["1"], ratios["2"]
    over = [ratios[r]["requests_per_s"] / triton[r]["requests_per_s"] for r in ("1", "2")]
    return [
        f"{a['requests_per_s']:.2f} → {b['requests_per_s']:.2f}",
        f"**{b['requests_per_s'] / a['requests_per_s']:.2f}x**",
        "" if ratios is triton else " → ".join(f"{x:.2f}x" for x in over),
        *(f"{a[key]:.0f} → {b[key]:.0f}" for key in ("ttft_p50_ms", "ttft_p95_ms")),
        str(a["failures"] + b["failures"]),
    ]


def _serving_note(data: dict) -> str:
    one, two, m = data["bundles"]["1"], data["bundles"]["2"], data["machine"]
    memory = "; ".join(
        f"{kind} at ratio {ratio} {x['rss_mib'][0]:.0f} MiB after {x['seconds'] / 600:.3g} min and "
        f"{x['rss_mib'][-1]:.0f} MiB after {x['seconds'] / 60:.3g} min, {x['requests']} requests, "
        f"{x['failures']} failures"
        for kind, ratios in data["memory"].items()
        for ratio, x in ratios.items()
    )
    visual = " → ".join(map(str, two["visual_tokens"]))
    return (
        f"Closed loops, streamed over HTTP, {data['date']}, servers and clients together on "
        f"{m['cores']} cores of {m['cpu']}; float32, random weights, {data['model']['layers']} layers, "
        f"hidden {data['model']['hidden']}, {one['visual_tokens'][0]} visual tokens at ratio 1, {visual} "
        f"at ratio 2; {data['limits']['rows']} rows, caches of a "
        f"request at most {one['cache_mib']:.1f} and {two['cache_mib']:.1f} MiB."
        + (
            f" Memory of all processes, all servers under as many clients each: {memory}."
            if memory
            else ""
        )
        + f" `{_command(data)}`"
    )


PARTS = (
    ("vision, ms", "vision_ms"),
    ("LLM prefill, ms", "prefill_ms"),
    ("time to first token, ms", "first_token_ms"),
    ("decode, ms per token", "decode_ms_per_token"),
)
SIZES = (("K/V of the prompt, MiB", "kv_bytes", 2**20), ("peak memory, MiB", "peak_mib", 1))


def bench(data: dict, only: int | None = None) -> str:
    """A luvc-bench report: a table for each batch size, a column a system, ratios to the first."""
    blocks = []
    for batch in [only] if only else data["settings"]["batches"]:
        cases = [c for c in data["cases"] if c["batch"] == batch]
        names = [c["system"] for c in cases]
        lines = [f"| batch {batch} | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
        for title, key in PARTS:
            values = [c[key]["median"] if c[key] else None for c in cases]
            lines.append(_row(title, values, [_spread(c[key]) for c in cases]))
        for title, key, unit in SIZES:
            values = [c[key] / unit if c.get(key) else None for c in cases]
            lines.append(_row(title, values, [""] * len(values)))
        means = [sum(c["visual_tokens"]) / len(c["visual_tokens"]) for c in cases]
        lines.append(
            "| visual tokens, mean of layers | " + " | ".join(f"{m:.0f}" for m in means) + " |"
        )
        blocks.append("\n".join(lines))
    s, m = data["settings"], data["machine"]
    blocks.append(
        f"Medians of {s['rounds']} interleaved rounds, ± half the range of their middle half, "
        f"{data['date']}, {m['cores']} cores of {m['cpu']}, "
        f"{s['threads']} threads, {data.get('numbers', 'float32')}, random weights. "
        + " ".join([*_missing(data.get("did_not_run", {})), f"`{_command(data)}`"])
    )
    return "\n\n".join(blocks)


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


def _spread(timed: dict | None) -> str:
    """Half the middle half of the rounds, as a part of the median."""
    if not timed:
        return ""
    low, _, high = statistics.quantiles(timed["samples"], n=4)
    return f" ±{(high - low) / 2 / timed['median']:.0%}"


def _row(title: str, values: list[float | None], spreads: list[str]) -> str:
    first = values[0]
    cells = []
    for i, value in enumerate(values):
        if value is None:
            cells.append("-")
        else:
            ratio = f" ({first / value:.2f}x)" if i and first and value else ""
            cells.append(f"{value:.0f}{spreads[i]}{ratio}")
    return f"| {title} | " + " | ".join(cells) + " |"


def latency_ratio(data: dict) -> str:
    """What was asked for, predicted and measured."""
    t = data["latency"]
    f = data["flops"]
    m = data["machine"]
    return "\n".join(
        [
            f"| schedule for {data['asked']:g}x of | predicted | measured | prefill, ms |",
            "|---|---:|---:|---:|",
            f"| latency | {t['predicted']:.2f}x | **{t['measured']:.2f}x** | "
            f"{t['baseline_ms']:.0f} to {t['compressed_ms']:.0f} |",
            f"| FLOPs | | {f['measured']:.2f}x | {f['baseline_ms']:.0f} to {f['compressed_ms']:.0f} |",
            "",
            f"{data['date']}, {m['cores']} cores of {m['cpu']}. `{_command(data)}`",
        ]
    )


def prefix(data: dict) -> str:
    """First and second question about a picture, one row a ratio."""
    lines = [
        "| bundle | first question, ms | second question, ms | faster | cached tokens | kept, MiB "
        "| first, cache off, ms |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, x in data["bundles"].items():
        lines.append(
            f"| {name} | {x['first_ms']:.0f} | {x['second_ms']:.0f} | **{x['speedup']:.1f}x** | "
            f"{x['cached_tokens']} of {x['prompt_tokens']} | {x['kept_mib']:.1f} | {x['off_ms']:.0f} |"
        )
    m = data["machine"]
    rounds = len(next(iter(data["bundles"].values()))["samples_ms"])
    one = data["bundles"]["1x"]
    lines += [
        "",
        f"Time to first token, from the request with its picture's file; medians of {rounds} interleaved "
        f"rounds with new pictures, faster: of the ratios within rounds. {data['date']}, {data['threads']} "
        f"threads on {m['cores']} cores of {m['cpu']}; float32, random weights, "
        f"{data['model']['layers']} layers, hidden {data['model']['hidden']}, {one['visual_tokens'][0]} "
        f"visual tokens. `{_command(data)}`",
    ]
    return "\n".join(lines)


def linear(data: dict) -> str:
    """Prefill and decoding of every prompt, a column a system, ratios to Hugging Face."""
    names = [case["system"] for case in data["prompts"][0]["cases"]]
    lines = ["| prompt | | " + " | ".join(names) + " |", "|---:|---|" + "---:|" * len(names)]
    for prompt in data["prompts"]:
        cases = prompt["cases"]
        tokens = cases[0]["text_tokens"] + round(cases[0]["visual_tokens"][0])
        for title, key in PARTS[1:]:
            values, spreads = zip(
                *((c[key]["median"], _spread(c[key])) for c in cases), strict=True
            )
            lines.append(f"| {tokens} tokens {_row(title, list(values), list(spreads))}")
    m, shape = data["machine"], data["model"]
    lines += [
        "",
        f"Medians of {data['rounds']} interleaved rounds, ± half the range of their middle half, "
        f"{data['date']}, {m['cores']} cores of {m['cpu']}, {data['threads']} threads, float32, random "
        f"weights, {shape['num_hidden_layers']} layers, hidden {shape['hidden_size']}, "
        f"{shape['linear_num_value_heads']} heads of {shape['linear_value_head_dim']}. "
        f"`{_command(data)}`",
    ]
    return "\n".join(lines)


def export(data: dict) -> str:
    """One row a model: time, the disk's part of it, memory."""
    lines = [
        "| model | parameters | export, s | plain copy of the weights, s | difference, s "
        "| anonymous memory, MiB | peak resident, MiB | written, GB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, x in data["models"].items():
        lines.append(
            f"| {name} | {x['parameters'] / 1e9:.2f} B | {x['seconds']:.0f} | {x['copy_s']:.0f} | "
            f"**{x['without_disk_s']:.0f}** | {x['anonymous_mib']} | {x['resident_mib']} | "
            f"{x['bytes_written'] / 1e9:.1f} |"
        )
    m = data["machine"]
    lines.append("")
    lines.append(
        f"Random bfloat16 weights in shards on disk, written as {data['dtype']} at {data['ratio']}x without "
        f"validation; page cache empty before, disk synced at the end. {data['date']}, {m['cores']} cores of "
        f"{m['cpu']}, {m['memory_gib']:.0f} GiB. `{_command(data)}`"
    )
    return "\n".join(lines)


def pocket(data: dict) -> str:
    """Exact match of every task beside what can be had without looking."""
    right = data["exact_match"]
    chance = data["chance"]
    text = data["text_only"]
    lines = [
        "| task | exact match, % | chance, % | from the text alone, % |",
        "|---|---:|---:|---:|",
    ]
    for task in text:
        cells = (right[task], chance[task], text[task])
        lines.append(f"| {task} | " + " | ".join(f"{100 * x:.1f}" for x in cells) + " |")
    mean = statistics.mean(chance.values()), statistics.mean(text.values())
    cells = (right["overall"], *mean)
    lines.append("| **all** | " + " | ".join(f"**{100 * x:.1f}**" for x in cells) + " |")
    parts = [f"{name} {100 * x:.0f} %" for name, x in right.items() if ":" in name and x < 0.95]
    lines += [
        "",
        f"{data['questions']} questions of the test split. Parts below 95 %: {', '.join(parts)}.",
    ]
    return "\n".join(lines)


def of_weights(data: dict, weights: str) -> str:
    """The systems with such weights beside the first of all."""
    first, *rest = data["cases"]
    kept = [c for c in rest if c.get("weights", "fp32") == weights]
    if not kept:
        return f"Not measured yet: `{_command(data)}` had no {weights} weights."
    others = "" if weights == "fp32" else f", {weights} weights beside the first system"
    return bench(data | {"cases": [first, *kept], "numbers": f"float32{others}"})


TABLES = {
    "serving": serving,
    "latency_ratio": latency_ratio,
    "prefix": prefix,
    "export": export,
    "linear": linear,
    "pocket": pocket,
}


def _made(name: str, part: str | None, which: str | None) -> str:
    """The text of a mark."""
    file = POCKET if name == "pocket" else RESULTS / f"{name}.json"
    data = json.loads(file.read_text())
    match part:
        case "goals":
            return goals(data)
        case "profile":
            return profile(data)
        case "weights" if which:
            return of_weights(data, which)
    return TABLES[name](data) if name in TABLES else bench(data, int(which) if which else None)


def fill(text: str) -> str:
    """The text with every marked table made anew."""

    def table(match: re.Match) -> str:
        head, name, part, which = match.groups()
        return f"{head}\n{_made(name, part, which)}\n<!-- /table -->"

    parts = r"(batch|weights|goals|profile)(?: (\w+))?"
    mark = rf"(<!-- table:([\w-]+)(?: {parts})? -->).*?<!-- /table -->"
    return re.sub(mark, table, text, flags=re.S)


def main(
    pages: Annotated[list[Path], typer.Argument(help="Files with marked tables.")],
    check: Annotated[bool, typer.Option("--check", help="Write nothing.")] = False,
) -> None:
    """Fill the files, or with --check exit with 1 when one is out of date."""
    for page in pages:
        text = page.read_text()
        if not check:
            page.write_text(fill(text))
        elif fill(text) != text:
            sys.exit(f"{page} is out of date: run python -m benchmarks.tables {page}")


if __name__ == "__main__":
    typer.run(main)
