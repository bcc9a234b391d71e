"""The sizes of caches that the file of a step graph names."""

from collections.abc import Iterable
from pathlib import Path

import onnx

from ...engines.bundle.tensors import CacheSpec


def with_slots(source: Path, target: Path, caches: Iterable[CacheSpec]) -> None:
    """Write a step graph for caches of some sizes; what it computes follows them.

    Args:
        source: a graph that `save` wrote.
        target: in the same folder, or the same file.
        caches: the sizes.
    """
    model = onnx.load(source, load_external_data=False)
    sizes = {spec.name: spec.shape[2] for spec in caches}
    for value in (*model.graph.input, *model.graph.output):
        size = sizes.get(value.name.removesuffix("_out"))
        if size is not None:
            value.type.tensor_type.shape.dim[2].dim_value = size
    onnx.save(model, target)
