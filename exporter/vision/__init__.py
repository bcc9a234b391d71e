"""Vision towers: one loop, one small adapter for each family, found by Hugging Face model_type."""

from ...errors import LuvcError
from .adapter import VisionAdapter
from .families.gemma3 import Gemma3Adapter
from .families.glm4v import Glm4vAdapter
from .families.idefics3 import Idefics3Adapter
from .families.internvl import InternVLAdapter
from .families.lfm2_vl import Lfm2VLAdapter
from .families.llava import LlavaAdapter
from .families.llava_next import LlavaNextAdapter
from .families.llava_onevision import LlavaOneVisionAdapter
from .families.ovis2 import Ovis2Adapter
from .families.paligemma import PaliGemmaAdapter
from .families.qwen2_5_vl import Qwen25VLAdapter
from .families.qwen2_vl import Qwen2VLAdapter
from .families.qwen3_vl import Qwen3VLAdapter
from .families.smolvlm import SmolVLMAdapter

ADAPTERS: dict[str, type[VisionAdapter]] = {
    "gemma3": Gemma3Adapter,
    "glm4v": Glm4vAdapter,
    "idefics3": Idefics3Adapter,
    "internvl": InternVLAdapter,
    "lfm2_vl": Lfm2VLAdapter,
    "llava": LlavaAdapter,
    "llava_next": LlavaNextAdapter,
    "llava_onevision": LlavaOneVisionAdapter,
    "ovis2": Ovis2Adapter,
    "paligemma": PaliGemmaAdapter,
    "qwen2_5_vl": Qwen25VLAdapter,
    "qwen2_vl": Qwen2VLAdapter,
    "qwen3_vl": Qwen3VLAdapter,
    "smolvlm": SmolVLMAdapter,
}


def adapter_class(model_type: str) -> type[VisionAdapter]:
    """The adapter of a family.

    Raises:
        LuvcError: the family is not supported; lists those that are.
    """
    if model_type not in ADAPTERS:
        known = ", ".join(sorted(ADAPTERS))
        raise LuvcError(
            f"model type {model_type!r} is not a supported vision-language family: {known}"
        )
    return ADAPTERS[model_type]
