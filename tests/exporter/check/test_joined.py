"""What a matched tower joins is a part of validation: in half precision too, and it can fail."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from luvc.engines.backends.ort.backend import ort
from luvc.engines.prompt.processing import Processor
from luvc.engines.validate import validate
from luvc.errors import LuvcError
from luvc.exporter import ExportConfig, export
from luvc.exporter.check.parity import reference_runner, reports

POCKET = Path(__file__).parents[3] / "tools" / "pocket" / "model"


def worst(joins):
    """As many joins in each line, of odd tokens that were not joined."""
    found = np.zeros_like(joins)
    lines = (x.reshape(-1, joins.shape[-1]) for x in (joins, found))
    for line, new in zip(*lines, strict=True):
        taken = {i - (i % 2 == 0) for i in np.flatnonzero(line)}
        left = [i for i in range(1, len(line), 2) if i not in taken]
        new[(left + sorted(taken))[: len(taken)]] = 1
    return found


BROKEN = {
    "another pair": worst,
    "none": np.zeros_like,
    "half of each line": lambda joins: joins[..., : joins.shape[-1] // 2],
    "no tokens": lambda joins: joins[..., :0],
    "no tiles": lambda joins: joins[:0],
}


@pytest.mark.parametrize("broken", BROKEN)
def test_validation_fails_when_other_tokens_are_joined(workshop, monkeypatch, broken):
    """The least similar neighbours of each line in the place of the most similar ones."""
    bundle = workshop.bundle("qwen2-two-images")
    runner, (layout,) = ort.runner(bundle), bundle.manifest.layouts
    vision = runner.vision_result

    def told(*feed):
        result = vision(*feed)
        first, *others = result.joins
        return replace(result, joins=(BROKEN[broken](first), *others))

    (good,) = reports(bundle)
    assert layout.schedule.match and all(joined.passed for joined in good.joined)
    assert [(j.layer, j.axis) for j in good.joined] == [
        (m.layer, m.axis) for m in layout.schedule.vision
    ]
    monkeypatch.setattr(runner, "vision_result", told)
    with reference_runner(bundle) as reference:
        report = validate(
            bundle.manifest, Processor(bundle), layout, reference, runner, backend="ort"
        )
    first, step = report.joined[0], layout.schedule.vision[0]
    assert not report.passed and not first.passed and first.overlap < 0.9
    assert any(
        f.startswith(f"OIM before layer {step.layer}, {step.axis}") for f in report.failures()
    )


def test_a_graph_that_tells_of_another_number_of_steps_is_refused(workshop, monkeypatch):
    bundle = workshop.bundle("qwen2-two-images")
    runner, (layout,) = ort.runner(bundle), bundle.manifest.layouts
    vision = runner.vision_result

    def told(*feed):
        result = vision(*feed)
        return replace(result, joins=(*result.joins, result.joins[0]))

    monkeypatch.setattr(runner, "vision_result", told)
    with reference_runner(bundle) as reference, pytest.raises(LuvcError, match="export the bundle"):
        validate(bundle.manifest, Processor(bundle), layout, reference, runner, backend="ort")


@pytest.mark.slow
def test_a_matched_tower_in_half_precision_is_validated(tmp_path):
    options = {"match": True, "restore": True, "tower_ratio": 1.6, "dtype": "float16"}
    bundle = export(ExportConfig.make(model=str(POCKET), output=tmp_path / "b", **options))
    (report,) = reports(bundle)
    assert bundle.manifest.validated and report.passed and report.dtype == "float16"
    (layout,) = bundle.manifest.layouts
    assert len(report.joined) == len(layout.schedule.vision) == 4
    assert all(joined.overlap_without_ties >= 0.99 for joined in report.joined)
