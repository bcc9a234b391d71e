"""What a kernel launch is: compiled how, on which grid. Each folder's launch.py chooses its kernels.

Pure arithmetic: no compiler and no TensorRT is needed to plan.
"""

from dataclasses import dataclass
from typing import Any

from ..errors import LuvcError
from .contract import FLOATS

Macros = tuple[tuple[str, int], ...]  # compile-time constants of a kernel: (name, value)
Call = tuple[tuple[Any, Any, Any], tuple[Any, ...]]  # grid (x, y, z) and the kernel's integers

SHARED_BYTES = 48 * 1024  # static shared memory every GPU grants a block without opt-in
WARP = 32


@dataclass(frozen=True)
class Launch:
    """One compiled kernel and its launch.

    Attributes:
        source: file name in the folder's kernels/.
        entry: name of the kernel in it.
        macros: its compile-time constants.
        threads: threads per block.
        shared_bytes: static shared memory of a block, bytes.
        chunks: partial sums C a score writes; 1 for the other operators.
        blocks: blocks per batch row beyond the chunks: groups (times ranges of score_basis).
    """

    source: str
    entry: str
    macros: Macros
    threads: int
    shared_bytes: int
    chunks: int = 1
    blocks: int = 1

    def options(self) -> tuple[str, ...]:
        """Compiler options; compute_80 runs on every GPU from that generation on."""
        macros = [f"-D{name}={value}" for name, value in self.macros]
        return ("--gpu-architecture=compute_80", "--std=c++17", *macros)


def group_length(tokens: int, groups: int) -> int:
    """V / groups, the tokens of a group.

    Raises:
        LuvcError: V is below 1, or groups do not divide it.
    """
    if tokens < 1:
        raise LuvcError(
            f"V = {tokens} visual tokens; a stage needs at least 1. Leave the stage out."
        )
    if groups < 1 or tokens % groups:
        raise LuvcError(
            f"groups {groups} does not divide V = {tokens} visual tokens into equal runs; use 1 or "
            "a divisor of V."
        )
    return tokens // groups


def check_dtype(dtype: str) -> None:
    """Refuse element types that no kernel reads, with a LuvcError."""
    if dtype not in FLOATS:
        raise LuvcError(f"element type {dtype} is none of {', '.join(FLOATS)}; cast the input.")


def round_up(value: int, multiple: int) -> int:
    """The lowest multiple that is not below `value`."""
    return -(-value // multiple) * multiple
