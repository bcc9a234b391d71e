"""The vision graph: pixels in, visual embeddings out. See luvc.tools.triton.vision_model."""

from luvc.tools.triton.vision_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
