"""Who sees whom, where causal attention alone does not say it.

Letters: B batch, S sequence, T new tokens, C cache slots, W window.
"""

import torch

from .traits import PromptMask


def prompt_mask(
    positions: torch.Tensor,
    image: torch.Tensor | None,
    last: torch.Tensor,
    mask: PromptMask,
    window: int | None,
) -> torch.Tensor | None:
    """The mask of a right-padded prompt, or None where plain causal attention is meant.

    Args:
        positions: [B, S], of a prompt in one axis.
        image: [B, S], the number of the image a token belongs to, -1 for text; with mask "image".
        last: [B], index of each row's last real token.
        mask: see TextTraits.
        window: W of a sliding layer that is shorter than the prompt may be.

    Returns:
        bool [B, 1, S, S], True where a query may look.
    """
    place = torch.arange(positions.shape[1], device=positions.device)
    if mask == "prompt":  # whole, even for sliding layers: PaliGemma's prefix
        return (place <= last[:, None])[:, None, None].expand(-1, -1, positions.shape[1], -1)
    if mask == "causal" and window is None:
        return None
    seen = (place[None] <= place[:, None])[None]
    if mask == "image":
        assert image is not None
        seen = seen | ((image[:, :, None] == image[:, None]) & (image[:, :, None] >= 0))
    if window is not None:
        seen = seen & (positions[:, :, None] - positions[:, None] < window)
    return seen[:, None].expand(positions.shape[0], -1, -1, -1)


def last_mask(positions: torch.Tensor, last: torch.Tensor, window: int | None) -> torch.Tensor:
    """What the last real token of each row of a right-padded prompt sees of it.

    Args:
        positions: [B, S].
        last: [B], index of that token.
        window: W of a sliding layer that is shorter than the prompt may be.

    Returns:
        bool [B, 1, 1, S].
    """
    place = torch.arange(positions.shape[1], device=positions.device)
    seen = place[None] <= last[:, None]
    if window is not None:
        seen = seen & (positions.gather(1, last[:, None]) - positions < window)
    return seen[:, None, None]


def step_mask(
    slot: torch.Tensor,
    T: int,
    slots: int,
    positions: torch.Tensor,
    cached: torch.Tensor | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """The mask of new tokens over cache slots: those up to a token's own, not further back than W.

    Args:
        slot: [B], slot of the first new token.
        T: new tokens.
        slots: C.
        positions: [B, T], of the new tokens.
        cached: [B, C], positions of what is cached, the new tokens included; with a window.
        window: W of a sliding layer.

    Returns:
        bool [B, 1, T, C].
    """
    new, cache = (torch.arange(n, device=slot.device) for n in (T, slots))
    query = slot[:, None, None, None] + new[None, None, :, None]
    seen = cache[None, None, None] <= query
    if window is None:
        return seen
    assert cached is not None
    return seen & (positions[:, None, :, None] - cached[:, None, None] < window)
