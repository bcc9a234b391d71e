"""Messages and images to arrays: chat template (chat_template.py), shrunk image runs, pixels (pixels.py).

The number of image tokens in the prompt is the layout's, which export computed from the schedule; a
prompt whose count differs is an error, never a guess. Letters: N tiles, V visual tokens.
"""

import os
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...errors import LuvcError, brief
from ..bundle.folder import Bundle
from ..bundle.layout import Layout
from . import layouts
from .chat_template import ChatTemplate
from .loading import read_pretrained
from .messages import (
    Message,
    Messages,
    Turn,
    bare,
    characters,
    read_messages,
    visual_parts,
    with_frames,
    with_visuals,
)
from .pictures import MEGAPIXELS, open_image
from .pixels import ImageProcessor, pixel_values
from .positions import prompt_positions
from .rendering import renderer
from .videos import Video, Visual, open_visual, shown_by, told
from .wishes import Wish

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageSource", "Message", "Messages", "Processor", "Prompt", "open_image"]
ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | np.ndarray | Image"
"""What `open_image` takes: a path or data: URL, a file's bytes, an array, a PIL image."""


@dataclass(frozen=True)
class Prompt:
    """One conversation, ready to run.

    Attributes:
        layout: what its images fix.
        text: the rendered conversation, image runs expanded.
        input_ids: its token ids.
        images: PIL images (or videos) in order; may be none.
        joined: turns that were joined into one prompt of a model that knows no turns; 0 for others.
        said: how the layout differs from what was asked for.
    """

    layout: Layout
    text: str
    input_ids: list[int]
    images: tuple[Visual, ...]
    joined: int = 0
    said: tuple[str, ...] = ()

    @property
    def seconds(self) -> tuple[float, ...]:
        """Of each video between two steps of the vision tower; empty for images."""
        if not self.layout.frames:
            return ()
        span = self.layout.frames / self.layout.pixel_shape[0]
        return tuple(span / video.fps for video in self.images if isinstance(video, Video))

    @property
    def notes(self) -> list[str]:
        """What was done that was not asked for, or that the model's own processor would not have done."""
        return [*self.said, *self._resized(), *self._turns()]

    def _turns(self) -> list[str]:
        said = f"{self.joined} turns joined into one prompt: this model was trained on single questions"
        return [said] if self.joined else []

    def _resized(self) -> list[str]:
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
        megapixels: most of a picture, as it comes and on its way to the layout's size.
    """

    def __init__(self, bundle: Bundle, megapixels: float = MEGAPIXELS):
        self.bundle, self.manifest = bundle, bundle.manifest
        self.megapixels = megapixels

    def of(self, layouts: Iterable[Layout]) -> "Processor":
        """The same of some of the layouts alone."""
        found = copy(self)
        found.manifest = self.manifest.model_copy(update={"layouts": tuple(layouts)})
        return found

    @cached_property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer (no code of the bundle is run).

        Raises:
            LuvcError: it cannot be read.
        """
        from transformers import AutoTokenizer

        return self._read(AutoTokenizer, "the tokenizer's files")

    @cached_property
    def image_processor(self) -> Any:
        """The Hugging Face image processor.

        Raises:
            LuvcError: it cannot be read.
        """
        return self._read(ImageProcessor, "preprocessor_config.json")

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template.

        Raises:
            LuvcError: there is none, or it does not print what a user or an assistant says.
        """
        template = ChatTemplate(self.tokenizer)
        template.check()
        return template

    @cached_property
    def _longest_token(self) -> int:
        """No token stands for more characters than this."""
        return max(map(len, self.tokenizer.get_vocab()), default=1)

    def prepare(self) -> None:
        """Load tokenizer, template and image processor now rather than with the first prompt."""
        renderer.start()
        _ = self.template, self.image_processor, self._longest_token

    def prompt(self, messages: Messages, layout: str | Wish | None = None) -> Prompt:
        """Render and tokenise a conversation that ends with the user's turn.

        Args:
            messages: the conversation.
            layout: name of the layout to use, or what else is asked of it; None picks by the images' number
                and size.

        Raises:
            LuvcError: malformed messages, wrong number of images, unreadable image, image token in a
                text, prompt longer than the text capacity or with positions beyond the model's.
        """
        turns = read_messages(messages)
        parts = visual_parts(turns)
        # before they are opened: a picture can be large then
        layouts.for_count(self.manifest, len(parts), layout)
        images = [self._open(part) for part in parts]
        turns = with_visuals(turns, bare)
        self._check_length(turns)
        chosen = self.layout_for(images, layout)
        said = layouts.said_of(chosen, layout)
        images = [shown_by(chosen, image) for image in images]
        if chosen.frames_as_images and any(isinstance(image, Video) for image in images):
            turns, images = with_frames(turns, chosen.images), list(images[0].frames)
            said.append(f"the video is shown as {len(images)} images: this model knows no videos")
        text = self._expanded(self.template.render(turns), images, chosen)
        ids = self.tokenise(text)
        self._check_tokens(ids, chosen)
        prompt = Prompt(chosen, text, ids, tuple(images), self._joined(turns), tuple(said))
        # refuses positions beyond the model's before anything is run
        prompt_positions(ids, self.manifest.language, chosen, prompt.seconds)
        return prompt

    def opened(self, messages: Messages) -> list[dict[str, Any]]:
        """Checked messages whose pictures are open, to be kept.

        Raises:
            LuvcError: malformed messages, more images than any layout takes, unreadable image.
        """
        turns = read_messages(messages)
        count = len(visual_parts(turns))
        if count > layouts.most_images(self.manifest):
            layouts.for_count(self.manifest, count)

        def shown(part: Turn) -> dict[str, Any]:
            visual = self._open(part)
            if isinstance(visual, Video):
                return {"type": "video", "video": visual.frames, "fps": visual.fps}
            return {"type": "image", "image": visual}

        return with_visuals(turns, shown)

    def _read(self, auto: Any, what: str) -> Any:
        folder = self.bundle.processor
        return read_pretrained(auto, folder, what, str(folder), "export the bundle again")

    def _open(self, part: Turn) -> Visual:
        return open_visual(part, self.megapixels)

    def _joined(self, turns: Sequence[Turn]) -> int:
        """How many turns were joined where the model knows of none."""
        return len(turns) if self.manifest.language.whole_prompt and len(turns) > 1 else 0

    def _check_length(self, turns: Sequence[Turn]) -> None:
        """Refuse texts that cannot fit however well they tokenise, before they are tokenised."""
        capacity, count = self.manifest.text_capacity, characters(turns)
        if count > capacity * self._longest_token:
            raise LuvcError(
                f"the prompt has {count} characters, the bundle holds {capacity} text tokens for prompt "
                "and answer: shorten it or export with a larger --text-capacity"
            )

    def _check_tokens(self, ids: list[int], layout: Layout) -> None:
        lm = self.manifest.language
        visual = ids.count(lm.image_token_id)
        if visual != layout.visual_tokens:
            raise LuvcError(
                f"the prompt holds {visual} image tokens, layout {layout.name} needs "
                f"{layout.visual_tokens}: is {lm.image_token} in one of the texts?"
            )
        words, capacity = len(ids) - visual, self.manifest.text_capacity
        if words >= capacity:
            raise LuvcError(
                f"the prompt has {words} text tokens, the bundle holds {capacity} for prompt and answer: "
                f"shorten it or export with a larger --text-capacity"
            )
        unknown = next((i for i in ids if i >= lm.vocab_size and i != lm.image_token_id), None)
        if unknown is not None:
            raise LuvcError(
                f"the prompt holds {self.tokenizer.convert_ids_to_tokens(unknown)!r:.80} (id {unknown}), "
                f"and the model has embeddings for the ids below {lm.vocab_size} alone: leave it out"
            )

    def layout_for(self, images: Sequence[Visual], asked: str | Wish | None = None) -> Layout:
        """The layout for these images: see `layouts.choose`.

        Raises:
            LuvcError: none fits; says what the bundle holds.
        """
        return layouts.choose(self.manifest, images, asked)

    def pixels(self, prompt: Prompt) -> np.ndarray:
        """Pixel values of all images of a prompt, joined along the first axis, float32 [N, ...].

        Raises:
            LuvcError: the processor refuses a picture, or gives another number or size of tiles.
        """
        return pixel_values(self.image_processor, prompt.images, prompt.layout, self.megapixels)

    def _expanded(self, text: str, images: list[Any], layout: Layout) -> str:
        """A rendered text with what each image becomes in the place of each placeholder."""
        first, *rest = text.split(layout.placeholder)
        if len(rest) != len(images):
            mend = f"remove {layout.placeholder} from the texts"
            if len(rest) < len(images):
                mend = f"mend the chat template, which writes no {layout.placeholder}, and export"
            raise LuvcError(
                f"the rendered prompt has {len(rest)} places for {len(images)} image(s): {mend}"
            )
        return first + "".join(
            _expand(layout, image) + piece for image, piece in zip(images, rest, strict=True)
        )

    def tokenise(self, text: str) -> list[int]:
        """Token ids of a rendered conversation."""
        bos, template = self.tokenizer.bos_token, self.tokenizer.chat_template or ""
        written = bool(bos) and (text.startswith(bos) or "bos_token" in template)
        try:
            return self.tokenizer(text, add_special_tokens=not written)["input_ids"]
        except MemoryError:
            raise
        except Exception as e:  # of settings that were read but mean nothing
            raise LuvcError(
                f"{self.bundle.path}: the tokenizer cannot read a prompt ({brief(e)}): its files are "
                "damaged; export again"
            ) from e


def _expand(layout: Layout, image: Visual) -> str:
    """What an image becomes in the prompt; a video's frames are told with their times."""
    text = "".join(piece * repeats for piece, repeats in layout.expansion)
    return told(text, image, layout) if isinstance(image, Video) else text
