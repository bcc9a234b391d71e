"""What single benchmarks recorded, and what a shipped model answers."""

import statistics

from .bench import PARTS, medians, row, spread
from .words import command, cores, counted


def latency_ratio(data: dict) -> str:
    """What was asked for, predicted and measured."""
    t = data["latency"]
    f = data["flops"]
    return "\n".join(
        [
            f"| schedule for {data['asked']:g}x of | predicted | measured | prefill, ms |",
            "|---|---:|---:|---:|",
            f"| latency | {t['predicted']:.2f}x | **{t['measured']:.2f}x** | "
            f"{t['baseline_ms']:.0f} to {t['compressed_ms']:.0f} |",
            f"| FLOPs | | {f['measured']:.2f}x | {f['baseline_ms']:.0f} to {f['compressed_ms']:.0f} |",
            "",
            f"{data['date']}, {cores(data['machine'])}. `{command(data)}`",
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
    rounds = len(next(iter(data["bundles"].values()))["samples_ms"])
    one = data["bundles"]["1x"]
    lines += [
        "",
        "Time to first token, from the request with its picture's file; medians of "
        f"{counted(rounds, 'interleaved round')} with new pictures, faster: of the ratios within rounds. "
        f"{data['date']}, {counted(data['threads'], 'thread')} on {cores(data['machine'])}; float32, random "
        f"weights, {data['model']['layers']} layers, hidden {data['model']['hidden']}, "
        f"{one['visual_tokens'][0]} visual tokens. `{command(data)}`",
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
            values, spreads = zip(*((c[key]["median"], spread(c[key])) for c in cases), strict=True)
            lines.append(f"| {tokens} tokens {row(title, list(values), list(spreads))}")
    shape = data["model"]
    lines += [
        "",
        f"{medians(data['rounds'])}, {data['date']}, {cores(data['machine'])}, "
        f"{counted(data['threads'], 'thread')}, float32, random weights, "
        f"{shape['num_hidden_layers']} layers, hidden {shape['hidden_size']}, "
        f"{shape['linear_num_value_heads']} heads of {shape['linear_value_head_dim']}. "
        f"`{command(data)}`",
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
        f"validation; page cache empty before, disk synced at the end. {data['date']}, {cores(m)}, "
        f"{m['memory_gib']:.0f} GiB. `{command(data)}`"
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
