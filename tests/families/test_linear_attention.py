"""A stage before several linear layers: ONNX Runtime's kernel against PyTorch, padding included."""

import onnx
import onnxruntime
import pytest

from luvc.engines.backends.ort.recurrence import use_recurrence

from ..exporter import method_graphs
from ..exporter.method_graphs import MethodGraphs
from .gallery import size_of

NAME = "qwen3_5"


def by_the_kernel(path, given):
    """Outputs where the rule is ONNX Runtime's own operator."""
    model = onnx.load(path)
    if "prefill" in path.name:
        assert use_recurrence(model) == 3
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {i.name: given[i.name] for i in session.get_inputs()})


@pytest.mark.xdist_group(f"family-{NAME}")
def test_prompts_of_unequal_length_are_pytorchs(gallery, tmp_path, monkeypatch):
    made = MethodGraphs(gallery.checkpoint(NAME), tmp_path / NAME, size_of(NAME))
    layout = made.first_layout("luvc", stages=(0.25,), elimination="never")
    assert [prune.layer for prune in layout.schedule.language] == [1], "then layer 2 is a copy of 1"
    monkeypatch.setattr(method_graphs, "_run", by_the_kernel)
    made.compared(layout).check()
