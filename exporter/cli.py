"""luvc-export: a Hugging Face vision-language model becomes a compressed bundle."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from .. import console
from ..engines.bundle.folder import Bundle
from ..engines.bundle.manifest import Manifest
from . import cli_options as o
from .config import ExportConfig

if TYPE_CHECKING:
    from .checkpoint.family import Family
    from .timing.latency import Timed


def export(
    model: o.Model,
    revision: o.Revision = None,
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
    stages: o.Stages = None,
    keeps: o.Keeps = None,
    oim_share: o.OimShare = None,
    oim_match: o.OimMatch = None,
    validate: Annotated[bool, typer.Option(help="Compare with PyTorch before writing.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compile a vision-language model with LUVC visual-token compression baked in."""
    config = o.make_config(
        model, ratio, image_size, images, frames, dtype, schedule, cutoff, signal, scope,
        stages, keeps, oim_share, oim_match,
        output=output, backend=backend, text_capacity=text_capacity, reference_text=text_tokens,
        check=validate, ratio_of=ratio_of, revision=revision,
    )  # fmt: skip
    from ..engines.bundle.swap import check_target
    from .checkpoint.family import Family
    from .pipeline import export as run
    from .pipeline import solve_for_latency

    check_target(output)
    family, timed = Family.load(config.checkpoint), None
    if config.ratio_of == "latency":
        with console.Steps(quiet=as_json) as steps:
            config, timed = solve_for_latency(config, family, steps)
    if not as_json:
        _show_plan(config, family, timed)
    with console.Steps(quiet=as_json) as steps:
        bundle = run(config, steps, family)
    if as_json:
        typer.echo(json.dumps(_result(bundle, family, timed), indent=1))
    else:
        _tell(bundle, config, output)


def _show_plan(config: ExportConfig, family: "Family", timed: "Timed | None") -> None:
    """What is going to be written."""
    from .pipeline import plan
    from .report import plan_table, timed_line

    if timed is not None:
        console.show(timed_line(timed))
    for layout in plan(config, family):
        console.show(*plan_table(family, layout, config.reference_text, config.dtype))


def _result(bundle: Bundle, family: "Family", timed: "Timed | None") -> dict[str, Any]:
    """What was written and how far it was checked, as data; the plans are those of luvc-plan."""
    from ..engines.sampling import generation_config, not_carried
    from .report import plan_json

    m = bundle.manifest
    times = "asked", "predicted", "measured", "baseline_ms", "compressed_ms"
    return {
        "bundle": str(bundle.path),
        "bytes": sum(f.bytes for f in m.files.values()),
        "dtype": m.dtype,
        "plans": [plan_json(family, layout, m.reference_text, m.dtype) for layout in m.layouts],
        "latency": {name: float(getattr(timed, name)) for name in times} if timed else None,
        "engines": [engine.folder for engine in m.engines],
        "validated": m.validated,
        "validated_layers": m.validated_layers,
        "language_layers": m.language.layers,
        "not_carried": not_carried(generation_config(bundle)),
    }


def _tell(bundle: Bundle, config: ExportConfig, output: Path) -> None:
    """What was written, how far it was checked, and how to ask it something."""
    from ..engines.backends import engine_note
    from ..engines.sampling import generation_config, not_carried
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
    left = not_carried(generation_config(bundle))
    if left:
        named = ", ".join(f"{name}={value!r:.40}" for name, value in left.items())
        console.show(
            f"[yellow]generation settings not carried over[/yellow]: {escape(named)}; the bundle answers "
            "as without them"
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
