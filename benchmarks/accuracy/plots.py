"""The study's plots."""

from pathlib import Path
from typing import Any

from .map_results import Map
from .results import Results

INK = "#1e293b"
BLUE = "#2563eb"
GREY = "#cbd5e1"
LINES = {
    "luvc": (BLUE, "-", 2.6),
    "paper": ("#7c3aed", "-", 1.8),
    "oim match": (BLUE, "--", 1.3),
    "paper spu": ("#7c3aed", ":", 1.6),
    "random": ("#64748b", "-", 1.6),
    "uniform": ("#64748b", "--", 1.3),
    "downsample": ("#ea580c", "-", 1.6),
    "drop-all": ("#94a3b8", ":", 1.3),
    "divprune": ("#16a34a", "-", 1.2),
    "fastervlm": ("#dc2626", "-", 1.2),
    "hiprune": ("#dc2626", "--", 1.2),
    "visiondrop": ("#db2777", "-", 1.2),
    "pact": ("#ca8a04", "-", 1.2),
    "fastv": ("#ca8a04", "--", 1.2),
    "transprune": ("#0891b2", "-", 1.2),
    "dct": ("#0891b2", "--", 1.2),
}
"""Methods that are drawn: colour, dash, width."""
WORST = 6.0
"""Points lost at which a map's colours end."""


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _clean(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK)


def pareto(results: Results, path: Path) -> None:
    """Exact match over the ratio, overall and OCR, LUVC and random with their intervals."""
    pyplot = _pyplot()
    figure, panels = pyplot.subplots(1, 2, figsize=(12, 5), layout="constrained")
    for axes, task, title in zip(panels, (None, "ocr"), ("overall", "OCR"), strict=True):
        full = results.share(results.full, task)
        for name, (colour, dash, width) in LINES.items():
            _line(axes, results, name, task, full, colour, dash, width)
        axes.set_title(f"exact match, {title}, %", color=INK, loc="left")
        axes.set_xlabel("visual tokens at ratio 1 / mean over the layers", color=INK)
        axes.set_xscale("log")
        ticks = [1.0, *results.ratios]
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.minorticks_off()
        axes.grid(axis="y", color=GREY, linewidth=0.5)
        _clean(axes)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
    figure.savefig(path, facecolor="white", dpi=150)
    pyplot.close(figure)


def _line(axes, results: Results, name, task, full, colour, dash, width) -> None:
    rows = [results.rows[name, r] for r in results.ratios if (name, r) in results.rows]
    if not rows:
        return
    shares = [full, *(results.share(row, task) for row in rows)]
    x = [1.0, *(row.ratio for row in rows)]
    axes.plot(
        x,
        [100 * s.value for s in shares],
        dash,
        color=colour,
        linewidth=width,
        label=name,
        marker="o",
        markersize=2 + width,
    )
    if name in ("luvc", "random"):
        low, high = [100 * s.low for s in shares], [100 * s.high for s in shares]
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)


def tower_maps(maps: list[Map], path: Path) -> None:
    """What every tower and prefill ratio loses together, overall and OCR; a row of panels for each model."""
    pyplot = _pyplot()
    size = (12, 4.2 * len(maps))
    figure, panels = pyplot.subplots(
        len(maps), 2, figsize=size, squeeze=False, layout="constrained"
    )
    for row, found in zip(panels, maps, strict=True):
        for axes, task in zip(row, (None, "ocr"), strict=True):
            _tower_map(axes, found, task)
    figure.savefig(path, facecolor="white", dpi=150)
    pyplot.close(figure)


def _tower_map(axes, found: Map, task: str | None) -> None:
    """Points against the unmodified model, a cell for each pair of ratios."""
    import numpy as np

    towers, prefills = found.towers, found.prefills
    cells = np.full((len(towers), len(prefills)), np.nan)
    for y, tower in enumerate(towers):
        for x, prefill in enumerate(prefills):
            point = found.at(tower, prefill)
            if point is not None:
                cells[y, x] = 100 * found.lost(point, task).value
    axes.imshow(cells, cmap="OrRd_r", vmin=-WORST, vmax=0, origin="lower", aspect="auto")
    for (y, x), value in np.ndenumerate(cells):
        if not np.isnan(value):
            ink = "white" if value < -WORST / 2 else INK
            axes.text(x, y, f"{value:+.1f}", ha="center", va="center", color=ink)
    axes.set_xticks(range(len(prefills)), [f"{ratio:g}x" for ratio in prefills])
    axes.set_yticks(range(len(towers)), [f"{ratio:.2f}x" for ratio in towers])
    whole = 100 * found.share(found.whole, task).value
    what = "OCR" if task else "overall"
    axes.set_title(f"{found.name}, {what}: points against {whole:.1f} %", color=INK, loc="left")
    axes.set_xlabel("language model, visual tokens", color=INK)
    axes.set_ylabel("tower, FLOPs", color=INK)
    _clean(axes)


def spectrum(data: dict, path: Path) -> None:
    """Mean score by place at the stages' layers, with the least-squares line."""
    import numpy as np

    pyplot = _pyplot()
    stages, names = data["stages"], list(data["curves"])
    figure, panels = pyplot.subplots(
        len(names),
        len(stages),
        figsize=(3.4 * len(stages), 2.1 * len(names)),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for row, name in zip(panels, names, strict=True):
        for axes, layer in zip(row, stages, strict=True):
            curve = np.array(data["curves"][name][layer])
            found = data["slopes"][name][layer]
            places = np.arange(len(curve))
            axes.plot(places, curve, color=BLUE, linewidth=1)
            middle = curve.mean()
            line = middle * (1 + found["change"] * (places / (len(curve) - 1) - 0.5))
            axes.plot(places, line, color="#dc2626" if found["significant"] else INK, linewidth=1.5)
            axes.set_ylim(0, max(2, 1.1 * curve.max()))
            axes.set_title(f"{name}, layer {layer}", fontsize=8, color=INK, loc="left")
            _clean(axes)
    for axes in panels[-1]:
        axes.set_xlabel("visual token", color=INK)
    figure.savefig(path, facecolor="white", dpi=150)
    pyplot.close(figure)
