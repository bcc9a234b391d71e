"""Cache buffers on the device, whole or the rows of a part of them."""

from dataclasses import replace
from typing import Any

import numpy as np

from ....dtypes import DTYPES
from ....errors import LuvcError
from ...bundle.manifest import Manifest
from ...bundle.tensors import STATES, CacheSpec, cache_specs
from .cuda import Buffers, Memory
from .session import Session

COPIED = (*STATES, "position")  # kinds of small caches that need not be updated in place
ALIGNED = 256  # bytes; TensorRT takes no other addresses


class Caches:
    """Key and value buffers of a batch on the device, and the step recorded over them.

    Args:
        cuda: the device.
        specs: of the buffers.
    """

    def __init__(self, cuda: Any, specs: list[CacheSpec]):
        sizes = [_bytes(s) for s in specs]
        starts = np.cumsum([0, *[-(-size // ALIGNED) * ALIGNED for size in sizes]]).tolist()
        mend = "use a smaller batch, a smaller --text-capacity or a higher --ratio"
        purpose = f"the caches of {specs[0].shape[0]} conversations"
        memory = Memory(cuda, starts[-1], purpose, mend)
        # unwritten slots are masked, but 0 * NaN would not be 0
        cuda.clear(memory.address, starts[-1])
        self._place(cuda, memory, specs, [memory.address + start for start in starts[:-1]])

    def _place(self, cuda, memory, specs: list[CacheSpec], addresses: list[int]) -> None:
        self.specs = specs
        self.addresses = addresses
        self.batch = specs[0].shape[0]
        self.sizes = [_bytes(s) for s in specs]
        self._memory = memory
        self.buffers = Buffers(cuda)  # of the T = 1 step: a recorded graph holds their addresses
        self.recorded: tuple[Any, Any] | None = None  # what it is good for, the graph
        self.warm: Any = None  # what the step last ran for without a graph
        self.records = True  # False once recording has failed
        self._windows: dict[tuple[int, int], Caches] = {}  # kept, for their recorded steps

    def window(self, cuda: Any, start: int, count: int) -> "Caches":
        """`count` rows from `start` on, in the same memory.

        Raises:
            LuvcError: a row does not begin where TensorRT takes an address.
        """
        if (start, count) not in self._windows:
            rows = [size // self.batch for size in self.sizes]
            if any(start * row % ALIGNED for row in rows):  # the buffers themselves are aligned
                raise LuvcError(
                    f"row {start} of the caches does not begin at a multiple of {ALIGNED} bytes, which "
                    "TensorRT demands: export with another --text-capacity or --ratio"
                )
            part = object.__new__(Caches)
            specs = [replace(s, shape=(count, *s.shape[1:])) for s in self.specs]
            addresses = [a + start * row for a, row in zip(self.addresses, rows, strict=True)]
            part._place(cuda, self._memory, specs, addresses)
            self._windows[start, count] = part
        return self._windows[start, count]

    def close(self) -> None:
        """Give the memory back, that of the windows too."""
        for part in self._windows.values():
            part.close()
        self._windows.clear()
        self.recorded = self.warm = None
        self.buffers.close()
        self._memory.close()


def copied_caches(manifest: Manifest, graph: str, session: Session) -> set[str]:
    """Names of the caches that an engine does not update in place; after each run they are copied back.

    Raises:
        LuvcError: there are keys or values among them, which would be too much to copy.
    """
    layouts = (x for x in manifest.layouts if graph in (x.graphs.prefill, x.graphs.step))
    layout = next(layouts, None)
    if layout is None:
        return set()
    lm, together = manifest.language, manifest.together(layout)
    specs = cache_specs(lm, layout, manifest.text_capacity, manifest.dtype, 1, together)
    found = {s.name for s in specs if not session.in_place(f"{s.name}_out", s.name)}
    large = sorted(name for name in found if name.split("_")[1] not in COPIED)
    if large:
        raise LuvcError(
            f"the engine of {graph} does not update {large[0]} in place; build it again, or use "
            "--backend ort"
        )
    return found


def filled_up(array: np.ndarray, spec: CacheSpec) -> np.ndarray:
    """A cache's first slots with zeros behind them, contiguous and whole: rows lie side by side."""
    missing = spec.shape[2] - array.shape[2]
    behind = [(0, 0), (0, 0), (0, missing), *[(0, 0)] * (array.ndim - 3)]
    return np.ascontiguousarray(np.pad(array, behind) if missing else array)


def _bytes(spec: CacheSpec) -> int:
    return int(np.prod(spec.shape)) * DTYPES[spec.dtype].bytes
