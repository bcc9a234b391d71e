"""The size of picture that a number of visual tokens allows: `--image-tokens`."""

from bisect import bisect_left
from fractions import Fraction
from math import isqrt

from ...errors import LuvcError
from ..checkpoint.family import Family
from ..planning.grid import Grid
from ..vision.adapter import ImageGeometry
from .downsample import PROPORTIONS
from .planned import image_geometry


def largest_picture(
    family: Family, size: tuple[int, int] | None, tokens: int, images: int = 1, frames: int = 0
) -> ImageGeometry:
    """The largest picture of at most `tokens` visual tokens, as the unmodified model has them.

    Args:
        family: of the model.
        size: (height, width) whose proportions it keeps, but for the steps that sizes go in; None for a
            square.
        tokens: of one picture (or video).
        images: in the prompt.
        frames: of a video; 0 for an image.

    Raises:
        LuvcError: the family takes one size only, or none of that few tokens; says the fewest.
    """
    shape = size or (1, 1)
    named = f"of the proportions of {size[0]}x{size[1]}" if size else "square"
    kind = family.config.model_type
    step = family.adapter.size_step(family.config, family.image_processor)
    if step is None:
        fixed = image_geometry(family, None, images, frames)
        raise LuvcError(
            f"--image-tokens {tokens}: {kind} brings every picture to {fixed.size[0]}x{fixed.size[1]}, which "
            f"is {tokens_of(family, fixed)} visual tokens: leave it out"
        )
    grids = sorted(alike(shape, step, max(tokens, 1 << 12)), key=lambda grid: grid.tokens)
    pictures = Pictures(family, [(g.h * step[0], g.w * step[1]) for g in grids], images, frames)
    top = sum(grid.tokens <= tokens for grid in grids) - 1
    if top >= 0 and not pictures.beyond(top, tokens):
        return pictures.known[top]
    first = next((i for i in range(len(grids)) if pictures[i]), None)
    if first is None:
        raise LuvcError(
            f"--image-tokens {tokens}: {kind} takes no picture as it is that is {named}: give another "
            "--image-size"
        )
    least = pictures.known[first]
    if tokens_of(family, least) > tokens:
        raise LuvcError(
            f"--image-tokens {tokens}: the smallest picture that {kind} takes as it is, {named}, is "
            f"{least.size[0]}x{least.size[1]} with {tokens_of(family, least)} visual tokens: ask for more"
        )
    # all within the limits of the processor and of the tokens, then all beyond them
    within = bisect_left(range(first, top), True, key=lambda i: pictures.beyond(i, tokens))
    return pictures.known[first + within - 1]


def tokens_of(family: Family, geometry: ImageGeometry) -> int:
    """Visual tokens of one picture at ratio 1."""
    return family.adapter.tokens(family.config, geometry, ())


def alike(shape: tuple[int, int], step: tuple[int, int], most: int) -> set[Grid]:
    """Sizes in steps, at most so many, whose proportions are nearly those of (height, width).

    For each number of rows the columns that come nearest, and the other way round.
    """
    tall = Fraction(shape[0] * step[1], shape[1] * step[0])  # rows for each column
    longest = isqrt(int(most * max(tall, 1 / tall))) + 1
    near = {Grid(n, round(n / tall)) for n in range(1, longest + 1)}
    near |= {Grid(round(n * tall), n) for n in range(1, longest + 1)}
    kept = (g for g in near if 0 < g.tokens <= most)
    return {g for g in kept if 1 / PROPORTIONS <= Fraction(g.h, g.w) / tall <= PROPORTIONS}


class Pictures:
    """What pictures become, each asked for once; None where the processor makes another size of one.

    Attributes:
        family: of the model.
        sizes: (height, width) of the pictures.
        counts: images in the prompt, frames of a video.
        known: what was found to fit, by index.
    """

    def __init__(self, family: Family, sizes: list[tuple[int, int]], images: int, frames: int):
        self.family, self.sizes = family, sizes
        self.counts = images, frames
        self.known: dict[int, ImageGeometry] = {}

    def __getitem__(self, i: int) -> ImageGeometry | None:
        if i not in self.known:
            try:
                self.known[i] = image_geometry(self.family, self.sizes[i], *self.counts)
            except LuvcError:
                return None
        return self.known[i]

    def beyond(self, i: int, tokens: int) -> bool:
        """Whether a picture, not below the smallest, is too large."""
        found = self[i]
        return found is None or tokens_of(self.family, found) > tokens
