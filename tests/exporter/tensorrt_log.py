"""One logger of TensorRT for all tests of a process."""

from functools import cache
from typing import Any


@cache
def logger(trt: Any) -> Any:
    """The library's logger, errors alone; never freed.

    The first logger that a builder is given becomes the library's own, which its plugin registry writes to
    as long as the process lives: a freed one ends the process.
    """
    return trt.Logger(trt.Logger.ERROR)
