"""LUVC's score (arXiv 2512.09010, as the design reads it): the energy of a token in a band of frequencies."""

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..base import Score, Seen, Sizes, option_class
from .contract import BANDS, cutoff_bin, filters
from .reference import energy, twiddle

WIDEST = 0.5
"""Largest cutoff of band "high": every stage of two tokens or more has frequencies above it."""


@option_class
class Spectrum(Score):
    """The energy of each token in a band of frequencies along the tokens.

    Attributes:
        cutoff: share of the spectrum that passes the low-pass; 1 is every bin, 0 the mean alone.
        band: "low" scores what passes (the tokens as they are at cutoff 1), "high" what the low-pass takes
            away: the token less its low-pass, less the mean token at cutoff 0.
        signal: "normed" scores the layer's normalised input, "raw" the hidden states.
    """

    name = "spectrum"
    about = "the energy of a token in a band of frequencies along the tokens, by an FFT"
    source = "LUVC, arXiv 2512.09010, as read from its abstract; band high is ours"

    cutoff: Annotated[float, Field(ge=0, le=1)] = 1.0
    band: Literal["low", "high"] = "low"
    signal: Literal["normed", "raw"] = "normed"

    @model_validator(mode="after")
    def _tells_tokens_apart(self):
        if self.band == "low" and self.cutoff == 0:
            raise ValueError(
                "cutoff 0 with band low scores the mean token alone, so that all score alike: give a cutoff "
                "above 0, or band high"
            )
        if self.band == "high" and self.cutoff > WIDEST:
            raise ValueError(
                f"cutoff {self.cutoff:g} with band high takes too much away: give a cutoff of at most "
                f"{WIDEST:g}, such as 0.05, or band low"
            )
        return self

    @property
    def described(self) -> str:
        """What the stage keeps tokens by."""
        if self.band == "high":
            low = f"its low-pass at {self.cutoff:g}" if self.cutoff else "the mean token"
            return f"how far a token is from {low}"
        return f"a token's energy below {self.cutoff:g}" if self.cutoff < 1 else "a token's energy"

    def filtered(self, length: int) -> bool:
        """Whether the filter changes anything in runs of so many tokens."""
        return filters(self.band, cutoff_bin(self.cutoff, length), length)

    def tables(self, length: int, keep: int) -> dict[str, Tensor]:
        """The twiddle factors, float32 [length, 2]; none where nothing is filtered."""
        return {"twiddle": twiddle(length)} if self.filtered(length) else {}

    def __call__(self, seen: Seen, keep: int) -> Tensor:
        """Energies [B, C, V]; plain operators where the filter would give back what it was given."""
        signal = seen.normed() if self.signal == "normed" else seen.hidden
        if "twiddle" not in seen.tables:
            return energy(signal, seen.visual_index)
        table = seen.tables["twiddle"]
        cutoff, band = cutoff_bin(self.cutoff, table.shape[0]), BANDS.index(self.band)
        return torch.ops.luvc.spectrum_score(
            signal, seen.visual_index, table, cutoff, seen.groups, band
        )

    def flops(self, sizes: Sizes) -> float:
        """The truncated-basis form: project on 2 (cutoff + 1) rows and back, square and add.

        Band "high" subtracts that from the signal first; where every bin passes, the filter is left out.
        """
        length = sizes.tokens // sizes.groups
        bins = cutoff_bin(self.cutoff, length) + 1 if self.filtered(length) else 0
        each = 4.0 * 2 * bins + 2 + (self.band == "high")
        return sizes.tokens * sizes.hidden * each
