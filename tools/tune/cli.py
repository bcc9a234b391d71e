"""luvc-tune: the schedule that keeps this model's own answers best, on one's own pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ... import __version__, console
from ...errors import LuvcError
from ...places import check_folder
from ..eval.items import Item, asked_of_a_model, rule_of
from ..journal import Journal
from ..options import Batch, Data, Images, ImageSize, Limit, LongestAnswer, Match, Model, TextTokens
from .split import split

if TYPE_CHECKING:
    from .candidates import Candidate
    from .lab import Asked

JOURNAL = "measures.jsonl"

Ratio = Annotated[str, typer.Option(help="Baseline / compressed prefill work.")]
Methods = Annotated[
    str | None,
    typer.Option(
        help="Methods that the first round tries, of luvc-plan --methods; default all that fit into a "
        "schedule and do not read the question.",
        metavar="A,B,...",
    ),
]
Rounds = Annotated[int, typer.Option(help="Rounds at most.", min=1, max=100)]
Output = Annotated[Path, typer.Option(help="Folder for schedule, measures, JSON and page.")]


def tune(
    model: Model,
    data: Data = None,
    ratio: Ratio = "2x",
    methods: Methods = None,
    rounds: Rounds = 8,
    limit: Limit = None,
    image_size: ImageSize = None,
    images: Images = None,
    text_tokens: TextTokens = 64,
    batch: Batch = 16,
    max_new_tokens: LongestAnswer = 16,
    match: Match = "loose",
    output: Output = Path("tuned"),
) -> None:
    """Choose score, cutoff, stages, law of keeps and OIM for one model, on your pictures, in PyTorch.

    Needs no answers: the unmodified model's are the target. A third of the questions is held out, and all
    that is reported is of them. A run that was stopped goes on where it was.
    """
    from ...exporter.typed import parse_ratio, parse_size
    from ..workbench import seen_size
    from .candidates import first_round
    from .lab import Asked

    rule_of(match, data)
    wanted = parse_ratio(ratio)
    if wanted == 1:
        raise LuvcError("--ratio 1 compresses nothing, so there is nothing to choose: ask for more")
    check_folder(output, "--output")
    first = first_round(methods)
    items = asked_of_a_model(data, limit, None if data else seen_size(model, image_size))
    options = {
        "images": tuple(images or sorted({len(item.images) for item in items})),
        "image_sizes": (parse_size(image_size),) if image_size else (),
        "reference_text": text_tokens,
    }
    asked = Asked(options | {"model": model, "check": False}, wanted, batch, max_new_tokens)
    head = {"model": model, "data": str(data) if data else "PocketVQA validation", "match": match}
    head |= {"ratio": wanted, "max_new_tokens": max_new_tokens, **options}
    _tune(asked, items, first, rounds, head, output)


def _tune(
    asked: "Asked",
    items: list[Item],
    first: "list[Candidate]",
    rounds: int,
    head: dict[str, Any],
    output: Path,
) -> None:
    from ...exporter.checkpoint.family import Family
    from ...exporter.checkpoint.identity import identity_of
    from ...exporter.prepare import plan_layouts
    from ..workbench import Workbench
    from .lab import Lab
    from .outcome import held_out, right_without
    from .result import Found, as_data, tuned, write
    from .work import choose

    parts, held = split(items)
    family = Family.load(asked.config(None).checkpoint)
    plan_layouts(asked.config(None), family)  # refuses sizes before a weight is read
    with console.Steps() as steps:
        bench = Workbench(family, steps)
        steps("reading which weights these are")
        identity = identity_of(family)
    output.mkdir(parents=True, exist_ok=True)
    of = {"identity": identity.model_dump(), "version": __version__, "batch": asked.batch}
    journal = Journal(output / JOURNAL, head | of | {"questions": [item.id for item in items]})
    with bench:
        made = choose(Lab(bench, asked, parts, journal), first, rounds, len(held))
        lab = Lab(bench, asked, [held], journal)
        with console.Steps() as steps:
            steps(f"asking the {len(held)} questions held out")
            rows, refused = held_out(lab, made[-1].end, head["match"])
            found = Found(made, parts, rows, refused, right_without(lab, head["match"]))
    schedules = tuned(lab, found.chosen, identity)
    data = as_data(found, lab, schedules, head, output)
    write(output, data, schedules)
    _tell(data, output)


def _tell(data: dict[str, Any], output: Path) -> None:
    """Table, verdict, and how to go on."""
    from .shown import table

    console.show(Text(f"chosen: {data['chosen']['name']}"), table(data), Text(data["verdict"]))
    for line in (*data["notes"], *(f"no plan: {line}" for line in data["refused"])):
        console.show(Text(line))
    console.show(
        f"[bold]wrote {output}/schedule.json, tune.json, tune.html[/bold]. Export with it:"
    )
    console.show(Text(f"  {data['command']}"))


def main() -> None:
    """Entry point."""
    console.run_command(tune)


if __name__ == "__main__":
    main()
