"""Which kernel selects and gathers, how it is compiled and with which grid. Letters: ../contract.py.

`length` is V / groups, the tokens that compete with each other.
"""

from ...dtypes import DTYPES
from ...errors import LuvcError
from ..launch import WARP, Call, Launch, check_dtype, group_length, round_up

MAX_THREADS = 1024


def select_launch(tokens: int, groups: int, keep: int) -> Launch:
    """The launch of SpectrumSelect: one block per group and batch row.

    Args:
        tokens: V, visual tokens.
        groups: equal runs of V; each keeps keep / groups.
        keep: k, visual tokens kept of all V.

    Raises:
        LuvcError: for V, groups or k out of range.
    """
    length = group_length(tokens, groups)
    if not 1 <= keep <= tokens:
        raise LuvcError(
            f"SpectrumSelect: keep {keep} is outside 1 .. {tokens}, the visual tokens that enter; "
            "lower keep (to drop them all, leave the stage out and cut the rows)."
        )
    if keep % groups:
        raise LuvcError(
            f"SpectrumSelect: keep {keep} is no multiple of groups {groups}, and each group keeps "
            f"the same number; use {keep - keep % groups or groups}."
        )
    threads = min(MAX_THREADS, round_up(length, WARP))
    # The struct Shared of select.cu, whose fields need no padding.
    shared = 256 * 4 + 2 * 4 + 32 * 8 + threads * (4 + 4 + 8)
    macros = (("LENGTH", length), ("THREADS", threads))
    return Launch("select.cu", "spectrum_select", macros, threads, shared, blocks=groups)


def gather_launch(channels: int, dtype: str = "float16") -> Launch:
    """The launch of GatherTokens: one block per surviving row.

    Args:
        channels: D, hidden size.
        dtype: element type of the hidden states, one of contract.FLOATS.

    Raises:
        LuvcError: for D or dtype out of range.
    """
    if channels < 1:
        raise LuvcError(f"GatherTokens: D = {channels} channels; at least 1 is needed.")
    unit = unit_bytes(channels, dtype)
    units = channels * DTYPES[dtype].bytes // unit
    threads = min(256, round_up(units, WARP))
    macros = (("UNIT_BYTES", unit), ("THREADS", threads))
    return Launch("gather.cu", "gather_tokens", macros, threads, 0)


# What a launch is called with; sizes may be numbers or TensorRT's symbols.


def select_call(launch: Launch, batch, sequence, chunks, keep: int) -> Call:
    """Of SpectrumSelect; `chunks` of the energies."""
    return (launch.blocks, batch, 1), (sequence, chunks, keep)


def gather_call(channels: int, dtype: str, batch, sequence, rows, components) -> Call:
    """Of GatherTokens; `rows` survive, positions have `components` axes."""
    units = channels * DTYPES[dtype].bytes // unit_bytes(channels, dtype)
    return (rows, batch, 1), (sequence, units, components)


def unit_bytes(channels: int, dtype: str) -> int:
    """Widest word, 16 bytes at most, that divides a row of `channels` elements."""
    check_dtype(dtype)
    row = channels * DTYPES[dtype].bytes
    return next(width for width in (16, 8, 4, 2) if row % width == 0)
