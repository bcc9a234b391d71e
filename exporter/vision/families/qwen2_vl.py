"""Qwen2-VL: full attention in every layer."""

from typing import Any, ClassVar

from ..rope import QwenVLAdapter


class Adapter(QwenVLAdapter):
    """Full attention in every layer."""

    width_name: ClassVar[str] = "embed_dim"

    @classmethod
    def intermediate(cls, config: Any) -> int:
        """A multiple of the width."""
        v = config.vision_config
        return int(v.embed_dim * v.mlp_ratio)
