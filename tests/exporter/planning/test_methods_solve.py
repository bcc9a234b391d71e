"""Every method's plan: it meets the ratio, or the refusal says what would."""

import re

import pytest

from luvc.errors import LuvcError
from luvc.exporter.planning import flops
from luvc.exporter.planning.grid import Grid
from luvc.exporter.planning.methods import METHODS
from luvc.exporter.planning.problem import Problem, check_schedule
from luvc.exporter.planning.solver import solve
from luvc.exporter.planning.stages import stage_layers

TOWER = flops.EncoderShape(8, 128, 512, 1, 588, 4, (512, 256))
RATIOS = (1.1, 1.5, 1.8, 2.0, 3.0, 5.0, 100.0)


def problem(layers: int, tiles: int) -> Problem:
    """Few tokens and few layers, where stages fall together and counts are coarse."""
    decoder = flops.DecoderShape(layers, 256, 4, 2, 64, 512, 1024)
    return Problem(decoder, TOWER, Grid(8, 8), Grid(2, 2), tiles, text_tokens=8)


@pytest.mark.parametrize("layers", [4, 5, 28])
@pytest.mark.parametrize("tiles", [1, 3])
@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.options.smaller == "none"])
def test_a_plan_meets_the_ratio_or_a_refusal_says_what_would(name, tiles, layers):
    p, options = problem(layers, tiles), METHODS[name].options
    coarse = (
        options.elimination == "fit" or options.smaller is not None
    )  # whole layers, rows, columns
    if name == "transprune" and layers < 28:
        with pytest.raises(LuvcError, match="both fall before layer 1"):
            stage_layers(options, layers)
        return
    for ratio in RATIOS:
        try:
            found = solve(p, ratio, options)
        except LuvcError as refusal:
            said = re.search(r"largest feasible ratio is ([\d.]+)x", str(refusal))
            assert said, refusal
            largest = float(said[1])
            assert (ratio > largest) == ("is not feasible" in str(refusal))
            if largest > 1:
                assert p.ratios(solve(p, largest, options)).prefill >= largest
            continue
        achieved = p.ratios(found).prefill
        assert ratio <= achieved and (achieved <= 1.02 * ratio or coarse)
        assert check_schedule(p, found).language == found.language
        never = options.elimination == "never"
        assert not never or found.language[-1].keep >= (tiles if options.scope == "tile" else 1)
