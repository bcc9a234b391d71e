"""luvc-batch: answers about many pictures with Ray Data, on a laptop or a cluster.

One bundle per actor, which batches its requests as a server would. The driver writes the answers as
Parquet parts, each whole or not at all, and a run that was stopped goes on with the pictures that are in
no part yet: every picture ends up in exactly one row. A picture that cannot be answered is a row too,
with the reason in `error`.

    luvc-batch bundle photos/ answers/ --question "What is in the picture?"
"""

import os
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ... import console
from ...errors import LuvcError
from ..options import Backend, BundleFolder, ImageTokens, RatioOption, wished
from .files import COLUMNS, as_table, check_run, done, read_input, write_part

if TYPE_CHECKING:
    from ...engines import Bundle
    from ...engines.prompt.wishes import RequestOptions


class Answerer:
    """An actor: a bundle that answers batches of rows.

    Args:
        bundle: folder, the same on every node.
        question: for rows without one.
        backend, threads: as `VLM.load` takes them.
        rows: answers made at once.
        options: fields of `Wish` and `Sampling`.
    """

    def __init__(self, bundle: str, question: str, backend: str, threads: int, rows: int, options):
        from ...engines import VLM
        from ...engines.serving import Limits, Scheduler

        self.question, self.options = question, options
        vlm = VLM.load(bundle, backend=backend, threads=threads)  # as long as the actor's process
        # most pictures come once: what is kept of them would be of no use
        limits = Limits(rows=rows, prefill=min(4, rows), waiting=10**6, prefix_mib=0)
        self.scheduler = Scheduler(vlm, limits)

    def __call__(self, batch: dict[str, Any]) -> Any:
        """Columns of input rows -> a table of answers."""
        columns = zip(batch["id"], batch["image"], batch["question"], strict=True)
        tickets = []
        for name, image, own in columns:
            question = str(own or self.question)
            source = image if isinstance(image, bytes) else str(image)  # numpy's own types are not
            parts = [{"type": "image", "image": source}, {"type": "text", "text": question}]
            messages = [{"role": "user", "content": parts}]
            tickets.append((str(name), question, self.scheduler.submit(messages, **self.options)))
        return as_table([self._collect(*ticket) for ticket in tickets])

    def _collect(self, name: str, question: str, ticket) -> dict[str, Any]:
        row = dict.fromkeys(COLUMNS) | {"id": name, "question": question}
        try:
            answer = ticket.answer
        except Exception as error:  # of this picture alone: kept, so that the others go on
            plain = isinstance(error, LuvcError)
            return row | {"error": str(error) if plain else f"{type(error).__name__}: {error}"}
        return row | {
            "text": answer.text,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "visual_tokens": answer.visual_tokens,
            "completion_tokens": len(answer.token_ids),
            "layout": answer.layout,
            "ratio": answer.ratio,
            "notes": "; ".join(answer.notes),
        }


