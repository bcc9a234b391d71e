"""luvc-export: a Hugging Face vision-language model becomes a compressed bundle."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from .. import console
from ..engines.bundle.folder import Bundle
from ..engines.bundle.manifest import Manifest
from ..errors import LuvcError
from .cli_options import Asked, shared
from .config import MEASURED, ExportConfig

if TYPE_CHECKING:
    from .assemble import Progress
    from .prepare import Prepared
    from .timing.latency import Timed


Ratio = Annotated[
    list[str] | None,
    typer.Option(
        help="Baseline / compressed prefill work; repeat for a bundle of several, which requests choose "
        "from; default 2x."
    ),
]
RatioOf = Annotated[
    str,
    typer.Option(
        help="flops (of the prefill), first-token (of the vision tower, too, which OIM shortens), or "
        "latency or first-token-latency: measure this machine and solve for the time of either measured on "
        "it; needs disk for another bundle at ratio 1 meanwhile."
    ),
]
PushToHub = Annotated[
    str | None,
    typer.Option(help="Upload the bundle to this repository of the hub.", metavar="REPO"),
]
Calibrate = Annotated[
    Path | None,
    typer.Option(
        help="With --weights int8 or int4: choose the whole numbers so that answers to these questions stay "
        "near (GPTQ), JSONL as luvc-eval reads it; answers are of use, not needed.",
        metavar="DATA.jsonl",
    ),
]
CalibrateLimit = Annotated[
    int | None,
    typer.Option(help="First questions of --calibrate only; default 128.", min=1),
]
Private = Annotated[
    bool, typer.Option("--private", help="With --push-to-hub: a private repository.")
]


def export(
    asked: Asked,
    ratio: Ratio = None,
    ratio_of: RatioOf = "flops",
    output: Annotated[Path, typer.Option(help="Bundle folder to write.")] = Path("bundle"),
    backend: Annotated[
        str, typer.Option(help="ort, or tensorrt or tensorrt-rtx to build its engines too.")
    ] = "ort",
    validate: Annotated[bool, typer.Option(help="Compare with PyTorch before writing.")] = True,
    calibrate: Calibrate = None,
    calibrate_limit: CalibrateLimit = None,
    push_to_hub: PushToHub = None,
    private: Private = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compile a vision-language model with LUVC visual-token compression baked in."""
    options: dict[str, Any] = {"calibrate": calibrate}
    options |= {} if calibrate_limit is None else {"calibrate_limit": calibrate_limit}
    config = asked.config(
        ratio, backend, output=output, check=validate, ratio_of=ratio_of, **options
    )
    _check_push(push_to_hub, private)
    from .write_bundle import write

    prepared, timed = _planned(config, as_json)
    if not as_json:
        _show_plan(prepared, timed)
    with console.Steps(quiet=as_json) as steps:
        bundle = write(prepared, steps)
        address = _push(bundle, push_to_hub, private, steps)
    if as_json:
        typer.echo(json.dumps(_result(bundle, prepared, timed) | {"pushed": address}, indent=1))
    else:
        _tell(bundle, config, output, address)


def _planned(config: ExportConfig, quiet: bool) -> "tuple[Prepared, Timed | None]":
    """What is to be written, and the times that it was solved for."""
    from .prepare import prepare
    from .timing.latency import solve_for_latency

    prepared = prepare(config)
    if config.ratio_of not in MEASURED:
        return prepared, None
    with console.Steps(quiet=quiet) as steps:
        return solve_for_latency(prepared, steps)


def _check_push(repository: str | None, private: bool) -> None:
    """Refuse before the work what could not be pushed after it."""
    if repository is not None:
        from ..engines.hub.pushing import check_access

        check_access(repository)
    elif private:
        raise LuvcError("--private is of --push-to-hub: give the repository too, or leave it out")


def _push(
    bundle: Bundle, repository: str | None, private: bool, progress: "Progress"
) -> str | None:
    """Upload a bundle that is written -> the commit's address; None where nobody asked."""
    if repository is None:
        return None
    from ..engines.hub.pushing import push

    progress(f"uploading it to {repository}")
    try:
        return push(bundle, repository, private=private or None)
    except LuvcError as e:
        raise LuvcError(
            f"{bundle.path} is written and not uploaded: {e}; then push it from Python, without a new "
            f"export: VLM.load({str(bundle.path)!r}).push_to_hub({repository!r})"
        ) from e


def _show_plan(prepared: "Prepared", timed: "Timed | None") -> None:
    """What is going to be written."""
    from .report import plan_table, timed_line, weights_line

    if timed is not None:
        console.show(timed_line(timed))
    for planned in prepared.plans:
        console.show(*plan_table(prepared.family, planned, prepared.config))
    console.show(weights_line(prepared.family, prepared.config))


def _result(bundle: Bundle, prepared: "Prepared", timed: "Timed | None") -> dict[str, Any]:
    """What was written and how far it was checked, as data; the plans are those of luvc-plan."""
    from ..engines.sampling import generation_config, not_carried
    from .report import plan_json

    m = bundle.manifest
    times = "asked", "predicted", "measured", "baseline_ms", "compressed_ms"
    measured = {name: float(getattr(timed, name)) for name in times} if timed else {}
    return {
        "bundle": str(bundle.path),
        "bytes": sum(f.bytes for f in m.files.values()),
        "dtype": m.dtype,
        "weights": m.weights.model_dump() if m.weights else None,
        "quantised_as": m.quantised_as,
        "calibrated": m.calibrated,
        "plans": [plan_json(prepared.family, x, prepared.config) for x in prepared.plans],
        "latency": measured | {"of": timed.of} if timed else None,
        "engines": [engine.folder for engine in m.engines],
        "validated": m.validated,
        "validated_layers": m.validated_layers,
        "language_layers": m.language.layers,
        "not_carried": not_carried(generation_config(bundle)),
    }


def _tell(bundle: Bundle, config: ExportConfig, output: Path, address: str | None) -> None:
    """What was written, how far it was checked, and how to ask it something."""
    from ..engines.backends import engine_note
    from ..engines.sampling import generation_config, not_carried
    from .check.parity import reports
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
    if address:
        console.show(f"[bold]uploaded[/bold]: {escape(address)}")


def _verdict(manifest: Manifest) -> str:
    if manifest.validated:
        return "validated"
    if manifest.validated_layers:
        whole = f"{manifest.validated_layers} of {manifest.language.layers} language layers"
        return f"validated in the first {whole}, which is what memory holds"
    return "[yellow]not validated[/yellow]"


def main() -> None:
    """Entry point."""
    console.run_command(shared(export))


if __name__ == "__main__":
    main()
