"""Servers under load."""

from .words import command, cores


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
    one, two = data["bundles"]["1"], data["bundles"]["2"]
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
        f"{cores(data['machine'])}; float32, random weights, {data['model']['layers']} layers, "
        f"hidden {data['model']['hidden']}, {one['visual_tokens'][0]} visual tokens at ratio 1, {visual} "
        f"at ratio 2; {data['limits']['rows']} rows, caches of a "
        f"request at most {one['cache_mib']:.1f} and {two['cache_mib']:.1f} MiB."
        + (
            f" Memory of all processes, all servers loaded at once by as many clients each: {memory} "
            f"(`{data.get('memory_command', data['command'])}`)."
            if memory
            else ""
        )
        + f" `{command(data)}`"
    )
