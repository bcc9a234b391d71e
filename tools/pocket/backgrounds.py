"""Backgrounds: crops of free photographs and of generated textures.

The photographs come with scikit-image's wheel and are in the public domain or CC0: astronaut and
the Hubble deep field (NASA), rocket (SpaceX), camera (Lav Varshney), chelsea the cat (Stéfan van
der Walt), coffee (Rachel Michetti), brick and gravel (CC0Textures), grass (linolafett).
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from ...errors import LuvcError
from .scene import Background
from .vocabulary import PHOTOS, SIZE

TEXTURES = 48
_TEXTURE_SIZE = 256


@cache
def photo(name: str) -> Image.Image:
    """Load a photograph by what it shows, RGB.

    Raises:
        LuvcError: scikit-image is not installed.
    """
    # Only the location is needed: importing scikit-image costs a second.
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise LuvcError(
            f"The photograph {name!r} comes with scikit-image, which is not installed; "
            "install it with `pip install scikit-image`."
        )
    path = Path(spec.origin).parent / "data" / PHOTOS[name]
    image = Image.open(path).convert("RGB")
    # Larger pictures only make every crop slower.
    image.thumbnail((640, 640), Image.Resampling.BOX)
    return image


@lru_cache(maxsize=TEXTURES)
def texture(index: int) -> Image.Image:
    """Draw one of the fixed textures (noise, stripes, checks, gradients), 256 x 256 RGB."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[0:_TEXTURE_SIZE, 0:_TEXTURE_SIZE].astype(np.float32)
    period, angle = rng.uniform(6, 40), rng.uniform(0, np.pi)
    along = (x * np.cos(angle) + y * np.sin(angle)) / period
    across = (y * np.cos(angle) - x * np.sin(angle)) / period
    cells = int(rng.choice([8, 16, 32, 64, 256]))
    noise = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
    patterns = (
        lambda: (
            np.asarray(noise.resize((_TEXTURE_SIZE, _TEXTURE_SIZE), Image.Resampling.BICUBIC)) / 255
        ),
        lambda: 0.5 + 0.5 * np.sin(2 * np.pi * along),
        lambda: (np.floor(along) + np.floor(across)) % 2,
        lambda: np.clip(along * period / _TEXTURE_SIZE + 0.2, 0, 1),
    )
    level = np.asarray(patterns[index % len(patterns)](), np.float32)[..., None]
    dark, light = rng.uniform(0, 150, 3), rng.uniform(100, 255, 3)
    return Image.fromarray((dark + (light - dark) * level).astype(np.uint8))


def sample(rng: Random) -> Background:
    """Draw a background: half photographs, two fifths textures, the rest plain."""
    tint = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
    kind = rng.random()
    if kind < 0.5:
        return sample_photo(rng, rng.choice(tuple(PHOTOS)), 0.25, tint, rng.uniform(0, 0.6))
    if kind < 0.9:
        limit = _TEXTURE_SIZE - SIZE
        x, y = rng.randint(0, limit), rng.randint(0, limit)
        crop = (x, y, x + SIZE, y + SIZE)
        return Background("texture", str(rng.randrange(TEXTURES)), crop, tint, rng.uniform(0, 0.7))
    return Background("plain", "", (0, 0, SIZE, SIZE), tint, 1.0)


def sample_photo(
    rng: Random, name: str, smallest: float, tint: tuple[int, int, int], veil: float
) -> Background:
    """Draw a square crop of a photograph.

    Args:
        rng: source of chance.
        name: what the photograph shows.
        smallest: least side of the crop as a part of the photograph's shorter side, 0 .. 1.
        tint: colour that is blended in.
        veil: how much of it, 0 .. 1.
    """
    width, height = photo(name).size
    side = min(width, height) * rng.uniform(smallest, 1)
    x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
    return Background("photo", name, (x, y, x + side, y + side), tint, veil)


def render(background: Background, scale: int = 1) -> Image.Image:
    """Draw a background, RGB, `scale` times 192 pixels along an edge."""
    size = (SIZE * scale, SIZE * scale)
    plain = Image.new("RGB", size, background.tint)
    if background.kind == "plain":
        return plain
    if background.kind == "texture":
        image = texture(int(background.name)).crop(background.crop)
        image = image if scale == 1 else image.resize(size, Image.Resampling.BICUBIC)
    else:
        image = photo(background.name).resize(size, Image.Resampling.BILINEAR, box=background.crop)
    return Image.blend(image, plain, background.veil) if background.veil else image
