"""The SPU between two decoder layers: scores, selects, gathers.

Letters: B batch, S sequence, P position axes, V visual tokens, V_l those entering layer l, D hidden size.
"""

from dataclasses import dataclass

import torch
from torch import nn

from ...engines.bundle.schedule import Schedule
from ...plugins.scores.spectrum import contract, reference
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
    """

    hidden: torch.Tensor
    positions: torch.Tensor
    visual_index: torch.Tensor
    last: torch.Tensor
    deepstack: tuple[torch.Tensor, ...] = ()


class Pruner(nn.Module):
    """One SPU stage before a layer: V visual tokens -> keep.

    Args:
        visual: V, those entering the stage.
        keep: k; 0 leaves all visual rows out without scoring.
        groups: equal runs that are scored apart (1 for the whole prompt).
        schedule: band, cutoff and signal.
    """

    def __init__(self, visual: int, keep: int, groups: int, schedule: Schedule):
        super().__init__()
        length = visual // groups
        self.visual = visual
        self.keep = keep
        self.groups = groups
        self.cutoff = contract.cutoff_bin(schedule.cutoff, length)
        self.band = contract.BANDS.index(schedule.band)
        self.filtered = contract.filters(schedule.band, self.cutoff, length)
        self.normed = schedule.signal == "normed"
        if self.filtered:
            self.register_buffer("twiddle", reference.twiddle(length), persistent=False)

    def forward(self, tokens: Tokens, norm: nn.Module, forced: torch.Tensor | None = None):
        """One stage.

        Args:
            tokens: those that enter.
            norm: the input norm of the layer behind the stage.
            forced: ordinals [B, k] to keep whatever the scores say.

        Returns:
            The shortened tokens, and (energies [B, V], kept [B, k]) by the scores when scored.
        """
        ops = torch.ops.luvc
        if not self.keep:
            keep_index, deep = text_positions(tokens), ()
            visual_index, seen = tokens.visual_index[:, :0], None
        else:
            energies = self._score(norm(tokens.hidden) if self.normed else tokens.hidden, tokens)
            keep_index, visual_index, kept = ops.spectrum_select(
                energies, tokens.visual_index, tokens.positions, self.keep, self.groups
            )
            seen = energies.sum(1), kept
            if forced is not None:
                kept = forced
                keep_index, visual_index = indices_of(
                    kept, tokens.visual_index, tokens.positions.shape[1]
                )
            deep = tuple(take_rows(d, kept) for d in tokens.deepstack)
        hidden, positions = ops.gather_tokens(tokens.hidden, tokens.positions, keep_index)
        last = tokens.last - (self.visual - self.keep)  # visual tokens precede the last token
        return Tokens(hidden, positions, visual_index, last, deep), seen

    def _score(self, signal: torch.Tensor, tokens: Tokens) -> torch.Tensor:
        """Energies [B, C, V]; plain operators where the filter would give back what it was given."""
        if not self.filtered:
            return reference.energy(signal, tokens.visual_index)
        return torch.ops.luvc.spectrum_score(
            signal, tokens.visual_index, self.twiddle, self.cutoff, self.groups, self.band
        )


def text_positions(tokens: Tokens) -> torch.Tensor:
    """Positions of all tokens that are not visual, [B, S - V], ascending.

    A stable partition by cumulative sums: TensorRT's TopK ends at 3840 tokens.
    """
    B, S, _ = tokens.positions.shape
    V, device = tokens.visual_index.shape[1], tokens.visual_index.device
    place = torch.arange(S, device=device)[None].expand(B, -1)
    zeros = torch.zeros(B, S, dtype=torch.long, device=device)
    visual = zeros.scatter(1, tokens.visual_index, 1)
    seen = torch.cumsum(visual, 1)
    slot = torch.where(visual == 1, S - V + seen - 1, place - seen)
    return zeros.scatter(1, slot, place)[:, : S - V]


def add_deepstack(tokens: Tokens) -> None:
    """Add the next layer's visual features to the visual rows (DeepStack, arXiv 2406.04334)."""
    if tokens.deepstack:
        feature, *rest = tokens.deepstack
        index = tokens.visual_index[..., None].expand(-1, -1, tokens.hidden.shape[-1])
        # not scatter_add: ONNX Runtime has none for half precision
        rows = tokens.hidden.gather(1, index) + feature.to(tokens.hidden.dtype)
        tokens.hidden = tokens.hidden.scatter(1, index, rows)
        tokens.deepstack = tuple(rest)
