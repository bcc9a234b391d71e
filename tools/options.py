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
