"""The choice on questions that the search never saw, beside what it is to be better than."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...errors import LuvcError
from ..eval.intervals import Share, bootstrap_mean, wilson
from ..eval.items import Item, is_right
from ..workbench import Cost
from .candidates import Candidate, of_method
from .lab import Lab

CHOSEN = "tuned"
DEFAULT = "luvc"
BESIDE = (DEFAULT, "random", "downsample")
"""What the choice is shown beside."""


@dataclass(frozen=True)
class Held:
    """A candidate on the questions held out.

    Attributes:
        name: "tuned", or the method's.
        cost: of its first layout.
        loss: mean divergence of the answers' tokens, nats.
        less: that less the choice's, paired: above 0 the choice is better.
        same: share of answers that equal the unmodified model's.
        right: share of right answers; None where the data has none.
    """

    name: str
    cost: Cost
    loss: Share
    less: Share
    same: Share
    right: Share | None

    def as_json(self) -> dict[str, Any]:
        """As data."""
        shares = {name: getattr(self, name) for name in ("loss", "less", "same", "right")}
        return {
            "name": self.name,
            **asdict(self.cost),
            **{name: share and asdict(share) for name, share in shares.items()},
        }


def held_out(lab: Lab, chosen: Candidate, rule: str) -> tuple[list[Held], list[str]]:
    """The choice, then what it is shown beside.

    Args:
        lab: of the questions held out, in one part.
        chosen: by a search on others.
        rule: how answers are compared; see `is_right`.

    Returns:
        The rows, and why some have no plan.
    """
    found, refused = [], []
    base = lab.loss(chosen, 0)
    for name, candidate in ((CHOSEN, chosen), *((n, of_method(n)) for n in BESIDE)):
        try:
            losses = lab.loss(candidate, 0)
        except LuvcError as error:
            refused.append(f"{name}: {error}")
            continue
        found.append(_held(lab, name, candidate, losses, losses - base, rule))
    return found, refused


def _held(
    lab: Lab, name: str, candidate: Candidate, losses: np.ndarray, less: np.ndarray, rule: str
) -> Held:
    answers, full = lab.answers(candidate), lab.answers(None)
    same = sum(answers[item.id][0] == full[item.id][0] for item in lab.items)
    return Held(
        name,
        Cost.of(lab.plans(candidate)[0]),
        bootstrap_mean(losses),
        bootstrap_mean(less),
        wilson(same, len(lab.items)),
        _right({id: text for id, (text, _) in answers.items()}, lab.items, rule),
    )


def right_without(lab: Lab, rule: str) -> Share | None:
    """Share of right answers of the unmodified model; None where the data has none."""
    return _right({id: text for id, (text, _) in lab.answers(None).items()}, lab.items, rule)


def _right(texts: dict[str, str], items: Sequence[Item], rule: str) -> Share | None:
    if not items[0].answers:
        return None
    return wilson(sum(is_right(texts[i.id], i.answers, rule) for i in items), len(items))


def verdict(rows: Sequence[Held]) -> str:
    """What the questions held out say of the choice and the default."""
    default = next((row for row in rows if row.name == DEFAULT), None)
    if default is None:
        return f"the default has no plan at this ratio, so {CHOSEN} stands alone"
    if default.loss == rows[0].loss and default.less.low == default.less.high == 0:
        return "nothing was surely better than the default, which is what was chosen"
    if default.less.low > 0:
        return f"{CHOSEN} is surely nearer to the unmodified model than the default"
    if default.less.high < 0:
        return (
            f"{CHOSEN} is surely WORSE than the default on the questions held out: take the default"
        )
    return f"{CHOSEN} is not surely better than the default on the questions held out"
