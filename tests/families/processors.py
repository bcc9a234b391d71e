"""Hugging Face's own processor of a checkpoint, also where torchvision is missing."""

import inspect
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch


@contextmanager
def without_extras() -> Iterator[None]:
    """Let processor classes be made without torchvision and num2words.

    Video processors exist for torchvision only, and the processor classes of seven families insist on
    one; SmolVLM's insists on num2words, for the words of video prompts. Nothing about images changes.
    """
    from transformers import processing_utils
    from transformers.models.smolvlm import processing_smolvlm as smolvlm
    from transformers.utils.import_utils import is_torchvision_available

    with ExitStack() as stack:
        num2words = vars(smolvlm)["num2words"] or str
        stack.enter_context(patch.object(smolvlm, "num2words", num2words))
        if not is_torchvision_available():
            module = processing_utils.transformers_module
            stack.enter_context(
                patch.object(module, "VideoProcessorMixin", type(None), create=True)
            )
        yield


@cache
def processor_class(name: str) -> Any:
    """A processor class of transformers; PixtralProcessor also without torchvision.

    Its module takes one function from the image processor for torchvision, which the Pillow one has too.
    """
    import transformers
    from transformers.utils.import_utils import is_torchvision_available

    if name != "PixtralProcessor" or is_torchvision_available():
        return getattr(transformers, name)
    place = "transformers.models.pixtral"
    pillow = import_module(f"{place}.image_processing_pil_pixtral")
    with patch.dict(sys.modules, {f"{place}.image_processing_pixtral": pillow}):
        return getattr(import_module(f"{place}.processing_pixtral"), name)


def processor(folder: Path) -> Any:
    """The processor of a checkpoint with the Pillow image processor (torchvision's for lfm2_vl).

    With torchvision it has its video processor too; without, `video_processor` is None.
    """
    import transformers
    from transformers.utils.import_utils import is_torchvision_available

    values = json.loads((folder / "processor_config.json").read_text())
    make = processor_class(values.pop("processor_class"))
    parts = values | {
        "tokenizer": transformers.AutoTokenizer.from_pretrained(folder),
        "image_processor": transformers.AutoImageProcessor.from_pretrained(folder, backend="pil"),
    }
    parts["chat_template"] = parts["tokenizer"].chat_template
    if "feature_extractor" in inspect.signature(make).parameters:  # of audio, which no question has
        parts["feature_extractor"] = transformers.Gemma4AudioFeatureExtractor()
    videos = folder / "video_preprocessor_config.json"
    if videos.exists():
        settings = json.loads(videos.read_text())
        video = settings.pop("video_processor_type")
        parts["video_processor"] = (
            getattr(transformers, video)(**settings) if is_torchvision_available() else None
        )
    with without_extras():
        return make(**parts)
