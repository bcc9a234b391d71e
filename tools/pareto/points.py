"""What a method gives at a ratio: its plan, its answers, and how they compare with the unmodified model's."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...errors import LuvcError
from ...exporter.config import ExportConfig
from ..eval.answering import askable, batches
from ..eval.intervals import Share, bootstrap_mean, wilson
from ..eval.items import Item, is_right
from ..journal import Journal
from ..workbench import Cost, Workbench

FULL = "unmodified"


@dataclass(frozen=True)
class Point:
    """A method at a ratio.

    Attributes:
        method: its name; FULL for the unmodified model.
        ratio: as it was asked for.
        cost: of its plan, of the first layout.
        texts: what it answered, in the order of the questions.
    """

    method: str
    ratio: float
    cost: Cost
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Rated:
    """A point held to the answers, or to the unmodified model's where there are none.

    Attributes:
        point: what is rated.
        right: share of right answers; None where the data has none.
        gain: that less the unmodified model's, paired; None likewise.
        same: share of answers that equal the unmodified model's.
        best: no other point is at least as good for less work.
    """

    point: Point
    right: Share | None
    gain: Share | None
    same: Share
    best: bool = False

    @property
    def value(self) -> float:
        """What is drawn."""
        return (self.right or self.same).value


def measure(
    bench: Workbench,
    items: Sequence[Item],
    configs: Sequence[ExportConfig],
    journal: Journal,
    told: Callable[[str, int], None],
    longest: int,
    size: int,
) -> Iterator[Point | str]:
    """Answer all questions under every config; the first is the unmodified model.

    Args:
        bench: the model.
        items: questions.
        configs: what is asked of it; the first at ratio 1.
        journal: knows what was answered before.
        told: is told (method at ratio, questions done).
        longest: tokens of an answer.
        size: questions at a time.

    Yields:
        A point, or why a config has no plan.
    """
    for number, config in enumerate(configs):
        name = config.method if number else FULL
        label = f"{name} at {config.ratio:g}x"
        try:
            plans = bench.plans(config)
        except LuvcError as error:
            yield f"{label}: {error}"
            continue
        known = journal.known.get(label, [])
        answerer = bench.answerer(config, plans, longest)
        asked = askable(answerer, items)
        if len(asked) < len(items):
            counts = sorted({len(item.images) for item in items})
            raise LuvcError(
                f"the questions have {', '.join(map(str, counts))} images: give --images for each number"
            )
        texts = dict(zip((item.id for item in items), known, strict=False))
        rest = [item for item in items if item.id not in texts]
        for batch in batches(answerer, rest, size):
            predictions = answerer.answer(batch)
            texts |= {i.id: p.text for i, p in zip(batch.items, predictions, strict=True)}
            told(label, len(texts))
        found = tuple(texts[item.id] for item in items)
        journal.keep(label, found)
        yield Point(name, config.ratio, Cost.of(plans[0]), found)


def rate(points: Sequence[Point], items: Sequence[Item], rule: str) -> list[Rated]:
    """Every point beside the first, which is the unmodified model."""
    full = points[0]
    answered = bool(items[0].answers)
    base = _right(full, items, rule) if answered else np.zeros(0)
    found = []
    for point in points:
        same = sum(a == b for a, b in zip(point.texts, full.texts, strict=True))
        right, gain = None, None
        if answered:
            bits = _right(point, items, rule)
            right = wilson(int(bits.sum()), len(bits))
            gain = bootstrap_mean(bits - base)
        found.append(Rated(point, right, gain, wilson(same, len(items))))
    return [_judged(rated, found) for rated in found]


def _right(point: Point, items: Sequence[Item], rule: str) -> np.ndarray:
    pairs = zip(point.texts, items, strict=True)
    return np.array([float(is_right(text, item.answers, rule)) for text, item in pairs])


def _judged(rated: Rated, others: Sequence[Rated]) -> Rated:
    """Whether it is on the Pareto front of value and FLOPs."""
    cost = rated.point.cost.flops
    beaten = any(
        other.value >= rated.value
        and other.point.cost.flops <= cost
        and (other.value > rated.value or other.point.cost.flops < cost)
        for other in others
    )
    return Rated(rated.point, rated.right, rated.gain, rated.same, not beaten)


def as_json(rated: Rated) -> dict[str, Any]:
    """One point as data."""
    shares = {name: getattr(rated, name) for name in ("right", "gain", "same")}
    return {
        "method": rated.point.method,
        "ratio": rated.point.ratio,
        **asdict(rated.point.cost),
        **{name: share and asdict(share) for name, share in shares.items()},
        "best": rated.best,
        "texts": rated.point.texts,
    }
