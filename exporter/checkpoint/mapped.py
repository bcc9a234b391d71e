"""Memory of mapped files."""

import contextlib
import ctypes

import torch

PAGE = 4096
MADV_PAGEOUT = 21  # Linux 5.4: reclaim these pages now


def release(tensor: torch.Tensor) -> None:
    """Let the system take back the memory of a mapped file's pages; other memory stays as it is.

    Without this a whole checkpoint, read once, counts as the process's memory.
    """
    start = tensor.data_ptr() // PAGE * PAGE
    size = tensor.data_ptr() + tensor.numel() * tensor.element_size() - start
    with contextlib.suppress(OSError, AttributeError):  # not Linux: nothing to do
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), MADV_PAGEOUT)
