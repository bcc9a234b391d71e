"""What the SPU scores by, in words, in manifests and in work, at the shapes of an 8B model."""

from dataclasses import replace

import pytest

from luvc.engines.bundle.schedule import Schedule, Solver
from luvc.exporter.planning import flops
from luvc.exporter.planning.defaults import DEFAULTS, SolverOptions
from luvc.exporter.planning.grid import Grid
from luvc.exporter.planning.methods import score_of
from luvc.exporter.planning.problem import Problem
from luvc.exporter.planning.solver import solve
from luvc.plugins.scores.spectrum.contract import BANDS, cutoff_bin
from luvc.plugins.scores.spectrum.launch import score_launch

DECODER = flops.DecoderShape(32, 4096, 32, 8, 128, 14336, 92553)  # InternVL2.5-8B
TOWER = flops.EncoderShape(24, 1024, 4096, 1, 588, 4, (4096, 4096))
SHARE = 0.01


def moved(tokens: int, band: str, cutoff: float) -> int:
    """Bytes of one score in float16: the signal, for two kernels in band high twice, and the sums."""
    D = DECODER.hidden
    launch = score_launch(tokens, 1, D, cutoff_bin(cutoff, tokens), BANDS.index(band))
    reads = 1 + (band == "high" and launch.source != "score.cu")
    return reads * tokens * D * 2 + 2 * launch.chunks * tokens * 4


@pytest.mark.parametrize("tiles", [4, 13])  # 1024 and 3328 visual tokens
@pytest.mark.parametrize(
    ("band", "cutoff"), [("low", 0.25), ("high", 0.0), ("high", 0.05), ("high", 0.1), ("high", 0.5)]
)
def test_scores_take_less_than_a_hundredth_of_the_prefill(tiles, band, cutoff):
    p = Problem(DECODER, TOWER, Grid(32, 32), Grid(2, 2), tiles)
    schedule = solve(p, 2.0, DEFAULTS.with_score(band=band, cutoff=cutoff))
    assert len(schedule.scored) == 3
    V = p.visual_tokens(())
    visual = schedule.visual_per_layer(DECODER.layers, V)
    whole, rest = p.prefill_work(schedule), flops.prefill(DECODER, visual, p.text_tokens)
    assert 0 < whole - rest < SHARE * whole
    entering = [V, *(s.keep for s in schedule.language if s.keep)][:-1]
    weights = 2 * DECODER.layers * DECODER.hidden * (2 * 4096 + 2 * 1024 + 3 * 14336)
    assert sum(moved(n, band, cutoff) for n in entering) < SHARE * weights


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "a token's energy"),
        ({"cutoff": 0.25}, "a token's energy below 0.25"),
        ({"cutoff": 0.05, "band": "high"}, "how far a token is from its low-pass at 0.05"),
        ({"cutoff": 0, "band": "high"}, "how far a token is from the mean token"),
    ],
)
def test_the_score_in_words(options, said):
    assert score_of(Schedule(**options).score).described == said


def test_options_come_back_from_a_manifest():
    asked = replace(DEFAULTS.with_score(band="high", cutoff=0.05), keeps=(1.0, 0.5, 0.25))
    recorded = Solver.model_validate_json(asked.recorded(2.0, "luvc", "flops").model_dump_json())
    assert SolverOptions.of(recorded, asked.score) == asked
    older = Solver(**{"ratio": 2.0, "cutoff": 0.5, "signal": "raw", "keeps": "linear"})
    assert SolverOptions.of(older, asked.score).keeps == "linear"
