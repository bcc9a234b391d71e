"""Key and value buffers on the device, whole or the rows of a part of them."""

from typing import Any

import numpy as np

from ...errors import LuvcError
from .cuda import Buffers, Memory

ALIGNED = 256  # bytes; TensorRT takes no other addresses


class Caches:
    """Key and value buffers of a batch on the device, and the step recorded over them.

    Args:
        cuda: the device.
        shapes: of the buffers, key and value of each layer in turn.
        item: bytes of an element.
    """

    def __init__(self, cuda: Any, shapes: list[tuple[int, ...]], item: int):
        sizes = [int(np.prod(s)) * item for s in shapes]
        starts = np.cumsum([0, *[-(-size // ALIGNED) * ALIGNED for size in sizes]]).tolist()
        mend = "use a smaller batch, a smaller --text-capacity or a higher --ratio"
        purpose = f"the caches of {shapes[0][0]} conversations"
        memory = Memory(cuda, starts[-1], purpose, mend)
        # unwritten slots are masked, but 0 * NaN would not be 0
        cuda.clear(memory.address, starts[-1])
        self._place(cuda, memory, shapes, [memory.address + start for start in starts[:-1]], item)

    def _place(self, cuda, memory, shapes, addresses: list[int], item: int) -> None:
        self.shapes, self.addresses, self.batch = shapes, addresses, shapes[0][0]
        self.sizes = [int(np.prod(s)) * item for s in shapes]
        self._memory, self._item = memory, item
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
            addresses = [a + start * row for a, row in zip(self.addresses, rows, strict=True)]
            if any(start * row % ALIGNED for row in rows):  # the buffers themselves are aligned
                raise LuvcError(
                    f"row {start} of the caches does not begin at a multiple of {ALIGNED} bytes, which "
                    "TensorRT demands: export with another --text-capacity or --ratio"
                )
            part = object.__new__(Caches)
            shapes = [(count, *s[1:]) for s in self.shapes]
            part._place(cuda, self._memory, shapes, addresses, self._item)
            self._windows[start, count] = part
        return self._windows[start, count]
