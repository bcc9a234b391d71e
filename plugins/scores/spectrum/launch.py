"""Which kernel runs a SPU operator, how it is compiled and with which grid.

Pure arithmetic: no compiler and no TensorRT is needed to plan. Three kernels score, all exact:
    score.cu        the group's transform fits shared memory and its prime factors are at most 13
    score_split.cu  longer groups: transforms of a divisor, joined over the kept bins
    score_basis.cu  everything else, by products with the truncated Fourier basis
Letters: contract.py; `length` is V / groups, the tokens transformed together.
"""

from dataclasses import dataclass
from typing import Any

from ....errors import LuvcError
from .contract import FLOATS

Macros = tuple[tuple[str, int], ...]  # compile-time constants of a kernel: (name, value)
Call = tuple[tuple[Any, Any, Any], tuple[Any, ...]]  # grid (x, y, z) and the kernel's integers

SHARED_BYTES = 48 * 1024  # static shared memory every GPU grants a block without opt-in
COMPLEX_BYTES = 8
WARP = 32
MAX_THREADS = 1024
RADICES = (16, 13, 11, 8, 7, 5, 4, 3, 2)
ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}

# Partial sums of one score: about one per multiprocessor of the largest GPUs. More would shorten
# the score and lengthen the select, where a single block adds them up.
CHUNKS = 128

MIN_SPLIT = 256  # below this divisor too few threads work, and the truncated basis is faster


