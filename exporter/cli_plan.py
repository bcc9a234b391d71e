"""luvc-plan: what a ratio means for a model, from its config alone."""

import json
from typing import Annotated

import typer
from rich.text import Text

from .. import console
from ..errors import LuvcError
from . import cli_options as o


def plan(
    model: o.Model,
    revision: o.Revision = None,
    ratio: Annotated[
        list[str] | None, typer.Option(help="One or several ratios, such as 2x; default 2x.")
    ] = None,
    image_size: o.ImageSize = None,
    images: o.Images = None,
    frames: o.Frames = None,
    dtype: o.Dtype = None,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show where tokens would vanish, and what that saves; reads no weights."""
    from .checkpoint.family import Family
    from .pipeline import plan as make
    from .report import plan_json, plan_table

    configs = [
        o.make_config(
            model, text, image_size, images, frames, dtype, schedule, cutoff, signal, scope,
            stages, keeps, oim_share, oim_match,
            reference_text=text_tokens, text_capacity=text_capacity, revision=revision,
        )
        for text in ratio or [None]
    ]  # fmt: skip
    family = Family.load(configs[0].checkpoint)
    found, refused = [], {}
    for text, config in zip(ratio or [None], configs, strict=True):
        try:
            shown = {x.name for x, _ in found if not x.images}  # alike at every ratio
            found += [(x, config) for x in make(config, family) if x.name not in shown]
        except LuvcError as e:
            if len(ratio or ()) < 2:
                raise
            refused[str(text)] = str(e)
    if as_json:
        plans = [plan_json(family, layout, text_tokens, c.dtype) for layout, c in found]
        typer.echo(json.dumps({"plans": plans, "refused": refused}, indent=1))
    else:
        for layout, config in found:
            source = schedule or f"{config.ratio:g}x"
            console.show(f"[bold]asked {source}")
            console.show(*plan_table(family, layout, text_tokens, config.dtype))
        for text, reason in refused.items():
            console.show(Text(f"refused {text}: {reason}"))
    if not found:
        raise LuvcError("every ratio was refused")


def main() -> None:
    """Entry point."""
    console.run_command(plan)


if __name__ == "__main__":
    main()
