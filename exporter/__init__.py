"""Checkpoint to bundle: `export(ExportConfig.make(model=..., output=..., ratio=2))`."""

from .config import ExportConfig
from .pipeline import export, plan

__all__ = ["ExportConfig", "export", "plan"]
