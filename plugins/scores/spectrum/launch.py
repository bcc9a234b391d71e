"""Which kernel scores, how it is compiled and with which grid.

Three kernels, all exact:
    score.cu        the group's transform fits shared memory and its prime factors are at most 13
    score_split.cu  longer groups: transforms of a divisor, joined over the kept bins
    score_basis.cu  everything else, by products with the truncated Fourier basis
Letters: ../../contract.py; `length` is V / groups, the tokens transformed together.
"""

from ....errors import LuvcError
from ...contract import FLOATS
from ...launch import SHARED_BYTES, WARP, Call, Launch, Macros, check_dtype, group_length, round_up
from .contract import BANDS

COMPLEX_BYTES = 8
RADICES = (16, 13, 11, 8, 7, 5, 4, 3, 2)

# Partial sums of one score: about one per multiprocessor of the largest GPUs. More would shorten
# the score and lengthen the select, where a single block adds them up.
CHUNKS = 128

MIN_SPLIT = 256  # below this divisor too few threads work, and the truncated basis is faster


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
    tokens: int, groups: int, channels: int, cutoff: int, band: int, dtype: str = "float16"
) -> Launch:
    """The launch of SpectrumScore.

    The number of chunks depends on neither dtype nor batch, so the output shape is known early.

    Args:
        tokens: V, visual tokens.
        groups: equal runs of V filtered apart.
        channels: D, hidden size.
        cutoff: highest frequency bin of the low-pass.
        band: of contract.BANDS.
        dtype: element type of the signal, one of contract.FLOATS.

    Raises:
        LuvcError: for V, groups, D, cutoff, band or dtype out of range.
    """
    length = group_length(tokens, groups)
    if channels < 1:
        raise LuvcError(f"SpectrumScore: D = {channels} channels; at least 1 is needed.")
    if not 0 <= cutoff <= length // 2:
        raise LuvcError(
            f"SpectrumScore: cutoff {cutoff} is outside 0 .. {length // 2}, the bins of "
            f"{length} tokens; lower the cutoff share or keep more tokens."
        )
    if band not in range(len(BANDS)):
        raise LuvcError(f"SpectrumScore: band {band} is none of 0 ({BANDS[0]}) and 1 ({BANDS[1]}).")
    common = (*_element_macros(channels, dtype), ("LENGTH", length), ("BAND", band))
    return (
        _transform_launch(length, groups, channels, common)
        or _split_launch(length, groups, channels, cutoff, common)
        or _basis_launch(length, groups, channels, common)
    )


def score_call(launch: Launch, batch, sequence, channels, cutoff: int) -> Call:
    """What a score launch is called with; sizes may be numbers or TensorRT's symbols."""
    return (launch.chunks, batch, launch.blocks), (sequence, channels, cutoff)


def _element_macros(channels: int, dtype: str) -> Macros:
    check_dtype(dtype)
    return (("ELEMENT", FLOATS.index(dtype)), ("EVEN_CHANNELS", int(channels % 2 == 0)))


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
    threads = round_up(columns * pairs, WARP)
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
    threads = min(512, round_up(sub // largest_radix(sub, 13), WARP))
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
