"""The weights of a quantised checkpoint, under the names that a plain one has."""

from pathlib import Path

import torch

from ....errors import LuvcError
from ..mapped import release
from .format import INSTEAD, Format
from .parts import LEFTOVERS, PLAIN, Entry, Parts, entries_of

WEIGHT = ".weight"


class QuantisedWeights:
    """Each weight is read when it is asked for.

    Attributes:
        format: that reads them.
        plain: tensors that are stored as numbers, by name.
        packed: those that are not.
        unread: names of scales of activations and caches, which change no weight.
        tables: names of what the model makes by itself.
    """

    def __init__(self, form: Format, files: list[Path], dtype: torch.dtype | None = None):
        """Read the headers of the files.

        Args:
            form: what config.json says.
            files: safetensors.
            dtype: of the weights as numbers; None for that of the largest plain tensor.

        Raises:
            LuvcError: a file cannot be read, a tensor is of no known type, or no weight is quantised.
        """
        self.format = form
        self.plain: dict[str, Entry] = {}
        self.unread: list[str] = []
        self.tables: list[str] = []
        found: dict[str, dict[str, Entry]] = {}
        for name, entry in entries_of(files, form.source).items():
            where = form.part(entry)
            if LEFTOVERS.fullmatch(name):
                self.tables.append(name)
            elif where is None:
                self.plain[name] = self._checked(entry)
            elif where[1] in form.UNREAD:
                self.unread.append(name)
            else:
                found.setdefault(where[0], {})[where[1]] = entry
        self.packed = {
            f"{module}{WEIGHT}": Parts(f"{module}{WEIGHT}", form.source, entries)
            for module, entries in found.items()
        }
        self._check_names()
        self.dtype = dtype or self._usual_dtype()

    def _checked(self, entry: Entry) -> Entry:
        if entry.dtype not in PLAIN:
            raise LuvcError(
                f"{self.format.source}: {entry} is no part of {self.format.about}, which config.json says "
                f"the checkpoint is: {INSTEAD}"
            )
        return entry

    def _check_names(self) -> None:
        source = self.format.source
        if not self.packed:
            raise LuvcError(
                f"{source}: config.json says that the weights are {self.format.about}, and none of them is: "
                "take quantization_config out of config.json, or fetch the weights again"
            )
        for name in self.packed:
            if name in self.plain:
                raise LuvcError(
                    f"{source}: {self.plain[name]} is stored as numbers, and quantised as "
                    f"{', '.join(self.packed[name].entries)}, too: fetch the weights again"
                )

    def _usual_dtype(self) -> torch.dtype:
        kinds = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
        found = [e for e in self.plain.values() if e.dtype in kinds]
        largest = max(found, key=lambda e: torch.Size(e.shape).numel(), default=None)
        return kinds[largest.dtype] if largest else torch.float16

    @property
    def lost(self) -> list[str]:
        """What the checkpoint asks of a runtime that bundles do not do, each as a sentence."""
        found = list(self.format.lost)
        if self.unread:
            what = self.format.UNREAD[self.unread[0].rpartition(".")[2]]
            found.append(f"passing over {len(self.unread)} {what}, such as {self.unread[0]}")
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a weight, as a plain checkpoint has it.

        Raises:
            LuvcError: a part of it is missing or does not fit.
        """
        if name in self.packed:
            return self.format.shape(self.packed[name])
        return self.plain[name].shape

    def numbers(self, name: str) -> torch.Tensor:
        """A weight as numbers, of `dtype` where it is quantised.

        Raises:
            LuvcError: a part of it is missing or does not fit, or holds no finite number.
        """
        if name not in self.packed:
            return self.plain[name].read()
        return self.format.numbers(self.packed[name]).to(self.dtype)

    def let_go(self, name: str) -> None:
        """Let the system take back the memory of the mapped pages that a weight was read from."""
        packed = self.packed.get(name)
        for entry in packed.entries.values() if packed else [self.plain[name]]:
            release(entry.read())