@dataclass(frozen=True)
class Launch:
    """One compiled kernel and its launch.

    Attributes:
        source: file in kernels/.
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


def largest_radix(length: int, limit: int) -> int:
    """Largest radix up to `limit` that divides `length`, 0 if none; pick_radix of fft.cuh."""
    for radix in RADICES:
        if radix <= limit and length % radix == 0 and (radix, length) != (16, 32):
            return radix
    return 0


def is_smooth(length: int) -> bool:
    """Whether all prime factors are at most 13."""
    for prime in (2, 3, 5, 7, 11, 13):
        while length % prime == 0:
            length //= prime
    return length == 1


def score_launch(
    tokens: int, groups: int, channels: int, cutoff: int, dtype: str = "float16"
) -> Launch:
    """The launch of SpectrumScore.

    The number of chunks depends on neither dtype nor batch, so the output shape is known early.

    Args:
        tokens: V, visual tokens.
        groups: equal runs of V filtered apart.
        channels: D, hidden size.
        cutoff: highest frequency bin kept.
        dtype: element type of the signal, one of contract.FLOATS.

    Raises:
        LuvcError: for V, groups, D, cutoff or dtype out of range.
    """
    length = _group_length(tokens, groups)
    if channels < 1:
        raise LuvcError(f"SpectrumScore: D = {channels} channels; at least 1 is needed.")
    if not 0 <= cutoff <= length // 2:
        raise LuvcError(
            f"SpectrumScore: cutoff {cutoff} is outside 0 .. {length // 2}, the bins of "
            f"{length} tokens; lower the cutoff share or keep more tokens."
        )
    common = (*_element_macros(channels, dtype), ("LENGTH", length))
    return (
        _transform_launch(length, groups, channels, common)
        or _split_launch(length, groups, channels, cutoff, common)
        or _basis_launch(length, groups, channels, common)
    )


def select_launch(tokens: int, groups: int, keep: int) -> Launch:
    """The launch of SpectrumSelect: one block per group and batch row.

    Args:
        tokens: V, visual tokens.
        groups: equal runs of V; each keeps keep / groups.
        keep: k, visual tokens kept of all V.

    Raises:
        LuvcError: for V, groups or k out of range.
    """
    length = _group_length(tokens, groups)
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
    threads = min(MAX_THREADS, _round_up(length, WARP))
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
    units = channels * ITEM_BYTES[dtype] // unit
    threads = min(256, _round_up(units, WARP))
    macros = (("UNIT_BYTES", unit), ("THREADS", threads))
    return Launch("gather.cu", "gather_tokens", macros, threads, 0)


# What a launch is called with; sizes may be numbers or TensorRT's symbols.


def score_call(launch: Launch, batch, sequence, channels, cutoff: int) -> Call:
    """Of SpectrumScore."""
    return (launch.chunks, batch, launch.blocks), (sequence, channels, cutoff)


def select_call(launch: Launch, batch, sequence, chunks, keep: int) -> Call:
    """Of SpectrumSelect; `chunks` of the energies."""
    return (launch.blocks, batch, 1), (sequence, chunks, keep)


def gather_call(channels: int, dtype: str, batch, sequence, rows, components) -> Call:
    """Of GatherTokens; `rows` survive, positions have `components` axes."""
    units = channels * ITEM_BYTES[dtype] // unit_bytes(channels, dtype)
    return (rows, batch, 1), (sequence, units, components)


def unit_bytes(channels: int, dtype: str) -> int:
    """Widest word, 16 bytes at most, that divides a row of `channels` elements."""
    _check_dtype(dtype)
    row = channels * ITEM_BYTES[dtype]
    return next(width for width in (16, 8, 4, 2) if row % width == 0)


def _group_length(tokens: int, groups: int) -> int:
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


def _check_dtype(dtype: str) -> None:
    if dtype not in FLOATS:
        raise LuvcError(f"element type {dtype} is none of {', '.join(FLOATS)}; cast the input.")


def _element_macros(channels: int, dtype: str) -> Macros:
    _check_dtype(dtype)
    return (("ELEMENT", FLOATS.index(dtype)), ("EVEN_CHANNELS", int(channels % 2 == 0)))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _chunks(passes: int) -> int:
    """Blocks that share `passes` passes evenly, at most CHUNKS."""
    share = -(-passes // CHUNKS)
    return -(-passes // share)


def _padded(length: int) -> int:
    """Elements a transform takes in shared memory, one unused after every 16."""
    return length + length // 16


def _transform_launch(length: int, groups: int, channels: int, common: Macros) -> Launch | None:
    """score.cu with as many channel pairs at once as fit, or None if not even one does."""
    if length == 1 or not is_smooth(length):
        return None
    columns = length // largest_radix(length, 16)
    for pairs in (8, 4, 2, 1):
        # Pairs start 16 / pairs bank pairs apart: in the outer stages neighbouring lanes hold
        # different pairs, and so meet different banks.
        pitch = _padded(length)
        while pairs > 1 and pitch % 16 != 16 // pairs:
            pitch += 1
        shared = pairs * pitch * COMPLEX_BYTES
        if shared <= SHARED_BYTES and columns * pairs <= 512:
            break
    else:
        return None
    threads = _round_up(columns * pairs, WARP)
    macros = (*common, ("PAIRS", pairs), ("PITCH", pitch), ("THREADS", threads), ("MAX_RADIX", 16))
    chunks = _chunks(-(-channels // (2 * pairs)))
    return Launch("score.cu", "spectrum_score", macros, threads, shared, chunks, groups)


def _split_launch(
    length: int, groups: int, channels: int, cutoff: int, common: Macros
) -> Launch | None:
    """score_split.cu with the largest divisor that fits, or None."""
    bins = 2 * cutoff + 1
    room = SHARED_BYTES // COMPLEX_BYTES - bins
    fitting = (
        sub
        for sub in range(min(room, length // 2), MIN_SPLIT - 1, -1)
        if length % sub == 0 and _padded(sub) <= room and is_smooth(sub)
    )
    sub = next(fitting, None)
    if sub is None or bins > length:
        return None
    threads = min(512, _round_up(sub // largest_radix(sub, 13), WARP))
    macros = (*common, ("SUB", sub), ("BINS", bins), ("THREADS", threads), ("MAX_RADIX", 13))
    shared = (_padded(sub) + bins) * COMPLEX_BYTES
    chunks = _chunks(-(-channels // 2))
    return Launch("score_split.cu", "spectrum_score_split", macros, threads, shared, chunks, groups)


def _basis_launch(length: int, groups: int, channels: int, common: Macros) -> Launch:
    """score_basis.cu, which takes any length and any cutoff."""
    folds = length // 2 + 1
    threads = 128 if length <= 2048 else 256 if length <= 8192 else 512
    owned = min(16, -(-folds // threads))
    ranges = -(-folds // (owned * threads))
    width = 4 if owned <= 4 else 2 if owned <= 8 else 1
    tile = 64
    macros = (
        *common,
        ("CHANNELS", width),
        ("OWNED", owned),
        ("RANGES", ranges),
        ("TILE", tile),
        ("THREADS", threads),
    )
    shared = (tile + threads) * 2 * 4 * width
    chunks = _chunks(-(-channels // width))
    return Launch(
        "score_basis.cu",
        "spectrum_score_basis",
        macros,
        threads,
        shared,
        chunks,
        groups * ranges,
    )
