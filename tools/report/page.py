"""The report as one HTML file: nothing in it is loaded from anywhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ... import __version__
from ...engines.bundle.folder import Bundle
from ...exporter.report import human
from . import charts, templates
from .facts import worst
from .overlay import Sample

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Shown:
    """What the page shows beside the manifest, as facts.py and overlay.py make it."""

    layouts: list[dict[str, Any]]
    parity: list[dict[str, Any]]
    samples: list[Sample]
    runner: str  # what the samples were run on
    commands: list[tuple[str, str]]
    bench: dict[str, Any] | None
    latency: list[dict[str, Any]] | None
    accuracy: dict[str, Any] | None


def render(bundle: Bundle, shown: Shown) -> str:
    """The page."""
    m = bundle.manifest
    return templates.render(
        HERE,
        **vars(shown),
        version=__version__,
        model=Path(m.model).name,
        folder=bundle.path.name,
        ratio=", ".join(dict.fromkeys(f"{x.schedule.ratio:g}x" for x in m.pictured)),
        manifest=m,
        cards=cards(bundle, shown.layouts[0], shown.parity),
        flow=charts.token_flow,
        look=charts.look,
        curves=charts.curves,
        bar=bar,
        human=human,
        mib=mib,
    )


def cards(
    bundle: Bundle, facts: dict[str, Any], parity: list[dict[str, Any]]
) -> list[dict[str, str]]:
    """The four numbers people ask for first."""
    layout = facts["layout"]
    before, after = next(iter(facts["kv"].values()))
    found = [
        {
            "big": f"{layout.ratios.prefill:.2f}x",
            "small": f"less prefill work, {layout.ratios.vision:.2f}x less in the vision tower",
        },
        {
            "big": f"{layout.baseline_visual_tokens} → {layout.visual_tokens}",
            "small": f"visual tokens enter the language model, {facts['visual'][-1]} leave its last layer",
        },
        {
            "big": f"{before / after:.2f}x",
            "small": f"smaller K/V cache, {mib(before)} → {mib(after)}",
        },
    ]
    if parity:
        errors = max(worst(p["report"]) for p in parity)
        equal = sum(p["report"].greedy_equal for p in parity)
        total = sum(p["report"].greedy_tokens for p in parity)
        found.append(
            {
                "big": f"{errors:.0e}".replace("e-0", "e-"),
                "small": f"largest relative error against PyTorch, {equal} of {total} greedy tokens equal",
            }
        )
    return found


def bar(name: str, before: float, after: float, was: str, now: str, kind: str) -> Markup:
    """A baseline with what is left of it, and the ratio of the two."""
    return Markup(
        '<div class="bar"><div class="label"><span>{}</span><b>{:.2f}x</b></div>'
        '<div class="track"><div class="{}" style="width:{:.2f}%"></div></div>'
        '<div class="small"><span>{}</span><span>{}</span></div></div>'
    ).format(name, before / after, kind, 100 * after / before, now, was)


def mib(size: float) -> str:
    """Bytes for people."""
    if size < 2**20:
        return f"{size / 2**10:.1f} KiB"
    return f"{size / 2**20:.1f} MiB" if size < 2**30 else f"{size / 2**30:.2f} GiB"
