"""One export from start to end: plan, load, write, validate, swap in."""

from ..engines.backends import backend as load_backend
from ..engines.backends import engine_builder
from ..engines.bundle.folder import Bundle
from ..engines.bundle.manifest import Layout
from ..engines.bundle.schedule import Schedule
from ..engines.bundle.swap import check_target, replacing
from ..errors import LuvcError
from .assemble import Progress, assemble, write_manifest
from .check.parity import CHECKED_ON, check, reference_runner, reports
from .checkpoint.family import Family
from .checkpoint.weights import fetch_weights, load_model
from .config import ExportConfig
from .planning.problem import check_schedule
from .planning.solver import solve
from .timing.latency import Timed, for_latency

__all__ = ["export", "plan", "reference_runner", "reports"]


def plan(config: ExportConfig, family: Family | None = None) -> tuple[Layout, ...]:
    """The layouts of an export: sizes, schedules, ratios. Reads configs, no weights.

    Raises:
        LuvcError: unsupported model, size or ratio.
    """
    family = family or Family.load(config.checkpoint)
    layouts = []
    for size in config.image_sizes or (None,):
        for images in filter(None, config.images):
            for frames in config.frames or (0,):
                geometry = family.geometry(size, images, frames)
                problem = family.problem(geometry, config.reference_text)
                if config.schedule is None:
                    schedule = solve(problem, config.ratio, config.options)
                else:
                    schedule = check_schedule(problem, config.schedule)
                layouts.append(family.layout(geometry, config.reference_text, schedule))
    layouts += [family.text_layout() for images in config.images if not images]
    names = [layout.name for layout in layouts]
    if len(set(names)) < len(names):
        raise LuvcError(
            f"layouts are named twice: {', '.join(names)}; give each size and count once"
        )
    _check_positions(config, family, layouts)
    if family.adapter.follows and any(layout.schedule.match for layout in layouts):
        raise LuvcError(
            f"--oim-match moves tokens by what they show; {config.model} ties positions (rotary ones, or "
            "packed tiles) to the grid: leave --oim-match out"
        )
    return tuple(layouts)


def export(
    config: ExportConfig,
    progress: Progress = lambda step: None,
    family: Family | None = None,
) -> Bundle:
    """Write a bundle; it gets its name only when everything has passed.

    Args:
        config: what is asked for.
        progress: called with the name of each step as it starts.
        family: of config.model, where it was already read.

    Raises:
        LuvcError: the request cannot be met, or validation failed; an earlier bundle stays. Engines
            that cannot be built leave the new bundle, which runs on ONNX Runtime.
    """
    check_target(config.output)
    config.check_backend()
    _check_match(config)
    if config.validates:
        load_backend(CHECKED_ON)
    if config.backend != CHECKED_ON:
        engine_builder(config.backend).check_machine()
    progress("reading the config and solving the schedule")
    family = family or Family.load(config.checkpoint)
    if config.ratio_of == "latency":
        config, _ = solve_for_latency(config, family, progress)
    layouts = plan(config, family)
    _check_match(config, any(layout.schedule.match for layout in layouts))
    fetch_weights(family, progress)
    progress("loading the weights")
    model = load_model(family)
    with replacing(config.output) as folder:
        manifest = assemble(config, family, layouts, model, folder, progress)
        if config.validates:
            depth = check(config, family, model, Bundle.load(folder), progress)
            found = {"validated": depth == manifest.language.layers, "validated_layers": depth}
            write_manifest(folder, manifest.model_copy(update=found))
    bundle = Bundle.load(config.output)
    if config.backend == CHECKED_ON:
        return bundle
    progress(f"building the {config.backend} engines")
    return engine_builder(config.backend).build(bundle)[0]


def solve_for_latency(
    config: ExportConfig, family: Family, progress: Progress = lambda step: None
) -> tuple[ExportConfig, Timed]:
    """The same export with a schedule whose measured prefill has the ratio, and the measurement.

    Raises:
        LuvcError: see latency.for_latency.
    """
    check_target(config.output)
    config.check_backend()
    _check_match(config)
    # what no schedule could mend is refused before anything is measured
    plan(config.model_copy(update={"schedule": Schedule()}), family)
    fetch_weights(family, progress)
    timed = for_latency(config, family, progress, export)
    return config.model_copy(update={"schedule": timed.schedule, "ratio_of": "flops"}), timed


def _check_match(config: ExportConfig, matched: bool = False) -> None:
    """Refuse to match in half precision what would then be compared with PyTorch."""
    if (config.match or matched) and config.validates and config.dtype != "float32":
        raise LuvcError(
            "--oim-match picks the most similar neighbours, and half precision picks others where two "
            "are nearly as similar, so it cannot be validated: use --dtype fp32 or --no-validate"
        )


def _check_positions(config: ExportConfig, family: Family, layouts: list[Layout]) -> None:
    """Rotary positions must not run past what the text model was made for."""
    limit = family.config.text_config.max_position_embeddings
    for layout in layouts:
        longest = layout.longest_position(config.text_capacity)
        if longest > limit:
            raise LuvcError(
                f"layout {layout.name} has {layout.visual_tokens} visual tokens and a text capacity of "
                f"{config.text_capacity}: together more than the model's {limit} positions; lower "
                "--text-capacity or use a smaller image"
            )
