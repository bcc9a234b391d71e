"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

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
