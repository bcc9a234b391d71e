"""Hugging Face's own processor of a checkpoint, also where torchvision is missing."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch


@contextmanager
def without_torchvision() -> Iterator[None]:
    """Let processor classes be made without a video processor.

    Video processors exist for torchvision only, and the processor classes of seven families insist on
    one (SmolVLM's also on num2words, for the words of video prompts). Nothing about images changes.
    """
    from transformers import processing_utils
    from transformers.models.smolvlm import processing_smolvlm as smolvlm

    module = processing_utils.transformers_module
    with (
        patch.object(module, "VideoProcessorMixin", type(None), create=True),
        patch.object(smolvlm, "num2words", smolvlm.num2words or str),
    ):
        yield


def processor(folder: Path) -> Any:
    """The processor of a checkpoint with the Pillow image processor (torchvision's for lfm2_vl).

    With torchvision it has its video processor too; without, `video_processor` is None.
    """
    import transformers
    from transformers.utils import is_torchvision_available

    values = json.loads((folder / "processor_config.json").read_text())
    make = getattr(transformers, values.pop("processor_class"))
    parts = values | {
        "tokenizer": transformers.AutoTokenizer.from_pretrained(folder),
        "image_processor": transformers.AutoImageProcessor.from_pretrained(folder, backend="pil"),
    }
    parts["chat_template"] = parts["tokenizer"].chat_template
    videos = folder / "video_preprocessor_config.json"
    if videos.exists() and is_torchvision_available():
        settings = json.loads(videos.read_text())
        video = getattr(transformers, settings.pop("video_processor_type"))
        return make(video_processor=video(**settings), **parts)
    if videos.exists():
        parts["video_processor"] = None
    with without_torchvision():
        return make(**parts)
