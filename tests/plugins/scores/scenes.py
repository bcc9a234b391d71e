"""Random sequences and towers for the scores, as numpy for the definitions and as the scores' own inputs."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from luvc.plugins.scores.base import Heads, Score, Seen, Tower

B, S = 2, 44  # rows, sequence
D = 16
Q, KV = 4, 2  # heads of queries and of keys
SIZE = 8
N, PATCHES = 3, (8, 12)  # entries of a tower, its grid
BLOCK = 2  # patches of a visual token along an axis
ROWS, COLUMNS = PATCHES[0] // BLOCK, PATCHES[1] // BLOCK
DEPTH = 6
SCALE = 0.7


def softmax(x: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(x)).to(torch.float32 if x.dtype == float else torch.long)


@dataclass
class Sequence:
    """What stands before a language layer; the visual tokens lie apart and elsewhere in each row."""

    groups: int = 3
    tokens: int = 24  # V
    layer: int = 3
    seed: int = 0
    heads_asked: list[bool] = field(default_factory=list)

    def __post_init__(self):
        random = np.random.default_rng(self.seed)
        self.hidden = random.normal(size=(B, S, D)) * random.uniform(0.5, 2, (B, S, 1))
        self.normed = random.normal(size=(B, S, D))
        places = [np.sort(3 + b + random.permutation(34)[: self.tokens]) for b in range(B)]
        self.index = np.stack(places)
        self.last = np.array([S - 1, S - 4])  # the second row is padded
        self.query = {turned: random.normal(size=(B, Q, S, SIZE)) for turned in (True, False)}
        self.key = {turned: random.normal(size=(B, KV, S, SIZE)) for turned in (True, False)}
        angle = random.uniform(0, 7, (B, S, SIZE))
        self.turned = np.cos(angle), np.sin(angle)
        attention, mlp = random.normal(size=(2, 2, B, S, D))
        self.behind = tuple(attention), tuple(mlp)  # given and gave

    @property
    def n(self) -> int:
        return self.tokens // self.groups

    def keys(self, turned: bool) -> np.ndarray:
        """[B, Q, S, SIZE]: each key head serves the query heads beside each other."""
        return np.stack([self.key[turned][:, head // (Q // KV)] for head in range(Q)], 1)

    def runs(self, x: np.ndarray) -> np.ndarray:
        """[B, V, ...] -> [B * groups, n, ...]."""
        return x.reshape(B * self.groups, self.n, *x.shape[2:])

    def visual(self, x: np.ndarray) -> np.ndarray:
        """Rows of the visual tokens of x [B, S, c] -> [B, V, c]."""
        return np.stack([row[places] for row, places in zip(x, self.index, strict=True)])

    def seen(self, score: Score, keep: int) -> Seen:
        """As the score is called; it may read no more than it says."""

        def heads(turned: bool) -> Heads:
            self.heads_asked.append(turned)
            return Heads(tensor(self.query[turned]), tensor(self.keys(turned)), SCALE)

        return Seen(
            hidden=tensor(self.hidden),
            normed=lambda: tensor(self.normed),
            visual_index=tensor(self.index),
            last=tensor(self.last),
            groups=self.groups,
            heads=heads,
            turned=lambda: (tensor(self.turned[0]), tensor(self.turned[1])),
            behind=lambda: tuple((tensor(a), tensor(b)) for a, b in self.behind),  # type: ignore
            layer=self.layer,
            tables=score.tables(self.n, keep),
        )


@dataclass
class VisionTower:
    """What a tower looks at, layer by layer, and its visual tokens."""

    prefix: int = 1
    seed: int = 0

    def __post_init__(self):
        random = np.random.default_rng(self.seed)
        shape = DEPTH, N, Q, self.prefix + PATCHES[0] * PATCHES[1], SIZE
        self.query, self.key = random.normal(size=shape), random.normal(size=shape)
        # In one entry the patches' keys tell little and CLS draws very different shares of attention.
        self.key[:, 1, :, self.prefix :] *= 0.05
        self.key[:, 1, :, : self.prefix] *= 4
        self.tokens = random.normal(size=(N, ROWS * COLUMNS, D))

    def attention(self, layer: int) -> np.ndarray:
        """Mean over heads, [N, prefix + patches, prefix + patches]."""
        products = np.einsum("nhqd,nhkd->nhqk", self.query[layer], self.key[layer]) * SCALE
        return softmax(products).mean(1)

    def cells(self, x: np.ndarray) -> np.ndarray:
        """Mean over the patches of each visual token, [N, patches, ...] -> [N, n, ...]."""
        means = [
            x.reshape(N, *PATCHES, *x.shape[2:])[:, r : r + BLOCK, c : c + BLOCK].mean((1, 2))
            for r in range(0, PATCHES[0], BLOCK)
            for c in range(0, PATCHES[1], BLOCK)
        ]
        return np.stack(means, 1)

    def patches(self, x: np.ndarray) -> np.ndarray:
        """[N, prefix + patches, ...] -> [N, n, ...]."""
        return self.cells(x[:, self.prefix :])

    def received(self, layer: int) -> np.ndarray:
        """Of each visual token from all tokens, [N, n]."""
        return self.patches(self.attention(layer).mean(1))

    def cls(self, layer: int) -> np.ndarray:
        """Of each visual token from the CLS token, or from all where there is none, [N, n]."""
        return self.patches(self.attention(layer)[:, 0]) if self.prefix else self.received(layer)

    def keys(self, layer: int) -> np.ndarray:
        """Head-mean keys of the visual tokens, [N, n, SIZE]."""
        return self.patches(self.key[layer].mean(1))

    def shown(self, score: Score) -> Tower:
        """As the score is called: only the layers that it asked for."""
        looked = [
            Heads(tensor(self.query[i]), tensor(self.key[i]), SCALE) for i in score.layers(DEPTH)
        ]

        def cells(x: torch.Tensor) -> torch.Tensor:
            blocks: Any = x.unflatten(1, (ROWS, BLOCK, COLUMNS, BLOCK))
            return blocks.mean((2, 4)).flatten(1, 2)

        return Tower(tuple(looked), self.prefix, tensor(self.tokens), (ROWS, COLUMNS), cells)
