"""From a scene to its picture."""

from __future__ import annotations

from . import backgrounds
from .charts import draw_chart
from .drawing import Canvas
from .scene import Scene, enlarged


def render(scene: Scene, scale: int = 1) -> Canvas:
    """Draw a scene.

    Args:
        scene: what to draw.
        scale: pixels along an edge where the scene has one; lines, letters and photographs are drawn finer.

    Returns:
        The canvas: `image` is the picture, `labels()` the per-cell labels.
    """
    canvas = Canvas(backgrounds.render(scene.background, scale), scale)
    scene = enlarged(scene, scale)
    if scene.chart is not None:
        draw_chart(canvas, scene.chart)
    for item in scene.items:
        canvas.item(item)
    for text in scene.texts:
        canvas.text(text)
    return canvas
