"""What a checkpoint's own model in transformers takes, made from a bundle's prompts."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..engines.bundle.folder import Bundle
from ..engines.prompt.pixels import to_layout
from ..engines.prompt.processing import Processor, Prompt
from ..exporter.checkpoint.family import Family
from ..exporter.layouts.planned import uncompressed


def unmerged(bundle: Bundle, family: Family) -> Processor:
    """The bundle's processor with its layouts of pictures at ratio 1, as the checkpoint has them."""
    m = bundle.manifest
    layouts = [uncompressed(family, x, m.reference_text) for x in m.pictured]
    return Processor(replace(bundle, manifest=m.model_copy(update={"layouts": tuple(layouts)})))


def model_inputs(
    model: Any, family: Family, processor: Processor, prompts: Sequence[Prompt]
) -> dict[str, Any]:
    """Tensors for `model.generate`, on the CPU: what the family's own processor would give.

    Args:
        model: of the family, from transformers.
        family: of its checkpoint.
        processor: of the bundle, with layouts at ratio 1.
        prompts: of one layout and one length, B of them, about images.

    Returns:
        input_ids and attention_mask [B, S], the image processor's tensors, and where the model takes
        them the marks of visual tokens, without which it would read them as text.
    """
    import torch

    layout = prompts[0].layout
    images = [to_layout(processor.image_processor, p.images, layout) for p in prompts]
    seen = processor.image_processor(images, return_tensors="pt", **layout.processor_options)
    taken = inspect.signature(model.forward).parameters
    found = {name: value for name, value in seen.items() if name in taken}
    found["input_ids"] = ids = torch.tensor([p.input_ids for p in prompts])
    found["attention_mask"] = torch.ones_like(ids)
    visual = (ids == family.language.image_token_id).long()
    if "mm_token_type_ids" in taken:
        found["mm_token_type_ids"] = visual
    if "token_type_ids" in taken:  # equal neighbours see each other: an image's, or all of a prompt
        found["token_type_ids"] = visual if family.traits.mask == "image" else torch.zeros_like(ids)
    return found
