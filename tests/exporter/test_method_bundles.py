"""Whole bundles of methods: validated while they are made, and they answer."""

import numpy as np
import pytest

from luvc.engines import VLM, Bundle
from luvc.exporter import ExportConfig, export
from luvc.exporter.check.parity import reports
from luvc.exporter.planning.methods import METHODS
from luvc.plugins.scores.base import TOWER

from ..conftest import ask
from .method_graphs import FEW_LAYERS

pytestmark = pytest.mark.slow
HALF = [name for name, m in METHODS.items() if m.score.reads and not m.score.chained]
CHAINED = [name for name, m in METHODS.items() if m.score.chained]


@pytest.fixture
def bundle(workshop, tmp_path):
    """A function: method, options -> a bundle."""

    def make(method: str, **options) -> Bundle:
        model = workshop.checkpoint(
            layers=4, vision_layers=3, image=112, text="qwen3", head_dim=128, tied=False
        )
        usual = {"ratio": 1.6, "image_sizes": ((112, 224),), "images": (1, 0)}
        usual |= {"reference_text": 8, "text_capacity": 96, "method": method}
        usual |= FEW_LAYERS.get(method, {})
        folder = tmp_path / "bundle"
        export(ExportConfig.make(model=str(model), output=folder, **(usual | options)))
        return Bundle.load(folder)

    return make


@pytest.mark.parametrize("method", CHAINED)
def test_a_bundle_answers_as_pytorch_does(bundle, method, picture):
    made = bundle(method)
    found = {report.layout: report for report in reports(made)}
    pictured = found["112x224"]
    names = [stage.name for stage in pictured.stages]
    assert ("tower's score" in names) == (TOWER in METHODS[method].score.reads)
    assert all(k.overlap_without_ties == 1 and k.ties <= 1 for k in pictured.kept) and pictured.kept
    assert not found["text"].kept
    vlm = VLM.load(made.path, threads=1)
    image = np.resize(picture, (112, 224, 3))
    alone = vlm.generate(ask("Why?", image), max_new_tokens=6).token_ids
    batch = vlm.generate([ask("Why?", image), ask("Who?", image)], max_new_tokens=6)
    assert alone == batch[0].token_ids and len(alone) == 6
    assert vlm.generate(ask("Why?"), max_new_tokens=3).token_ids


@pytest.mark.parametrize("method", HALF)
def test_half_precision_is_validated_where_ties_are_told(bundle, method):
    made = bundle(method, dtype="float16", images=(1,))
    (report,) = reports(made)
    assert report.passed and report.dtype == "float16" and report.kept
