"""luvc-build: compile a bundle's graphs into TensorRT engines."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import console
from ..errors import LuvcError
from .options import AsJson

if TYPE_CHECKING:
    from ..engines.backends.base import Built


Batch = Annotated[
    str, typer.Option(help="Conversations in a batch: fewest, usual, most.", metavar="MIN,OPT,MAX")
]
PluginForm = Annotated[
    str, typer.Option(help="SPU in TensorRT: aot plugins, C++ library, or ONNX body.")
]
PluginLibrary = Annotated[
    Path | None, typer.Option(help="The C++ plugin library.", envvar="LUVC_PLUGIN_LIBRARY")
]
Memory = Annotated[
    float | None, typer.Option(help="Most device memory one layer may use as scratch, in GiB.")
]
Targets = Annotated[
    list[str] | None,
    typer.Option(help="TensorRT-RTX: only for this GPU, such as sm89; repeat for several."),
]


def build(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder; the engines are added to it.")],
    backend: Annotated[str, typer.Option(help="tensorrt or tensorrt-rtx.")],
    batch: Batch = "1,1,8",
    plugin_form: PluginForm = "aot",
    plugin_library: PluginLibrary = None,
    memory_gib: Memory = None,
    target: Targets = None,
    as_json: AsJson = False,
) -> None:
    """Build engines for what the manifest says: batch, prompt lengths, one and several new tokens."""
    from ..engines.backends import engine_builder, engine_note
    from ..engines.backends.base import BuildOptions
    from ..engines.bundle.folder import Bundle

    if plugin_form not in ("aot", "library", "body"):
        raise LuvcError(f"--plugin-form {plugin_form} is not one of aot, library, body")
    options = BuildOptions(
        batch=parse_batch(batch),
        plugin_form=plugin_form,  # type: ignore[arg-type]
        plugin_library=plugin_library,
        memory_gib=memory_gib,
        targets=tuple(target or ()),
    )
    builder = engine_builder(backend)
    loaded = Bundle.load(bundle, engines=False)
    with Bars(quiet=as_json) as bars:
        loaded, built = builder.build(loaded, options, bars)
    note = engine_note(loaded, backend)
    _show(built, note, as_json)


def _show(built: list["Built"], note: str, as_json: bool) -> None:
    """What was built, and whether it can be run here."""
    if as_json:
        engines = [asdict(b) for b in built]
        typer.echo(json.dumps({"engines": engines, "note": note}, indent=1))
        return
    for b in built:
        time = "up to date, not built again" if b.seconds is None else f"built in {b.seconds:.1f} s"
        console.out.print(f"  {b.file}: {b.bytes / 2**20:.1f} MiB, {time}", soft_wrap=True)
    console.out.print(note, soft_wrap=True)


def parse_batch(text: str) -> tuple[int, int, int]:
    """The text "1,2,8" -> (1, 2, 8); one number is the only size.

    Raises:
        LuvcError: not one or three numbers.
    """
    if re.fullmatch(r"\d+(,\d+,\d+)?", text) is None:
        raise LuvcError(f"--batch {text!r} is not MIN,OPT,MAX, such as 1,1,8")
    numbers = [int(n) for n in text.split(",")]
    return numbers[0], numbers[len(numbers) // 2], numbers[-1]


class Bars:
    """A progress bar for each graph.

    Args:
        quiet: show nothing.
    """

    def __init__(self, quiet: bool = False):
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        phase = TextColumn("{task.fields[phase]}", style="dim")
        self._progress = Progress(*columns, phase, console=console.err, disable=quiet)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, graph: str, phase: str, share: float) -> None:
        """Show how far the engine of a graph is."""
        if graph not in self._tasks:
            name = Path(graph).stem
            self._tasks[graph] = self._progress.add_task(name, total=1.0, phase="")
        self._progress.update(self._tasks[graph], completed=share, phase=phase)


def main() -> None:
    """Entry point."""
    console.run_command(build)


if __name__ == "__main__":
    main()
