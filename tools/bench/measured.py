"""What of the bundles luvc-bench measures: one picture size, each bundle's layout of it or one a ratio."""

import math
from collections.abc import Sequence

from ...engines.bundle.folder import Bundle
from ...engines.bundle.layout import Layout
from ...errors import LuvcError

Measured = dict[str, tuple[Bundle, Layout]]
"""A bundle and its layout by the name of the system."""


def pick_layouts(
    bundles: dict[str, Bundle], name: str | None, ratios: Sequence[float], new_tokens: int
) -> Measured:
    """The systems: each bundle at its layout of one picture size, or at every ratio that is asked for.

    Args:
        bundles: by name.
        name: of a layout of the first one; None is its first.
        ratios: that are asked for; none: the layouts of that name, or those of its size.
        new_tokens: of an answer.

    Raises:
        LuvcError: a bundle has no such layout or ratio, or cannot hold the answer.
    """
    first = next(iter(bundles.values())).manifest.layouts
    chosen = next((x for x in first if name in (None, x.name)), None)
    found: Measured = {}
    for label, bundle in bundles.items():
        layouts = bundle.manifest.layouts
        like = [x for x in layouts if chosen and _picture(x) == _picture(chosen)]
        if chosen is None or not like:
            names = ", ".join(x.name for x in layouts)
            raise LuvcError(
                f"{label} has no layout {name or first[0].name!r}, only {names}: systems are compared on one "
                "layout, export them for the same --image-size and --images"
            )
        if new_tokens >= bundle.manifest.text_capacity:
            raise LuvcError(
                f"--new-tokens {new_tokens} does not fit the {bundle.manifest.text_capacity} text tokens "
                f"of {label}; ask for fewer"
            )
        if not ratios:
            found[label] = bundle, next((x for x in like if x.name == chosen.name), like[0])
        for ratio in ratios:
            system = f"{label} {ratio:g}x" if len(ratios) > 1 else label
            found[system] = bundle, _of_ratio(label, like, ratio)
    return found


def _of_ratio(label: str, layouts: Sequence[Layout], ratio: float) -> Layout:
    for layout in layouts:
        if math.isclose(layout.ratio, ratio):
            return layout
    held = ", ".join(f"{x.ratio:g}x" for x in layouts)
    raise LuvcError(f"--ratio {ratio:g}x is not in {label}, which holds {held}")


def _picture(layout: Layout) -> tuple:
    """What layouts of several ratios have in common."""
    return layout.asked_size, layout.images, layout.frames
