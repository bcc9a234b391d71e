"""Command-line options that luvc-export and luvc-plan share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import LuvcError
from .config import ExportConfig, parse_ratio, parse_size, read_schedule

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}

Model = Annotated[str, typer.Option(help="Checkpoint directory or hub id.", metavar="DIR_OR_ID")]
RatioOf = Annotated[
    str,
    typer.Option(
        help="flops, or latency: measure this machine and solve for the prefill time measured on it; "
        "needs disk for another bundle at ratio 1 meanwhile."
    ),
]
ImageSize = Annotated[
    list[str] | None,
    typer.Option(
        help="HEIGHTxWIDTH in pixels, one layout each; default one tile, where the model's own "
        "processor may cut a large picture into many.",
        metavar="HxW",
    ),
]
Images = Annotated[
    list[int] | None, typer.Option(help="Images per prompt, one layout each; default 1.", min=1)
]
Frames = Annotated[
    list[int] | None,
    typer.Option(
        help="Frames of a video instead of an image, one layout each (Qwen-VL families); 0 = images.",
        min=0,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(help="fp32, fp16 or bf16; default fp32, and fp16 for a TensorRT backend."),
]
TextCapacity = Annotated[
    int,
    typer.Option(
        help="Text tokens (prompts and answers) one conversation can hold. Every step looks at all "
        "of it: no larger than needed."
    ),
]
TextTokens = Annotated[
    int, typer.Option(help="Text tokens of the prompt the ratio is computed at.")
]
ScheduleFile = Annotated[
    Path | None, typer.Option(help="A schedule of your own (JSON) instead of a solved one.")
]
Cutoff = Annotated[
    float | None, typer.Option(help="Share of the spectrum the SPU's low-pass keeps; default 0.25.")
]
Signal = Annotated[
    str | None, typer.Option(help="What the SPU scores: normed (default) or raw hidden states.")
]
Scope = Annotated[
    str | None,
    typer.Option(help="Score all visual tokens together (prompt, the default) or each image."),
]
OimMatch = Annotated[
    bool, typer.Option("--oim-match", help="OIM merges the most similar neighbours.")
]


def make_config(
    model: str,
    ratio: str | None,
    image_size: list[str] | None,
    images: list[int] | None,
    frames: list[int] | None,
    dtype: str | None,
    schedule: Path | None,
    cutoff: float | None,
    signal: str | None,
    scope: str | None,
    oim_match: bool,
    **options: Any,
) -> ExportConfig:
    """An ExportConfig from what was typed.

    Raises:
        LuvcError: an option cannot be read or is out of range.
    """
    shaping = {"cutoff": cutoff, "signal": signal, "scope": scope, "match": oim_match or None}
    given = {name: value for name, value in shaping.items() if value is not None}
    if schedule and (given or ratio):
        names = ", ".join(["ratio"] * bool(ratio) + list(given))
        raise LuvcError(f"--schedule says {names} itself; write it there or leave the file out")
    if dtype is None:
        dtype = "fp32" if options.get("backend", "ort") == "ort" else "fp16"
    return ExportConfig.make(
        model=model,
        ratio=parse_ratio(ratio or "2x"),
        image_sizes=tuple(parse_size(s) for s in image_size or ()),
        images=tuple(images or (1,)),
        frames=tuple(frames or ()),
        dtype=DTYPES.get(dtype, dtype),
        schedule=read_schedule(schedule) if schedule else None,
        **given,
        **options,
    )
