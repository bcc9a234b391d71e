"""luvc-validate: compare a bundle with PyTorch on this machine."""

from typing import Annotated

import typer

from .. import console
from .options import AsJson, Backend, BundleFolder


def validate(
    bundle: BundleFolder,
    model: Annotated[
        str | None, typer.Option(help="Checkpoint; default the one the bundle was made from.")
    ] = None,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Check hashes, then run PyTorch and a backend on one feed; exit code 1 when they differ."""
    from ..engines.backends import backend as load_backend
    from ..engines.bundle.folder import Bundle
    from ..engines.compared import compare
    from ..engines.prompt.processing import Processor
    from ..exporter.check.parity import reference_runner
    from ..exporter.report import validation_table

    with console.Steps(quiet=as_json) as steps:
        steps("checking files")
        loaded = Bundle.load(bundle, verify=True)
        module = load_backend(backend, loaded)
        steps("loading the checkpoint")
        processor, reports = Processor(loaded), []
        with reference_runner(loaded, model) as reference:
            for layout in loaded.manifest.layouts:
                steps(f"validating {layout.name}")
                reports += compare(loaded, processor, layout, reference, module)
    if as_json:
        typer.echo("[" + ",\n".join(r.model_dump_json(indent=1) for r in reports) + "]")
    else:
        _tell_calibrated(loaded.manifest.calibrated)
        for report in reports:
            console.show(*validation_table(report))
    failures = [f"{r.layout}: {f}" for r in reports for f in r.failures()]
    for failure in failures:
        console.err.print(f"[bold red]differs[/bold red] {failure}")
    if failures:
        raise typer.Exit(1)


def _tell_calibrated(questions: int) -> None:
    """Where the reference's numbers are the bundle's own."""
    if questions:
        console.show(
            f"weights calibrated on {questions} questions: PyTorch has the bundle's own codes, of which a "
            "sample was held against the checkpoint"
        )


def main() -> None:
    """Entry point."""
    console.run_command(validate)


if __name__ == "__main__":
    main()
