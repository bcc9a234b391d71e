"""The spectrum score in plain torch: the definition every other form is held to, and the exporter's operator.

`spectrum_score` is registered with `torch.library`, so `torch.onnx.export` keeps each call as one node
instead of tracing its inside. Letters: ../../contract.py. Source: LUVC, arXiv 2512.09010, as read in
the design (the ideal low-pass, the squared norm as score; band "high" is ours).
"""

import math

import torch

from ...contract import DOMAIN
from ...tokens.reference import take_rows


def twiddle(tokens: int) -> torch.Tensor:
    """Cosines and sines of the DFT of length `tokens`, rounded once from float64.

    Returns:
        float32 [tokens, 2], row n = (cos, sin) of 2 pi n / tokens.
    """
    angle = torch.arange(tokens, dtype=torch.float64) * (2 * math.pi / tokens)
    return torch.stack([angle.cos(), angle.sin()], 1).float()


def energy(signal: torch.Tensor, visual_index: torch.Tensor) -> torch.Tensor:
    """Energy of each visual token as it is: SpectrumScore where band "low" has every bin.

    Args:
        signal: [B, S, D] float.
        visual_index: [B, V] int64.

    Returns:
        float32 [B, 1, V], the sum over channels of the squared signal.
    """
    of_all = signal.float().square().sum(-1)  # cheaper than gathering the rows before
    return of_all.gather(1, visual_index)[:, None]


@torch.library.custom_op(f"{DOMAIN}::spectrum_score", mutates_args=())
def spectrum_score(
    signal: torch.Tensor,
    visual_index: torch.Tensor,
    twiddle: torch.Tensor,
    cutoff: int,
    groups: int,
    band: int,
) -> torch.Tensor:
    """Energy of each visual token in a band of frequencies along the tokens.

    Args:
        signal: [B, S, D] float.
        visual_index: [B, V] int64, ascending.
        twiddle: float32 [V / groups, 2]; unused here, torch.fft has its own.
        cutoff: highest frequency bin of the ideal low-pass.
        groups: equal runs of V that are filtered apart.
        band: of contract.BANDS; 0 scores the low-pass, 1 what it takes away (signal - low-pass).

    Returns:
        float32 [B, 1, V], the sum over channels of the square.
    """
    x = take_rows(signal, visual_index).float()
    B, V, D = x.shape
    x = x.reshape(B * groups, V // groups, D)
    spectrum = torch.fft.rfft(x, dim=1)
    spectrum[:, cutoff + 1 :] = 0
    low = torch.fft.irfft(spectrum, n=V // groups, dim=1)
    return (x - low if band else low).square().sum(-1).reshape(B, 1, V)


@spectrum_score.register_fake
def _(signal, visual_index, twiddle, cutoff, groups, band):
    B, V = visual_index.shape
    return signal.new_empty((B, 1, V), dtype=torch.float32)
