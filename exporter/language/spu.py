"""The SPU between two decoder layers: scores, selects, gathers.

Letters: B batch, S sequence, P position axes, V visual tokens, V_l those entering layer l, D hidden size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ...plugins.scores.base import Heads, Score, Seen, ordered
from ...plugins.tokens.reference import indices_of, take_rows


@dataclass
class Tokens:
    """The sequence on its way through the layers.

    Attributes:
        hidden: [B, S, D].
        positions: original position ids, [B, S, P]; what else rides along with a token (the number of
            its image) lies behind them. Kept through every prune.
        visual_index: positions of the visual tokens in the sequence, [B, V_l].
        last: index of the last real token of each row, [B].
        deepstack: features to add to the visual rows after each of the next layers, [B, V_l, D].
        measured: what the score found in the vision tower, float32 [B, V_l]; None where it does not look.
        inputs: all layers' own inputs, [B, S, L * width]; None where they have none.
    """

    hidden: torch.Tensor
    positions: torch.Tensor
    visual_index: torch.Tensor
    last: torch.Tensor
    deepstack: tuple[torch.Tensor, ...] = ()
    measured: torch.Tensor | None = None
    inputs: torch.Tensor | None = None

    def taken(self, hidden: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Hidden states [B, S, D], positions and the layers' inputs of the rows [B, s], the last if any."""
        gather = torch.ops.luvc.gather_tokens
        hidden, positions = gather(hidden, self.positions, rows)
        if self.inputs is None:
            return hidden, positions
        return hidden, positions, gather(self.inputs, self.positions, rows)[0]


Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Around:
    """The layers around a stage, as a score may ask them about the sequence before the stage.

    Attributes:
        normed: normalised input [B, S, D] of the layer around.
        heads: its queries and keys, with the rotary embedding (True) or without.
        turned: cosines and sines of the rotary embedding, [B, S, d] each.
        behind: input and output of attention and MLP of the layer behind the stage, [B, S, D] each.
    """

    normed: Callable[[], torch.Tensor]
    heads: Callable[[bool], Heads]
    turned: Callable[[], tuple[torch.Tensor, torch.Tensor]]
    behind: Callable[[], tuple[Pair, Pair]]


class Pruner(nn.Module):
    """One SPU stage before a layer: V visual tokens -> keep.

    Args:
        layer: index of the layer.
        visual: V, those entering the stage.
        keep: k; 0 leaves all visual rows out without scoring.
        groups: equal runs that are scored apart (1 for the whole prompt).
        score: what tokens are kept by.
    """

    def __init__(self, layer: int, visual: int, keep: int, groups: int, score: Score):
        super().__init__()
        self.layer = layer
        self.visual = visual
        self.keep = keep
        self.groups = groups
        self.score = score
        tables = score.tables(visual // groups, keep // groups) if keep else {}
        self.tables = tuple(tables)
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def forward(self, tokens: Tokens, around: Around, forced: torch.Tensor | None = None):
        """One stage.

        Args:
            tokens: those that enter.
            around: the layers around the stage.
            forced: ordinals [B, k] to keep whatever the scores say.

        Returns:
            The shortened tokens, and (energies [B, V], kept [B, k]) by the scores when scored.
        """
        ops = torch.ops.luvc
        last = tokens.last - (self.visual - self.keep)  # visual tokens precede the last token
        if not self.keep:
            rows = text_positions(tokens)
            hidden, positions, *inputs = tokens.taken(tokens.hidden, rows)
            none = tokens.visual_index[:, :0]
            return Tokens(hidden, positions, none, last, (), None, *inputs), None
        seen = self._seen(tokens, around)
        energies = self._energies(seen)
        rows, visual_index, kept = ops.spectrum_select(
            energies, tokens.visual_index, tokens.positions, self.keep, self.groups
        )
        told = energies.sum(1), kept
        if forced is not None:
            kept = forced
            rows, visual_index = indices_of(kept, tokens.visual_index, tokens.positions.shape[1])
        deep = tuple(take_rows(d, kept) for d in tokens.deepstack)
        measured = None if tokens.measured is None else tokens.measured.gather(1, kept)
        hidden, positions, *inputs = tokens.taken(self._changed(seen, kept), rows)
        return Tokens(hidden, positions, visual_index, last, deep, measured, *inputs), told

    def _seen(self, tokens: Tokens, around: Around) -> Seen:
        return Seen(
            hidden=tokens.hidden,
            normed=around.normed,
            visual_index=tokens.visual_index,
            last=tokens.last,
            groups=self.groups,
            heads=around.heads,
            turned=around.turned,
            behind=around.behind,
            layer=self.layer,
            measured=tokens.measured,
            tables={name: self.get_buffer(name) for name in self.tables},
        )

    def _energies(self, seen: Seen) -> torch.Tensor:
        """Scores [B, C, V]."""
        scores = self.score(seen, self.keep // self.groups)
        return scores if scores.dim() == 3 else scores.reshape(-1, 1, self.visual)

    def _changed(self, seen: Seen, kept: torch.Tensor) -> torch.Tensor:
        """Hidden states [B, S, D] with the score's new values in the rows that are kept [B, k]."""
        length = self.visual // self.groups
        inside = kept.unflatten(1, (self.groups, -1)) % length
        values = self.score.values(seen, inside.flatten(0, 1))
        if values is None:
            return seen.hidden
        rows = seen.visual_index.gather(1, kept)[..., None].expand(-1, -1, seen.hidden.shape[2])
        new = values.reshape(rows.shape).to(seen.hidden.dtype)
        return seen.hidden.scatter(1, rows, new)


def text_positions(tokens: Tokens) -> torch.Tensor:
    """Positions of all tokens that are not visual, [B, S - V], ascending."""
    B, S, _ = tokens.positions.shape
    index = tokens.visual_index
    visual = torch.zeros(B, S, dtype=torch.long, device=index.device).scatter(1, index, 1)
    return ordered(visual == 0, S - index.shape[1])


def add_deepstack(tokens: Tokens) -> None:
    """Add the next layer's visual features to the visual rows (DeepStack, arXiv 2406.04334)."""
    if tokens.deepstack:
        feature, *rest = tokens.deepstack
        index = tokens.visual_index[..., None].expand(-1, -1, tokens.hidden.shape[-1])
        # not scatter_add: ONNX Runtime has none for half precision
        rows = tokens.hidden.gather(1, index) + feature.to(tokens.hidden.dtype)
        tokens.hidden = tokens.hidden.scatter(1, index, rows)
        tokens.deepstack = tuple(rest)
