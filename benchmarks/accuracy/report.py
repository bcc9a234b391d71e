"""Writes docs/accuracy.md and its plots from benchmarks/results, and nothing that was not measured.

python -m benchmarks.accuracy.report
"""

from pathlib import Path
from typing import Annotated

import typer
from jinja2 import Environment, StrictUndefined

from luvc.engines.bundle.schedule import ScoreSpec

from ..files import read_json, write_text
from .map_results import Map, Point
from .methods import METHODS
from .results import RESULTS, Results, Row, Share
from .variants.results import OTHERS, Place, VariantResults, winners

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs"
GOAL_RATIO = 2.0
GOALS = {None: 0.01, "ocr": 0.02}
"""Largest loss at GOAL_RATIO against the unmodified model, overall and for OCR."""
RIVALS = ("baseline", "method")


def percent(share: Share, signed: bool = False) -> str:
    """A share or a difference in percent with its interval."""
    sign = "+" if signed else ""
    low, high = f"{100 * share.low:{sign}.1f}", f"{100 * share.high:{sign}.1f}"
    return f"{100 * share.value:{sign}.1f} [{low}, {high}]"


def main_table(results: Results, ratio: float) -> list[dict]:
    """Every method at a ratio, best first, with intervals and what it loses."""
    rows = [row for (_, r), row in results.rows.items() if r == ratio]
    rows.sort(key=lambda row: -results.share(row).value)
    return [_line(results, row) for row in rows]


def _line(results: Results, row: Row) -> dict:
    return {
        "name": row.name,
        "note": row.fields["note"],
        "kind": row.fields["kind"],
        "mean": row.fields["mean"].get("1", next(iter(row.fields["mean"].values()))),
        "overall": percent(results.share(row)),
        "ocr": percent(results.share(row, "ocr")),
        "lost": percent(results.gain(row, results.full), signed=True),
        "ocr_lost": percent(results.gain(row, results.full, "ocr"), signed=True),
    }


def curve_table(results: Results, task: str | None) -> list[tuple[str, list[str]]]:
    """Exact match of every method over the ratios, percent."""
    names = list(dict.fromkeys(name for name, _ in results.rows if name != "ratio 1"))
    return [
        (name, [_cell(results, name, ratio, task) for ratio in results.ratios]) for name in names
    ]


def _cell(results: Results, name: str, ratio: float, task: str | None) -> str:
    row = results.rows.get((name, ratio))
    return f"{100 * results.share(row, task).value:.1f}" if row else "no plan"


def goals(results: Results) -> list[str]:
    """Whether LUVC reaches what it set out for, in sentences."""
    row = results.rows.get(("luvc", GOAL_RATIO))
    if row is None:
        return []
    found = []
    for task, limit in GOALS.items():
        gain = results.gain(row, results.full, task)
        points = f"{100 * limit:g} point" + "s" * (limit > 0.01)
        found.append(
            f"{_named(task)}: at most {points} lost at {GOAL_RATIO:g}x: "
            f"{verdict(gain.low + limit, gain.high + limit)} ({percent(gain, signed=True)} points)"
        )
    return found + [_above(results, row, task) for task in GOALS]


def _above(results: Results, row: Row, task: str | None) -> str:
    """Whether LUVC is above every baseline and method, and which are not surely below it."""
    rivals = [r for (_, at), r in results.rows.items() if at == GOAL_RATIO]
    gains = {r.name: results.gain(row, r, task) for r in rivals if r.fields["kind"] in RIVALS}
    low = min((g.low for g in gains.values()), default=0.0)
    high = min((g.high for g in gains.values()), default=0.0)
    text = (
        f"{_named(task)}: above every baseline and method at {GOAL_RATIO:g}x: {verdict(low, high)}"
    )
    unsure = [f"{n} ({percent(g, signed=True)} points)" for n, g in gains.items() if g.low <= 0]
    return text + (f"; not surely above {', '.join(unsure)}" if unsure else "")


def verdict(low: float, high: float) -> str:
    """What the 95 % interval of a quantity says of the goal that it is above zero."""
    if low > 0:
        return "reached"
    return (
        "**not reached**"
        if high < 0
        else "**undecided**, too close to call with this many questions"
    )


def _named(task: str | None) -> str:
    return "overall" if task is None else task.upper()


def finalists(results: Results) -> list[dict]:
    """Every score against the energy, paired, at every ratio."""
    return [
        {
            "note": row.fields["note"] if row.name != "luvc" else "the default, " + _score_of(row),
            "ratio": f"{ratio:g}",
            "share": percent(results.share(row)),
            "overall": percent(results.gain(row, results.rows["energy", ratio]), signed=True),
            "ocr": percent(results.gain(row, results.rows["energy", ratio], "ocr"), signed=True),
        }
        for (name, ratio), row in results.rows.items()
        if ratio > 1 and name != "energy"
    ]


def _score_of(row: Row) -> str:
    return str(ScoreSpec.model_validate(row.fields["schedule"]["score"]))


