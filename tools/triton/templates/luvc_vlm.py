"""The whole model: text and pictures in, text out, streamed. See luvc.tools.triton.vlm_model."""

from luvc.tools.triton.vlm_model import TritonPythonModel  # pyright: ignore[reportMissingImports]

__all__ = ["TritonPythonModel"]
