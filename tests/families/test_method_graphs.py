"""Every method before rotary positions in three axes, behind a tower of windows or of blocks."""

import pytest

from luvc.errors import LuvcError
from luvc.exporter.planning.methods import METHODS
from luvc.plugins.scores.base import TOWER

from ..exporter.method_graphs import MethodGraphs
from .gallery import size_of

WINDOWS, BLOCKS = "qwen2_5_vl", "qwen2_vl"
FULL = {2}  # layers of the one that see the whole picture


@pytest.fixture(scope="module")
def graphs(gallery, tmp_path_factory):
    """A function: a family's name -> its graphs."""
    made = {}

    def of(name: str) -> MethodGraphs:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = MethodGraphs(gallery.checkpoint(name), folder, size_of(name))
        return made[name]

    return of


def planned(graphs: MethodGraphs, method: str):
    """At the first of some ratios that so few tokens allow."""
    for ratio in (1.5, 1.6, 1.4, 1.7):
        try:
            return graphs.layout(method, ratio=ratio)
        except LuvcError as refusal:
            assert "token counts are too coarse" in str(refusal), refusal
    raise AssertionError(f"{method}: no ratio is feasible")


def family_of(method: str) -> str:
    """That with windows, but for what looks into layers that have them."""
    score = METHODS[method].score
    return WINDOWS if TOWER not in score.reads or {*score.layers(4)} <= FULL else BLOCKS


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_methods_graphs_equal_pytorch(graphs, method):
    made = graphs(family_of(method))
    made.compared(planned(made, method)).check()


@pytest.mark.parametrize("method", ["visionzip"])
def test_scores_of_a_tower_that_orders_by_windows(graphs, method):
    """Layer 2 has its tokens window by window; the scores and what is merged are in raster order."""
    made = graphs(WINDOWS)
    assert family_of(method) == WINDOWS
    made.compared(planned(made, method)).check()
