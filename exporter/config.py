"""What an export was asked for."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..engines.bundle.folder import first_error
from ..engines.bundle.manifest import Dtype
from ..engines.bundle.schedule import Keeps, Schedule, Scope, Signal, Solver
from ..errors import LuvcError
from .planning.problem import DEFAULTS, Options

SOLVER = tuple(field.name for field in dataclasses.fields(Options))
"""Fields that are the solver's options."""
FLAGS = {"image_sizes": "--image-size", "reference_text": "--text-tokens", "match": "--oim-match"}
"""Command-line options that are not called like their field."""

Size = tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]


class ExportConfig(BaseModel):
    """All options of one export.

    Attributes:
        model: checkpoint directory or hub id.
        revision: branch, tag or commit of a hub id; None for the default branch.
        output: bundle folder; replaced when it is a bundle, refused when it is anything else.
        ratio: baseline / compressed language prefill.
        ratio_of: what the ratio counts, FLOPs or milliseconds measured on the backend.
        image_sizes: (height, width) in pixels of each layout; empty = one tile.
        images: images (or videos) per prompt of each layout; 0 adds one for questions without any.
        frames: frames of a video of each layout; empty or 0 = images.
        dtype: of weights and computation.
        backend: what runs the bundle; for TensorRT its engines are built too.
        text_capacity: text tokens (prompt and answers) of one conversation.
        reference_text: text tokens of the prompt that the ratio is computed at.
        cutoff, signal, scope, match, stages, keeps, oim_share: see problem.Options.
        schedule: a schedule of one's own instead of a solved one.
        check: compare with PyTorch before the bundle gets its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    revision: str | None = Field(default=None, min_length=1)
    output: Path = Path("bundle")
    ratio: float = Field(default=2.0, ge=1)
    ratio_of: Literal["flops", "latency"] = "flops"
    image_sizes: tuple[Size, ...] = ()
    images: tuple[Annotated[int, Field(ge=0)], ...] = (1,)
    frames: tuple[Annotated[int, Field(ge=0)], ...] = ()
    dtype: Dtype = "float32"
    backend: Literal["ort", "tensorrt", "tensorrt-rtx"] = "ort"
    text_capacity: int = Field(default=1024, ge=64)
    reference_text: int = Field(default=64, ge=1)
    cutoff: float = Field(default=DEFAULTS.cutoff, gt=0, le=1)
    signal: Signal = DEFAULTS.signal
    scope: Scope = DEFAULTS.scope
    match: bool = DEFAULTS.match
    stages: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = DEFAULTS.stages
    keeps: Keeps = DEFAULTS.keeps
    oim_share: float = Field(default=DEFAULTS.oim_share, ge=0, le=1)
    schedule: Schedule | None = None
    check: bool = True

    @classmethod
    def make(cls, **options: Any) -> "ExportConfig":
        """Build and check.

        Raises:
            LuvcError: an option is out of range; names it.
        """
        try:
            return cls(**options)
        except ValidationError as e:
            raise LuvcError(first_error(e, {name: flag(name) for name in cls.model_fields})) from e

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.revision is not None and Path(self.model).exists():
            raise ValueError(
                f"--revision {self.revision} is for hub ids, and {self.model} is here on the disk: leave "
                "it out"
            )
        if self.reference_text > self.text_capacity:
            raise ValueError(
                f"--text-tokens {self.reference_text} is more than --text-capacity "
                f"{self.text_capacity}, so the bundle could not run that prompt: lower one or raise the "
                "other"
            )
        if not any(self.images):
            raise ValueError(
                "--images 0 adds a layout for questions without a picture, and there is nothing to compress: "
                "give another number too, such as --images 1 --images 0"
            )
        if self.match and not self.oim_share and self.schedule is None:
            raise ValueError(
                "--oim-match says how OIM merges, and --oim-share 0 leaves OIM out: give --oim-share 0.5 too"
            )
        twice = [flag(x) for x in ("ratio", *SOLVER) if x in self.model_fields_set]
        if self.schedule is not None and twice:
            raise ValueError(
                f"give either --schedule or {', '.join(twice)}: a schedule holds all that"
            )
        return self

    def check_backend(self) -> None:
        """Refuse a dtype that the backend does not run.

        Raises:
            LuvcError: says which dtypes it runs.
        """
        if self.backend == "ort" and self.dtype == "bfloat16":
            raise LuvcError(
                "--dtype bf16 does not run on ONNX Runtime: give --backend tensorrt or tensorrt-rtx, or "
                "--dtype fp16"
            )
        if self.backend != "ort" and self.dtype == "float32":
            raise LuvcError(
                f"--backend {self.backend} needs --dtype fp16 or bf16: it has no fused attention for "
                "float32 prompts"
            )

    @property
    def checkpoint(self) -> str:
        """What Family.load reads: the directory, the hub id or ID@REVISION."""
        if self.revision is None or Path(self.model).exists():  # probes of latency are directories
            return self.model
        return f"{self.model}@{self.revision}"

    @property
    def validates(self) -> bool:
        """Whether ONNX Runtime can compare the bundle with PyTorch."""
        return self.check and self.dtype != "bfloat16"

    @property
    def options(self) -> Options:
        """The solver's options."""
        return Options(**{name: getattr(self, name) for name in SOLVER})

    @property
    def solver(self) -> Solver | None:
        """What the manifest says of ratio and options; None where a schedule is given."""
        return None if self.schedule else Solver(ratio=self.ratio, **vars(self.options))


def flag(field: str) -> str:
    """What a field of ExportConfig is called on the command line."""
    return FLAGS.get(field, "--" + field.replace("_", "-"))


def read_schedule(path: Path) -> Schedule:
    """A schedule file.

    Raises:
        LuvcError: unreadable, not JSON, or not a schedule; says where.
    """
    try:
        return Schedule.model_validate(json.loads(path.read_text()))
    except OSError as e:
        raise LuvcError(f"schedule {path} cannot be read: {e.strerror}") from e
    except ValidationError as e:
        raise LuvcError(f"schedule {path}: {first_error(e)}") from e
    except ValueError as e:
        raise LuvcError(f"schedule {path} is not valid JSON: {e}") from e


def parse_size(text: str) -> tuple[int, int]:
    """An image size as people type it: "448x672" is height 448, width 672; "448" is square.

    Raises:
        LuvcError: not a size.
    """
    parts = text.lower().split("x")
    try:
        numbers = [int(p) for p in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or min(numbers) <= 0:
        raise LuvcError(f"image size {text!r} is not HEIGHTxWIDTH in pixels, such as 448x448")
    return numbers[0], numbers[-1]


def parse_parts(text: str) -> tuple[float, ...]:
    """Parts of the layers as people type them: "0.125,0.25,0.5".

    Raises:
        LuvcError: not numbers; their range is ExportConfig's matter.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as e:
        raise LuvcError(f"--stages {text!r} are not numbers such as 0.125,0.25,0.5") from e


def parse_ratio(text: str) -> float:
    """A ratio as people type it: "2x", "2", "1.5x".

    Raises:
        LuvcError: not a finite number of at least 1.
    """
    try:
        ratio = float(text.strip().lower().removesuffix("x"))
    except ValueError:
        ratio = math.nan
    if not math.isfinite(ratio):
        raise LuvcError(f"ratio {text!r} is not a number: write it as 2x, 2 or 1.5x")
    if ratio < 1:
        raise LuvcError(
            f"ratio {text} is below 1, which would add work: use 1 (no compression) or more"
        )
    return ratio
