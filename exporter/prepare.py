"""Everything of an export that can be decided, refused or planned before a weight is read."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..dtypes import DTYPES
from ..engines.backends import backend as load_backend
from ..engines.backends import engine_builder
from ..engines.bundle.folder import WEIGHTS
from ..engines.bundle.layout import Layout
from ..engines.bundle.schedule import Schedule
from ..engines.bundle.swap import check_target
from ..engines.questions import Item, read_jsonl
from ..errors import LuvcError
from .assemble import weights_file
from .checkpoint.family import Family
from .checkpoint.identity import config_digest
from .checkpoint.weights import shapes_of
from .config import CHECKED_ON, MEASURED, SHARED, ExportConfig
from .layouts.downsample import plan_smaller
from .layouts.planned import (
    Planned,
    image_geometry,
    layout_name,
    layout_of,
    named,
    problem_of,
    share_towers,
    text_layout,
)
from .layouts.score_fits import check_precision, check_probes, check_score
from .layouts.token_budget import largest_picture
from .onnx.weights_file import WeightsFile
from .planning.first_token import check_shared, solve_first_token
from .planning.problem import Problem, check_schedule
from .planning.schedule_file import Tuned
from .planning.solver import solve
from .vision.adapter import ImageGeometry


@dataclass(frozen=True)
class Prepared:
    """An export that was checked and planned.

    Attributes:
        config: what was asked for.
        family: of its model.
        plans: of each layout, those with images first. Where the ratio is of measured time, their schedules
            are empty until that was measured (timing/latency.py).
        questions: that weights are calibrated on.
    """

    config: ExportConfig
    family: Family
    plans: tuple[Planned, ...]
    questions: tuple[Item, ...] = ()

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """What the manifest will say of the layouts."""
        return tuple(planned.layout for planned in self.plans)

    def scheduled(self, schedule: Schedule, **changes: Any) -> "Prepared":
        """The same export under another schedule, and with other fields of its config.

        Args:
            schedule: checked already; of every layout with images.
            changes: fields of ExportConfig.
        """
        config = self.config.model_copy(
            update={"schedule": schedule, "ratio_of": "flops"} | changes
        )
        plans = (_rescheduled(self.family, planned, schedule) for planned in self.plans)
        return replace(self, config=config, plans=tuple(plans))


def prepare(config: ExportConfig, family: Family | None = None) -> Prepared:
    """Check an export and plan it; reads configs and processor files, no weights.

    Args:
        config: what is asked for.
        family: of config.model, where it was already read.

    Raises:
        LuvcError: the output, the backend, the model, a size or the ratio cannot be met.
    """
    check_target(config.output)
    config.check_backend()
    if config.validates:
        load_backend(CHECKED_ON)
    if config.backend != CHECKED_ON:
        engine_builder(config.backend).check_machine()
    family = family or Family.load(config.checkpoint)
    check_weights(config, family)
    plans = plan_layouts(config, family)
    check_precision(config, (planned.layout.schedule for planned in plans))
    if config.quantisation is not None:
        planned_weights(family, config)
    return Prepared(config, family, plans, _questions(config, plans))


def _questions(config: ExportConfig, plans: tuple[Planned, ...]) -> tuple[Item, ...]:
    """What weights are to be calibrated on.

    Raises:
        LuvcError: the file cannot be read, or a question has a number of pictures that no layout takes.
    """
    if config.calibrate is None:
        return ()
    items = read_jsonl(config.calibrate, config.calibrate_limit, needs_answers=False)
    counts = {planned.layout.images for planned in plans if not planned.layout.frames}
    if not counts:
        raise LuvcError(
            "--calibrate reads questions about pictures, and all layouts are of videos: leave out one of "
            "--frames and --calibrate"
        )
    for item in items:
        if len(item.images) not in counts:
            taken = " or ".join(map(str, sorted(counts)))
            raise LuvcError(
                f"--calibrate {config.calibrate}, question {item.id} has {len(item.images)} pictures, and "
                f"the bundle's layouts take {taken}: leave it out, or give --images {len(item.images)} too"
            )
    return tuple(items)


def check_weights(config: ExportConfig, family: Family) -> None:
    """Refuse to round weights that were rounded already.

    Raises:
        LuvcError: the checkpoint is quantised, and --weights asks for other codes; or a prompt says
            too little of its layers to calibrate them.
    """
    if config.quantisation is not None and family.format is not None:
        raise LuvcError(
            f"--weights {config.weights}: {family.source} is quantised already ({family.format.about}), and "
            "rounding twice loses more than either: leave --weights out, or give the checkpoint it was made "
            "from"
        )
    if config.calibrate is not None and family.traits.shared:
        raise LuvcError(
            f"--calibrate: the last {family.traits.shared} layers of {family.source} share keys and "
            "values and see a prompt's last token alone, too few to calibrate on: leave it out"
        )


def planned_weights(family: Family, config: ExportConfig) -> WeightsFile:
    """The bundle's weights file, from the shapes alone; its `bytes` are those that an export writes.

    Raises:
        LuvcError: a weight does not fit the groups.
    """
    dtype = DTYPES[config.dtype].torch
    return weights_file(Path(WEIGHTS), shapes_of(family), family, dtype, config.quantisation)


def plan(config: ExportConfig, family: Family | None = None) -> tuple[Layout, ...]:
    """The layouts of an export: sizes, schedules, ratios. Reads configs, no weights.

    Raises:
        LuvcError: unsupported model, size or ratio.
    """
    family = family or Family.load(config.checkpoint)
    return tuple(planned.layout for planned in plan_layouts(config, family))


def plan_layouts(config: ExportConfig, family: Family) -> tuple[Planned, ...]:
    """`plan`, with what each layout was made from.

    Raises:
        LuvcError: unsupported size or ratio, two layouts of one name, positions out of range.
    """
    if isinstance(config.schedule, Tuned):
        config.schedule.check(family.source, config=config_digest(family))
    plans = tuple(_plans(config, family))
    names = [planned.layout.name for planned in plans]
    if len(set(names)) < len(names):
        raise LuvcError(
            f"layouts are named twice: {', '.join(names)}; give each size and count once"
        )
    for planned in plans:
        _check_positions(config, family, planned.layout)
        check_score(family, planned.layout.schedule)
    if config.ratio_of in MEASURED:
        check_probes(config, family)
    for schedule in (planned.layout.schedule for planned in plans):
        if family.adapter.packs_merged and schedule.match and schedule.lasting:
            raise LuvcError(
                f"--oim-match merges other tokens in every picture; {config.model} packs its tiles by their "
                "grid: add --oim-restore, which gives the grid back, or leave --oim-match out"
            )
    return plans


def _plans(config: ExportConfig, family: Family) -> Iterator[Planned]:
    for size in config.image_sizes or (None,):
        for images in filter(None, config.images):
            for frames in config.frames or (0,):
                geometry = _geometry(config, family, size, images, frames)
                yield from share_towers(tuple(_of_ratios(config, family, geometry)))
    yield from (Planned(text_layout(family)) for images in config.images if not images)


def _geometry(
    config: ExportConfig, family: Family, size: tuple[int, int] | None, images: int, frames: int
) -> ImageGeometry:
    if config.image_tokens is None:
        return image_geometry(family, size, images, frames)
    return largest_picture(family, size, config.image_tokens, images, frames)


def _of_ratios(config: ExportConfig, family: Family, geometry: ImageGeometry) -> Iterator[Planned]:
    """The layouts of one size and count; of several ratios each is named after its own."""
    for ratio in config.ratios:
        planned = _planned(config, family, geometry, ratio)
        yield named(planned, ratio) if len(config.ratios) > 1 else planned


def _planned(
    config: ExportConfig, family: Family, geometry: ImageGeometry, ratio: float
) -> Planned:
    """The layout of one size and count at a ratio."""
    if config.schedule is None and config.solver.smaller == "downsample":
        return plan_smaller(family, geometry, ratio, config.reference_text)
    problem = problem_of(family, geometry, config.reference_text)
    schedule = _schedule(config, layout_name(geometry), problem, ratio)
    return Planned(layout_of(family, geometry, problem, schedule), geometry, problem)


def _schedule(config: ExportConfig, layout: str, problem: Problem, ratio: float) -> Schedule:
    """The schedule of one layout; none yet where it is solved for measured time."""
    if config.ratio_of in SHARED:
        check_shared(config.solver, config.ratio_of)
    if config.ratio_of in MEASURED:
        return Schedule()
    if isinstance(config.schedule, Tuned):
        return check_schedule(problem, config.schedule.of(layout))
    if config.schedule is not None:
        return check_schedule(problem, config.schedule)
    if config.ratio_of == "first-token":
        return solve_first_token(problem, ratio, config.solver)
    return solve(problem, ratio, config.solver)


def _rescheduled(family: Family, planned: Planned, schedule: Schedule) -> Planned:
    if planned.geometry is None or planned.problem is None:
        return planned
    layout = layout_of(family, planned.geometry, planned.problem, schedule)
    return replace(planned, layout=layout)


def _check_positions(config: ExportConfig, family: Family, layout: Layout) -> None:
    """Rotary positions must not run past what the text model was made for."""
    limit = family.config.text_config.max_position_embeddings
    longest = layout.longest_position(config.text_capacity)
    if longest > limit:
        raise LuvcError(
            f"layout {layout.name} has {layout.visual_tokens} visual tokens and a text capacity of "
            f"{config.text_capacity}: together more than the model's {limit} positions; lower "
            "--text-capacity or use a smaller image"
        )
