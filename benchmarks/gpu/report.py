"""Writes docs/gpu.md from benchmarks/results/gpu, and nothing that was not measured.

python -m benchmarks.gpu.report
"""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from jinja2 import Environment, StrictUndefined

from ..files import write_text
from . import RESULTS, goals, shapes
from .results import goal_table, read

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "gpu.md"


def origin(data: dict[str, Any]) -> str:
    """How a file came about."""
    return f"`{data['command']}`, {data['date']}."


def machines(results: dict[str, Any]) -> list[str]:
    """The machines that were measured on, each once."""
    found = []
    for data in results.values():
        gpu, v = data["machine"].get("gpu"), data["versions"]
        where = (
            f"{gpu['name']} (compute capability {gpu['capability']}, {gpu['memory_gib']:g} GiB), driver "
            f"{gpu['driver']}"
            if gpu
            else "A machine without an NVIDIA GPU"
        )
        names = ("torch", "transformers", "onnxruntime-gpu", "tensorrt-rtx", "tensorrt")
        libraries = ", ".join(f"{name} {v[name]}" for name in names if name in v)
        found.append(f"{where}; Python {v['python']}, {libraries}.")
    return list(dict.fromkeys(found))


def missed(verdicts: list[goals.Verdict], known: dict[str, str]) -> list[tuple[str, str]]:
    """The goals that were missed, with their reasons."""
    names = dict.fromkeys(v.goal for v in verdicts if not v.reached)
    return [(name, known.get(name, "the reason is not known")) for name in names]


def allowed() -> list[dict[str, Any]]:
    """What ratio 2 can give by FLOPs, for each model and size."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for model, sizes in shapes.SIZES.items():
            family = shapes.published_family(model, Path(folder) / model)
            for size in sizes.values():
                layout = shapes.layouts(family, size, [2])["2"]
                tokens = " → ".join(str(s.visual) for s in layout.stages)
                ratios = layout.ratios.model_dump()
                found.append({"model": model, "tokens": tokens} | ratios)
    return found


def lines(data: dict[str, Any]) -> list[list[str]]:
    """A row for each case and ratio; gains over ratio 1 behind the times."""
    found = []
    for case in (c for c in data["cases"] if "ratios" in c):
        one = case["ratios"]["1"]
        for ratio, r in case["ratios"].items():
            row = [f"{case['visual']}, {case['batch']}", f"{ratio}x", ms(r["vision_ms"])]
            for part in ("prefill_ms", "first_token_ms", "decode_ms"):
                gain = one[part]["median"] / r[part]["median"]
                row += [ms(r[part]), "" if ratio == "1" else f"**{gain:.2f}x**"]
            share = r["spu_ms"]["median"] / r["prefill_ms"]["median"] if "spu_ms" in r else None
            peak = r["peak_bytes"]
            row.append("" if share is None else f"{share:.2%}")
            row.append(f"{r['kv_prompt_bytes'] / 2**20:.0f}")
            row.append("" if peak is None else f"{peak / 2**30:.1f}")
            found.append(row)
    return found


def not_recorded(data: dict[str, Any]) -> list[str]:
    """Forms of the kernels' benchmark that ran without a CUDA graph."""
    found: dict[str, dict] = {}
    for t in data["times"]:
        found |= {n: t[f"{n}_us"] for n in ("score", "select", "gather")} | t["others_us"]
    return [name for name, timed in found.items() if timed.get("form") == "eager"]


def eager_parts(data: dict[str, Any]) -> list[str]:
    """Parts that could not be recorded as CUDA graphs, with the reason."""
    found = {
        f"{part} ran without a CUDA graph: {reason}."
        for case in data["cases"]
        for r in case.get("ratios", {}).values()
        for part, reason in r.get("not_recorded", {}).items()
    }
    return sorted(found)


def eager(data: dict[str, Any]) -> list[list[str]]:
    """Ratio 1 beside Hugging Face, a row for each case."""
    found = []
    for case in (c for c in data["cases"] if "eager" in c):
        row = [f"{case['visual']}, {case['batch']}"]
        for part in ("prefill_ms", "vision_ms", "decode_ms"):
            row += [ms(case["eager"][side][part]) for side in ("luvc", "hf")]
        used = (case["attention"][p]["name"] or "any" for p in ("vision", "prefill", "decode"))
        found.append([*row, f"{case['logits_error']:.1e}", ", ".join(used)])
    return found


def parity_lines(data: dict[str, Any]) -> list[list[str]]:
    """A row for each bundle and runtime."""
    found = []
    for bundle in data["bundles"]:
        for name, r in bundle["runtimes"].items():
            if r["status"] != "compared":
                found.append(
                    [bundle["name"], name, f"{r['status']}: {cell(r['reason'])}", "", "", ""]
                )
                continue
            reports = r["reports"]
            error = max(s["relative_error"] for x in reports for s in x["stages"])
            overlap = min((k["overlap"] for x in reports for k in x["kept"]), default=1.0)
            equal, total = (sum(x[k] for x in reports) for k in ("greedy_equal", "greedy_tokens"))
            found.append(
                [
                    bundle["name"],
                    f"{name} ({r['description']})",
                    "equal" if r["passed"] else "**differs**",
                    f"{error:.1e}",
                    f"{overlap:.1%}",
                    f"{equal} of {total}",
                ]
            )
    return found


def ms(summary: dict[str, Any] | None) -> str:
    """A median in milliseconds."""
    return "" if summary is None else f"{summary['median']:.2f}"


def us(value: float | None) -> str:
    """Microseconds."""
    return "" if value is None else f"{value:.1f}"


def cell(text: str) -> str:
    """Text that fits a table's cell."""
    return " ".join(text.replace("|", "\\|").split())


def write(results: Path = RESULTS) -> str:
    """The page's text."""
    found = read(results)
    verdicts, known = goals.verdicts(found), goals.reasons()
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["cell"] = cell
    template = environment.from_string((HERE / "page.md.j2").read_text())
    named = {n: found.get(n) for n in ("rtx", "kernels", "sanitizer", "parity")}
    return template.render(
        results=found, machines=machines(found), goals=goal_table(verdicts),
        missed=missed(verdicts, known), origin=origin, allowed=allowed(),
        first_token=goals.FIRST_TOKEN,
        headlines=[d for n, d in found.items() if n.startswith("headline-")],
        engines=[d for n, d in found.items() if n.startswith("engines-")],
        lines=lines, eager=eager, parity_lines=parity_lines, ms=ms, us=us,
        not_recorded=not_recorded, eager_parts=eager_parts,
        **named,
    ).rstrip() + "\n"  # fmt: skip


def run(
    results: Annotated[Path, typer.Option(help="Folder of the JSON files.")] = RESULTS,
    page: Annotated[Path, typer.Option(help="Page to write.")] = PAGE,
) -> None:
    """Write the page."""
    write_text(page, write(results))
    print(f"wrote {page}")


if __name__ == "__main__":
    typer.run(run)
