"""What one image size and image count fix, as the manifest says it."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .bounded import Count, Factor, GraphPath, Name, Pixels, Position, Tokens, Words
from .schedule import Frozen, Schedule, Stage

MOST_PIXELS = 1 << 31
MOST_LETTERS = 1 << 26
"""Of all images of one prompt: pixel values, and characters that stand for them."""


Sampling = Literal["ends", "starts", "after", "middles", "inside"]
"""Which frames of a longer video a layout of N shows.

"ends": at equal distances, the first and the last among them; "starts": the first of each N-th part, "after":
the first that begins in it, "middles": its middle; "inside": as "ends", of a long video without its first and
its last second.
"""


class Ratios(Frozen):
    """Baseline / compressed FLOPs: vision tower, language prefill, both together."""

    vision: Factor
    prefill: Factor
    both: Factor


class Graphs(Frozen):
    """Paths of a layout's graphs in the bundle: vision (empty without images), prefill and step."""

    vision: GraphPath
    prefill: GraphPath
    step: GraphPath

    @property
    def files(self) -> tuple[str, ...]:
        """Those that are there."""
        return tuple(path for path in (self.vision, self.prefill, self.step) if path)


class Layout(Frozen):
    """What one image size and image count fix.

    Attributes:
        name: unique in the bundle, e.g. "448x448" or "448x448-2images".
        image_size: (height, width) the layout was made for, in pixels.
        images: images (or videos) in one prompt; 0 for questions without any, where every size and
            count is 0.
        frames: frames of a video; 0 for images.
        sampling: which frames of a longer video are shown.
        frames_as_images: the model knows no videos, so one is shown as `images` of its frames.
        tiles: times the vision tower runs for one image.
        pixel_shape: pixel_values of one image as the vision graph takes them; images are joined along
            the first axis.
        grid: vision tokens per tile before merging, (rows, columns).
        merged_grid: the same behind the tower, after OIM that lasts, or what the smaller grid of
            `schedule.exit` would be made of.
        visual_grid: visual tokens of one image as (time, rows, columns), for rotary positions in
            three axes; None where positions are plain.
        tokens_per_image: visual tokens one image gives the language model.
        visual_tokens: V of a prompt, images * tokens_per_image.
        baseline_visual_tokens: V at ratio 1 and `baseline_size`.
        baseline_size: (height, width) that was asked for where the pictures are made smaller than
            that; the ratios are against it. None where they are not.
        placeholder: what the chat template writes for one image.
        expansion: what one image becomes in the prompt, as (text, repeats) pairs; a text may hold the
            time of the next step of a video, or the video's length (prompt/videos.py).
        resize: images are brought to `image_size` before the processor sees them.
        processor_options: keywords for the image processor that give exactly this layout.
        schedule: what is merged and pruned where.
        stages: runs of language layers with equal V_l.
        ratios: what the schedule saves at the reference prompt.
        graphs: paths of its ONNX graphs in the bundle.
    """

    name: Name
    image_size: tuple[Pixels, Pixels]
    images: Count
    frames: Pixels = 0
    sampling: Sampling = "ends"
    frames_as_images: bool = False
    tiles: Count
    pixel_shape: Annotated[tuple[Tokens, ...], Field(max_length=8)]
    grid: tuple[Pixels, Pixels]
    merged_grid: tuple[Pixels, Pixels]
    visual_grid: tuple[Pixels, Pixels, Pixels] | None = None
    tokens_per_image: Tokens
    visual_tokens: Tokens
    baseline_visual_tokens: Tokens
    baseline_size: tuple[Pixels, Pixels] | None = None
    placeholder: Words
    expansion: Annotated[tuple[tuple[Words, Tokens], ...], Field(max_length=1 << 16)]
    resize: bool = False
    processor_options: Annotated[
        dict[Name, Position | bool | dict[Name, Position]], Field(max_length=100)
    ]
    schedule: Schedule
    stages: Annotated[tuple[Stage, ...], Field(max_length=1024)]
    ratios: Ratios
    graphs: Graphs

    @model_validator(mode="after")
    def _sees_its_images(self) -> "Layout":
        if bool(self.images) != bool(self.graphs.vision):
            raise ValueError(
                f"layout {self.name}: {self.images} images, vision {self.graphs.vision!r}"
            )
        sizes = (*self.image_size, *self.grid, *self.merged_grid, *(self.visual_grid or ()))
        if self.images and not all((self.tiles, self.tokens_per_image, *self.pixel_shape, *sizes)):
            raise ValueError(f"layout {self.name}: an image of no pixels or tokens")
        if self.visual_tokens != self.images * self.tokens_per_image:
            raise ValueError(
                f"layout {self.name}: {self.visual_tokens} visual tokens of {self.images} images of "
                f"{self.tokens_per_image}"
            )
        pixels = math.prod(self.pixel_shape) * self.images
        if pixels > MOST_PIXELS:
            raise ValueError(f"layout {self.name}: {pixels} pixel values in a prompt")
        if self.frames and (self.frames_as_images or self.frames % self.tiles):
            raise ValueError(f"layout {self.name}: {self.frames} frames in {self.tiles} steps")
        letters = sum(len(text) * repeats for text, repeats in self.expansion) * self.images
        if letters > MOST_LETTERS:
            raise ValueError(f"layout {self.name}: images become {letters} characters of a prompt")
        return self

    @property
    def shown_frames(self) -> int:
        """Frames of a video that it shows; 0 where it shows none."""
        return self.images if self.frames_as_images and self.images > 1 else self.frames

    @property
    def ratio(self) -> float:
        """The ratio it was asked for; of a schedule that names none, what it saves in the prefill."""
        saved = max(1.0, round(self.ratios.prefill, 2))
        return saved if self.schedule.own else self.schedule.ratio

    @property
    def asked_size(self) -> tuple[int, int]:
        """(height, width) that was asked for, where pictures of some ratios are made smaller than that."""
        return self.baseline_size or self.image_size

    @property
    def image_tokens(self) -> int:
        """Visual tokens that one picture has in a language layer, in the mean of all layers, rounded up."""
        layers = sum(s.last - s.first + 1 for s in self.stages)
        seen = sum((s.last - s.first + 1) * s.visual for s in self.stages)
        return math.ceil(seen / max(1, layers * self.images))

    def longest_position(self, capacity: int) -> int:
        """No token of a conversation with `capacity` text tokens has a position above this."""
        return self.visual_tokens + capacity
