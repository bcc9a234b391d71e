"""luvc-bench: bundles against each other and against PyTorch, interleaved, on one machine."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ... import console
from ...cores import cores
from ...engines.bundle.folder import Bundle
from ...engines.bundle.layout import Layout
from ...engines.prompt.wishes import parse_ratio
from ...errors import LuvcError
from ...files import whole
from ...places import check_file
from .machine import provenance
from .measured import Measured, pick_layouts
from .tables import tables
from .workers import System, measure

QUESTION = "What is in the picture? Describe the objects, their colours and where they stand."


@dataclass(frozen=True)
class Settings:
    """What all systems are measured with.

    Attributes:
        layout: the one they share, of the first system's ratio.
        batches: batch sizes.
        rounds: measured rounds of each batch size.
        warmup: rounds before them, not counted.
        new_tokens: tokens of an answer.
        threads: of each system.
        question: what is asked.
        images: pictures asked about; none: a generated one for each row.
    """

    layout: Layout
    batches: list[int]
    rounds: int
    warmup: int
    new_tokens: int
    threads: int
    question: str
    images: list[Path]

    def shared(self) -> dict[str, Any]:
        """What every worker is told beside what it loads."""
        return {
            "question": self.question,
            "images": [str(path.resolve()) for path in self.images],
            "threads": self.threads,
            "layout": self.layout.name,
        }

    def as_json(self) -> dict[str, Any]:
        """As the report tells them."""
        generated = "generated" if self.layout.images else []
        return vars(self) | {
            "layout": self.layout.name,
            "images": [path.name for path in self.images] or generated,
        }


Compare = Annotated[
    Literal["hf"] | None,
    typer.Option(help="hf: also the unmodified Hugging Face model in PyTorch."),
]
Ratios = Annotated[
    list[str] | None,
    typer.Option(
        help="Ratio, such as 2x; repeat to measure the ratios of a bundle beside each other; default the "
        "layout's."
    ),
]


def bench(
    bundles: Annotated[list[Path], typer.Argument(help="Bundle folders, made for one image size.")],
    compare: Compare = None,
    model: Annotated[
        str | None, typer.Option(help="Its checkpoint; default the one the bundle was made from.")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, ort, tensorrt or tensorrt-rtx.")] = "auto",
    batch: Annotated[str, typer.Option(help="Batch sizes.", metavar="N,N,...")] = "1,4,8",
    layout: Annotated[str | None, typer.Option(help="Layout; default the first.")] = None,
    ratio: Ratios = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="Picture; default a generated one for each row.")
    ] = None,
    question: Annotated[str, typer.Option(help="What to ask.")] = QUESTION,
    rounds: Annotated[int, typer.Option(help="Measured rounds of each batch size.", min=1)] = 5,
    warmup: Annotated[int, typer.Option(help="Rounds before them, not counted.", min=0)] = 1,
    new_tokens: Annotated[int, typer.Option(help="Tokens of an answer.", min=1)] = 32,
    threads: Annotated[int, typer.Option(help="Threads of all; 0 is every core.", min=0)] = 0,
    output: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure vision, prefill, time to first token, decoding and memory, side by side."""
    check_file(output, "--output")
    loaded = {_name(path, bundles): Bundle.load(path) for path in bundles}
    sizes = parse_batches(batch)
    ratios = [parse_ratio(text) for text in ratio or ()]
    systems = pick_layouts(loaded, layout, ratios, new_tokens)
    chosen = next(iter(systems.values()))[1]
    check_pictures(chosen, bool(compare or image))
    settings = Settings(
        chosen, sizes, rounds, warmup, new_tokens, threads or cores(), question, image or []
    )
    requests = bundle_requests(systems, backend)
    if compare:
        requests = {"hf": hugging_face_request(loaded, model)} | requests
    with console.Steps(quiet=as_json) as steps, running(requests, settings, steps) as workers:
        cases = measure(workers, sizes, rounds, warmup, new_tokens, steps)
    about = [{"name": s.name} | s.about for s in workers]
    found = {"settings": settings.as_json(), "systems": about, "cases": cases}
    show(provenance() | found, output, as_json)


def bundle_requests(systems: Measured, backend: str) -> dict[str, dict[str, Any]]:
    """What the worker of each system is to load.

    Raises:
        LuvcError: the backend does not run one of them; nothing was loaded yet.
    """
    from ...engines.backends import backend as load_backend

    for bundle, _ in systems.values():
        load_backend(backend, bundle)
    own = {"kind": "bundle", "backend": backend}
    return {
        name: own | {"path": str(bundle.path), "layout": layout.name}
        for name, (bundle, layout) in systems.items()
    }


def hugging_face_request(bundles: dict[str, Bundle], model: str | None) -> dict[str, Any]:
    """What the worker of the Hugging Face model is to load: the first bundle's checkpoint, or `model`.

    Raises:
        LuvcError: it is not a checkpoint of a family that is known.
    """
    from ...exporter.checkpoint.family import Family
    from ...exporter.checkpoint.hub import checkpoint_of

    first = next(iter(bundles.values()))
    source = checkpoint_of(first.manifest, model)
    Family.load(source)
    return {"kind": "hf", "path": str(first.path), "model": source}


@contextmanager
def running(
    requests: dict[str, dict[str, Any]], settings: Settings, progress: Callable[[str], None]
) -> Iterator[list[System]]:
    """The workers of these requests, ready; they end with the block."""
    with ExitStack() as stack:
        systems = []
        for name, request in requests.items():
            progress(f"loading {name}")
            systems.append(start(name, settings.shared() | request, settings.threads))
            stack.callback(systems[-1].close)
        yield systems


def check_pictures(chosen: Layout, wanted: bool) -> None:
    """Refuse pictures for a layout that takes none.

    Raises:
        LuvcError: they are wanted.
    """
    if wanted and (chosen.frames or not chosen.images):
        kind = "videos" if chosen.frames else "questions without a picture"
        raise LuvcError(
            f"layout {chosen.name} is of {kind}, --image and --compare hf are of pictures: leave them out"
        )


def show(report: dict[str, Any], output: Path | None, as_json: bool) -> None:
    """Print the report as JSON or as tables, and write it to a file."""
    text = json.dumps(report, indent=1)
    if as_json:
        typer.echo(text)
    else:
        console.show(*tables(report))
    if output:
        with whole(output) as draft:
            draft.write_text(text + "\n")


def start(name: str, request: dict[str, Any], threads: int) -> System:
    """The worker of a bundle or of the Hugging Face model."""
    command = [sys.executable, "-m", "luvc.tools.bench.systems", json.dumps(request)]
    return System(name, command, os.environ | {"OMP_NUM_THREADS": str(threads)})


def parse_batches(text: str) -> list[int]:
    """The text "1,4,8" -> [1, 4, 8].

    Raises:
        LuvcError: not whole numbers of at least 1.
    """
    try:
        sizes = [int(n) for n in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise LuvcError(f"--batch {text!r} is not a list of batch sizes, such as 1,4,8")
    return sizes


def _name(path: Path, all_paths: list[Path]) -> str:
    """The folder's name, or the whole path where two are named alike."""
    names = [p.resolve().name for p in all_paths]
    if len({p.resolve() for p in all_paths}) < len(all_paths):
        raise LuvcError(f"{path} is given twice; name each bundle once")
    return str(path) if names.count(path.resolve().name) > 1 else path.resolve().name


def main() -> None:
    """Entry point."""
    console.run_command(bench)


if __name__ == "__main__":
    main()
