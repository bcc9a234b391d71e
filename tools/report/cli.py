"""luvc-report: one HTML file that shows what a bundle does and how well it was checked."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ... import console
from ...engines.bundle.folder import Bundle
from ...errors import LuvcError
from ...files import whole
from ...places import check_file
from ..options import Backend, BundleFolder

Output = Annotated[
    Path | None, typer.Option(help="HTML file; default beside the bundle, named like it.")
]
Images = Annotated[
    list[Path] | None,
    typer.Option(help="Picture to show kept tokens on; repeat for several. Default: samples."),
]
Pictures = Annotated[bool, typer.Option(help="Run the bundle to show what it keeps of pictures.")]
BenchReport = Annotated[Path | None, typer.Option(help="Report of luvc-bench, for the latencies.")]
EvalReports = Annotated[
    list[Path] | None,
    typer.Option(help="JSON file of luvc-eval; repeat for other ratios, which makes curves."),
]
LayoutName = Annotated[str | None, typer.Option(help="Layout of the pictures; default the first.")]


def report(
    bundle: BundleFolder,
    output: Output = None,
    image: Images = None,
    pictures: Pictures = True,
    bench: BenchReport = None,
    accuracy: EvalReports = None,
    layout: LayoutName = None,
    backend: Backend = "auto",
) -> None:
    """Write a self-contained page about a bundle: schedule, savings, kept tokens, parity."""
    from ...exporter.checkpoint.family import Family
    from . import facts
    from .page import Shown, render

    loaded = Bundle.load(bundle)
    target = place_of(output, loaded)
    measured = facts.read_bench(bench, loaded.manifest)
    answers = facts.read_accuracy(accuracy or [])
    with console.Steps() as steps:
        steps("reading the bundle")
        family = Family.load(str(loaded.processor))
        samples, runner = [], ""
        if pictures:
            steps("running the bundle on pictures")
            samples, runner = look_at(loaded, layout, image or [], backend)
        shown = Shown(
            layouts=[facts.layout_facts(loaded, family, x) for x in loaded.manifest.pictured],
            parity=facts.parity(loaded),
            samples=samples,
            runner=runner,
            commands=facts.commands(loaded, shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
            bench=measured,
            latency=facts.latency(measured) if measured else None,
            accuracy=answers,
        )
        page = render(loaded, shown)
        with whole(target) as draft:
            draft.write_text(page, encoding="utf-8")
    console.show(f"[bold]wrote {target}[/bold] ({len(page) / 2**10:.0f} KiB); open it in a browser")


def look_at(bundle: Bundle, name: str | None, images: list[Path], backend: str) -> tuple[list, str]:
    """Kept tokens of pictures, and the description of what ran; no pictures where none can be drawn."""
    from ...engines import VLM
    from ..token_map import views
    from .overlay import samples

    layouts = bundle.manifest.pictured
    names = [x.name for x in layouts]
    if name is not None and name not in names:
        raise LuvcError(
            f"there is no layout {name!r} of pictures in this bundle, only {', '.join(names)}"
        )
    chosen = layouts[names.index(name) if name else 0]
    try:
        height, width = chosen.image_size
        views(chosen, [(width, height)])
    except LuvcError as e:  # packed tiles, videos: the rest of the page stands
        console.show(f"[yellow]kept tokens are not drawn[/yellow]: {e}")
        return [], ""
    with VLM.load(bundle.path, backend=backend) as vlm:
        found = samples(vlm, chosen, sample_pictures(images, chosen.image_size))
        return found, vlm.runner.description


def sample_pictures(images: list[Path], size: tuple[int, int]) -> list[tuple[str, Any]]:
    """The pictures given, or those of scikit-image where it is installed, or a generated one."""
    from PIL import Image

    from ...engines.generated_pictures import generated_picture
    from ...engines.prompt.processing import open_image

    if images:
        return [(path.name, open_image(path)) for path in images]
    try:
        import skimage
    except ImportError:
        return [("generated picture", Image.fromarray(generated_picture(size, 0)))]
    folder = Path(skimage.__file__).parent / "data"
    known = {"photograph": "coffee.png", "portrait": "astronaut.png", "page of text": "page.png"}
    return [(title, open_image(folder / file)) for title, file in known.items()]


def place_of(output: Path | None, bundle: Bundle) -> Path:
    """Where the file goes: what was asked for, or beside the bundle and named like it.

    Raises:
        LuvcError: see `check_file`, or inside the bundle, whose files are hashed.
    """
    folder = bundle.path.resolve()
    target = output or folder.with_name(f"{folder.name}.html")
    check_file(target, "--output")
    if folder in target.resolve().parents:
        raise LuvcError(
            f"output {target} lies in the bundle, whose files are fixed; write beside it"
        )
    return target


def main() -> None:
    """Entry point."""
    console.run_command(report)


if __name__ == "__main__":
    main()
