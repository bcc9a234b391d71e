"""Bundle to text: `VLM.load("bundle").generate(messages)`."""

from .bundle.folder import Bundle
from .runtime import VLM

__all__ = ["VLM", "Bundle"]
