"""Pruning rules of the language model: LUVC's score, its variants, and other methods' scores.

Each is a `language.Rule`: it sees the sequence before a layer and returns what it keeps. Other methods'
rules are restated from their papers; where one leaves something open, the docstring says what is done.
Letters as in language.py.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from luvc.plugins.scores.spectrum.contract import BANDS, cutoff_bin
from luvc.plugins.scores.spectrum.reference import spectrum_score, twiddle
from luvc.plugins.tokens.reference import take_rows

from .draws import Draws
from .language import After, Kept, LayerInput, Rule, top


def spectrum(rho: float = 1.0, raw: bool = False, groups: int = 1, band: str = "low") -> Rule:
    """The SPU as the product runs it: energy of a band.

    Args:
        rho: share of the spectrum that passes the low-pass.
        raw: score the hidden states instead of the layer's normalised input.
        groups: runs of visual tokens that are scored apart with equal quotas (pictures).
        band: what passes, or what the low-pass takes away.
    """

    def rule(entering: LayerInput, keep: int) -> Kept:
        length = entering.visual.shape[1] // groups
        energy = energies(entering, rho, raw, groups, band)
        if groups == 1:
            return Kept(top(energy, keep))
        best = top(energy.reshape(-1, length), keep // groups).unflatten(0, (-1, groups))
        return Kept((best + length * torch.arange(groups, device=best.device)[:, None]).flatten(1))

    return rule


def energies(
    entering: LayerInput, rho: float, raw: bool = False, groups: int = 1, band: str = "low"
) -> Tensor:
    """What the product's SPU scores tokens by, float32 [B, V_l]; arguments as in `spectrum`."""
    signal = entering.hidden if raw else entering.normed()
    length = entering.visual.shape[1] // groups
    bins = cutoff_bin(rho, length)
    number = BANDS.index(band)
    return spectrum_score(signal, entering.visual, twiddle(length), bins, groups, number)[:, 0]


def low_pass(x: Tensor, rho: float) -> Tensor:
    """Ideal low-pass of [B, V, D] along V, float32."""
    bins = torch.fft.rfft(x.float(), dim=1)
    bins[:, cutoff_bin(rho, x.shape[1]) + 1 :] = 0
    return torch.fft.irfft(bins, n=x.shape[1], dim=1)


def _cosine(x: Tensor, low: Tensor) -> Tensor:
    return F.cosine_similarity(x, low, dim=-1)


VARIANTS = {
    "cosine": _cosine,
    "residual": lambda x, low: -(x - low).norm(dim=-1),
    "share": lambda x, low: low.norm(dim=-1) / x.norm(dim=-1),
    "high": lambda x, low: (x - low).norm(dim=-1),
}
"""Other scores of a token and its low-pass; "high" is the reverse of "residual", as a control."""


def spectrum_variant(name: str, rho: float) -> Rule:
    """A score from VARIANTS in place of the energy."""

    def rule(entering: LayerInput, keep: int) -> Kept:
        x = entering.of_visual(entering.normed()).float()
        return Kept(top(VARIANTS[name](x, low_pass(x, rho)), keep))

    return rule


def random(draws: Draws) -> Rule:
    """Any `keep` tokens, drawn anew for each question."""

    def rule(entering: LayerInput, keep: int) -> Kept:
        scores = draws(*entering.visual.shape)
        return Kept(top(scores.to(entering.visual.device), keep))

    return rule


def uniform() -> Rule:
    """Tokens at equal steps of the sequence."""

    def rule(entering: LayerInput, keep: int) -> Kept:
        return Kept(stride(entering.visual.shape[1], keep, entering.visual))

    return rule


