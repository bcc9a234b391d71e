"""luvc-eval: how many questions a bundle or a model answers right."""

import contextlib
import datetime
import json
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ... import console
from ...errors import LuvcError, printable
from ...files import whole
from ...places import check_file
from ..options import BundleFolder, RatioOption, Threads
from . import outcome
from .answering import Answerer, Prediction, askable, batches, load, seen_size
from .items import Item, is_right, pocket_items, read_jsonl, rule_of
from .outcome import Agreement, Verdict

SHOWN = 5  # differing answers that are printed

Data = Annotated[
    Path | None,
    typer.Option(
        help="JSONL file of your own: lines with image or images, question, answer, and optionally "
        "task and id. Default PocketVQA."
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        help="auto, ort, tensorrt, tensorrt-rtx; torch for the bundle's stages in PyTorch, hf for "
        "Hugging Face's generate on the same tiles, uncompressed."
    ),
]
Match = Annotated[
    str | None,
    typer.Option(help="exact (PocketVQA's default) or loose: case, spaces, full stop aside."),
]
Compare = Annotated[
    Path | None, typer.Option(help="JSON file of another run on the same questions.")
]
MinAgreement = Annotated[
    float | None, typer.Option(help="With --compare: exit with 1 below this share, 0 to 1.")
]


Checkpoint = Annotated[
    str | None, typer.Option(help="Checkpoint for torch and hf; default the bundle's.")
]


def evaluate(
    bundle: BundleFolder,
    data: Data = None,
    split: Annotated[str, typer.Option(help="Of PocketVQA: test or validation.")] = "test",
    limit: Annotated[int | None, typer.Option(help="First questions only.", min=1)] = None,
    ratio: RatioOption = None,
    backend: Backend = "auto",
    model: Checkpoint = None,
    batch: Annotated[int, typer.Option(help="Questions at a time.", min=1)] = 16,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.", min=1)] = 16,
    match: Match = None,
    threads: Threads = 0,
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture of the accuracies to write.")] = None,
    compare: Compare = None,
    min_agreement: MinAgreement = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole JSON.")] = False,
) -> None:
    """Ask questions with known answers and count the right ones, per task, with intervals."""
    check_file(output, "--output")
    outcome.check_plot(plot)
    rule = rule_of(match, data)
    other = _other(compare, min_agreement)
    with console.Steps(quiet=as_json) as steps:
        steps("reading the questions")
        own = read_jsonl(data, limit) if data else None
        steps("loading the model")
        answerer = load(bundle, backend, model, max_new_tokens, threads, ratio)
    with contextlib.closing(answerer):
        items = own or list(pocket_items(split, limit, seen_size(answerer)))
        start = perf_counter()
        verdicts, skipped = ask(answerer, items, batch, rule, quiet=as_json)
    head = {"date": datetime.date.today().isoformat(), "bundle": str(bundle)}
    head |= {"answered_by": answerer.description, "ratio": answerer.ratio}
    head |= {"data": str(data) if data else f"PocketVQA {split}", "match": rule}
    head |= {"max_new_tokens": max_new_tokens, "seconds": round(perf_counter() - start, 1)}
    found = outcome.to_json(head, verdicts, skipped)
    show(found, other, output, plot, as_json)
    if other:
        _check(outcome.compare(found, other), min_agreement)


def _other(compare: Path | None, min_agreement: float | None) -> dict | None:
    """The run to compare with."""
    if min_agreement is not None and compare is None:
        raise LuvcError("--min-agreement needs --compare")
    return outcome.read(compare) if compare else None


def show(
    found: dict, other: dict | None, output: Path | None, plot: Path | None, as_json: bool
) -> None:
    """Write the outcome to a file, print it, and draw it beside another one's."""
    if output:
        with whole(output) as draft:
            draft.write_text(json.dumps(found, indent=1) + "\n")
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        console.show(outcome.table(found, other))
    _notes(found)
    if plot:
        outcome.plot(found, plot, other)


def ask(
    answerer: Answerer, items: list[Item], size: int, rule: str, quiet: bool
) -> tuple[list[Verdict], Counter[str]]:
    """Ask everything that can be asked, at most `size` questions at a time.

    Returns:
        The verdicts in the order of the items, and how many questions of each task were left out.

    Raises:
        LuvcError: nothing can be asked, or a picture cannot be read.
    """
    asked = askable(answerer, items)
    if not asked:
        counts = sorted({len(item.images) for item in items})
        raise LuvcError(
            f"no question could be asked: they have {' or '.join(map(str, counts))} image(s), the "
            "bundle holds other numbers; export with --images"
        )
    found: dict[str, Verdict] = {}
    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn())
    columns += (TextColumn("{task.fields[right]}"), TimeRemainingColumn())
    with Progress(*columns, console=console.err, disable=quiet, transient=True) as bar:
        task = bar.add_task("", total=len(asked), right="")
        for batch in batches(answerer, asked, size):
            for item, prediction in zip(batch.items, answerer.answer(batch), strict=True):
                found[item.id] = verdict(item, prediction, rule)
            share = sum(v.right for v in found.values()) / len(found)
            bar.update(task, completed=len(found), right=f"{share:.1%} right")
    skipped = Counter(item.task for item in items if item.id not in found)
    return [found[item.id] for item in asked], skipped


def verdict(item: Item, prediction: Prediction, rule: str) -> Verdict:
    """Whether a prediction is right."""
    return Verdict(
        id=item.id,
        task=item.task,
        question=item.question,
        answers=item.answers,
        prediction=prediction.text,
        right=is_right(prediction.text, item.answers, rule),
        visual_tokens=prediction.visual_tokens,
    )


def _notes(found: dict) -> None:
    """What the table does not say, on stderr."""
    for task, count in found["skipped"].items():
        console.err.print("[yellow]not asked[/yellow]", end=" ")
        console.err.print(
            f"{count} of task {printable(task, 200)}: the bundle holds no layout for so many images; "
            "export with one more --images",
            markup=False,
        )
    console.err.print(f"{found['match']} match, {found['seconds']} s", style="dim")


def _check(agreement: Agreement, wanted: float | None) -> None:
    """Print how two runs agree; exit with 1 where that is less than wanted."""
    same, gain = agreement.same, agreement.gain
    console.err.print(
        f"equal answers: {same.value:.2%} of {agreement.questions} "
        f"(95 % interval {same.low:.2%} to {same.high:.2%}); accuracy {100 * gain.value:+.2f} points "
        f"({100 * gain.low:+.2f} to {100 * gain.high:+.2f}, paired bootstrap)"
    )
    for question, ours, theirs in agreement.differing[:SHOWN]:
        console.err.print(f"  {printable(question, 1000)} {ours!r}, there {theirs!r}", markup=False)
    if wanted is not None and same.value < wanted:
        console.err.print(f"[bold red]below[/bold red] the wanted agreement of {wanted:.2%}")
        raise typer.Exit(1)


def main() -> None:
    """Entry point."""
    console.run_command(evaluate)


if __name__ == "__main__":
    main()
