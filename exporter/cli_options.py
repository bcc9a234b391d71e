"""Command-line options that luvc-export and luvc-plan share.

Each is a field of `Asked` or of the solver's options; `shared` puts them before a command's own.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

import typer

from ..dtypes import SHORT
from .config import SOLVER, ExportConfig
from .planning.defaults import DEFAULTS, SolverOptions, shown
from .planning.schedule_file import read_schedule
from .typed import parse_options, parse_parts, parse_ratio, parse_size

RATIOS = ("tower_ratio",)
"""Fields of the solver that are typed as --ratio is."""
USUAL = {name: found.default for name, found in ExportConfig.model_fields.items()}


@dataclass(frozen=True)
class Asked:
    """What both commands were asked for, as it was typed.

    Attributes:
        solver: the options of the solver that were given, by the names of its fields.
    """

    model: Annotated[str, typer.Option(help="Checkpoint directory or hub id.", metavar="DIR_OR_ID")]
    revision: Annotated[
        str | None,
        typer.Option(help="Branch, tag or commit of a hub id; default its main branch."),
    ] = None
    image_size: Annotated[
        list[str] | None,
        typer.Option(
            help="HEIGHTxWIDTH in pixels; repeat for more layouts; default one tile, where the model's own "
            "processor may cut a large picture into many.",
            metavar="HxW",
        ),
    ] = None
    image_tokens: Annotated[
        int | None,
        typer.Option(
            help="Take the largest picture of at most so many visual tokens at ratio 1, in the proportions "
            "of --image-size, or square.",
            min=1,
        ),
    ] = None
    images: Annotated[
        list[int] | None,
        typer.Option(
            help="Images per prompt; repeat: every number is combined with every size; 0 adds a layout for "
            "questions without a picture; default 1.",
            min=0,
        ),
    ] = None
    frames: Annotated[
        list[int] | None,
        typer.Option(
            help="Frames of a video instead of an image, in families whose processor takes videos; 0 for "
            "images; repeat: every number is combined with every size.",
            min=0,
        ),
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option(help="fp32, fp16 or bf16; default fp32, and fp16 for a TensorRT backend."),
    ] = None
    weights: Annotated[
        str,
        typer.Option(
            help="full, or int8 or int4: the language model's weights as whole numbers with scales."
        ),
    ] = USUAL["weights"]
    group_size: Annotated[
        int | None,
        typer.Option(
            help="Inputs that share a scale of int4 weights: 16, 32, 64, 128 or 256; default 128."
        ),
    ] = None
    text_capacity: Annotated[
        int,
        typer.Option(
            help="Text tokens (prompts and answers) one conversation can hold. On TensorRT every step looks "
            "at all of it: no larger than needed."
        ),
    ] = USUAL["text_capacity"]
    text_tokens: Annotated[
        int, typer.Option(help="Text tokens of the prompt the ratio is computed at.")
    ] = USUAL["reference_text"]
    method: Annotated[
        str | None,
        typer.Option(
            help="How visual tokens are scored and the ratio is spent, of luvc-plan --methods; default luvc."
        ),
    ] = None
    method_option: Annotated[
        list[str] | None,
        typer.Option(help="An option of the method's score; repeat.", metavar="NAME=VALUE"),
    ] = None
    schedule: Annotated[
        Path | None,
        typer.Option(
            help="A schedule of your own, or luvc-tune's (JSON), instead of a solved one."
        ),
    ] = None
    solver: dict[str, Any] = field(default_factory=dict)

    def config(
        self, ratios: Sequence[str] | None, backend: str = "ort", **options: Any
    ) -> ExportConfig:
        """An ExportConfig of what was typed.

        Args:
            ratios: as they were typed; none for the default.
            backend: decides the default dtype.
            options: other fields of ExportConfig.

        Raises:
            LuvcError: an option cannot be read or is out of range.
        """
        given: dict[str, Any] = {"ratios": tuple(map(parse_ratio, ratios))} if ratios else {}
        given |= {} if self.method is None else {"method": self.method}
        given |= parse_options(self.method_option or ())
        given |= {} if self.group_size is None else {"group_size": self.group_size}
        dtype = self.dtype or ("fp32" if backend == "ort" else "fp16")
        return ExportConfig.make(
            model=self.model,
            revision=self.revision,
            image_sizes=tuple(parse_size(s) for s in self.image_size or ()),
            image_tokens=self.image_tokens,
            images=tuple(self.images or (1,)),
            frames=tuple(self.frames or ()),
            dtype=SHORT[dtype].name if dtype in SHORT else dtype,
            backend=backend,
            weights=self.weights,
            text_capacity=self.text_capacity,
            reference_text=self.text_tokens,
            schedule=read_schedule(self.schedule) if self.schedule else None,
            **given,
            **self.solver,
            **options,
        )


def shared(command: Callable[..., None]) -> Callable[..., None]:
    """A command of the signature (asked: Asked, own options) with every shared option among its own."""
    first = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in first]
    asked = [_parameter(f, get_type_hints(Asked, include_extras=True)[f.name]) for f in _typed()]
    solver = {_argument(name): name for name in SOLVER}

    @wraps(command)
    def run(**typed: Any) -> None:
        given = {solver[name]: typed.pop(name) for name in solver}
        told = {name: _read(name, v) for name, v in given.items() if v is not None}
        common = {f.name: typed.pop(f.name) for f in _typed()}
        command(Asked(**common, solver=told), **typed)

    model, revision, *others = asked  # what people type most stands first
    typed = [_solver_parameter(f) for f in fields(SolverOptions) if f.name in SOLVER]
    parameters = [model, revision, *own, *others, *typed]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _typed() -> list[Field]:
    return [f for f in fields(Asked) if f.name != "solver"]


def _parameter(option: Field, annotation: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if option.default is MISSING else option.default
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(option.name, kind, default=default, annotation=annotation)


def _argument(name: str) -> str:
    """The solver's field as an argument of a command: "match" is typed as --oim-match."""
    return SOLVER[name].removeprefix("--").replace("-", "_")


def _solver_parameter(option: Field) -> inspect.Parameter:
    """An option that is None unless it is typed; its help ends with the default."""
    kind = str if option.name in RATIOS else _base_type(get_type_hints(SolverOptions)[option.name])
    usual, said = getattr(DEFAULTS, option.name), option.metadata["help"]
    if kind is not bool:
        said = f"{said.removesuffix('.')}; default {shown(usual)}."
    typed = typer.Option(help=said, metavar=option.metadata["metavar"], rich_help_panel="Solver")
    return inspect.Parameter(
        _argument(option.name),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, typed],
    )


def _base_type(annotation: Any) -> Any:
    """What the command line reads: texts for choices and lists, numbers and flags as they are."""
    return str if get_origin(annotation) is not None else annotation


def _read(name: str, value: Any) -> Any:
    """What was typed for a field of the solver."""
    if name in RATIOS:
        return parse_ratio(value)
    parts = isinstance(getattr(DEFAULTS, name), tuple) or (name == "keeps" and "," in value)
    return parse_parts(value, SOLVER[name]) if parts else value
