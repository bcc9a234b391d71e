"""Command-line options that luvc-export and luvc-plan share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .config import ExportConfig, parse_ratio, parse_size, read_schedule

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}

Model = Annotated[str, typer.Option(help="Checkpoint directory or hub id.", metavar="DIR_OR_ID")]
ImageSize = Annotated[
    list[str] | None,
    typer.Option(help="HEIGHTxWIDTH in pixels, one layout each; default one tile.", metavar="HxW"),
]
Images = Annotated[
    list[int] | None, typer.Option(help="Images per prompt, one layout each; default 1.", min=1)
]
Dtype = Annotated[
    str | None,
    typer.Option(help="fp32, fp16 or bf16; default fp32, and fp16 for a TensorRT backend."),
]
TextCapacity = Annotated[
    int, typer.Option(help="Text tokens (prompts and answers) one conversation can hold.")
]
TextTokens = Annotated[
    int, typer.Option(help="Text tokens of the prompt the ratio is computed at.")
]
ScheduleFile = Annotated[
    Path | None, typer.Option(help="A schedule of your own (JSON) instead of a solved one.")
]
Cutoff = Annotated[float, typer.Option(help="Share of the spectrum the SPU's low-pass keeps.")]
Signal = Annotated[str, typer.Option(help="What the SPU scores: normed or raw hidden states.")]
Scope = Annotated[str, typer.Option(help="Score all visual tokens together (prompt) or per image.")]
OimMatch = Annotated[
    bool, typer.Option("--oim-match", help="OIM merges the most similar neighbours.")
]


def make_config(
    model: str,
    ratio: str,
    image_size: list[str] | None,
    images: list[int] | None,
    dtype: str | None,
    schedule: Path | None,
    **options: Any,
) -> ExportConfig:
    """An ExportConfig from what was typed.

    Raises:
        LuvcError: an option cannot be read or is out of range.
    """
    if dtype is None:
        dtype = "fp32" if options.get("backend", "ort") == "ort" else "fp16"
    return ExportConfig.make(
        model=model,
        ratio=parse_ratio(ratio),
        image_sizes=tuple(parse_size(s) for s in image_size or ()),
        images=tuple(images or (1,)),
        dtype=DTYPES.get(dtype, dtype),
        schedule=read_schedule(schedule) if schedule else None,
        **options,
    )