def stride(count: int, keep: int, like: Tensor) -> Tensor:
    """The middles of `keep` equal parts of 0 .. count - 1, int64 [B, keep] for the rows of `like`."""
    steps = torch.arange(keep, device=like.device) * 2 + 1
    return (steps * count // (2 * keep)).expand(len(like), -1)


def pact() -> Rule:
    """PACT's pruning score: softmax over visual keys of the mean visual query, times the norm.

    Queries and keys before the rotary embedding, softmax per head in float32, mean over heads; the
    norm is that of the hidden state. PACT's clustering, whose count depends on the data, is left out.
    """

    def rule(entering: LayerInput, keep: int) -> Kept:
        query = _visual_heads(entering, entering.queries(rotary=False)).mean(2, keepdim=True)
        key = _visual_heads(entering, entering.keys(rotary=False))
        weights = (query @ key.mT * entering.layer.self_attn.scaling).softmax(-1).mean(1)[:, 0]
        return Kept(top(weights * entering.of_visual(entering.hidden).float().norm(dim=-1), keep))

    return rule


def fastv() -> Rule:
    """FastV: head-mean attention from the last prompt token, in the layer that comes next."""
    return lambda entering, keep: Kept(top(last_attention(entering), keep))


def last_attention(entering: LayerInput) -> Tensor:
    """Head-mean attention of the prompt's last token to the visual tokens, float32 [B, V_l]."""
    S = entering.hidden.shape[1]
    query = entering.queries(rotary=True).mT  # [B, H, d, S]
    query = query.gather(3, entering.last[:, None, None, None].expand(-1, *query.shape[1:3], 1)).mT
    scores = query @ entering.keys(rotary=True).mT * entering.layer.self_attn.scaling
    later = torch.arange(S, device=query.device) > entering.last[:, None]
    weights = scores.masked_fill(later[:, None, None], -torch.inf).softmax(-1).mean(1)[:, 0]
    return weights.gather(1, entering.visual)


def visual_attention(entering: LayerInput) -> Tensor:
    """Attention that visual tokens give each other, mean over heads and queries, float32 [B, V_l].

    Softmax over all keys up to the query (causal).
    """
    query = _visual_heads(entering, entering.queries(rotary=True))
    scores = query @ entering.keys(rotary=True).mT * entering.layer.self_attn.scaling
    places = torch.arange(entering.hidden.shape[1], device=query.device)
    later = places > entering.visual[..., None]
    weights = scores.masked_fill(later[:, None], -torch.inf).softmax(-1).mean((1, 2))
    return weights.gather(1, entering.visual)


def _visual_heads(entering: LayerInput, heads: Tensor) -> Tensor:
    """[B, H, S, d] -> [B, H, V_l, d]."""
    index = entering.visual[:, None, :, None].expand(-1, heads.shape[1], -1, heads.shape[3])
    return heads.gather(2, index)


def visiondrop(share: float = 1 / 7) -> Rule:
    """VisionDrop's rule inside the language model: dominant tokens, the rest merged into a few.

    Args:
        share: of the kept tokens that are merged ones ((30, 5), (22, 4), (16, 3) in the paper).
    """

    def rule(entering: LayerInput, keep: int) -> Kept:
        key = _visual_heads(entering, entering.keys(rotary=True)).mean(1)
        return merge_rest(
            visual_attention(entering), key, entering.of_visual(entering.hidden), keep, share
        )

    return rule


def merge_rest(scores: Tensor, keys: Tensor, values: Tensor, keep: int, share: float) -> Kept:
    """Keep the best tokens; of the rest, evenly spaced targets take up the others.

    Each other token goes to the target whose key is nearest by cosine; a target becomes itself plus
    the mean of its own. Used by VisionZip and VisionDrop.

    Args:
        scores: [B, V].
        keys: [B, V, d].
        values: [B, V, D].
        keep: tokens to leave.
        share: of them that are targets, at least one.
    """
    V = scores.shape[1]
    targets = min(max(1, round(keep * share)), keep)
    best = top(scores, keep - targets)
    taken = torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)
    rest = taken.byte().argsort(dim=1, stable=True)[:, : V - keep + targets]  # ascending
    step = max(1, rest.shape[1] // targets)
    chosen = torch.arange(targets, device=rest.device) * step
    is_target = torch.zeros(rest.shape[1], dtype=torch.bool, device=rest.device)
    is_target[chosen] = True
    target, other = rest[:, chosen], rest[:, ~is_target]
    unit = F.normalize(keys.float(), dim=-1)
    nearest = (take_rows(unit, other) @ take_rows(unit, target).mT).argmax(-1)
    joins = F.one_hot(nearest, targets).to(values.dtype)  # [B, others, targets]
    mean = joins.mT @ take_rows(values, other) / joins.sum(1).clamp(min=1)[..., None]
    merged = take_rows(values, target) + mean
    ordinals, order = torch.cat([best, target], 1).sort(1)
    return Kept(ordinals, take_rows(torch.cat([take_rows(values, best), merged], 1), order))


def transprune(first: int) -> tuple[Rule, After]:
    """TransPrune by its token transition variation (TTV) alone.

    For attention and MLP: ||output|| / ||input|| of a token, times exp(1 - cos(input, output))
    normalised over the visual tokens; both terms added, over layers `first` and up. The attention
    from the instruction that TransPrune adds is left out: it needs attention weights.

    Returns:
        The rule, and the `After` that gathers the scores.
    """
    layers = {"seen": 0}

    def term(before: Tensor, after: Tensor) -> Tensor:
        turn = (1 - F.cosine_similarity(before, after, dim=-1)).exp()
        return after.norm(dim=-1) / before.norm(dim=-1) * turn / turn.sum(1, keepdim=True)

    def after(memory: dict[str, Tensor], *parts: Tensor) -> None:
        before, attended, inner, transformed = (part.float() for part in parts)
        if layers["seen"] >= first and before.shape[1]:
            variation = term(before, attended) + term(inner, transformed)
            memory["variation"] = memory.get("variation", 0) + variation
        layers["seen"] += 1

    return lambda entering, keep: Kept(top(entering.memory["variation"], keep)), after
