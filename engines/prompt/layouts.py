"""Which layout of a bundle a prompt runs in: by the number of its images, what they are, and what is asked.

A bundle of several ratios holds a layout of each for every size. The size is chosen first, then the ratio.
"""

import math
from collections.abc import Sequence

from ...errors import LuvcError
from ..bundle.layout import Layout
from ..bundle.manifest import Manifest
from .messages import MIXED
from .videos import Video, Visual, frames_of
from .wishes import Wish, wish_of

OTHER = "name another layout, or none for the one that fits best"


def most_images(manifest: Manifest) -> int:
    """Images of a prompt that some layout takes, at most."""
    return max(layout.images for layout in manifest.layouts)


def for_count(manifest: Manifest, images: int, asked: str | Wish | None = None) -> list[Layout]:
    """The layouts, or the one of a name, that take so many images or videos.

    Raises:
        LuvcError: there is none; says what the bundle holds.
    """
    name = wish_of(asked).layout
    found = [x for x in manifest.layouts if name in (None, x.name)]
    if not found:
        known = ", ".join(x.name for x in manifest.layouts)
        raise LuvcError(f"there is no layout {name!r:.80} in this bundle, only {known}")
    as_many = [x for x in found if x.images == images or (images == 1 and _films(x))]
    if not as_many:
        raise LuvcError(_count_message(manifest, images, found, name))
    return as_many


def choose(manifest: Manifest, images: Sequence[Visual], asked: str | Wish | None = None) -> Layout:
    """The layout for these images: the named one, or by their number, then by size, then by the ratio.

    Where nothing is asked of the ratio, it is the first one of the export.

    Raises:
        LuvcError: none fits; says what the bundle holds.
    """
    wish = wish_of(asked)
    video = {isinstance(i, Video) for i in images}
    if len(video) > 1:
        raise LuvcError(MIXED)
    as_many = for_count(manifest, len(images), wish)
    if not images:
        return as_many[0]
    if True in video:
        fitting = _within(_of_videos(images, as_many, wish.layout), wish)
        most = max(x.shown_frames for x in fitting)
        fitting = [x for x in fitting if x.shown_frames == most]
    else:
        fitting = _within(_of_images(manifest, len(images), as_many, wish.layout), wish)
    best = min(fitting, key=lambda x: sum(_distance(x, i.size) for i in images))
    return _of_ratio([x for x in fitting if x.asked_size == best.asked_size], wish)


def _films(layout: Layout) -> bool:
    """Whether a video is shown as all images of the layout."""
    return layout.frames_as_images and layout.images > 1


def _of_videos(videos: Sequence[Video], layouts: list[Layout], name: str | None) -> list[Layout]:
    """The layouts that show as many videos, and no more frames than the shortest has.

    Raises:
        LuvcError: there is none; says what the bundle holds.
    """
    shortest, one = min(map(frames_of, videos)), len(videos) == 1
    able = [x for x in layouts if x.frames or (one and _films(x))]
    found = [x for x in able if x.shown_frames <= shortest]
    if not found:
        raise LuvcError(_frames_message(shortest, able or layouts, name))
    return found


def _of_images(
    manifest: Manifest, count: int, layouts: list[Layout], name: str | None
) -> list[Layout]:
    """The layouts of as many images, without those that would take a video in their place.

    Raises:
        LuvcError: there is none; says what the bundle holds.
    """
    as_many = [x for x in layouts if x.images == count]
    if not as_many:
        raise LuvcError(
            _count_message(manifest, count, layouts if name else manifest.layouts, name)
        )
    found = [x for x in as_many if not x.frames]
    if not found:
        raise LuvcError(_frames_message(0, as_many, name))
    return found


def said_of(layout: Layout, asked: str | Wish | None) -> list[str]:
    """What there is to say where a wish was met by something else."""
    ratio = wish_of(asked).ratio
    if ratio is None or (layout.images and math.isclose(ratio, layout.ratio, rel_tol=1e-6)):
        return []
    if not layout.images:
        return [
            f"ratio {ratio:g}x was asked for, and without a picture there is nothing to compress"
        ]
    return [f"ratio {ratio:g}x was asked for, {layout.ratio:g}x is the nearest of the bundle"]


def _within(layouts: list[Layout], wish: Wish) -> list[Layout]:
    """Those that bring no more visual tokens than asked for.

    Raises:
        LuvcError: all bring more; names the smallest.
    """
    if wish.image_tokens is None:
        return layouts
    found = [x for x in layouts if x.image_tokens <= wish.image_tokens]
    if not found:
        least = min(layouts, key=lambda x: x.image_tokens)
        raise LuvcError(
            f"image_tokens {wish.image_tokens} is less than this bundle can do: the smallest is "
            f"{least.image_tokens}, of layout {least.name}"
        )
    return found


def _of_ratio(layouts: list[Layout], wish: Wish) -> Layout:
    """The layout of one size that a wish means; of two that are as near, the one that keeps more."""
    if wish.image_tokens is not None:
        return max(layouts, key=lambda x: x.image_tokens)
    ratio = wish.ratio
    if ratio is None:
        return layouts[0]
    return min(layouts, key=lambda x: (abs(math.log2(x.ratio / ratio)), x.ratio))


def _count_message(
    manifest: Manifest, images: int, layouts: Sequence[Layout], name: str | None
) -> str:
    """Why no layout, or not the named one, takes so many images."""
    what = f"layout {name}" if name else "this bundle"
    counts = " or ".join(str(n) for n in sorted({x.images for x in layouts}))
    mend = OTHER if name else f"export with --images {images} too"
    if not images and not name:
        mend = "give one" if manifest.language.whole_prompt else f"give one, or {mend}"
    counted = f"{images or 'no'} image{'s' * (images != 1)}"
    return f"the prompt has {counted}, {what} holds {counts}: {mend}"


def _frames_message(frames: int, layouts: Sequence[Layout], name: str | None) -> str:
    """Why no layout, or not the named one, takes a video of so many frames, or an image."""
    what = f"layout {name}" if name else "this bundle"
    held = sorted({x.shown_frames if frames else x.frames for x in layouts})
    kinds = " or ".join(f"videos of {n} frames or more" if n else "images" for n in held)
    given = f"a video of {frames} frame{'s' * (frames != 1)}" if frames else "an image"
    option = "--images" if any(x.frames_as_images for x in layouts) else "--frames"
    mend = f"export with {option} {frames} or fewer" if frames else "export without --frames"
    return f"the prompt holds {given}, {what} answers about {kinds}: {OTHER if name else mend}"


def _distance(layout: Layout, image: tuple[int, int]) -> float:
    """How far an image's (width, height) is from a layout's size, in octaves of area and of shape.

    Where tiles adapt to the image's orientation, the shape only decides between equal areas.
    """
    height, width = layout.asked_size
    area = abs(math.log2(width * height / (image[0] * image[1])))
    shape = abs(math.log2(width / height * image[1] / image[0]))
    return area + (2.0 if layout.resize else 1e-3) * shape
