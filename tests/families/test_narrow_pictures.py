"""What the families' processors make of narrow pictures on their way, and the bound on it."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from luvc.engines.prompt.pictures import MEGAPIXELS
from luvc.engines.prompt.pixels import ImageProcessor, made_size, pixel_values
from luvc.errors import LuvcError

from .checkpoints import write_processor
from .gallery import families

SHAPES = [(1, 150), (150, 1), (2, 2), (3, 40), (40, 3), (1, 1), (200, 90)]  # (width, height)


@contextmanager
def recorded(processor: Any) -> Iterator[list[int]]:
    """Pixels of everything that Pillow resizes to, and of what is padded to a square."""
    found: list[int] = []
    resize: Any = Image.Image.resize
    square: Any = getattr(processor, "pad_to_square", None)

    def resized(image, size, *more, **options):
        found.append(size[0] * size[1])
        return resize(image, size, *more, **options)

    def squared(*given, **options):
        out = square(*given, **options)
        found.append(out.shape[-1] * out.shape[-2])
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", resized)
        if square:
            patch.setattr(processor, "pad_to_square", squared)
        yield found


def made_of(processor, size: tuple[int, int]) -> int:
    """Pixels of the largest picture that is made of one of `size`; 0 where it is refused."""
    with recorded(processor) as found:
        try:
            processor([[Image.new("RGB", size)]], return_tensors="np")
        except ValueError:  # an aspect ratio that the processor itself refuses
            return 0
    return max(found, default=size[0] * size[1])


@pytest.mark.parametrize("family", families())
def test_what_a_processor_makes_is_known_before(family, tmp_path):
    """Within the processor's own sizes, which a picture of that size shows, or as `made_size` says."""
    write_processor(family, tmp_path)
    processor = ImageProcessor.from_pretrained(tmp_path)
    own = max(made_of(processor, size) for size in ((400, 400), (400, 200), (200, 400)))
    for size in SHAPES:
        width, height = made_size(processor, size)
        assert made_of(processor, size) <= max(4 * own, width * height), size


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"shortest_edge": 112}, "crop_size": {"height": 112, "width": 112}},
        {"size": {"height": 112, "width": 112}, "do_center_crop": False},
        {"size": {"shortest_edge": 112}, "do_resize": False},
    ],
)
@pytest.mark.parametrize("kind", ["CLIPImageProcessorPil", "LlavaImageProcessorPil"])
def test_made_size_is_what_is_made(kind, settings):
    """Of both processors that LLaVA's checkpoints name."""
    import transformers

    for pad in (False, True) if kind.startswith("Llava") else (False,):
        processor = getattr(transformers, kind)(**settings, do_pad=pad)
        for size in SHAPES:
            width, height = made_size(processor, size)
            made = made_of(processor, size)
            assert made <= max(width * height, 112 * 112), (size, pad)
            if "shortest_edge" in settings["size"] and settings.get("do_resize", True):
                assert made == width * height, (size, pad)


@pytest.mark.parametrize("size", [(1, 2000), (16_000, 1), (1, 60_000)])
def test_a_narrow_picture_costs_nothing(size):
    """LLaVA's published processor made 2.1 GiB of 87 bytes."""
    from transformers import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
    )
    layout = Layout336()
    tracemalloc.start()
    with pytest.raises(LuvcError, match=r"makes \d+x\d+, the limit is 50 megapixels: cut it"):
        pixel_values(processor, [Image.new("RGB", size)], layout)  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    less_narrow = Image.new("RGB", (8, 400))
    made = made_size(processor, less_narrow.size)
    assert made == (336, 16_800) and made[0] * made[1] < MEGAPIXELS * 1e6
    wanted = processor(less_narrow, return_tensors="np")["pixel_values"]
    found = pixel_values(processor, [less_narrow], layout)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, wanted)


class Layout336:
    """The part of a layout that pixel values need."""

    name = "336x336"
    resize = False
    frames = 0
    pixel_shape = (1, 3, 336, 336)
    image_size = (336, 336)
    processor_options = MappingProxyType({})
