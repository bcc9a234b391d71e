"""luvc-export: vision-language models with LUVC visual-token compression baked in at export."""

__version__ = "0.2.0"
