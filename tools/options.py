"""Arguments and options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..engines.prompt.wishes import Wish

BundleFolder = Annotated[Path, typer.Argument(help="Bundle folder.")]
Backend = Annotated[str, typer.Option(help="auto, ort, tensorrt or tensorrt-rtx.")]
Threads = Annotated[int, typer.Option(help="Threads; 0 lets the backend choose.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PrefixCache = Annotated[
    int,
    typer.Option(
        help="MiB for prompts up to their last pictures, run once for all requests; 0: off.", min=0
    ),
]
RatioOption = Annotated[
    str | None,
    typer.Option(
        help="Such as 2x: the bundle's nearest is taken; default its first.", metavar="RATIO"
    ),
]
ImageTokens = Annotated[
    int | None,
    typer.Option(help="Most visual tokens of a picture in a language layer, in the mean of all."),
]

# of commands that ask one model under several plans
Model = Annotated[str, typer.Argument(help="Checkpoint directory or hub id.")]
Data = Annotated[
    Path | None,
    typer.Option(
        help="JSONL file: lines with image or images, question, and answer in all of them or in none. "
        "Default PocketVQA's validation split."
    ),
]
Limit = Annotated[int | None, typer.Option(help="First questions only.", min=1)]
ImageSize = Annotated[str | None, typer.Option(metavar="HxW", help="In pixels.")]
Images = Annotated[list[int] | None, typer.Option(help="Images of a question; repeat.", min=1)]
TextTokens = Annotated[
    int, typer.Option(help="Text tokens of the prompt the ratios are computed at.", min=1)
]
Batch = Annotated[int, typer.Option(help="Questions at a time.", min=1)]
LongestAnswer = Annotated[int, typer.Option(help="Longest answer, in tokens.", min=1)]
Match = Annotated[str, typer.Option(help="exact, or loose: case, spaces, full stop aside.")]


def wished(layout: str | None, ratio: str | None, image_tokens: int | None = None) -> "Wish":
    """What was typed of the layout.

    Raises:
        LuvcError: not a ratio, or more than one of them.
    """
    from ..engines.prompt.wishes import Wish, parse_ratio

    return Wish(layout, None if ratio is None else parse_ratio(ratio), image_tokens)
