"""Methods that work between the vision tower and the language model, once for each picture.

A selection sees `vision.Seen` and returns `language.Kept`; a reduction makes a smaller grid of new
tokens. Rules of other methods are restated from their papers. Letters as in vision.py.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from luvc.plugins.tokens.reference import take_rows

from .draws import Draws
from .language import Kept, top
from .scores import merge_rest, stride
from .vision import Seen

Selection = Callable[[Seen, int], Kept]


def random(draws: Draws) -> Selection:
    """Any `keep` tokens of each picture."""

    def select(seen: Seen, keep: int) -> Kept:
        scores = draws(*seen.tokens.shape[:2])
        return Kept(top(scores.to(seen.tokens.device), keep))

    return select


def uniform(seen: Seen, keep: int) -> Kept:
    """Tokens at equal steps of the raster order."""
    return Kept(stride(seen.tokens.shape[1], keep, seen.tokens))


def divprune(seen: Seen, keep: int) -> Kept:
    """DivPrune: greedily the token farthest (1 - cosine) from all chosen ones.

    First comes the token whose nearest neighbour is farthest.
    """
    unit = F.normalize(seen.tokens.float(), dim=-1)
    distance = 1 - unit @ unit.mT
    N, V, _ = distance.shape
    alone = distance + torch.diag(torch.full((V,), torch.inf, device=distance.device))
    chosen = [alone.amin(2).argmax(1)]
    nearest = distance[torch.arange(N), chosen[0]]
    for _ in range(keep - 1):
        nearest = nearest.scatter(1, chosen[-1][:, None], -torch.inf)
        chosen.append(nearest.argmax(1))
        nearest = torch.minimum(nearest, distance[torch.arange(N), chosen[-1]])
    return Kept(torch.stack(chosen, 1).sort(1).values)


def cls_attention(seen: Seen, keep: int) -> Kept:
    """FasterVLM: CLS attention of the last layer (the one whose features InternVL uses).

    InternVL leaves the CLS token's own output unused, so its last query was hardly trained.
    """
    return Kept(top(seen.cls[-1], keep))


def hiprune(seen: Seen, keep: int, alpha: float = 0.1) -> Kept:
    """HiPrune: anchors of a middle layer with their neighbours, registers of the last layer.

    The middle layer is at 9/24 of the depth, as in CLIP. Anchors are the round(keep * alpha / 5) best
    of the middle layer, their four neighbours wrap at row ends, the rest goes by the last layer.
    """
    L, N, V = seen.received.shape
    middle, deep = seen.received[max(0, round(L * 9 / 24) - 1)], seen.received[-1]
    anchors = top(middle, round(keep * alpha / 5))
    steps = torch.tensor([0, -1, 1, -seen.grid.w, seen.grid.w], device=anchors.device)
    around = (anchors[:, :, None] + steps).clamp(0, V - 1).flatten(1)
    held = torch.zeros(N, V, device=deep.device).scatter(1, around, 1.0)
    return Kept(top(deep + held * (1 + deep.amax()), keep))


def visionzip(seen: Seen, keep: int, share: float = 0.125) -> Kept:
    """VisionZip on the penultimate layer: dominant tokens by attention received, the rest merged.

    The mean over all queries is VisionZip's form for towers whose CLS token is not used. VisionDrop
    has it before the language model, with 6 of 48 tokens merged ones.
    """
    layer = max(0, len(seen.received) - 2)
    return merge_rest(seen.received[layer], seen.keys, seen.tokens, keep, share)


def pool(seen: Seen, height: int, width: int) -> Tensor:
    """Average the token grid down: [N, V, D] -> [N, height * width, D]."""
    grid = seen.tokens.unflatten(1, (seen.grid.h, seen.grid.w)).permute(0, 3, 1, 2)
    return F.adaptive_avg_pool2d(grid, (height, width)).flatten(2).mT


def dct_crop(seen: Seen, height: int, width: int) -> Tensor:
    """Fourier: a two-dimensional DCT of the token grid, cropped to its low frequencies.

    Two constant matrix products; the orthonormal inverse of the smaller size is scaled so that a
    constant picture keeps its value.
    """
    grid = seen.tokens.float().unflatten(1, (seen.grid.h, seen.grid.w))
    down = dct_resize(seen.grid.h, height, grid), dct_resize(seen.grid.w, width, grid)
    return torch.einsum("yh,xw,nhwd->nyxd", *down, grid).flatten(1, 2).to(seen.tokens.dtype)


def dct_resize(length: int, shorter: int, like: Tensor) -> Tensor:
    """Matrix [shorter, length]: inverse DCT of the first `shorter` frequencies of a DCT."""
    forward, back = dct(length)[:shorter], dct(shorter).T
    return (math.sqrt(shorter / length) * back @ forward).to(like)


def dct(length: int) -> Tensor:
    """Orthonormal DCT-II, float64 [length, length], row = frequency."""
    n = torch.arange(length, dtype=torch.float64)
    rows_ = torch.cos(math.pi / length * n[:, None] * (n + 0.5)) * math.sqrt(2 / length)
    rows_[0] /= math.sqrt(2)
    return rows_


def values_of(seen: Seen, kept: Kept) -> Tensor:
    """Tokens [N, k, D] that a selection leaves."""
    return take_rows(seen.tokens, kept.ordinals) if kept.values is None else kept.values
