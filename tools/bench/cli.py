"""luvc-bench: bundles against each other and against PyTorch, interleaved, on one machine."""

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ... import console
from ...cores import cores
from ...engines.bundle.folder import Bundle
from ...engines.bundle.manifest import Layout
from ...errors import LuvcError
from ...files import check_file, whole
from .machine import provenance
from .tables import tables
from .workers import System, measure

QUESTION = "What is in the picture? Describe the objects, their colours and where they stand."


def bench(
    bundles: Annotated[list[Path], typer.Argument(help="Bundle folders, made for one image size.")],
    compare: Annotated[
        Literal["hf"] | None,
        typer.Option(help="hf: also the unmodified Hugging Face model in PyTorch."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Its checkpoint; default the one the bundle was made from.")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, ort, tensorrt or tensorrt-rtx.")] = "auto",
    batch: Annotated[str, typer.Option(help="Batch sizes.", metavar="N,N,...")] = "1,4,8",
    layout: Annotated[str | None, typer.Option(help="Layout; default the first.")] = None,
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
    from ...engines.backends import backend as load_backend
    from ...exporter.checkpoint.family import Family
    from ...exporter.checkpoint.hub import checkpoint_of

    check_file(output, "--output")
    loaded = {_name(path, bundles): Bundle.load(path) for path in bundles}
    sizes = parse_batches(batch)
    chosen = pick_layouts(loaded, layout, sizes, new_tokens)
    check_pictures(chosen, bool(compare or image))
    for loaded_bundle in loaded.values():
        load_backend(backend, loaded_bundle)  # refuse before anything is loaded
    threads = threads or cores()
    images = [str(path.resolve()) for path in image or ()]
    shared = {"question": question, "images": images, "threads": threads, "layout": chosen.name}
    requests = {
        name: {"kind": "bundle", "path": str(b.path), "backend": backend}
        for name, b in loaded.items()
    }
    if compare:
        first = next(iter(loaded.values()))
        source = checkpoint_of(first.manifest, model)
        Family.load(source)
        requests = {"hf": {"kind": "hf", "path": str(first.path), "model": source}, **requests}
    with console.Steps(quiet=as_json) as steps, ExitStack() as stack:
        systems = []
        for name, request in requests.items():
            steps(f"loading {name}")
            systems.append(start(name, request | shared, threads))
            stack.callback(systems[-1].close)
        cases = measure(systems, sizes, rounds, warmup, new_tokens, steps)
    settings = {
        "layout": chosen.name, "batches": sizes, "rounds": rounds, "warmup": warmup,
        "new_tokens": new_tokens, "threads": threads, "question": question,
        "images": [path.name for path in image or ()] or ("generated" if chosen.images else []),
    }  # fmt: skip
    about = [{"name": s.name} | s.about for s in systems]
    show({**provenance(), "settings": settings, "systems": about, "cases": cases}, output, as_json)


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


def pick_layouts(
    bundles: dict[str, Bundle], name: str | None, batches: list[int], new_tokens: int
) -> Layout:
    """The one layout that is measured, which every bundle must hold.

    Raises:
        LuvcError: a bundle has no such layout, or cannot hold the answer.
    """
    wanted = name or next(iter(bundles.values())).manifest.layouts[0].name
    for label, bundle in bundles.items():
        names = [x.name for x in bundle.manifest.layouts]
        if wanted not in names:
            raise LuvcError(
                f"{label} has no layout {wanted!r}, only {', '.join(names)}: systems are compared on one "
                "layout, export them for the same --image-size and --images"
            )
        if new_tokens >= bundle.manifest.text_capacity:
            raise LuvcError(
                f"--new-tokens {new_tokens} does not fit the {bundle.manifest.text_capacity} text tokens "
                f"of {label}; ask for fewer"
            )
    layouts = next(iter(bundles.values())).manifest.layouts
    return next(x for x in layouts if x.name == wanted)


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
