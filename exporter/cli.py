"""luvc-export: a Hugging Face vision-language model becomes a compressed bundle."""

from pathlib import Path
from typing import Annotated

import typer

from .. import console
from ..engines.bundle import Bundle
from ..engines.manifest import Manifest
from . import options as o
from .config import ExportConfig


def export(
    model: o.Model,
    ratio: Annotated[
        str | None, typer.Option(help="Baseline / compressed prefill work; default 2x.")
    ] = None,
    ratio_of: o.RatioOf = "flops",
    output: Annotated[Path, typer.Option(help="Bundle folder to write.")] = Path("bundle"),
    image_size: o.ImageSize = None,
    images: o.Images = None,
    frames: o.Frames = None,
    dtype: o.Dtype = None,
    backend: Annotated[
        str, typer.Option(help="ort, or tensorrt or tensorrt-rtx to build its engines too.")
    ] = "ort",
    text_capacity: o.TextCapacity = 1024,
    text_tokens: o.TextTokens = 64,
    schedule: o.ScheduleFile = None,
    cutoff: o.Cutoff = None,
    signal: o.Signal = None,
    scope: o.Scope = None,
    oim_match: o.OimMatch = None,
    validate: Annotated[bool, typer.Option(help="Compare with PyTorch before writing.")] = True,
) -> None:
    """Compile a vision-language model with LUVC visual-token compression baked in."""
    config = o.make_config(
        model, ratio, image_size, images, frames, dtype, schedule, cutoff, signal, scope,
        oim_match,
        output=output, backend=backend, text_capacity=text_capacity, reference_text=text_tokens,
        check=validate, ratio_of=ratio_of,
    )  # fmt: skip
    from ..engines.replace import check_target
    from .family import Family
    from .pipeline import export as run
    from .pipeline import plan, solve_for_latency
    from .report import plan_table, timed_line

    check_target(output)
    family = Family.load(model)
    if config.ratio_of == "latency":
        with console.Steps() as steps:
            config, timed = solve_for_latency(config, family, steps)
        console.show(timed_line(timed))
    for layout in plan(config, family):
        console.show(*plan_table(family, layout, text_tokens, config.dtype))
    with console.Steps() as steps:
        bundle = run(config, steps, family)
    _tell(bundle, config, output)


def _tell(bundle: Bundle, config: ExportConfig, output: Path) -> None:
    """What was written, how far it was checked, and how to ask it something."""
    from ..engines.backends import engine_note
    from .pipeline import reports
    from .report import human, validation_table

    for report in reports(bundle):
        console.show(*validation_table(report))
    size = human(sum(f.bytes for f in bundle.manifest.files.values()))
    verdict = _verdict(bundle.manifest)
    if config.check and not config.validates:
        console.show(
            "[yellow]not validated[/yellow]: ONNX Runtime does not run bfloat16; the same export with "
            "--dtype fp16 is validated"
        )
    if config.backend != "ort":
        console.show(engine_note(bundle, config.backend))
    console.show(f"[bold]wrote {output}[/bold] ({size}B, {verdict}). Ask it something:")
    first = bundle.manifest.layouts[0]
    shown = " --video frames/" if first.frames else " --image photo.jpg"
    what = "the video" if first.frames else "the picture"
    console.show(f'  luvc-run {output}{shown * first.images} "What is in {what}?"')


def _verdict(manifest: Manifest) -> str:
    if manifest.validated:
        return "validated"
    if manifest.validated_layers:
        whole = f"{manifest.validated_layers} of {manifest.language.layers} language layers"
        return f"validated in the first {whole}, which is what memory holds"
    return "[yellow]not validated[/yellow]"


def main() -> None:
    """Entry point."""
    console.run_command(export)


if __name__ == "__main__":
    main()
