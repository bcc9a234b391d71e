"""Messages and images to arrays: chat template, shrunk image runs, pixels.

The number of image tokens in the prompt is the layout's, which export computed from the schedule; a
prompt whose count differs is an error, never a guess. Letters: N tiles, V visual tokens.
"""

import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LuvcError
from .bundle import Bundle
from .manifest import Layout

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Prompt:
    """One conversation, ready to run.

    Attributes:
        layout: what its images fix.
        text: the rendered conversation, image runs expanded.
        input_ids: its token ids.
        images: PIL images in order.
    """

    layout: Layout
    text: str
    input_ids: list[int]
    images: tuple[Any, ...]


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
        """The Hugging Face image processor, always in its Pillow form: the same pixels everywhere."""
        from transformers import AutoImageProcessor

        return AutoImageProcessor.from_pretrained(
            self.bundle.processor, local_files_only=True, trust_remote_code=False, backend="pil"
        )

    def prepare(self) -> None:
        """Load tokenizer and image processor now rather than with the first prompt."""
        _ = self.tokenizer, self.image_processor

    def prompt(self, messages: Sequence[Message], layout: str | None = None) -> Prompt:
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

    def layout_for(self, images: Sequence[Any], name: str | None = None) -> Layout:
        """The layout for these PIL images: the named one, or by their number, then by size.

        Raises:
            LuvcError: none fits; says what the bundle holds.
        """
        layouts = self.manifest.layouts
        if name is not None and name not in {x.name for x in layouts}:
            known = ", ".join(x.name for x in layouts)
            raise LuvcError(f"there is no layout {name!r} in this bundle, only {known}")
        fitting = [x for x in layouts if x.images == len(images) and name in (None, x.name)]
        if fitting:
            return min(fitting, key=lambda x: sum(_distance(x.image_size, i.size) for i in images))
        counts = " or ".join(str(n) for n in sorted({x.images for x in self.manifest.layouts}))
        if not images:
            raise LuvcError(f"the prompt has no image; this bundle answers about {counts} image(s)")
        raise LuvcError(
            f"the prompt has {len(images)} images, this bundle holds {counts}: export with "
            f"--images {len(images)}"
        )

    def pixels(self, prompt: Prompt) -> np.ndarray:
        """Pixel values of all images of a prompt, float32 [N, 3, H, W].

        Raises:
            LuvcError: the processor gives another number or size of tiles than the layout's.
        """
        layout = prompt.layout
        tiles = [
            self.image_processor(
                image, return_tensors="np", **layout.processor_options
            ).pixel_values
            for image in prompt.images
        ]
        wanted = (layout.tiles, 3, *layout.tile_size)
        for tile in tiles:
            if tile.shape != wanted:
                raise LuvcError(
                    f"the image processor gave {tile.shape}, layout {layout.name} needs {wanted}"
                )
        return np.ascontiguousarray(np.concatenate(tiles), dtype=np.float32)

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
        token = self.manifest.language.image_token
        pieces = text.split(token)
        if len(pieces) - 1 != len(images):
            raise LuvcError(
                f"the rendered prompt has {len(pieces) - 1} places for {len(images)} image(s): "
                f"remove {token} from the texts"
            )
        run = "".join(piece * repeats for piece, repeats in layout.expansion)
        return run.join(pieces)

    def tokenise(self, text: str, start: bool = True) -> list[int]:
        """Token ids of a rendered text; `start` is False for what continues a conversation."""
        bos = self.tokenizer.bos_token
        special = start and not (bos and text.startswith(bos))  # templates that write it themselves
        return self.tokenizer(text, add_special_tokens=special)["input_ids"]


def _split_images(messages: Sequence[Message]) -> tuple[list[dict], list[Any]]:
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
            if kind == "image":
                images.append(open_image(_source(part)))
                kept.append({"type": "image"})
            elif kind == "text" and isinstance(part.get("text"), str):
                kept.append({"type": "text", "text": part["text"]})
            else:
                raise LuvcError(f"a content part is of type 'text' or 'image', got {part!r:.80}")
        plain.append({"role": message["role"], "content": kept})
    if plain[-1]["role"] == "assistant":
        raise LuvcError("the last message is the assistant's; the user's turn must come last")
    return plain, images


def _distance(layout: tuple[int, int], image: tuple[int, int]) -> float:
    """How far an image's (width, height) is from a layout's (height, width), in octaves of area.

    Tiles adapt to the image's orientation, so the shape only decides between equal areas.
    """
    height, width = layout
    area = abs(math.log2(width * height / (image[0] * image[1])))
    return area + 1e-3 * abs(math.log2(width / height * image[1] / image[0]))


def _source(part: Mapping) -> Any:
    for key in ("image", "path", "url"):
        if part.get(key) is not None:
            return part[key]
    raise LuvcError("an image part needs 'image' (a path, bytes, array or PIL image)")


def open_image(source: Any) -> Any:
    """A PIL image in RGB, upright.

    Args:
        source: PIL image, array [H, W, 3] uint8, bytes of a file, or a local path.

    Raises:
        LuvcError: not readable as an image; says why.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        if isinstance(source, Image.Image):
            image = source
        elif isinstance(source, np.ndarray):
            image = Image.fromarray(source)
        elif isinstance(source, (bytes, bytearray)):
            image = Image.open(io.BytesIO(source))
        elif isinstance(source, (str, os.PathLike)):
            image = Image.open(_local_path(str(source)))
        else:
            raise LuvcError(
                f"an image is a path, bytes, array or PIL image, got {type(source).__name__}"
            )
        return ImageOps.exif_transpose(image).convert("RGB")
    except LuvcError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, TypeError, ValueError) as e:
        shown = source if isinstance(source, (str, os.PathLike)) else type(source).__name__
        raise LuvcError(f"image {shown} cannot be read: {e}") from e
    except Image.DecompressionBombError as e:
        raise LuvcError(f"the image is too large: {e}; scale it down first") from e


def _local_path(source: str) -> Path:
    if source.startswith(("http://", "https://")):
        raise LuvcError(f"image {source} is remote; download it and give the file")
    return Path(source.removeprefix("file://"))
