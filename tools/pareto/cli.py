"""luvc-pareto: which method keeps most of this model's answers for the least work."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ... import console
from ...errors import LuvcError
from ...files import whole
from ...places import check_folder
from ..eval.items import Item, asked_of_a_model, rule_of
from ..journal import Journal
from ..options import Batch, Data, Images, ImageSize, Limit, LongestAnswer, Match, Model, TextTokens

if TYPE_CHECKING:
    from ...exporter.config import ExportConfig
    from .points import Point

METHODS = "luvc,divprune,fastv,uniform"
JOURNAL = "answers.jsonl"

Methods = Annotated[
    str, typer.Option(help="Of luvc-plan --methods, separated by commas.", metavar="A,B,...")
]
Ratios = Annotated[str, typer.Option(help="Separated by commas.", metavar="R,R,...")]
Measure = Annotated[
    bool, typer.Option(help="Export every plan, and time its prefill on this machine.")
]
Output = Annotated[Path, typer.Option(help="Folder for answers, JSON and page.")]


def pareto(
    model: Model,
    data: Data = None,
    methods: Methods = METHODS,
    ratios: Ratios = "1.5,2,3",
    limit: Limit = None,
    image_size: ImageSize = None,
    images: Images = None,
    text_tokens: TextTokens = 64,
    batch: Batch = 16,
    max_new_tokens: LongestAnswer = 16,
    match: Match = "loose",
    measure: Measure = False,
    output: Output = Path("pareto"),
) -> None:
    """Ask one model the same questions under several methods and ratios, in PyTorch.

    Without answers in the data, answers are held to the unmodified model's. A run that was stopped goes on
    where it was.
    """
    from ..workbench import seen_size

    rule_of(match, data)
    check_folder(output, "--output")
    items = asked_of_a_model(data, limit, None if data else seen_size(model, image_size))
    counts = tuple(images or sorted({len(item.images) for item in items}))
    given = {"images": counts, "reference_text": text_tokens}
    configs = _configs(model, methods, ratios, image_size, given)
    output.mkdir(parents=True, exist_ok=True)
    head = {"model": model, "data": str(data) if data else "PocketVQA validation"}
    head |= {"questions": [item.id for item in items], "image_size": image_size, **given}
    journal = Journal(output / JOURNAL, head | {"max_new_tokens": max_new_tokens})
    points, refused = _answers(configs, items, journal, max_new_tokens, batch)
    _tell(output, head, points, refused, items, match, _times(configs, points, measure))


def _configs(
    model: str, methods: str, ratios: str, image_size: str | None, given: dict[str, Any]
) -> "list[ExportConfig]":
    """What the model is asked under, the unmodified model first."""
    from ...exporter.config import ExportConfig
    from ...exporter.typed import parse_ratio, parse_size

    sizes = (parse_size(image_size),) if image_size else ()
    common = {"model": model, "image_sizes": sizes, "check": False, **given}
    names = [name.strip() for name in methods.split(",")]
    wanted = sorted({parse_ratio(ratio) for ratio in ratios.split(",")})
    asked = [(name, ratio) for name in dict.fromkeys(names) for ratio in wanted if ratio > 1]
    if not asked:
        raise LuvcError(
            f"--ratios {ratios} holds none above 1: the unmodified model is always asked"
        )
    made = [ExportConfig.make(method=name, ratio=ratio, **common) for name, ratio in asked]
    return [ExportConfig.make(ratio=1, **common), *made]


def _answers(
    configs: "list[ExportConfig]", items: list[Item], journal: Journal, longest: int, size: int
) -> "tuple[list[Point], list[str]]":
    """The points, and why some have no plan."""
    from ...exporter.checkpoint.family import Family
    from ..workbench import Workbench
    from .points import Point, measure

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with console.Steps() as steps:
        steps("loading the model")
        bench = Workbench(Family.load(configs[0].checkpoint))
    found: list[Point] = []
    refused: list[str] = []
    with bench, Progress(*columns, TimeRemainingColumn(), console=console.err) as bar:
        task = bar.add_task("asking", total=len(configs) * len(items))

        def told(label: str, done: int) -> None:
            before = (len(found) + len(refused)) * len(items)
            bar.update(task, description=label, completed=before + done)

        for result in measure(bench, items, configs, journal, told, longest, size):
            (refused if isinstance(result, str) else found).append(result)  # type: ignore[arg-type]
            bar.update(task, completed=(len(found) + len(refused)) * len(items))
    if not found or found[0].ratio != 1:
        raise LuvcError(refused[0])
    return found, refused


def _times(
    configs: "list[ExportConfig]", points: "list[Point]", wanted: bool
) -> dict[tuple[str, float], float]:
    """ms of each point's prefill, where that is wanted."""
    if not wanted:
        return {}
    from .times import milliseconds

    asked = {(p.method, p.ratio) for p in points[1:]}
    timed = [configs[0], *(c for c in configs[1:] if (c.method, c.ratio) in asked)]
    with console.Steps() as steps:
        found = milliseconds(timed, steps)
    return {(p.method, p.ratio): ms for p, ms in zip(points, found, strict=True)}


def _tell(
    output: Path,
    head: dict[str, Any],
    points: "list[Point]",
    refused: list[str],
    items: list[Item],
    rule: str,
    times: dict[tuple[str, float], float],
) -> None:
    """Table, JSON and page."""
    from .points import as_json, rate
    from .shown import page, table

    rated = rate(points, items, rule)
    data = head | {"match": rule, "refused": refused}
    data["points"] = [
        as_json(r) | {"ms": times.get((r.point.method, r.point.ratio))} for r in rated
    ]
    with whole(output / "pareto.json") as draft:
        draft.write_text(json.dumps(data, indent=1) + "\n")
    with whole(output / "pareto.html") as draft:
        draft.write_text(page(data))
    console.show(table(data))
    for line in refused:
        console.show(Text(f"no plan: {line}"))
    console.show(f"[bold]wrote {output}/pareto.json, pareto.html[/bold]")


def main() -> None:
    """Entry point."""
    console.run_command(pareto)


if __name__ == "__main__":
    main()
