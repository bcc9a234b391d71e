"""Layouts of a family: what one image size becomes, as the solver sees it and as the manifest says it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...engines.bundle.folder import GRAPHS
from ...engines.bundle.layout import Graphs, Layout, Ratios
from ...engines.bundle.schedule import Schedule, stages_of
from ...errors import LuvcError, brief
from ..checkpoint.config import making_sense
from ..checkpoint.family import Family
from ..planning.grid import Grid
from ..planning.methods import in_tower
from ..planning.problem import Problem
from ..vision.adapter import ImageGeometry
from ..vision.families import video_families


@dataclass(frozen=True)
class Planned:
    """A layout with what it was made from; only `layout` where there is no picture.

    Attributes:
        layout: the manifest's entry.
        geometry: what one of its images becomes.
        problem: what its schedule was solved for or held against.
    """

    layout: Layout
    geometry: ImageGeometry | None = None
    problem: Problem | None = None


def image_geometry(
    family: Family, size: tuple[int, int] | None = None, images: int = 1, frames: int = 0
) -> ImageGeometry:
    """What one of `images` images (or videos) of `size` = (height, width) becomes.

    Raises:
        LuvcError: the family's processor cannot give this; says what it can.
    """
    adapter, kind = family.adapter, family.config.model_type
    if frames and not adapter.video:
        raise LuvcError(
            f"{kind} knows no videos: give --images {max(2, frames)} instead of --frames {frames}, and a "
            f"video is shown as so many images; families with videos are {', '.join(video_families())}"
        )
    with making_sense(family.source):
        try:
            found = adapter.geometry(family.config, family.image_processor, size, images, frames)
        except LuvcError:
            raise
        except ValueError as e:  # processors refuse extreme shapes in their own words
            raise LuvcError(f"the image processor of {kind} refuses {size}: {brief(e)}") from e
    grid, block = found.grid, family.multiple
    if grid.h % block.h or grid.w % block.w:
        raise LuvcError(
            f"a grid of {grid.h}x{grid.w} vision tokens does not divide into the projector's blocks of "
            f"{block.h}x{block.w}: mend the image size in config.json and preprocessor_config.json"
        )
    return found


def problem_of(family: Family, geometry: ImageGeometry, text_tokens: int) -> Problem:
    """The layout as the schedule solver sees it."""
    with making_sense(family.source):
        encoder, multiple = family.encoder, family.multiple
    asked = None
    if geometry.asked:
        full = image_geometry(family, geometry.asked, geometry.images, geometry.frames)
        asked = problem_of(family, full, text_tokens)
    return Problem(
        decoder=family.decoder,
        encoder=encoder,
        grid=geometry.grid,
        multiple=multiple,
        tiles=geometry.tiles * geometry.images,
        images=geometry.images,
        text_tokens=text_tokens,
        count=lambda merges, exit: family.adapter.tokens(family.config, geometry, merges, exit),
        asked=asked,
    )


def layout_of(
    family: Family, geometry: ImageGeometry, problem: Problem, schedule: Schedule
) -> Layout:
    """The manifest's entry of a geometry under a schedule.

    Raises:
        LuvcError: the checkpoint gives what no manifest may hold.
    """
    with making_sense(family.source):
        return _layout(family, geometry, problem, schedule)


def _layout(
    family: Family, geometry: ImageGeometry, problem: Problem, schedule: Schedule
) -> Layout:
    adapter, config = family.adapter, family.config
    merged = problem.leaving(schedule)
    V = problem.visual_tokens(schedule.lasting, schedule.exit)
    per_image = V // geometry.images
    name = layout_name(geometry)
    block = family.multiple
    seen = replace(geometry, grid=Grid(merged.h // block.h, merged.w // block.w))
    expansion = adapter.expansion(family.tokenizer, family.image_processor, seen, per_image)
    return Layout(
        name=name,
        image_size=geometry.size,
        images=geometry.images,
        frames=geometry.frames,
        sampling=adapter.sampling,
        frames_as_images=not adapter.video,
        tiles=geometry.tiles,
        pixel_shape=geometry.pixel_shape,
        grid=(geometry.grid.h, geometry.grid.w),
        merged_grid=(merged.h, merged.w),
        visual_grid=adapter.visual_grid(config, geometry, merged),
        tokens_per_image=per_image,
        visual_tokens=V,
        baseline_visual_tokens=problem.baseline.visual_tokens(()),
        baseline_size=geometry.asked,
        placeholder=adapter.placeholder(family.tokenizer, geometry.frames),
        expansion=tuple(expansion),
        resize=geometry.resize,
        processor_options=geometry.options,
        schedule=schedule,
        stages=stages_of(schedule.visual_per_layer(problem.decoder.layers, V)),
        ratios=problem.ratios(schedule),
        graphs=_graphs(name),
    )


def text_layout(family: Family) -> Layout:
    """The manifest's entry of questions without a picture: nothing to see, nothing to compress.

    Raises:
        LuvcError: the family takes no such question.
    """
    if family.adapter.needs_image:
        kind = family.config.model_type
        raise LuvcError(f"{kind} takes no question without a picture: leave --images 0 out")
    return Layout(
        name="text",
        image_size=(0, 0),
        images=0,
        tiles=0,
        pixel_shape=(),
        grid=(0, 0),
        merged_grid=(0, 0),
        tokens_per_image=0,
        visual_tokens=0,
        baseline_visual_tokens=0,
        placeholder=family.adapter.placeholder(family.tokenizer, 0),
        expansion=(),
        processor_options={},
        schedule=Schedule(),
        stages=stages_of((0,) * family.decoder.layers),
        ratios=Ratios(vision=1, prefill=1, both=1),
        graphs=_graphs("text").model_copy(update={"vision": ""}),
    )


def plan_layout(
    family: Family, geometry: ImageGeometry, text_tokens: int, schedule: Schedule
) -> Planned:
    """A layout under a schedule that is known."""
    problem = problem_of(family, geometry, text_tokens)
    return Planned(layout_of(family, geometry, problem, schedule), geometry, problem)


def replan(
    family: Family, layout: Layout, text_tokens: int, schedule: Schedule | None = None
) -> Planned:
    """A bundle's layout with images planned once more, under its own schedule or another."""
    geometry = image_geometry(family, layout.image_size, layout.images, layout.frames)
    geometry = replace(geometry, asked=layout.baseline_size)
    schedule = layout.schedule if schedule is None else schedule
    return plan_layout(family, geometry, text_tokens, schedule)