def filter_wins(results: Results) -> bool:
    """Whether the default score is nowhere surely worse than the energy."""
    pairs = ((results.rows["luvc", r], results.rows["energy", r]) for r in results.ratios)
    return all(results.gain(*pair).high > 0 for pair in pairs)


def rounds(choice: dict) -> list[dict]:
    """Of the forward selection: what was taken from where, and what it gained."""
    lines, start = [], ["the paper's reading"]
    for tried in choice["rounds"]:
        best = tried[0]
        lines.append(
            {
                "start": ", ".join(start),
                "taken": best["name"] if best["moved"] else "nothing",
                "overall": _share(best["overall"]),
                "ocr": _share(best["ocr"]),
            }
        )
        start = [*start, best["name"]]
    return lines


def map_line(found: Map, point: Point) -> dict[str, str]:
    """A tower beside the map, and what it loses."""
    return {
        "how": f"{point.how} groups" if point.how == "fixed" else point.how,
        "grids": ", ".join(dict.fromkeys(point.lengths)),
        "tower": f"{point.tower:.2f}",
        "prefill": f"{point.asked:g}",
        "overall": percent(found.lost(point), signed=True),
        "ocr": percent(found.lost(point, "ocr"), signed=True),
    }


def variant_lines(found: VariantResults) -> list[dict]:
    """The plain mean at every place, then at all of them, and what the variants gain over it."""
    groups: list[list[Place]] = [[place] for place in found.places]
    if len(groups) > 1:
        groups.append(found.places)
    return [
        {
            "grids": ", ".join(places[0].grids) if len(places) == 1 else "mean of all these",
            "tower": f"{places[0].tower:.2f}x" if len(places) == 1 else "",
            "prefill": f"{places[0].prefill:g}x" if len(places) == 1 else "",
            "of": "all" if task is None else _named(task),
            "mean": percent(found.share(places, task)),
            "gains": [percent(found.gain(v.name, places, task), signed=True) for v in OTHERS],
        }
        for task in GOALS
        for places in groups
    ]


def _share(data: dict | None) -> str:
    return percent(Share(**data), signed=True) if data else "no plan"


def slopes(data: dict) -> list[tuple[str, int, str, str]]:
    """Score, layer, change from first to last token, whether its interval leaves out zero."""
    return [
        (
            name,
            layer,
            percent(Share(s["change"], s["low"], s["high"]), signed=True),
            "yes" if s["significant"] else "no",
        )
        for name, layers in data["slopes"].items()
        for layer, s in enumerate(layers)
        if layer in data["stages"]
    ]


def leanings(data: dict) -> list[str]:
    """What the slopes say of each score, a sentence each."""
    found = []
    for name, layers in data["slopes"].items():
        at = [layers[stage] for stage in data["stages"]]
        count, most = sum(s["significant"] for s in at), max(abs(s["change"]) for s in at)
        found.append(f"{name}: leans at {count} of {len(at)} stages, by at most {100 * most:.0f} %")
    return found


def write(results: Path = RESULTS, docs: Path = DOCS) -> str:
    """The page's text; plots are drawn beside it."""
    from . import plots

    docs.mkdir(parents=True, exist_ok=True)
    test, validation = (Results.read(split, results) for split in ("test", "validation"))
    choice, spectrum = (read_json(results / f"{n}.json") for n in ("accuracy_choice", "spectrum"))
    if test is not None:
        plots.pareto(test, docs / "accuracy.png")
    if spectrum is not None:
        plots.spectrum(spectrum, docs / "spectrum.png")
    found = Map.read_all(results)
    maps, tested = ([m for m in found if m.data["split"] == s] for s in ("validation", "test"))
    if maps:
        plots.tower_maps(maps, docs / "accuracy-map.png")
    variants = VariantResults.read_all(results)
    measured = {name for split in (test, validation) if split for name, _ in split.rows}
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = environment.from_string((HERE / "page.md.j2").read_text())
    return template.render(
        test=test, choice=choice, rounds=rounds, spectrum=spectrum, validation=validation,
        variants=variants, others=OTHERS, variant_lines=variant_lines, winners=winners(variants),
        maps=maps, tested=tested, map_line=map_line, finalists=finalists, filter_wins=filter_wins,
        methods=[m for m in METHODS.values() if m.name in measured],
        main_table=lambda r: main_table(r, GOAL_RATIO),
        curve_table=curve_table, goals=goals, slopes=slopes, leanings=leanings,
        named=lambda d: ", ".join(f"{k} {v}" for k, v in d.items()),
        share=_share, goal_ratio=f"{GOAL_RATIO:g}",
        percent=percent,
    ).rstrip() + "\n"  # fmt: skip


def run(
    results: Annotated[Path, typer.Option(help="Folder of the JSON files.")] = RESULTS,
    docs: Annotated[Path, typer.Option(help="Folder of the page.")] = DOCS,
) -> None:
    """Write the page."""
    write_text(docs / "accuracy.md", write(results, docs))
    print(f"wrote {docs / 'accuracy.md'}")


if __name__ == "__main__":
    typer.run(run)
