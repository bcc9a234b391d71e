"""The pocket VLMs as they are shipped: their size, what their results say, and their answers at 2x."""

import json
from pathlib import Path

import pytest

from luvc.engines.bundle.folder import sha256
from luvc.exporter import ExportConfig, export
from luvc.tools.pocket.dataset import TEST_QUESTIONS
from luvc.tools.pocket.vocabulary import TASKS

POCKET = Path(__file__).parent.parent.parent / "tools" / "pocket"
ASKED = 60  # six questions of each task


@pytest.fixture(params=["model", "hd"])
def shipped(request):
    return POCKET / request.param


@pytest.fixture
def results(shipped):
    return json.loads((shipped / "results.json").read_text())


def test_it_is_small(shipped, results):
    assert sum(file.stat().st_size for file in shipped.glob("*.safetensors")) <= 16 * 2**20
    assert results["questions"] == TEST_QUESTIONS and set(TASKS) < set(results["exact_match"])


def test_the_studys_results_are_this_checkpoints():
    study = POCKET.parents[1] / "benchmarks" / "results" / "accuracy_test.json"
    if not study.is_file():
        pytest.skip("the accuracy study has not been run")
    data = json.loads(study.read_text())
    assert data["checkpoint"] == sha256(POCKET / "model" / "model.safetensors")


def test_half_the_work_still_answers(shipped, results, tmp_path, command):
    from luvc.tools.eval import cli as eval_tool

    config = ExportConfig.make(
        model=str(shipped), ratio=2.0, reference_text=24, images=(1, 2), output=tmp_path / "bundle"
    )
    bundle = export(config)
    for layout in bundle.manifest.layouts:
        assert layout.ratios.prefill == pytest.approx(2, abs=0.1)
    result = command(eval_tool, bundle.path, "--limit", str(ASKED), "--json")
    assert result.code == 0, result.err
    answers = json.loads(result.out)["answers"]
    assert len(answers) == ASKED
    right = sum(answer["right"] for answer in answers) / ASKED
    assert right > results["exact_match"]["overall"] - 0.1