def uncompressed(family: Family, layout: Layout, text_tokens: int) -> Layout:
    """A bundle's layout with images as the checkpoint has it: ratio 1, at the size that was asked for."""
    size = layout.baseline_size or layout.image_size
    geometry = image_geometry(family, size, layout.images, layout.frames)
    plain = plan_layout(family, geometry, text_tokens, Schedule()).layout
    return plain.model_copy(update={"name": layout.name})  # it is asked for by that


def named(planned: Planned, ratio: float) -> Planned:
    """A layout of a bundle of several ratios, which says its own: "448x448-2x"."""
    name = f"{planned.layout.name}-{ratio:g}x"
    layout = planned.layout.model_copy(update={"name": name, "graphs": _graphs(name)})
    return replace(planned, layout=layout)


def share_towers(plans: Sequence[Planned]) -> tuple[Planned, ...]:
    """The same layouts, with one vision graph for all ratios of a geometry whose tower is the same."""
    first: dict[str, str] = {}
    found = []
    for planned in plans:
        layout = planned.layout
        path = first.setdefault(tower_signature(layout), layout.graphs.vision)
        graphs = layout.graphs.model_copy(update={"vision": path})
        found.append(replace(planned, layout=layout.model_copy(update={"graphs": graphs})))
    return tuple(found)


def tower_signature(layout: Layout) -> str:
    """What a layout's vision graph is made from, the ratio and what follows from it in the text aside."""
    parts = layout.images, layout.frames, layout.tiles, layout.pixel_shape, layout.grid
    sizes = layout.image_size, layout.visual_grid, layout.expansion, layout.processor_options
    return repr((*parts, *sizes, in_tower(layout.schedule)))


def layout_name(geometry: ImageGeometry) -> str:
    """What a layout is called: "448x448", "224x224-2images", "224x224-4frames"."""
    h, w = geometry.size
    images = f"-{geometry.images}images" if geometry.images > 1 else ""
    frames = f"-{geometry.frames}frames" if geometry.frames else ""
    return f"{h}x{w}{images}{frames}"


def _graphs(layout: str) -> Graphs:
    """Paths of a layout's graphs in the bundle."""
    return Graphs(**{kind: f"{GRAPHS}/{kind}-{layout}.onnx" for kind in Graphs.model_fields})
