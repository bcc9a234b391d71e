"""The vision graph: pixels in, visual embeddings out. See luvc.tools.triton.vision_model."""

from luvc.tools.triton.vision_model import TritonPythonModel  # pyright: ignore[reportMissingImports]

__all__ = ["TritonPythonModel"]
