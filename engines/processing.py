"""Messages and images to arrays: chat template, shrunk image runs, pixels (pixels.py).

The number of image tokens in the prompt is the layout's, which export computed from the schedule; a
prompt whose count differs is an error, never a guess. Letters: N tiles, V visual tokens.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import LuvcError
from .bundle.folder import Bundle
from .bundle.manifest import Layout
from .pictures import Video, Visual, frames_of, is_visual, open_image, open_visual
from .pixels import ImageProcessor, pixel_values

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageSource", "Message", "Messages", "Processor", "Prompt", "open_image"]
ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | np.ndarray | Image"
"""What `open_image` takes: a path or data: URL, a file's bytes, an array, a PIL image."""
Message = Mapping[str, object]
"""{"role", "content"}; content is a text or a list of parts, see `VLM.generate`."""
Messages = Sequence[Message]
OTHER = "name another layout, or none for the one that fits best"


@dataclass(frozen=True)
class Prompt:
    """One conversation, ready to run.

    Attributes:
        layout: what its images fix.
        text: the rendered conversation, image runs expanded.
        input_ids: its token ids.
        images: PIL images (or videos) in order; may be none.
    """

    layout: Layout
    text: str
    input_ids: list[int]
    images: tuple[Visual, ...]

    @property
    def seconds(self) -> tuple[float, ...]:
        """Of each video between two steps of the vision tower; empty for images."""
        if not self.layout.frames:
            return ()
        span = self.layout.frames / self.layout.pixel_shape[0]
        return tuple(span / video.fps for video in self.images if isinstance(video, Video))

    @property
    def notes(self) -> list[str]:
        """What was done to the pictures that the model's own processor would not have done."""
        height, width = self.layout.image_size
        sizes = {image.size for image in self.images} - {(width, height)}
        if not self.layout.resize or not sizes:
            return []
        shown = ", ".join(f"{h}x{w}" for w, h in sorted(sizes))
        return [f"{shown} brought to {height}x{width}, the nearest layout of the bundle"]


class Processor:
    """Tokenizer, chat template and image processor of a bundle.

    Args:
        bundle: a loaded bundle.
    """

    def __init__(self, bundle: Bundle):
        self.bundle, self.manifest = bundle, bundle.manifest

    @cached_property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer (no code of the bundle is run)."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(
            self.bundle.processor, local_files_only=True, trust_remote_code=False
        )

    @cached_property
    def image_processor(self) -> Any:
        """The Hugging Face image processor."""
        return ImageProcessor.from_pretrained(
            self.bundle.processor, local_files_only=True, trust_remote_code=False
        )

    def prepare(self) -> None:
        """Load tokenizer and image processor now rather than with the first prompt."""
        _ = self.tokenizer, self.image_processor

    def prompt(self, messages: Messages, layout: str | None = None) -> Prompt:
        """Render and tokenise a conversation that ends with the user's turn.

        Args:
            messages: the conversation.
            layout: name of the layout to use; None picks by the images' number and size.

        Raises:
            LuvcError: malformed messages, wrong number of images, unreadable image, image token in a
                text, prompt longer than the text capacity.
        """
        messages, images = _split_images(messages)
        chosen = self.layout_for(images, layout)
        images = [i.sample(chosen.frames) if isinstance(i, Video) else i for i in images]
        text = self._render(messages, images, chosen)
        ids = self.tokenise(text)
        lm = self.manifest.language
        visual = ids.count(lm.image_token_id)
        if visual != chosen.visual_tokens:
            raise LuvcError(
                f"the prompt holds {visual} image tokens, layout {chosen.name} needs "
                f"{chosen.visual_tokens}: is {lm.image_token} in one of the texts?"
            )
        words, capacity = len(ids) - visual, self.manifest.text_capacity
        if words >= capacity:
            raise LuvcError(
                f"the prompt has {words} text tokens, the bundle holds {capacity} for prompt and answer: "
                f"shorten it or export with a larger --text-capacity"
            )
        return Prompt(chosen, text, ids, tuple(images))

    def layout_for(self, images: Sequence[Visual], name: str | None = None) -> Layout:
        """The layout for these images: the named one, or by their number, then by size.

        Raises:
            LuvcError: none fits; says what the bundle holds.
        """
        layouts = [x for x in self.manifest.layouts if name in (None, x.name)]
        if not layouts:
            known = ", ".join(x.name for x in self.manifest.layouts)
            raise LuvcError(f"there is no layout {name!r} in this bundle, only {known}")
        video = {isinstance(i, Video) for i in images}
        if len(video) > 1:
            raise LuvcError("images and videos cannot share a prompt: ask about one kind at a time")
        as_many = [x for x in layouts if x.images == len(images)]
        if not as_many:
            raise LuvcError(self._count_message(len(images), layouts, name))
        if not images:
            return as_many[0]
        shortest = min(frames_of(i) for i in images)
        fitting = [x for x in as_many if bool(x.frames) in video and x.frames <= shortest]
        if not fitting:
            raise LuvcError(_frames_message(shortest, as_many, name))
        most = max(x.frames for x in fitting)
        fitting = [x for x in fitting if x.frames == most]
        return min(fitting, key=lambda x: sum(_distance(x, i.size) for i in images))

    def pixels(self, prompt: Prompt) -> np.ndarray:
        """Pixel values of all images of a prompt, joined along the first axis, float32 [N, ...].

        Raises:
            LuvcError: the processor gives another number or size of tiles than the layout's.
        """
        return pixel_values(self.image_processor, prompt.images, prompt.layout)

    def _render(self, messages: list[dict], images: list[Any], layout: Layout) -> str:
        if not self.tokenizer.chat_template:
            raise LuvcError(
                "the checkpoint has no chat template; add chat_template.jinja and export"
            )
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except Exception as e:  # a template raises what it likes
            raise LuvcError(
                f"the checkpoint's chat template cannot render these messages ({e}); it must take "
                "content as a list of parts"
            ) from e
        first, *rest = text.split(layout.placeholder)
        if len(rest) != len(images):
            raise LuvcError(
                f"the rendered prompt has {len(rest)} places for {len(images)} image(s): "
                f"remove {layout.placeholder} from the texts"
            )
        return first + "".join(
            _expand(layout, image) + piece for image, piece in zip(images, rest, strict=True)
        )

    def _count_message(self, images: int, layouts: Sequence[Layout], name: str | None) -> str:
        """Why no layout, or not the named one, takes so many images."""
        what = f"layout {name}" if name else "this bundle"
        counts = " or ".join(str(n) for n in sorted({x.images for x in layouts}))
        mend = OTHER if name else f"export with --images {images} too"
        if not images and not name:
            mend = "give one" if self.manifest.language.whole_prompt else f"give one, or {mend}"
        shown = f"{images or 'no'} image{'s' * (images != 1)}"
        return f"the prompt has {shown}, {what} holds {counts}: {mend}"

    def tokenise(self, text: str, start: bool = True) -> list[int]:
        """Token ids of a rendered text; `start` is False for what continues a conversation."""
        bos, template = self.tokenizer.bos_token, self.tokenizer.chat_template or ""
        written = bool(bos) and (text.startswith(bos) or "bos_token" in template)
        return self.tokenizer(text, add_special_tokens=start and not written)["input_ids"]


