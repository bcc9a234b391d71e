"""Which layout of a bundle a prompt runs in: by the number of its images, then by what they are."""

import math
from collections.abc import Sequence

from ...errors import LuvcError
from ..bundle.layout import Layout
from ..bundle.manifest import Manifest
from .pictures import Video, Visual, frames_of

OTHER = "name another layout, or none for the one that fits best"


def most_images(manifest: Manifest) -> int:
    """Images of a prompt that some layout takes, at most."""
    return max(layout.images for layout in manifest.layouts)


def for_count(manifest: Manifest, images: int, name: str | None = None) -> list[Layout]:
    """The layouts, or the one of a name, that take so many images or videos.

    Raises:
        LuvcError: there is none; says what the bundle holds.
    """
    if name is not None and not isinstance(name, str):
        raise LuvcError(f"a layout is chosen by its name, got {type(name).__name__}")
    found = [x for x in manifest.layouts if name in (None, x.name)]
    if not found:
        known = ", ".join(x.name for x in manifest.layouts)
        raise LuvcError(f"there is no layout {name!r:.80} in this bundle, only {known}")
    as_many = [x for x in found if x.images == images]
    if not as_many:
        raise LuvcError(_count_message(manifest, images, found, name))
    return as_many


def choose(manifest: Manifest, images: Sequence[Visual], name: str | None = None) -> Layout:
    """The layout for these images: the named one, or by their number, then by size.

    Raises:
        LuvcError: none fits; says what the bundle holds.
    """
    video = {isinstance(i, Video) for i in images}
    if len(video) > 1:
        raise LuvcError("images and videos cannot share a prompt: ask about one kind at a time")
    as_many = for_count(manifest, len(images), name)
    if not images:
        return as_many[0]
    shortest = min(frames_of(i) for i in images)
    fitting = [x for x in as_many if bool(x.frames) in video and x.frames <= shortest]
    if not fitting:
        raise LuvcError(_frames_message(shortest, as_many, name))
    most = max(x.frames for x in fitting)
    fitting = [x for x in fitting if x.frames == most]
    return min(fitting, key=lambda x: sum(_distance(x, i.size) for i in images))


def _count_message(
    manifest: Manifest, images: int, layouts: Sequence[Layout], name: str | None
) -> str:
    """Why no layout, or not the named one, takes so many images."""
    what = f"layout {name}" if name else "this bundle"
    counts = " or ".join(str(n) for n in sorted({x.images for x in layouts}))
    mend = OTHER if name else f"export with --images {images} too"
    if not images and not name:
        mend = "give one" if manifest.language.whole_prompt else f"give one, or {mend}"
    shown = f"{images or 'no'} image{'s' * (images != 1)}"
    return f"the prompt has {shown}, {what} holds {counts}: {mend}"


def _frames_message(frames: int, layouts: Sequence[Layout], name: str | None) -> str:
    """Why no layout, or not the named one, takes a video of so many frames, or an image."""
    what = f"layout {name}" if name else "this bundle"
    held = sorted({x.frames for x in layouts})
    kinds = " or ".join(f"videos of {n} frames or more" if n else "images" for n in held)
    shown = f"a video of {frames} frames" if frames else "an image"
    mend = f"export with --frames {frames} or fewer" if frames else "export without --frames"
    return f"the prompt holds {shown}, {what} answers about {kinds}: {OTHER if name else mend}"


def _distance(layout: Layout, image: tuple[int, int]) -> float:
    """How far an image's (width, height) is from a layout's size, in octaves of area and of shape.

    Where tiles adapt to the image's orientation, the shape only decides between equal areas.
    """
    height, width = layout.image_size
    area = abs(math.log2(width * height / (image[0] * image[1])))
    shape = abs(math.log2(width / height * image[1] / image[0]))
    return area + (2.0 if layout.resize else 1e-3) * shape
