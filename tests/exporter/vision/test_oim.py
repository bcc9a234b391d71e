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

WIDE = Merge(layer=0, axis="width", group=2)


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
def test_steps_merge_rows_or_columns(match, axis):
    before, merge = Grid(4, 6), Merge(layer=0, axis=axis, group=2)
    after = merge_grid(before, merge, Grid(2, 2))
    x = torch.randn(2, before.tokens, 8)
    y = step_of(match, before, after, merge, x).merge(x)
    for tile, found in zip(x.numpy(), y.numpy(), strict=True):
        rows = tile.reshape(4, 6, 8)
        lines = rows if axis == "width" else rows.swapaxes(0, 1)
        length = 4 if axis == "width" else 2
        merged = np.stack(
            [naive_similar(n, length) if match else naive(n, 2, length) for n in lines]
        )
        wanted = merged if axis == "width" else merged.swapaxes(0, 1)
        np.testing.assert_allclose(found, wanted.reshape(-1, 8), atol=1e-5)


def step_of(match, before, after, merge, x):
    spans = (before.length(merge.axis),)
    return MatchedStep(before, after, merge, x, spans) if match else FixedStep(before, after, merge)


@pytest.mark.parametrize(("n", "group", "length"), [(8, 2, 4), (10, 3, 8), (9, 5, 8), (12, 6, 10)])
def test_spreading_hands_a_merged_token_to_both(n, group, length):
    """Tokens that are the same in each pair come back as they were."""
    x = torch.randn(3, length, 4)
    there = spread_axis(x, 1, group, n)
    assert there.shape == (3, n, 4)
    assert torch.equal(merge_axis(there, 1, group, length), x)


@pytest.mark.parametrize("match", [False, True])
def test_what_was_added_to_a_merged_token_is_added_to_all_of_it(match):
    """Two steps, numbers instead of layers between them; each token is followed alone."""
    steps = (Merge(layer=0, axis="width", group=3), Merge(layer=1, axis="height", group=4))
    x, grid = torch.randn(2, 48, 16), Grid(8, 6)
    done = []
    added, tokens = torch.zeros(2, 8, 6, 16), torch.arange(48).reshape(1, 48, 1).expand(2, -1, -1)
    members = [torch.nn.functional.one_hot(tokens[..., 0], 48).float()]
    current = x
    for merge in steps:
        after = merge_grid(grid, merge, Grid(1, 1))
        step = step_of(match, grid, after, merge, current)
        y = step.merge(current)
        members.append((step.merge(members[-1]) > 0).float())  # [2, tokens, 48] of the first grid
        done.append((step, current, y))
        change = torch.randn_like(y)
        added += torch.einsum("ntk,ntd->nkd", members[-1], change).reshape(added.shape)
        current, grid = y + change, after
    found = restored(current, done)
    assert all(bool((m.sum(1) == 1).all()) for m in members)  # each token is in one
    torch.testing.assert_close(found, x + added.flatten(1, 2), atol=1e-5, rtol=1e-5)


def test_matched_neighbours_share_a_window():
    """As in every window by itself; a window of 8 and one of 4 lose in proportion."""
    x = torch.randn(2 * 3, 12, 16)
    whole = MatchedStep(Grid(3, 12), Grid(3, 9), WIDE, x.reshape(2, 36, 16), (8, 4))
    found = whole.merge(x.reshape(2, 36, 16)).reshape(6, 9, 16)
    parts = [
        np.stack([naive_similar(row, left) for row in part.numpy()])
        for part, left in ((x[:, :8], 6), (x[:, 8:], 3))
    ]
    np.testing.assert_allclose(found.numpy(), np.concatenate(parts, 1), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_matching_in_half_precision_compares_in_float32(dtype):
    """As numpy does in float64 with the same numbers; near ties among them."""
    x = torch.randn(5, 1, 16) + 0.1 * torch.randn(5, 12, 16)
    x = x.to(dtype)
    exact = x.double().numpy()
    wanted = np.stack([naive_similar(row, 8) for row in exact])
    found = MatchedStep(Grid(1, 12), Grid(1, 8), WIDE, x, (12,)).merge(x)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.double().numpy(), wanted, rtol=2 * torch.finfo(dtype).eps)


def test_a_step_takes_the_choice_of_another():
    """Tokens 1 and 2 are one in the first line, 4, 5 and 6 in the second."""
    x = torch.randn(2, 8, 16)
    step = MatchedStep(Grid(1, 8), Grid(1, 6), WIDE, x, (8,))
    joins = torch.zeros(2, 8)
    joins[0, [2, 7]] = joins[1, [5, 6]] = 1
    own = step.best.clone()
    step.take(joins)
    a, b = x.numpy()
    wanted = [
        [a[0], (a[1] + a[2]) / 2, a[3], a[4], a[5], (a[6] + a[7]) / 2],
        [b[0], b[1], b[2], b[3], (b[4] + b[5] + b[6]) / 3, b[7]],
    ]
    np.testing.assert_allclose(step.merge(x).numpy(), np.array(wanted), atol=1e-6)
    slots = [[0, 1, 1, 2, 3, 4, 5, 5], [0, 1, 2, 3, 4, 4, 4, 5]]
    rows = torch.arange(6.0)[None, :, None].expand(2, -1, 16)
    assert step.spread(rows)[..., 0].tolist() == slots
    assert torch.equal(step.best, own)


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
