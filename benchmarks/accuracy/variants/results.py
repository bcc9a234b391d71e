"""The study of merges: its files, what each variant gains over the plain mean, and which takes its place."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from luvc.tools.eval.intervals import Share, bootstrap_mean

from ...files import read_json
from ..results import RESULTS, exact_match, unpack, where
from .merging import MEAN, VARIANTS

FILES = "accuracy_variants_*.json"


class Place(NamedTuple):
    """A shortened tower, or the whole one, under a language model's ratio.

    Attributes:
        tower: ratio that it has.
        prefill: ratio that was asked for.
        grids: of the tower, from the first to the last.
    """

    tower: float
    prefill: float
    grids: tuple[str, ...]


class VariantResults:
    """One model's file.

    Args:
        data: its JSON.

    Attributes:
        right: of a variant's name and a place which questions are right, bool [questions].
    """

    def __init__(self, data: dict):
        self.data, self.name = data, data["name"]
        self.tasks = np.array(data["tasks"])
        self.right: dict[tuple[str, Place], np.ndarray] = {}
        for row in data["rows"]:
            if "right" in row:
                grids = tuple(dict.fromkeys(row["lengths"]))
                place = Place(row["tower"], row["ratio"], grids)
                self.right[row["variant"], place] = unpack(row["right"], len(self.tasks))

    @classmethod
    def read_all(cls, folder: Path = RESULTS) -> "list[VariantResults]":
        """Those that were measured, in the order of their names."""
        return [cls(read_json(path)) for path in sorted(folder.glob(FILES))]

    @property
    def whole(self) -> list[Place]:
        """Where nothing is merged."""
        return [place for _, place in self.right if place.tower == 1]

    @property
    def places(self) -> list[Place]:
        """Where tokens are merged."""
        return [place for name, place in self.right if place.tower > 1 and name == MEAN.name]

    def share(self, places: Sequence[Place], task: str | None = None) -> Share:
        """Exact match of the plain mean, in the mean over places."""
        right = np.stack([self.right[MEAN.name, place] for place in places])
        return exact_match(right[:, where(self.tasks, task)])

    def gain(self, variant: str, places: Sequence[Place], task: str | None = None) -> Share:
        """What a variant gains over the plain mean in the mean over places, paired by question."""
        mask = where(self.tasks, task)
        gains = [
            self.right[variant, p][mask].astype(float) - self.right[MEAN.name, p][mask]
            for p in places
        ]
        return bootstrap_mean(np.mean(gains, 0))


OTHERS = tuple(variant for variant in VARIANTS if variant is not MEAN)


def winners(found: Sequence[VariantResults]) -> list[str]:
    """Variants that take the plain mean's place.

    On every model the gain in the mean over all places lies surely above zero, and at no place surely below.
    """

    def wins(name: str, model: VariantResults) -> bool:
        places = model.places
        above = model.gain(name, places).low > 0
        return above and all(model.gain(name, [place]).high >= 0 for place in places)

    return [v.name for v in OTHERS if found and all(wins(v.name, model) for model in found)]
