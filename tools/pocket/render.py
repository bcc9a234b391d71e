"""From a scene to its picture."""

from __future__ import annotations

from . import backgrounds
from .charts import draw_chart
from .drawing import Canvas
from .scene import Scene


def render(scene: Scene) -> Canvas:
    """Draw a scene.

    Returns:
        The canvas: `image` is the picture, `labels()` the per-cell labels.
    """
    canvas = Canvas(backgrounds.render(scene.background))
    if scene.chart is not None:
        draw_chart(canvas, scene.chart)
    for item in scene.items:
        canvas.item(item)
    for text in scene.texts:
        canvas.text(text)
    return canvas