def answers(
    rows: list[dict[str, Any]], arguments: tuple, actors: int, per_call: int, resources: dict
) -> Iterator[list[dict[str, Any]]]:
    """Blocks of answered rows, as they are ready."""
    import logging

    import ray.data

    for name in ("ray.data", "ray.data._internal.execution.streaming_executor"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    items = [row | {"question": row.get("question") or ""} for row in rows]
    parts = max(actors, -(-len(items) // per_call))
    data = ray.data.from_items(items, override_num_blocks=min(len(items), parts)).map_batches(
        Answerer,
        fn_constructor_args=arguments,
        batch_size=per_call,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=actors),
        **resources,
    )
    blocks: Iterable[Any] = data.iter_batches(batch_size=None, batch_format="pyarrow")
    for block in blocks:
        yield block.to_pylist()


def check_installed() -> None:
    """Refuse before anything is written.

    Raises:
        LuvcError: Ray or PyArrow is missing.
    """
    for name, module in (("Ray", "ray"), ("PyArrow", "pyarrow")):
        if find_spec(module) is None:
            raise LuvcError(f"{name} is not installed: pip install 'luvc-export[batch]'")


def start_ray(address: str | None, actors: int, threads: int) -> None:
    """Join a cluster, or start one on this machine that ends with this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:  # reading needs a little beside the actors
        cpus = max(os.cpu_count() or 1, actors * max(1, threads) + 1)
        options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": 512 << 20}
    ray.init(address=address, **options)


def save(blocks: Iterable[list[dict[str, Any]]], target: Path, total: int, part: int) -> int:
    """Write blocks as they come, showing progress -> rows with an error."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    failed, held = 0, []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console.err) as progress:
        task = progress.add_task("answering", total=total)
        for block in blocks:
            held += block
            failed += sum(row["error"] is not None for row in block)
            progress.update(task, advance=len(block), description=f"answering, {failed} failed")
            if len(held) >= part:
                write_part(target, held)
                held = []
        if held:
            write_part(target, held)
    return failed


def batch(
    bundle: BundleFolder,
    source: Annotated[Path, typer.Argument(help="Folder of pictures, .jsonl or .parquet.")],
    output: Annotated[Path, typer.Argument(help="Folder for the answers.")],
    question: Annotated[str, typer.Option(help="For rows without one.")] = "Describe the picture.",
    ratio: RatioOption = None,
    image_tokens: ImageTokens = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 64,
    temperature: Annotated[float, typer.Option(help="Sample; 0 is greedy.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Of each answer's sampling.")] = None,
    actors: Annotated[int, typer.Option(help="Bundles that work side by side.")] = 1,
    rows: Annotated[int, typer.Option(help="Answers an actor makes at once.")] = 8,
    part: Annotated[int, typer.Option(help="Answers of one output file.")] = 64,
    backend: Backend = "auto",
    threads: Annotated[int, typer.Option(help="Threads of an actor; 0: the backend's.")] = 1,
    gpus: Annotated[float, typer.Option(help="GPUs of an actor.")] = 0,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; default local.")] = None,
) -> None:
    """Answer a question about every picture; run it again to go on where it was stopped."""
    from ...engines import Bundle

    loaded = Bundle.load(bundle)
    options = _options(max_new_tokens, temperature, seed) | _wish(loaded, ratio, image_tokens)
    check_installed()
    wanted = read_input(source)
    about = {"bundle": loaded.manifest.created, "model": loaded.manifest.model}
    check_run(output, {**about, "question": question, **options})
    written = done(output)
    left = [row for row in wanted if row["id"] not in written]
    console.err.print(f"{len(wanted)} pictures, {len(wanted) - len(left)} answered before")
    if left:
        start_ray(address, actors, threads)
        arguments = (str(bundle.resolve()), question, backend, threads, rows, options)
        resources = {"num_cpus": max(1, threads), "num_gpus": gpus}
        blocks = answers(left, arguments, actors, 4 * rows, resources)
        failed = save(blocks, output, len(left), part)
        if failed:
            console.err.print(f"[yellow]{failed} failed; their rows say why in `error`")
    console.show(f"wrote {output}: {len(wanted)} answers")


def _options(max_new_tokens: int, temperature: float, seed: int | None) -> "RequestOptions":
    """Sampling of every answer; refused now if every picture would be refused for it."""
    from ...engines.sampling import Sampling, SamplingOptions

    options = SamplingOptions(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    Sampling().override(**options)
    return {**options}


def _wish(bundle: "Bundle", ratio: str | None, image_tokens: int | None) -> "RequestOptions":
    """What is asked of every layout, refused like the sampling."""
    from PIL import Image

    from ...engines.prompt.layouts import choose, said_of

    wish = wished(None, ratio, image_tokens)
    if wish.given:
        layout = choose(bundle.manifest, (Image.new("RGB", (64, 64)),), wish)
        for line in said_of(layout, wish):
            console.err.print(f"[yellow]note[/yellow] {line}")
    return {"ratio": wish.ratio, "image_tokens": wish.image_tokens}


def main() -> None:
    """Entry point."""
    console.run_command(batch)


if __name__ == "__main__":
    main()
