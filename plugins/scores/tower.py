"""Scores that the vision tower's attention gives, for a choice before the language model.

They are measured in the vision graph and ride behind the visual tokens, so the language model's graph only
ranks them. A tower without a CLS token is asked for the attention that each token receives from all.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ..tokens.reference import take_rows
from .base import TOWER, Measured, Score, Seen, Sizes, Tower, option_class, ordered, top, unit


class TowerScore(Score):
    """The score is what was measured."""

    reads = frozenset({TOWER})

    def __call__(self, seen: Seen, keep: int) -> Tensor:
        """[G, n]."""
        assert seen.measured is not None
        return seen.runs(seen.measured)

    def flops(self, sizes: Sizes) -> float:
        """Nothing in the language model."""
        del sizes
        return 0.0


@option_class
class FasterVLM(TowerScore):
    """Attention of the CLS token in the last layer that runs (LLaVA's penultimate one)."""

    name = "fastervlm"
    about = "attention from the tower's CLS token"
    source = "FasterVLM, arXiv 2412.01818, code under Apache-2.0"

    def layers(self, depth: int) -> tuple[int, ...]:
        """The last one."""
        return (depth - 1,)

    def measure(self, tower: Tower, keep: int) -> Measured:
        """The attention."""
        return Measured(tower.of_cls(0))


@option_class
class VTCCLS(TowerScore):
    """Attention of the CLS token, summed over the layers from one on.

    Attributes:
        start: the first layer, as a part of the depth.
    """

    name = "vtc-cls"
    about = "attention from the tower's CLS token, over several layers"
    source = "VTC-CLS, arXiv 2412.05819, code under Apache-2.0"

    start: Annotated[float, Field(ge=0, lt=1)] = 0.5

    def layers(self, depth: int) -> tuple[int, ...]:
        """From `start` to the last one."""
        return tuple(range(int(depth * self.start), depth))

    def measure(self, tower: Tower, keep: int) -> Measured:
        """The sum."""
        return Measured(torch.stack([tower.of_cls(i) for i in range(len(tower.heads))]).sum(0))


@option_class
class FoPru(TowerScore):
    """Attention given or received, whichever varies more over the tokens, in the last layer that runs.

    FoPru's rank form; its row form, which keeps whole rows, is not built.
    """

    name = "fopru"
    about = "attention given or received in the tower, whichever varies more"
    source = "FoPru, arXiv 2411.14164, by a review of it"

    def layers(self, depth: int) -> tuple[int, ...]:
        """The last one."""
        return (depth - 1,)

    def measure(self, tower: Tower, keep: int) -> Measured:
        """Mean over queries or over keys of the patches' attention to each other."""
        weights = tower.heads[0].weights()[:, tower.prefix :, tower.prefix :]
        received, given = weights.mean(1), weights.mean(2)
        wider = _variance(received) >= _variance(given)
        chosen = torch.where(wider, received, given)
        return Measured(tower.cells(chosen[..., None])[..., 0])


@option_class
class HiPrune(TowerScore):
    """Anchors of a middle layer with their four neighbours, registers of the last layer.

    The middle layer is CLIP's 9th of 24; Qwen2.5-VL's is the 16th of 32, a part of 0.5. Anchors are the
    round(keep * alpha / 5) best of the middle layer; their neighbours wrap at row ends; the rest goes by
    the last layer.

    Attributes:
        alpha: share of the tokens kept that are anchors and their neighbours.
        middle: the middle layer, counted from 1, as a part of the depth.
    """

    name = "hiprune"
    about = "attention received in a middle and in the last layer of the tower"
    source = "HiPrune, arXiv 2508.00553, code under MIT"
    chained = True

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.1
    middle: Annotated[float, Field(gt=0, le=1)] = 9 / 24

    def layers(self, depth: int) -> tuple[int, ...]:
        """The middle one and the last."""
        return max(0, round(depth * self.middle) - 1), depth - 1

    def measure(self, tower: Tower, keep: int) -> Measured:
        """The last layer's attention; that of anchors and neighbours is above all others'."""
        middle, deep = tower.received(0), tower.received(1)
        anchors = top(middle, round(keep * self.alpha / 5))
        columns = tower.grid[1]
        steps = (0, -1, 1, -columns, columns)
        around = torch.cat([anchors + step for step in steps], 1).clamp(0, middle.shape[1] - 1)
        held = torch.zeros_like(deep).scatter(1, around, 1.0)
        return Measured(deep + held * (1 + deep.amax(1, keepdim=True)))


@option_class
class VisionZip(TowerScore):
    """Dominant tokens by attention, the rest merged into evenly spaced ones.

    In the layer before the last. Attention received is VisionZip's form for towers whose CLS token is not
    used. A merged token is itself plus the mean of those whose keys are nearest to its own; nothing is
    merged where the first stage is not before the first layer.

    Attributes:
        merged: share of the tokens kept that are merged ones, one at least.
    """

    name = "visionzip"
    about = "attention received in the tower; the rest is merged"
    source = "VisionZip, arXiv 2412.04467, code under Apache-2.0"
    chained = True

    merged: Annotated[float, Field(gt=0, lt=1)] = 0.125

    def layers(self, depth: int) -> tuple[int, ...]:
        """The one before the last."""
        return (max(0, depth - 2),)

    def measure(self, tower: Tower, keep: int) -> Measured:
        """Above 1 for what stays, and the merged values."""
        return Measured(
            *merge_rest(tower.received(0), tower.keys(0), tower.tokens, keep, self.merged)
        )


@option_class
class VFlowOpt(TowerScore):
    """The attention paid by the tokens that receive most themselves.

    VFlowOpt's importance at fixed counts: queries vote that receive more than `threshold` times the mean.
    Its merging of the rest, whose count depends on the picture, is left out.

    Attributes:
        threshold: of a voting query, in means.
    """

    name = "vflowopt"
    about = "attention from the tower's tokens that receive most"
    source = "VFlowOpt, arXiv 2508.05211"

    threshold: Annotated[float, Field(ge=0, le=100)] = 1.0

    def layers(self, depth: int) -> tuple[int, ...]:
        """The one before the last, SigLIP's 25 of 27."""
        return (max(0, depth - 2),)

    def measure(self, tower: Tower, keep: int) -> Measured:
        """Mean attention from the queries that vote."""
        weights = tower.heads[0].weights()[:, tower.prefix :, tower.prefix :]
        received = weights.mean(1)
        votes = (received > self.threshold * received.mean(1, keepdim=True)).float()
        importance = (votes[:, None] @ weights)[:, 0] / votes.sum(1, keepdim=True).clamp(min=1)
        return Measured(tower.cells(importance[..., None])[..., 0])


def _variance(x: Tensor) -> Tensor:
    """[N, n] -> [N, 1]; torch's own would be decomposed."""
    return (x - x.mean(1, keepdim=True)).square().mean(1, keepdim=True)


def merge_rest(
    scores: Tensor, keys: Tensor, values: Tensor, keep: int, share: float
) -> tuple[Tensor, Tensor]:
    """Keep the best tokens; of the rest, evenly spaced targets take up the others.

    Each other token goes to the target whose key is nearest by cosine; a target becomes itself plus the mean
    of its own. Of VisionZip and VisionDrop.

    Args:
        scores: [G, n], above 0.
        keys: [G, n, d].
        values: [G, n, D].
        keep: tokens to leave.
        share: of them that are targets, at least one.

    Returns:
        float32 [G, n], above 1 for what stays and below for the rest, by the scores in either, and the
        values [G, n, D] with the targets' new ones.
    """
    n = scores.shape[1]
    targets = min(max(1, round(keep * share)), keep)
    best = top(scores, keep - targets)
    dominant = torch.zeros_like(scores).scatter(1, best, 1.0)
    left = n - keep + targets
    rest = ordered(dominant == 0, left)
    chosen = torch.arange(targets, device=scores.device) * max(1, left // targets)
    target = rest[:, chosen]
    stays = dominant.scatter(1, target, 1.0)
    direction = unit(keys)
    near = direction @ take_rows(direction, target).transpose(1, 2)
    nearest = near.argmax(-1)[..., None] == torch.arange(targets, device=scores.device)
    joins = (nearest & (stays == 0)[..., None]).float()  # [G, n, targets]
    count = joins.sum(1).clamp(min=1)[..., None]
    added = joins.transpose(1, 2) @ values.float() / count
    index = target[..., None].expand(-1, -1, values.shape[2])
    graded = stays + scores / (2 * scores.amax(1, keepdim=True))  # a later stage ranks them again
    return graded, values.scatter(1, index, take_rows(values, target) + added.to(values.dtype))
