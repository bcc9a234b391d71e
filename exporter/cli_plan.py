"""luvc-plan: what a ratio means for a model, from its config alone."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from .. import console
from ..errors import LuvcError
from .cli_options import Asked, shared
from .config import MEASURED

if TYPE_CHECKING:
    from .checkpoint.family import Family
    from .config import ExportConfig
    from .layouts.planned import Planned


def list_methods(wanted: bool) -> None:
    """Print every method: what it does, what it needs, its options."""
    if not wanted:
        return
    from .report import methods_table

    console.show(methods_table())
    raise typer.Exit


def plan(
    asked: Asked,
    ratio: Annotated[
        list[str] | None, typer.Option(help="One or several ratios, such as 2x; default 2x.")
    ] = None,
    ratio_of: Annotated[
        str, typer.Option(help="flops (of the prefill) or first-token (of the vision tower, too).")
    ] = "flops",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    methods: Annotated[
        bool,
        typer.Option(
            "--methods", help="List the methods and end.", callback=list_methods, is_eager=True
        ),
    ] = False,
) -> None:
    """Show where tokens would vanish, and what that saves; reads no weights."""
    from .checkpoint.family import Family
    from .report import plan_json, weights_json, weights_line

    if ratio_of in MEASURED:
        raise LuvcError(
            f"--ratio-of {ratio_of} measures the model, and a plan reads no weights: use luvc-export"
        )
    configs = {text: asked.config(text and [text], ratio_of=ratio_of) for text in ratio or [None]}
    family = Family.load(next(iter(configs.values())).checkpoint)
    found, refused = _plans(family, configs)
    if as_json:
        plans = [plan_json(family, planned, config) for planned, config in found]
        weights = weights_json(family, next(iter(configs.values())))
        told = {"plans": plans, "refused": refused, "weights": weights}
        typer.echo(json.dumps(told, indent=1))
    else:
        _tell(family, found, asked.schedule)
        console.show(weights_line(family, next(iter(configs.values()))))
        for text, reason in refused.items():
            console.show(Text(f"refused {text}: {reason}"))
    if not found:
        raise LuvcError("every ratio was refused")


def _tell(
    family: "Family", found: list[tuple["Planned", "ExportConfig"]], schedule: Path | None
) -> None:
    """The plans as tables, each below what was asked for."""
    from .report import plan_table

    for planned, config in found:
        counted = " of the first token" if config.ratio_of == "first-token" else ""
        console.show(f"[bold]asked {schedule or f'{config.ratio:g}x{counted}'}")
        console.show(*plan_table(family, planned, config))


def _plans(
    family: "Family", configs: dict[str | None, "ExportConfig"]
) -> tuple[list[tuple["Planned", "ExportConfig"]], dict[str, str]]:
    """The plans of every ratio, and why some have none; one ratio alone is refused at once."""
    from .prepare import check_weights, plan_layouts

    check_weights(next(iter(configs.values())), family)
    found: list[tuple[Planned, ExportConfig]] = []
    refused: dict[str, str] = {}
    for text, config in configs.items():
        try:
            plans = plan_layouts(config, family)
        except LuvcError as e:
            if len(configs) < 2:
                raise
            refused[str(text)] = str(e)
            continue
        # a layout without pictures is alike at every ratio
        shown = {planned.layout.name for planned, _ in found if not planned.layout.images}
        found += [(planned, config) for planned in plans if planned.layout.name not in shown]
    return found, refused


def main() -> None:
    """Entry point."""
    console.run_command(shared(plan))


if __name__ == "__main__":
    main()
