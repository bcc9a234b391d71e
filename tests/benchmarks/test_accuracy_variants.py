"""The study of merges: by hand on Hugging Face's tower, against the product, its command and its page."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import InternVLForConditionalGeneration

from benchmarks.accuracy import report, setup
from benchmarks.accuracy.map import tower
from benchmarks.accuracy.study import Study
from benchmarks.accuracy.variants import __main__ as command
from benchmarks.accuracy.variants.merging import MEAN, VARIANTS, VariantGraph, VariantRunner, summed
from benchmarks.accuracy.variants.results import VariantResults, winners
from benchmarks.files import write_json
from luvc.engines.bundle.schedule import Axis, Merge, Schedule
from luvc.errors import LuvcError
from luvc.exporter.ops.attention import NAME
from luvc.exporter.planning.grid import Grid
from luvc.exporter.vision.families import adapter_class
from luvc.exporter.vision.oim import MatchedStep

POCKET = "tools/pocket/model"
QUESTIONS = 9  # one of each task but "photo"; the last has two pictures
SIDE = 12
STEPS: tuple[tuple[int, Axis, int], ...] = (
    (1, "width", 4),
    (1, "height", 4),
    (3, "width", 3),
)  # 12x12, 9x9, 9x6
BY_NAME = {variant.name: variant for variant in VARIANTS}


def largest(tokens, sizes):
    """Channel by channel."""
    channels = zip(*tokens, strict=True)
    return np.array([max(channel, key=lambda value: (abs(value), value)) for channel in channels])


BY_HAND = {
    "mean": lambda tokens, sizes: np.mean(tokens, 0),
    "largest": largest,
    "weighted": lambda tokens, sizes: np.average(tokens, axis=0, weights=sizes),
}


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("axis", ["width", "height"])
def test_a_merge_by_hand(name, axis):
    """Tokens 1 and 2 are one in the first line of both tiles, 4, 5 and 6 in the second."""
    before, after = (Grid(2, n) if axis == "width" else Grid(n, 2) for n in (8, 6))
    lines, sizes = torch.randn(2, 2, 8, 5), torch.randint(1, 5, (2, 2, 8, 1)).float()
    lines[0, 0, 1], lines[0, 0, 2] = torch.full((5,), -3.0), torch.full((5,), 3.0)

    def tokens(of):
        return (of if axis == "width" else of.transpose(1, 2)).flatten(1, 2)

    step = MatchedStep(before, after, Merge(layer=0, axis=axis, group=2), tokens(lines), (8,))
    joins = torch.zeros(4, 8)
    joins[0::2, [2, 7]] = joins[1::2, [5, 6]] = 1
    step.take(joins)
    groups = ([[0], [1, 2], [3], [4], [5], [6, 7]], [[0], [1], [2], [3], [4, 5, 6], [7]])
    wanted, total = torch.zeros(2, 2, 6, 5), torch.zeros(2, 2, 6, 1)
    for tile in range(2):
        for row, parts in enumerate(groups):
            for place, part in enumerate(parts):
                x, s = (of[tile, row][part].numpy() for of in (lines, sizes))
                wanted[tile, row, place] = torch.tensor(BY_HAND[name](x, s[:, 0]))
                total[tile, row, place] = float(s.sum())
    found = BY_NAME[name].merge(step, tokens(lines), tokens(sizes))
    torch.testing.assert_close(found, tokens(wanted))
    assert torch.equal(summed(step, tokens(sizes)), tokens(total))


def neighbours(tokens, left: int) -> list[list[int]]:
    """Places of the most similar neighbours that become one; each odd one may join either side."""
    unit = [token / np.linalg.norm(token) for token in tokens]
    options = []
    for i in range(1, len(unit), 2):
        sides = [j for j in (i - 1, i + 1) if j < len(unit)]
        best = max(sides, key=lambda j, i=i: (unit[i] @ unit[j], -j))
        options.append((unit[i] @ unit[best], i, best))
    groups = {i: [i] for i in range(len(unit))}
    for _, odd, even in sorted(options, reverse=True)[: len(unit) - left]:
        groups[even] = sorted(groups[even] + groups.pop(odd))
    return [groups[even] for even in sorted(groups, key=lambda even: groups[even][0])]


class ByHand:
    """One picture's patches in Hugging Face's tower, each followed alone.

    Where attention counts, a merged token stands there as many times as it has patches: what log(size) on
    attention's scores comes to.
    """

    def __init__(self, merge, counts: bool):
        self.merge, self.counts = merge, counts
        self.rows = [[[r * SIDE + c] for c in range(SIDE)] for r in range(SIDE)]
        self.undo: list[tuple[np.ndarray, np.ndarray]] = []

    def run(self, model, pixels):
        layers, hooks = model.model.vision_tower.encoder.layer, []
        for layer in {at for at, *_ in STEPS}:
            hook = lambda _, args, at=layer: (self.enter(at, args[0]),)  # noqa: E731
            hooks.append(layers[layer].register_forward_pre_hook(hook))
        hooks.append(layers[-1].register_forward_hook(lambda _, args, out: self.leave(out)))
        found = model.model.get_image_features(pixels).pooler_output
        for hook in hooks:
            hook.remove()
        return found

    def enter(self, layer, x):
        patches = self.each_patch(x[0, 1:].double().numpy())
        for _, axis, group in (s for s in STEPS if s[0] == layer):
            before, patches = patches, self.step(patches, axis, group)
            self.undo.append((before, patches))
        firsts = [members[0] for row in self.rows for members in row]
        shown = patches if self.counts else patches[firsts]
        return torch.cat([x[:, :1], torch.tensor(shown)[None].float()], 1)

    def each_patch(self, tokens):
        """The token of each patch, [144, D]."""
        if len(tokens) == SIDE * SIDE:
            return tokens
        found = np.empty((SIDE * SIDE, tokens.shape[1]))
        for token, members in zip(tokens, (m for row in self.rows for m in row), strict=True):
            found[members] = token
        return found

    def step(self, patches, axis, group):
        found, lines = patches.copy(), []
        for line in self.rows if axis == "width" else zip(*self.rows, strict=True):
            tokens = [patches[members[0]] for members in line]
            lines.append([])
            for places in neighbours(tokens, len(line) - len(line) // group):
                sizes = [len(line[p]) for p in places]
                members = [member for p in places for member in line[p]]
                found[members] = self.merge([tokens[p] for p in places], sizes)
                lines[-1].append(members)
        self.rows = lines if axis == "width" else list(zip(*lines, strict=True))
        return found

    def leave(self, x):
        patches = self.each_patch(x[0, 1:].double().numpy())
        for before, after in reversed(self.undo):
            patches = before + patches - after
        return torch.cat([x[:, :1], torch.tensor(patches)[None].float()], 1)


@pytest.fixture(scope="module")
def model(workshop) -> Any:
    path = workshop.checkpoint(layers=5, vision_layers=4, image=168)
    return InternVLForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()


def layout(**schedule) -> Any:
    steps = tuple(Merge(layer=at, axis=axis, group=group) for at, axis, group in STEPS)
    made = Schedule(**({"vision": steps, "match": True, "restore": True} | schedule))
    return SimpleNamespace(grid=(SIDE, SIDE), schedule=made, tiles=1)


@torch.inference_mode()
@pytest.mark.parametrize("name", BY_NAME)
def test_the_tower_by_hand(model, name):
    variant, pixels = BY_NAME[name], torch.randn(2, 3, 168, 168)
    merge, counts = BY_HAND[name.split(",")[0]], name.endswith("counted")
    model.set_attn_implementation("eager")
    wanted = torch.cat([ByHand(merge, counts).run(model, one[None]) for one in pixels])
    model.set_attn_implementation(NAME)
    found, plain = (
        VariantGraph(model, adapter_class("internvl"), layout(), v)(pixels) for v in (variant, MEAN)
    )
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert variant is MEAN or (found - plain).abs().max() > 0.1


def test_other_towers_are_refused(model):
    with pytest.raises(LuvcError, match="read positions"):
        VariantGraph(model, adapter_class("qwen2_vl"), layout(), MEAN)
    with pytest.raises(LuvcError, match="set restore"):
        VariantGraph(model, adapter_class("internvl"), layout(restore=False), MEAN)


@pytest.fixture(scope="module")
def study() -> Study:
    torch.set_num_threads(1)
    return setup.load(POCKET, "validation", QUESTIONS, "cpu", batch=8)[0]


def test_the_mean_is_the_products(study):
    """Bit by bit, also behind a variant whose attention counted; other variants are others."""
    layouts = study.layouts(tower(1.6), 2.0)
    pixels = [study.pixels(n, layouts[len(part[0].pictures)]) for n, part in enumerate(study.parts)]

    def answers(runner):
        study.forget()
        study.runner = runner
        number = len(study.parts) - 1
        last = layouts[len(study.parts[number][0].pictures)]
        seen = [
            runner.vision(layouts[len(part[0].pictures)], shown)
            for part, shown in zip(study.parts, pixels, strict=True)
        ]
        return seen, runner.logits(last, study.feed(number, last), 2), study.right(layouts)

    product = study.runner
    seen, logits, right = answers(product)
    for variant in (*VARIANTS, MEAN):
        found, ours, answered = answers(VariantRunner(product, variant))
        same = [np.array_equal(a, b) for a, b in zip(found, seen, strict=True)]
        if variant is MEAN:
            assert all(same) and torch.equal(ours, logits) and (answered == right).all()
        else:
            assert not any(same) and not torch.equal(ours, logits)
    again, *_ = answers(product)
    assert all(np.array_equal(a, b) for a, b in zip(again, seen, strict=True))


def test_the_command_writes_what_the_page_tells(study, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "load", lambda *_: (study, head(study.tasks)))
    chosen: dict[str, Any] = {"towers": [1.4], "prefills": [1.0, 2.0], "output": tmp_path}
    command.run(POCKET, "tiny", limit=QUESTIONS, device="cpu", batch=8, **chosen)
    (found,) = VariantResults.read_all(tmp_path)
    assert [p.prefill for p in found.whole] == [1, 2] and len(found.places) == 2
    assert found.places[0].grids == ("12x12", "10x11", "9x10") and 1.4 < found.places[0].tower < 1.5
    assert len(found.right) == 2 + 2 * len(VARIANTS)
    for place, ratio in zip(found.places, (1.0, 2.0), strict=True):
        right = study.right(study.layouts(tower(1.4), ratio))  # the product's runner is back
        assert (right == found.right["mean", place]).all()
    assert not list(tmp_path.glob("*.partial.jsonl"))
    page = report.write(tmp_path, tmp_path)
    assert "tiny, 9 questions of the validation split" in page
    assert "| 12x12, 10x11, 9x10 | 1.41x | 2x | OCR |" in page


def head(tasks) -> dict:
    return {"split": "validation", "visual_tokens": 144, "tasks": list(tasks)}


def made_up(gains: dict[str, tuple[int, int]], count: int = 400) -> VariantResults:
    """Variants that answer so many more of the questions than the mean does at two places, or less."""
    rows = []
    for name, more in {"mean": (0, 0), **{v.name: (0, 0) for v in VARIANTS}, **gains}.items():
        for ratio, gain in zip((1.0, 2.0), more, strict=True):
            right = np.packbits(np.arange(count) < count // 2 + gain).tobytes().hex()
            point = {"tower": 1.4, "ratio": ratio, "lengths": ["12x12", "10x10"]}
            rows.append({"variant": name, "right": right} | point)
    tasks = ["ocr" if n % 10 == 5 else "colour" for n in range(count)]
    return VariantResults(head(tasks) | {"name": "x", "date": "d", "rows": rows})


def test_the_rule():
    """Better in the mean over all places, nowhere surely worse, and so on every model."""
    both, one = (20, 20), (20, 0)
    mixed = (60, -20)
    first = made_up({"largest": both, "weighted": one, "mean, counted": mixed})
    assert winners([first]) == ["largest", "weighted"]
    gain = first.gain("weighted", first.places)
    assert gain.value == pytest.approx(0.025) and 0 < gain.low < gain.value
    assert first.gain("mean, counted", first.places[1:]).value == pytest.approx(-0.05)
    assert first.gain("weighted", first.places[:1], "ocr").value == pytest.approx(2 / 40)
    assert winners([first, made_up({"weighted": both})]) == ["weighted"]
    assert winners([first, made_up({})]) == winners([]) == []


def test_the_page_tells_what_wins(tmp_path):
    for gains, said in (
        ({}, "So the plain mean stays."),
        ({"largest": (20, 20)}, "way to: largest"),
    ):
        data = json.loads(json.dumps(made_up(gains).data))
        write_json(tmp_path / "accuracy_variants_x.json", data)
        assert said in report.write(tmp_path, tmp_path)
