"""TensorRT or TensorRT-RTX: one switch decides which of the two is imported, everything else is shared."""

import importlib
import sys
from dataclasses import dataclass
from typing import Any

from ....errors import LuvcError

PORTABLE = "portable"  # an engine for all GPUs that TensorRT-RTX supports by default


@dataclass(frozen=True)
class Library:
    """One of the two libraries.

    Attributes:
        name: of the backend.
        module: what is imported.
        title: as people call it.
        install: the command that installs it.
        plugins: whether it takes plugins; if not, the SPU operators run their function bodies.
        builds_without_gpu: whether engines can be built on a machine without a GPU.
    """

    name: str
    module: str
    title: str
    install: str
    plugins: bool
    builds_without_gpu: bool

    def problem(self) -> str | None:
        """None, or why the library cannot be imported and how to mend it."""
        try:
            importlib.import_module(self.module)
        except (ImportError, OSError) as error:
            return f"{self.title} cannot be imported ({error}): {self.install}"
        return None

    def load(self) -> Any:
        """The module.

        Raises:
            LuvcError: not installed.
        """
        problem = self.problem()
        if problem is not None:
            raise LuvcError(problem)
        return importlib.import_module(self.module)

    @property
    def version(self) -> str:
        """Version of the installed library."""
        return str(self.load().__version__)

    def polygraphy(self) -> Any:
        """`polygraphy.backend.trt`, set to this library.

        Raises:
            LuvcError: Polygraphy is not installed, or already set to the other library.
        """
        loaded = "polygraphy.backend.trt" in sys.modules
        try:
            config: Any = importlib.import_module("polygraphy.config")
        except ImportError as error:
            raise LuvcError(
                f"building {self.title} engines needs Polygraphy: pip install polygraphy"
            ) from error
        rtx = self.module != "tensorrt"
        if loaded and rtx != config.USE_TENSORRT_RTX:
            raise LuvcError(
                "one process builds for TensorRT or for TensorRT-RTX, not for both: build the "
                f"{self.title} engines in a new process"
            )
        config.USE_TENSORRT_RTX = rtx  # read once, when polygraphy.backend.trt is imported
        logger = importlib.import_module("polygraphy.logger").G_LOGGER
        logger.module_severity = logger.CRITICAL + 1  # errors come from Log, in our own words
        return importlib.import_module("polygraphy.backend.trt")


TENSORRT = Library(
    name="tensorrt",
    module="tensorrt",
    title="TensorRT",
    install="pip install 'luvc-export[gpu]'",
    plugins=True,
    builds_without_gpu=False,
)
TENSORRT_RTX = Library(
    name="tensorrt-rtx",
    module="tensorrt_rtx",
    title="TensorRT-RTX",
    install="pip install 'luvc-export[rtx]'",
    plugins=False,
    builds_without_gpu=True,
)


def make_log(trt: Any) -> Any:
    """A logger that keeps the library's errors, for messages in our own words."""

    class Log(trt.ILogger):
        def __init__(self):
            super().__init__()
            self.messages: list[str] = []

        def log(self, severity, text):
            # 35: no driver, which building without a GPU always reports
            if severity <= trt.ILogger.ERROR and "cudaError 35" not in text:
                self.messages.append(text)

        def last(self, count: int = 2, length: int = 400) -> str:
            """The newest errors in one line."""
            return " | ".join(" ".join(m.split())[:length] for m in self.messages[-count:])

    return Log()