def _expand(layout: Layout, image: Visual) -> str:
    """What an image becomes in the prompt; a video's frames are told with their times."""
    text = "".join(piece * repeats for piece, repeats in layout.expansion)
    if "{seconds}" not in text:
        return text
    span = layout.frames // layout.pixel_shape[0]
    for first in range(0, layout.frames, span):  # the middle of the step's first and last frame
        seconds = (image.times[first] + image.times[first + span - 1]) / 2
        text = text.replace("{seconds}", f"{seconds:.1f}", 1)
    return text


def _frames_message(frames: int, layouts: Sequence[Layout], name: str | None) -> str:
    """Why no layout, or not the named one, takes a video of so many frames, or an image."""
    what = f"layout {name}" if name else "this bundle"
    held = sorted({x.frames for x in layouts})
    kinds = " or ".join(f"videos of {n} frames or more" if n else "images" for n in held)
    shown = f"a video of {frames} frames" if frames else "an image"
    mend = f"export with --frames {frames} or fewer" if frames else "export without --frames"
    return f"the prompt holds {shown}, {what} answers about {kinds}: {OTHER if name else mend}"


def _split_images(messages: Messages) -> tuple[list[dict], list[Any]]:
    """Messages with bare image parts, and the opened images in order."""
    if not messages or isinstance(messages, (str, bytes, Mapping)):
        raise LuvcError(
            "messages must be a list of {'role': ..., 'content': ...}, with a user's turn last"
        )
    plain, images = [], []
    for message in messages:
        if not isinstance(message, Mapping) or {"role", "content"} - set(message):
            raise LuvcError(f"a message needs 'role' and 'content', got {message!r:.80}")
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, Sequence):
            raise LuvcError(f"content is a text or a list of parts, got {content!r:.80}")
        kept = []
        for part in parts:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if is_visual(part):
                images.append(open_visual(part))
                kept.append({"type": "video" if kind == "video" else "image"})
            elif kind == "text" and isinstance(part.get("text"), str):
                kept.append({"type": "text", "text": part["text"]})
            else:
                raise LuvcError(
                    f"a content part is of type 'text', 'image', 'image_url' or 'video', got {part!r:.80}"
                )
        plain.append({"role": message["role"], "content": kept})
    if plain[-1]["role"] == "assistant":
        raise LuvcError("the last message is the assistant's; the user's turn must come last")
    return plain, images


def _distance(layout: Layout, image: tuple[int, int]) -> float:
    """How far an image's (width, height) is from a layout's size, in octaves of area and of shape.

    Where tiles adapt to the image's orientation, the shape only decides between equal areas.
    """
    height, width = layout.image_size
    area = abs(math.log2(width * height / (image[0] * image[1])))
    shape = abs(math.log2(width / height * image[1] / image[0]))
    return area + (2.0 if layout.resize else 1e-3) * shape
