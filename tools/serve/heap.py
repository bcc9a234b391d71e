"""The heap of a process that serves for weeks."""

import ctypes

M_MMAP_THRESHOLD = -3
"""Of mallopt(3): blocks from this size on are pages of their own, which go back when they are freed."""
BLOCK = 1 << 20
"""Bytes: pictures and their pixels are larger."""


def give_large_blocks_back() -> bool:
    """Give freed blocks of a MiB and more back to the system, always -> whether this C library can be told.

    By itself glibc raises that size to that of the largest block freed so far and cuts later ones from a
    heap that never shrinks below what is in use: with pictures that come and go a server's memory grew by a
    third in ten minutes.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, BLOCK))
    except (AttributeError, OSError, TypeError):  # musl, macOS and Windows have no such thing
        return False
