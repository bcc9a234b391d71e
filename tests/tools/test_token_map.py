"""luvc-run --show-tokens: where tokens lie, what is left, and the picture itself."""

import numpy as np
import pytest
from PIL import Image

from luvc.engines.bundle.schedule import Merge
from luvc.exporter.vision.oim import merge_axis
from luvc.tools import run as run_tool
from luvc.tools.token_map import arrangement, edges, paint, survivors, views

from ..conftest import ask


def test_borders_follow_the_merges(workshop):
    """A token's part of the axis is exactly the positions that OIM averaged into it."""
    import torch

    layout = workshop.bundle("qwen2").manifest.layouts[0]
    schedule = layout.schedule.model_copy(
        update={
            "vision": (Merge(layer=0, axis="width", group=5), Merge(layer=1, axis="width", group=4))
        }
    )
    n, x = layout.grid[1], torch.eye(layout.grid[1])
    for group, length in ((5, 10), (4, 8)):
        x = merge_axis(x, 0, group, length)
    merged = layout.model_copy(
        update={
            "schedule": schedule,
            "merged_grid": (layout.grid[0], 8),
            "tokens_per_image": layout.grid[0] // 2 * 4,
        }
    )
    found = edges(merged, "width")
    assert len(found) == 5 and found[0] == 0 and found[-1] == 1
    for token in range(4):
        positions = np.flatnonzero(x[2 * token : 2 * token + 2].sum(0).numpy())
        assert positions[0] / n == pytest.approx(found[token])
        assert (positions[-1] + 1) / n == pytest.approx(found[token + 1])
    assert edges(merged, "height") == pytest.approx(np.linspace(0, 1, layout.grid[0] // 2 + 1))


def test_tiles_stand_where_the_processor_cuts_them(workshop, picture):
    vlm = workshop.vlm("qwen3-128-untied-tiles", 1.0)
    layout = vlm.manifest.layouts[0]
    assert arrangement(layout, (400, 200)) == (2, 1, True)
    assert arrangement(layout, (200, 400)) == (1, 2, True)
    whole, thumbnail = views(layout, [(400, 200)])
    per_tile = layout.tokens_per_image // layout.tiles
    assert thumbnail.name == "thumbnail"
    assert sorted({**whole.cells, **thumbnail.cells}) == list(range(layout.visual_tokens))
    # paint one token's part of a black picture white: only that token's tile must see it
    for ordinal in (0, 3, per_tile + 5):
        cell = whole.cells[ordinal]
        image = np.zeros((224, 448, 3), np.uint8)
        rows, columns = (
            slice(round(a * s), round(b * s))
            for a, b, s in ((cell.top, cell.bottom, 224), (cell.left, cell.right, 448))
        )
        image[rows, columns] = 255
        tiles = vlm.processor.pixels(vlm.processor.prompt(ask("?", image)))
        bright = [tile.max() > 1 for tile in tiles[: layout.tiles - 1]]
        assert bright.index(True) == ordinal // per_tile and sum(bright) == 1


def test_survivors_compose_the_stages(workshop, picture):
    vlm = workshop.vlm("qwen2")
    prompt = vlm.processor.prompt(ask("Why?", picture))
    _, result, _ = vlm.prefill([prompt])
    layout, kept = prompt.layout, {n: s.kept[0] for n, s in result.stages.items()}
    left = survivors(layout, kept)
    before = set(range(layout.visual_tokens))
    for prune in layout.schedule.language:
        now = left[prune.layer].tolist()
        assert len(now) == prune.keep and now == sorted(now) and set(now) <= before
        before = set(now)


def test_what_is_gone_is_faded(workshop):
    layout = workshop.bundle("qwen2").manifest.layouts[0]
    (view,) = views(layout, [(100, 100)])
    image = Image.new("RGB", (100, 100), (200, 0, 0))
    out = paint(image, view, np.array([0]))
    for ordinal, cell in view.cells.items():
        y, x = (
            int((a + b) / 2 * len(out))
            for a, b in ((cell.top, cell.bottom), (cell.left, cell.right))
        )
        assert tuple(out[y, x]) == ((200, 0, 0) if ordinal == 0 else tuple(out[-5, -5]))
    assert out[-5, -5].min() > 200


def test_the_command_writes_the_picture(workshop, picture, tmp_path, command):
    Image.fromarray(picture).save(tmp_path / "photo.png")
    for case, images in (("qwen2", 1), ("qwen2-two-images", 2)):
        target = tmp_path / f"{case}.png"
        options = ["--image", tmp_path / "photo.png"] * images
        result = command(
            run_tool,
            workshop.bundle(case).path,
            "Why?",
            *options,
            "--max-new-tokens",
            2,
            "--show-tokens",
            target,
        )
        assert result.code == 0, result.err
        stages = len(workshop.bundle(case).manifest.layouts[0].schedule.language)
        width, height = Image.open(target).size
        assert width == 450 * (stages + 1) and height > 300 * images
    result = command(
        run_tool,
        workshop.bundle("qwen2").path,
        "Why?",
        "--image",
        tmp_path / "photo.png",
        "--show-tokens",
        "/dev/null/x.png",
    )
    assert result.code == 2 and "cannot be written" in result.err
