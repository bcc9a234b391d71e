"""Command-line options that luvc-export and luvc-plan share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .config import ExportConfig, parse_parts, parse_ratio, parse_size, read_schedule
from .planning.problem import DEFAULTS

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}

Model = Annotated[str, typer.Option(help="Checkpoint directory or hub id.", metavar="DIR_OR_ID")]
Revision = Annotated[
    str | None,
    typer.Option(help="Branch, tag or commit of a hub id; default its main branch."),
]
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
        help="HEIGHTxWIDTH in pixels; repeat for more layouts; default one tile, where the model's own "
        "processor may cut a large picture into many.",
        metavar="HxW",
    ),
]
Images = Annotated[
    list[int] | None,
    typer.Option(
        help="Images per prompt; repeat: every number is combined with every size; 0 adds a layout for "
        "questions without a picture; default 1.",
        min=0,
    ),
]
Frames = Annotated[
    list[int] | None,
    typer.Option(
        help="Frames of a video instead of an image (Qwen-VL families), 0 for images; repeat: every "
        "number is combined with every size.",
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
    float | None,
    typer.Option(
        help="Share of the spectrum the SPU's low-pass keeps; 1 leaves the filter out; "
        f"default {DEFAULTS.cutoff:g}."
    ),
]
Signal = Annotated[
    str | None,
    typer.Option(help=f"Hidden states the SPU scores: normed or raw; default {DEFAULTS.signal}."),
]
Scope = Annotated[
    str | None,
    typer.Option(help=f"What the SPU scores together: prompt or image; default {DEFAULTS.scope}."),
]
Stages = Annotated[
    str | None,
    typer.Option(
        help="Where the SPU prunes, as parts of the language layers; default "
        f"{','.join(f'{s:g}' for s in DEFAULTS.stages)}.",
        metavar="PART,PART,...",
    ),
]
Keeps = Annotated[
    str | None,
    typer.Option(
        help="How the stages' tokens fall: geometric, by an equal factor, or linear, by an equal number; "
        f"default {DEFAULTS.keeps}."
    ),
]
OimShare = Annotated[
    float | None,
    typer.Option(
        help="OIM merges in the vision tower up to ratio ** this and the SPU does the rest; 0 leaves OIM "
        f"out; default {DEFAULTS.oim_share:g}."
    ),
]
OimMatch = Annotated[
    bool | None,
    typer.Option(
        help="OIM merges the most similar neighbours, not the last ones; needs --oim-share."
    ),
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
    stages: str | None,
    keeps: str | None,
    oim_share: float | None,
    oim_match: bool | None,
    **options: Any,
) -> ExportConfig:
    """An ExportConfig from what was typed.

    Raises:
        LuvcError: an option cannot be read or is out of range.
    """
    solved = {
        "ratio": parse_ratio(ratio) if ratio else None,
        "cutoff": cutoff,
        "signal": signal,
        "scope": scope,
        "stages": parse_parts(stages) if stages else None,
        "keeps": keeps,
        "oim_share": oim_share,
        "match": oim_match,
    }
    given = {name: value for name, value in solved.items() if value is not None}
    if dtype is None:
        dtype = "fp32" if options.get("backend", "ort") == "ort" else "fp16"
    return ExportConfig.make(
        model=model,
        image_sizes=tuple(parse_size(s) for s in image_size or ()),
        images=tuple(images or (1,)),
        frames=tuple(frames or ()),
        dtype=DTYPES.get(dtype, dtype),
        schedule=read_schedule(schedule) if schedule else None,
        **given,
        **options,
    )
