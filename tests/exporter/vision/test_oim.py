"""OIM against plain numpy, and inside the tower against Hugging Face's own layers."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from luvc.engines.bundle.schedule import Merge, Schedule
from luvc.exporter.planning.grid import Grid, merge_grid
from luvc.exporter.vision.families import adapter_class
from luvc.exporter.vision.graph import VisionGraph
from luvc.exporter.vision.oim import FixedStep, MatchedStep, merge_axis, restored, spread_axis


def naive(line, group, length):
    """One line of tokens, token by token: the last two of a group are averaged."""
    n = len(line)
    out = []
    i = 0
    for _ in range(n - length):
        out += [*line[i : i + group - 2], (line[i + group - 2] + line[i + group - 1]) / 2]
        i += group
    return np.array(out + list(line[i:]))


@pytest.mark.parametrize(
    ("n", "group", "length"),
    [(8, 2, 4), (8, 4, 6), (12, 3, 8), (10, 3, 8), (27, 2, 14), (9, 5, 8), (6, 6, 5), (5, 2, 5)],
)
def test_merge_axis(n, group, length):
    x = torch.randn(3, n, 4, dtype=torch.float64)
    wanted = np.stack([naive(row, group, length) for row in x.numpy()])
    np.testing.assert_allclose(merge_axis(x, 1, group, length).numpy(), wanted, atol=1e-12)
    turned = merge_axis(x.transpose(1, 2).contiguous(), 2, group, length).transpose(1, 2)
    np.testing.assert_allclose(turned.numpy(), wanted, atol=1e-12)


def naive_similar(row, length):
    """The similarity form, token by token."""
    n = len(row)
    unit = row / np.linalg.norm(row, axis=1, keepdims=True)
    options = []
    for i in range(1, n, 2):
        left, right = unit[i] @ unit[i - 1], unit[i] @ unit[i + 1] if i + 1 < n else -2.0
        options.append((max(left, right), i, i - 1 if left >= right else i + 1))
    chosen = sorted(options, key=lambda o: -o[0])[: n - length]
    groups = {i: [row[i]] for i in range(n)}
    for _, odd, even in chosen:
        groups[even].append(row[odd])
        del groups[odd]
    return np.stack([np.mean(groups[i], axis=0) for i in sorted(groups)])


@pytest.mark.parametrize(("n", "length"), [(8, 4), (8, 6), (9, 7), (12, 11), (7, 4), (6, 6)])
def test_merge_similar(n, length):
    x = torch.randn(5, n, 16)
    wanted = np.stack([naive_similar(row, length) for row in x.numpy()])
    step = MatchedStep(Grid(1, n), Grid(1, length), WIDE, x, (n,))
    np.testing.assert_allclose(step.merge(x).numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("match", [False, True])
@pytest.mark.parametrize("axis", ["width", "height"])
def test_merge_tokens_merges_rows_or_columns_behind_the_prefix(match, axis):
    before, merge = Grid(4, 6), Merge(layer=0, axis=axis, group=2)
    after = merge_grid(before, merge, Grid(2, 2))
    x = torch.randn(2, 1 + before.tokens, 8)
    y = merge_tokens(x, before, after, merge, prefix=1, match=match)
    assert y.shape == (2, 1 + after.tokens, 8)
    assert torch.equal(y[:, :1], x[:, :1])
    for tile, found in zip(x[:, 1:].numpy(), y[:, 1:].numpy(), strict=True):
        rows = tile.reshape(4, 6, 8)
        lines = rows if axis == "width" else rows.swapaxes(0, 1)
        length = 4 if axis == "width" else 2
        merged = np.stack(
            [naive_similar(n, length) if match else naive(n, 2, length) for n in lines]
        )
        wanted = merged if axis == "width" else merged.swapaxes(0, 1)
        np.testing.assert_allclose(found, wanted.reshape(-1, 8), atol=1e-5)


def model(workshop) -> Any:
    from transformers import InternVLForConditionalGeneration

    path = workshop.checkpoint(layers=5, vision_layers=4, image=168)
    return InternVLForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()


def tower(m, schedule):
    layout: Any = SimpleNamespace(grid=(12, 12), schedule=schedule, tiles=1)
    return VisionGraph(m, adapter_class("internvl"), layout)


def test_empty_schedule_equals_hugging_face(workshop):
    m, pixels = model(workshop), torch.randn(2, 3, 168, 168)
    with torch.no_grad():
        wanted = m.model.get_image_features(pixels).pooler_output
        ours = tower(m, Schedule())(pixels)
    assert torch.allclose(ours, wanted, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 2])
def test_merges_equal_hand_merged_hidden_states(workshop, layer):
    """Hugging Face's forward with hooks that merge by hand; a square result, as its reshape needs."""
    m, pixels = model(workshop), torch.randn(2, 3, 168, 168)
    schedule = Schedule(
        vision=(
            Merge(layer=layer, axis="width", group=2),
            Merge(layer=layer, axis="height", group=2),
        )
    )

    def merge_by_hand(module, args):
        x = args[0].double().numpy()
        tiles = []
        for cls, grid in zip(x[:, :1], x[:, 1:].reshape(-1, 12, 12, x.shape[2]), strict=True):
            wide = np.stack([naive(row, 2, 6) for row in grid])
            both = np.stack([naive(wide[:, c], 2, 6) for c in range(6)], axis=1)
            tiles.append(np.concatenate([cls, both.reshape(36, -1)]))
        return (torch.tensor(np.stack(tiles)).float(),)

    hook = m.model.vision_tower.encoder.layer[layer].register_forward_pre_hook(merge_by_hand)
    with torch.no_grad():
        wanted = m.model.get_image_features(pixels).pooler_output
        hook.remove()
        ours = tower(m, schedule)(pixels)
    assert ours.shape == (2, 9, 256)
    assert torch.allclose(ours, wanted, atol=1e-5)


def test_rectangles_go_through_the_projector(workshop):
    m, pixels = model(workshop), torch.randn(1, 3, 168, 168)
    merge = (Merge(layer=1, axis="width", group=4),)
    with torch.no_grad():
        assert tower(m, Schedule(vision=merge))(pixels).shape == (
            1,
            30,
            256,
        )  # 12 columns: 9 rounded up to 10
