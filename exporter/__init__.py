"""Checkpoint to bundle: `export(ExportConfig.make(model=..., output=..., ratio=2))`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import ExportConfig
    from .pipeline import export
    from .prepare import plan

__all__ = ["ExportConfig", "export", "plan"]


def __getattr__(name: str) -> Any:
    """Load the exporter with its ONNX libraries when it is first asked for, not with the solver."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import config, pipeline, prepare

    rooms = {"ExportConfig": config, "export": pipeline, "plan": prepare}
    return getattr(rooms[name], name)
