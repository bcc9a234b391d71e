"""Select and gather as TensorRT asks for them: shapes, then the launch. Letters: ../contract.py."""

from ..launch import Launch
from ..tensorrt_shapes import element, fixed_size
from . import launch
from .contract import GATHER, SELECT


def _select_launch(visual_index, keep: int, groups: int) -> Launch:
    tokens = fixed_size(SELECT, visual_index, 1, "V, the number of visual tokens,")
    return launch.select_launch(tokens, groups, keep)


def _describe_select(trt, trtp, energies, visual_index, positions, keep, groups):
    batch, tokens = visual_index.shape_expr
    if not tokens.is_fake:
        _select_launch(visual_index, keep, groups)
    shapes = (
        (batch, positions.shape_expr[1] - tokens + keep),
        (batch, keep),
        (batch, keep),
    )
    return tuple(trtp.from_shape_expr(shape, dtype=trt.int64) for shape in shapes)


def _compile_select(trt, trtp, energies, visual_index, positions, keep, groups):
    planned = _select_launch(visual_index, keep, groups)
    batch, sequence = visual_index.shape_expr[0], positions.shape_expr[1]
    chunks = energies.shape_expr[1]
    return planned, *launch.select_call(planned, batch, sequence, chunks, keep)


def _describe_gather(trt, trtp, hidden, positions, keep_index):
    batch, rows = keep_index.shape_expr
    return (
        trtp.from_shape_expr((batch, rows, hidden.shape_expr[2]), dtype=hidden.dtype),
        trtp.from_shape_expr((batch, rows, positions.shape_expr[2]), dtype=trt.int64),
    )


def _compile_gather(trt, trtp, hidden, positions, keep_index):
    channels = fixed_size(GATHER, hidden, 2, "D, the hidden size,")
    dtype = element(hidden)
    batch, rows = keep_index.shape_expr
    sequence, components = hidden.shape_expr[1], positions.shape_expr[2]
    call = launch.gather_call(channels, dtype, batch, sequence, rows, components)
    return launch.gather_launch(channels, dtype), *call


FORMS = {
    SELECT.name: (_describe_select, _compile_select),
    GATHER.name: (_describe_gather, _compile_gather),
}
