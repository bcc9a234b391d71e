"""What an export was asked for."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .. import strict_json
from ..engines.bundle.manifest import Dtype, Quantisation
from ..engines.bundle.schedule import Schedule, Solver
from ..errors import LuvcError
from .planning import methods
from .planning.defaults import DEFAULTS, SolverOptions, check_merging
from .planning.schedule_file import Tuned

CHECKED_ON = "ort"
"""The backend that a new bundle is compared with PyTorch on: it needs no GPU."""
MEASURED = ("latency", "first-token-latency")
"""What a ratio may be of that is measured, on one layout."""
SHARED = ("first-token", "first-token-latency")
"""What a ratio may be of that tower and language model share."""
FLAGS = {"ratios": "--ratio", "image_sizes": "--image-size", "reference_text": "--text-tokens"}
"""Command-line options that are not called like their field."""
SOLVER = {
    f.name: f"--{f.metadata['flag'] or f.name.replace('_', '-')}"
    for f in fields(DEFAULTS)
    if f.metadata
}
"""Command-line options of the solver, by the names of its fields."""

Size = tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]


class ExportConfig(BaseModel):
    """All options of one export.

    Attributes:
        model: checkpoint directory or hub id.
        revision: branch, tag or commit of a hub id; None for the default branch.
        output: bundle folder; replaced when it is a bundle, refused when it is anything else.
        ratios: baseline / compressed language prefill; several make a layout each, and requests that
            name none run at the first. One may be given as `ratio`.
        ratio_of: what the ratio counts: FLOPs of the prefill or of the first token (the tower's too), or
            milliseconds of either measured on the backend.
        image_sizes: (height, width) in pixels of each layout; empty = one tile.
        image_tokens: the layouts' pictures are the largest of at most so many visual tokens at ratio 1, in
            the proportions of `image_sizes`, or square; None = of those sizes themselves.
        images: images (or videos) per prompt of each layout; 0 adds one for questions without any.
        frames: frames of a video of each layout; empty or 0 = images.
        dtype: of weights and computation.
        weights: how those of the language model's products are stored: as the others, or as whole numbers
            and scales.
        group_size: inputs that share a scale of int4 weights.
        calibrate: JSONL file of questions that whole numbers are chosen by (engines/questions.py); None =
            they are the nearest.
        calibrate_limit: first questions of it only.
        backend: what runs the bundle; for TensorRT its engines are built too.
        text_capacity: text tokens (prompt and answers) of one conversation.
        reference_text: text tokens of the prompt that the ratio is computed at.
        method: how tokens are scored and the ratio is spent; planning/methods.py.
        solver: what the solver is told beside the ratio, the method's own where nothing else was asked.
        schedule: a schedule of one's own instead of a solved one, or luvc-tune's.
        check: compare with PyTorch before the bundle gets its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", revalidate_instances="always")

    model: str
    revision: str | None = Field(default=None, min_length=1)
    output: Path = Path("bundle")
    ratios: tuple[Annotated[float, Field(ge=1)], ...] = Field(default=(2.0,), min_length=1)
    ratio_of: Literal["flops", "first-token", "latency", "first-token-latency"] = "flops"
    image_sizes: tuple[Size, ...] = ()
    image_tokens: int | None = Field(default=None, gt=0, le=1 << 16)
    images: tuple[Annotated[int, Field(ge=0)], ...] = (1,)
    frames: tuple[Annotated[int, Field(ge=0)], ...] = ()
    dtype: Dtype = "float32"
    weights: Literal["full", "int8", "int4"] = "full"
    group_size: Literal[16, 32, 64, 128, 256] = 128
    calibrate: Path | None = None
    calibrate_limit: int = Field(default=128, ge=1)
    backend: Literal["ort", "tensorrt", "tensorrt-rtx"] = "ort"
    text_capacity: int = Field(default=1024, ge=64)
    reference_text: int = Field(default=64, ge=1)
    method: str = methods.USUAL
    solver: SolverOptions = DEFAULTS
    schedule: Schedule | Tuned | None = None
    check: bool = True

    @classmethod
    def make(cls, **options: Any) -> "ExportConfig":
        """Build and check.

        Args:
            options: fields of this class, and by their own names those of SolverOptions and of the
                method's score.

        Raises:
            LuvcError: an option is out of range; names it.
        """
        own = {*cls.model_fields, "ratio"}
        asked = {name: options.pop(name) for name in set(options) - own}
        if (asked or "method" in options) and options.get("schedule") is not None:
            named = dict.fromkeys(flag(n) for n in ("ratio", "ratios", "method") if n in options)
            raise LuvcError(_either([*named, *(SOLVER.get(n, n) for n in asked)]))
        if asked:
            options["solver"] = methods.asked(options.get("method", methods.USUAL), asked)
        try:
            return cls(**options)
        except ValidationError as e:
            names = {name: flag(name) for name in cls.model_fields}
            names |= {f"solver.{name}": text for name, text in SOLVER.items()}
            raise LuvcError(strict_json.first_error(e, names)) from e

    @model_validator(mode="before")
    @classmethod
    def _by_method(cls, given: Any) -> Any:
        """The solver's options are the method's where none are given."""
        if isinstance(given, dict) and "method" in given and "solver" not in given:
            return given | {"solver": methods.asked(given["method"], {})}
        return given

    @model_validator(mode="before")
    @classmethod
    def _one_ratio(cls, given: Any) -> Any:
        """One ratio may be given by itself."""
        if not isinstance(given, dict) or "ratio" not in given:
            return given
        if "ratios" in given:
            raise ValueError("give either ratio or ratios")
        rest = {name: value for name, value in given.items() if name != "ratio"}
        return rest | {"ratios": (given["ratio"],)}

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for check in (
            self._check_model,
            self._check_ratios,
            self._check_images,
            self._check_text,
            self._check_groups,
            self._check_smaller,
            self._check_schedule,
        ):
            check()
        return self

    def _check_model(self) -> None:
        if self.revision is not None and Path(self.model).exists():
            raise ValueError(
                f"--revision {self.revision} is for hub ids, and {self.model} is here on the disk: leave "
                "it out"
            )

    def _check_ratios(self) -> None:
        if len(set(self.ratios)) < len(self.ratios):
            given = ", ".join(f"{ratio:g}x" for ratio in self.ratios)
            raise ValueError(f"--ratio is given twice: {given}; give each ratio once")
        if self.ratio_of in MEASURED and len(self.ratios) > 1:
            raise ValueError(
                f"--ratio-of {self.ratio_of} solves one layout: give one --ratio, or use --ratio-of flops"
            )

    def _check_text(self) -> None:
        if self.reference_text > self.text_capacity:
            raise ValueError(
                f"--text-tokens {self.reference_text} is more than --text-capacity "
                f"{self.text_capacity}, so the bundle could not run that prompt: lower one or raise the "
                "other"
            )

    def _check_groups(self) -> None:
        if "group_size" in self.model_fields_set and self.weights != "int4":
            raise ValueError(
                f"--group-size {self.group_size} is for --weights int4: add that, or leave the group size out"
            )
        if self.calibrate is not None and self.weights == "full":
            raise ValueError(
                f"--calibrate {self.calibrate} is for --weights int8 or int4: add one, or leave it out"
            )
        if "calibrate_limit" in self.model_fields_set and self.calibrate is None:
            raise ValueError(
                f"--calibrate-limit {self.calibrate_limit} is of --calibrate: give the questions too, or "
                "leave it out"
            )

    def _check_images(self) -> None:
        if not any(self.images):
            raise ValueError(
                "--images 0 adds a layout for questions without a picture, and there is nothing to compress: "
                "give another number too, such as --images 1 --images 0"
            )
        sizes, frames = len(self.image_sizes), len(self.frames)
        if self.ratio_of in MEASURED and max(sizes, frames, sum(map(bool, self.images))) > 1:
            raise ValueError(
                f"--ratio-of {self.ratio_of} solves one layout: give one --image-size and --images"
            )

    def _check_smaller(self) -> None:
        """A method that makes something smaller has no options of the solver, and they name no method."""
        usual = methods.find(self.method).options
        if {usual.smaller, self.solver.smaller} != {"none"} and self.solver != usual:
            raise ValueError(
                f"method {self.method} has no options of the solver: leave them out, or take another method"
            )
        if self.solver.smaller == "downsample" and self.ratio_of in MEASURED:
            raise ValueError(
                f"--ratio-of {self.ratio_of} measures schedules, and downsample changes the picture: use "
                "--ratio-of flops"
            )

    def _check_schedule(self) -> None:
        if self.schedule is None:
            check_merging(self.solver, shares=self.ratio_of in SHARED)
            return
        if self.ratio_of != "flops":
            raise ValueError(
                f"--ratio-of {self.ratio_of} solves a schedule, --schedule gives one: leave one out"
            )
        if twice := {"ratios", "method", "solver"} & self.model_fields_set:
            raise ValueError(_either(sorted(map(flag, twice))))

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
    def ratio(self) -> float:
        """The ratio, or the first of several, at which requests run that name none."""
        return self.ratios[0]

    @property
    def quantisation(self) -> Quantisation | None:
        """What the manifest says of the weights."""
        if self.weights == "full":
            return None
        size = self.group_size if self.weights == "int4" else None
        return Quantisation(kind=self.weights, group_size=size)

    @property
    def checkpoint(self) -> str:
        """The directory, the hub id or ID@REVISION, as Family.load reads it."""
        if self.revision is None or Path(self.model).exists():  # probes of latency are directories
            return self.model
        return f"{self.model}@{self.revision}"

    @property
    def validates(self) -> bool:
        """Whether ONNX Runtime can compare the bundle with PyTorch."""
        return self.check and self.dtype != "bfloat16"

    @property
    def solved_for(self) -> Solver | None:
        """What the manifest says of ratio and options; None where a schedule was given, not measured."""
        if self.schedule and self.ratio_of not in MEASURED:
            return None
        return self.solver.recorded(self.ratio, self.method, self.ratio_of)


def _either(given: list[str]) -> str:
    return f"give either --schedule or {', '.join(given)}: a schedule holds all that"


def flag(field: str) -> str:
    """What a field of ExportConfig is called on the command line."""
    return FLAGS.get(field, "--" + field.replace("_", "-"))
