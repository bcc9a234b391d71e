"""Drawing with Pillow, and the per-cell labels of what was drawn where."""

from __future__ import annotations

import math
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...errors import LuvcError
from .scene import Box, Item, Text
from .vocabulary import COLOURS, CONTENTS, SIZE, TINTS

FONTS = ("default", "DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono")
_CONTENT = {name: index for index, name in enumerate(CONTENTS)}
_TINT = {name: index for index, name in enumerate(TINTS)}
_OVERSAMPLE = 4

CELL = 8
"""Edge of the cells that labels are given for, pixels."""


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Load Pillow's own font ("default") or a DejaVu font of matplotlib's wheel.

    Raises:
        LuvcError: matplotlib is not installed; another font would make other pictures.
    """
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise LuvcError("PocketVQA writes with matplotlib's fonts: pip install matplotlib")
    basic = ImageFont.Layout.BASIC  # the layout that is the same wherever Pillow is installed
    if name == "default":
        plain = cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))
        return plain.font_variant(layout_engine=basic)
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=basic)


def text_extent(string: str, name: str, size: int) -> Box:
    """Ink box of a text drawn at (0, 0), pixels."""
    return font(name, size).getbbox(string)


def _polygon(points: int, inner: float, turn: float) -> list[tuple[float, float]]:
    """Corners on the unit circle, every second one at radius `inner`."""
    return [
        (r * math.cos(a), r * math.sin(a))
        for k in range(points)
        for r, a in [(inner if k % 2 else 1.0, turn + 2 * math.pi * k / points)]
    ]


_OUTLINES = {
    "square": _polygon(4, 1, math.pi / 4),
    "diamond": [(0, -1), (0.68, 0), (0, 1), (-0.68, 0)],
    "triangle": [(0, -1), (0.87, 0.7), (-0.87, 0.7)],
    "star": _polygon(10, 0.42, -math.pi / 2),
    "cross": [
        (s * x, t * y)
        for s, t, corners in [
            (1, 1, [(0.3, 0.95), (0.3, 0.3), (0.95, 0.3)]),
            (1, -1, [(0.95, 0.3), (0.3, 0.3), (0.3, 0.95)]),
            (-1, -1, [(0.3, 0.95), (0.3, 0.3), (0.95, 0.3)]),
            (-1, 1, [(0.95, 0.3), (0.3, 0.3), (0.3, 0.95)]),
        ]
        for x, y in corners
    ],
    "heart": [
        (
            math.sin(t) ** 3,
            0.1 - (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t)) / 16,
        )
        for t in (2 * math.pi * k / 40 for k in range(40))
    ],
}


@lru_cache(maxsize=20_000)
def shape_mask(shape: str, size: int, angle: int) -> Image.Image:
    """Coverage of a shape, anti-aliased, size x size, mode L.

    Args:
        shape: one of SHAPES.
        size: diameter of the circle around it, pixels.
        angle: turn in degrees.
    """
    full = size * _OVERSAMPLE
    image = Image.new("L", (full, full), 0)
    draw = ImageDraw.Draw(image)
    half = full / 2
    if shape in ("circle", "ring"):
        draw.ellipse((0, 0, full - 1, full - 1), fill=255)
        if shape == "ring":
            hole = 0.45 * half
            draw.ellipse((hole, hole, full - 1 - hole, full - 1 - hole), fill=0)
    else:
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        draw.polygon(
            [
                (half + (x * cos - y * sin) * (half - 1), half + (x * sin + y * cos) * (half - 1))
                for x, y in _OUTLINES[shape]
            ],
            fill=255,
        )
    return image.reduce(_OVERSAMPLE)


def brightness(colour: str) -> float:
    """Perceived brightness of a named colour, 0 .. 255."""
    red, green, blue = COLOURS[colour]
    return 0.3 * red + 0.59 * green + 0.11 * blue


def contrast(colour: str) -> tuple[int, int, int]:
    """Near black or near white, whichever stands out against a colour."""
    return (12, 12, 12) if brightness(colour) > 110 else (245, 245, 245)


class Canvas:
    """A picture being drawn, with the marks that become per-cell labels.

    Args:
        image: the background, drawn over.
        scale: how thick lines and rims are, pixels; CELL grows with it.
    """

    def __init__(self, image: Image.Image, scale: int = 1):
        self.image = image
        self.scale = scale
        self.draw = ImageDraw.Draw(image)
        self.marks: list[tuple[Box, int, int]] = []

    def item(self, item: Item) -> None:
        """Draw a shape with a thin outline that keeps it visible on any background."""
        x, y = round(item.x - item.size / 2), round(item.y - item.size / 2)
        rim = shape_mask(item.shape, item.size + 2 * self.scale, item.angle)
        self.image.paste(contrast(item.colour), (x - self.scale, y - self.scale), rim)
        fill = shape_mask(item.shape, item.size, item.angle)
        self.image.paste(COLOURS[item.colour], (x, y), fill)
        inset = 0.15 * item.size
        box = (x + inset, y + inset, x + item.size - inset, y + item.size - inset)
        self.marks.append((box, _CONTENT[item.shape], _TINT[item.colour]))

    def text(self, text: Text) -> None:
        """Draw a line of text on its panel, or with an outline."""
        face = font(text.font, text.size)
        stroke = 0
        if text.panel is None:
            stroke = self.scale * (2 if text.size >= 24 * self.scale else 1)
        else:
            self.draw.rectangle(text.box, fill=COLOURS[text.panel])
        self.letters(text.string, text.x, text.y, face, text.colour, stroke)

    def letters(
        self,
        string: str,
        x: float,
        y: float,
        face: ImageFont.FreeTypeFont,
        colour: str,
        stroke: int = 0,
    ) -> None:
        """Draw letters at (x, y) and mark each letter's box."""
        x, y = round(x), round(y)
        self.draw.text(
            (x, y),
            string,
            fill=COLOURS[colour],
            font=face,
            stroke_width=stroke,
            stroke_fill=contrast(colour) if stroke else None,
        )
        _, top, _, bottom = face.getbbox(string)
        left = x
        for end, letter in enumerate(string, 1):
            right = x + face.getlength(string[:end])
            content = _CONTENT.get(letter, 0)
            self.marks.append(((left, y + top, right, y + bottom), content, _TINT[colour]))
            left = right

    def labels(self) -> np.ndarray:
        """Label every cell of CELL pixels with what covers its centre.

        Returns:
            uint8 [2, SIZE / CELL, SIZE / CELL]: content class, colour class.
        """
        grid, cell = SIZE // CELL, CELL * self.scale
        out = np.zeros((2, grid, grid), np.uint8)
        for (left, top, right, bottom), content, tint in self.marks:
            c0, c1 = _covered(left, right, cell)
            r0, r1 = _covered(top, bottom, cell)
            out[0, r0:r1, c0:c1] = content
            out[1, r0:r1, c0:c1] = tint
        return out


def _covered(low: float, high: float, cell: int) -> tuple[int, int]:
    """Range of cells whose centre lies between two edges, at least one cell."""
    first = math.ceil(low / cell - 0.5)
    last = math.floor(high / cell - 0.5)
    if last < first:
        first = last = int((low + high) / 2 // cell)
    return max(first, 0), max(last + 1, 0)
