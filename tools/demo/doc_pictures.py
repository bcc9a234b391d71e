"""Draws the documentation's pictures from the project's own plans.

python -m luvc.tools.demo.doc_pictures docs
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from ...exporter.planning.flops import DecoderShape, EncoderShape
from ...exporter.planning.grid import Grid
from ...exporter.planning.problem import Problem
from ...exporter.planning.solver import solve
from ...files import whole

# Widths of InternVL2.5-8B from its published config: InternViT-300M and a 32-layer decoder.
SHAPE = Problem(
    decoder=DecoderShape(32, 4096, 32, 8, 128, 14336, 92553),
    encoder=EncoderShape(24, 1024, 4096, 1, 588, 4, (4096, 4096, 4096)),
    grid=Grid(32, 32),
    multiple=Grid(2, 2),
    tiles=1,
)
BLUE = "#2563eb"
GREY = "#cbd5e1"
INK = "#1e293b"


def token_flow(path: Path, ratio: float = 2.0) -> None:
    """Visual tokens in each layer of the language model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    schedule = solve(SHAPE, ratio)
    figure, axes = plt.subplots(figsize=(10, 3.2), layout="constrained")
    baseline, V = SHAPE.visual_tokens(()), SHAPE.visual_tokens(schedule.lasting)
    visual = list(schedule.visual_per_layer(SHAPE.decoder.layers, V))
    _panel(axes, visual, baseline)
    for prune in schedule.language:
        name = f"SPU keeps {prune.keep}" if prune.keep else "gone"
        _mark(axes, prune.layer, visual[prune.layer], name, baseline)
    ratios = SHAPE.ratios(schedule)
    figure.suptitle(
        f"InternVL2.5-8B shape at {ratio:g}x: the language prefill does {ratios.prefill:.2f}x less work",
        color=INK,
        fontsize=12,
    )
    with whole(path) as draft:
        figure.savefig(draft, format="png", facecolor="white", dpi=200)
    plt.close(figure)


def _panel(axes: Any, counts: list[int], baseline: int) -> None:
    edges = range(len(counts) + 1)
    axes.stairs([baseline] * len(counts), edges, fill=True, color=GREY)
    axes.stairs(counts, edges, fill=True, color=BLUE)
    axes.set_xlim(0, len(counts))
    axes.set_ylim(0, baseline * 1.2)
    axes.set_yticks([0, baseline // 2, baseline])
    axes.set_xlabel("layer of the language model", color=INK)
    axes.set_ylabel("visual tokens", color=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _mark(axes: Any, layer: int, height: int, text: str, baseline: int) -> None:
    axes.annotate(
        text,
        (layer, height),
        (layer, baseline * 1.06),
        ha="center",
        va="bottom",
        fontsize=8,
        color=INK,
        arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.7},
    )


def main(folder: Annotated[Path, typer.Argument(help="Where the pictures go.")]) -> None:
    """Draw all pictures."""
    token_flow(folder / "token-flow.png")


if __name__ == "__main__":
    typer.run(main)
