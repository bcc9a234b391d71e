"""The spectrum score as TensorRT asks for it: shapes, then the launch. Letters: ../../contract.py."""

from ....errors import LuvcError
from ...launch import Launch
from ...tensorrt_shapes import element, fixed_size
from . import launch
from .contract import SCORE


def _score_launch(signal, visual_index, twiddle, cutoff: int, groups: int, band: int) -> Launch:
    tokens = fixed_size(SCORE, visual_index, 1, "V, the number of visual tokens,")
    channels = fixed_size(SCORE, signal, 2, "D, the hidden size,")
    planned = launch.score_launch(tokens, groups, channels, cutoff, band, element(signal))
    rows = fixed_size(SCORE, twiddle, 0, "the length of twiddle")
    if rows != tokens // groups:
        raise LuvcError(
            f"{SCORE.name}: twiddle has {rows} rows; it must have V / groups = {tokens // groups}."
        )
    return planned


def _describe_score(trt, trtp, signal, visual_index, twiddle, cutoff, groups, band):
    tokens = visual_index.shape_expr[1]
    # Before shapes are known TensorRT asks for types alone, with fake sizes.
    fake = tokens.is_fake
    planned = None if fake else _score_launch(signal, visual_index, twiddle, cutoff, groups, band)
    chunks = 1 if planned is None else planned.chunks
    return trtp.from_shape_expr((signal.shape_expr[0], chunks, tokens), dtype=trt.float32)


def _compile_score(trt, trtp, signal, visual_index, twiddle, cutoff, groups, band):
    planned = _score_launch(signal, visual_index, twiddle, cutoff, groups, band)
    batch, sequence, channels = signal.shape_expr
    return planned, *launch.score_call(planned, batch, sequence, channels, cutoff)


FORMS = {SCORE.name: (_describe_score, _compile_score)}
