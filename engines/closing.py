"""What holds memory of a model until it is closed: the model itself, every backend's runner, schedulers."""

from abc import ABC, abstractmethod
from typing import Self

from ..errors import LuvcError


class Closing(ABC):
    """Closes at the end of a `with` block; whatever is asked for afterwards is refused.

    A subclass sets `_closed` in its `close`.
    """

    _closed = False

    @abstractmethod
    def close(self) -> None:
        """Give the memory back; harmless when done twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        """Refuse what is asked of a closed one.

        Raises:
            LuvcError: it is closed.
        """
        if self._closed:
            raise LuvcError("the model is closed, its memory was given back: load the bundle again")
