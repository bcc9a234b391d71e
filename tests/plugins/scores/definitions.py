"""Every score once more, in numpy, from the rule that its paper gives.

Letters: base.py of the scores; G runs of n tokens.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .scenes import COLUMNS, DEPTH, SCALE, Sequence, VisionTower, softmax

Array = np.ndarray


def best(scores: Array, keep: int) -> list[set[int]]:
    """The places of the highest scores [G, n] of each run; ties go to the lower one."""
    return [set(np.argsort(-row, kind="stable")[:keep].tolist()) for row in scores]


def unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


# ---- scores of the language model: [G, n]
def spectrum(s: Sequence, keep: int, cutoff=1.0, band="low", signal="normed") -> Array:
    x = s.runs(s.visual(s.normed if signal == "normed" else s.hidden))
    bins = np.minimum(np.arange(s.n), s.n - np.arange(s.n))
    low = bins <= int(cutoff * s.n / 2)
    passing = low if band == "low" else ~low
    filtered = np.fft.ifft(np.fft.fft(x, axis=1) * passing[None, :, None], axis=1).real
    return (filtered**2).sum(-1)


def uniform(s: Sequence, keep: int) -> Array:
    """The token in the middle of each of `keep` equal parts."""
    middles = [int((part + 0.5) * s.n / keep) for part in range(keep)]
    return np.tile(np.isin(np.arange(s.n), middles), (len(s.runs(s.index)), 1)).astype(float)


def fastv(s: Sequence, keep: int) -> Array:
    """What the last real token of the prompt attends to, mean over heads."""
    found = []
    for b, last in enumerate(s.last):
        query, keys = s.query[True][b, :, last], s.keys(True)[b, :, : last + 1]
        weights = softmax(np.einsum("hd,hsd->hs", query, keys) * SCALE).mean(0)
        found.append(weights[s.index[b]])
    return s.runs(np.stack(found))


def pact(s: Sequence, keep: int) -> Array:
    """EUTI: attention of the mean visual query before the rotary embedding, times the state's norm."""
    hidden = s.runs(s.visual(s.hidden))
    heads = []
    for h in range(s.query[False].shape[1]):
        query = s.runs(s.visual(s.query[False][:, h])).mean(1)
        key = s.runs(s.visual(s.keys(False)[:, h]))
        heads.append(softmax(np.einsum("gd,gnd->gn", query, key) * SCALE))
    return np.mean(heads, 0) * np.linalg.norm(hidden, axis=-1)


def k_norm(s: Sequence, keep: int) -> Array:
    """The shorter the mean of the key heads, the better."""
    return -s.runs(np.linalg.norm(s.visual(s.key[False].mean(1)), axis=-1))


def transprune(s: Sequence, keep: int) -> Array:
    """TTV: how much longer and how much elsewhere attention and MLP left each token."""
    terms = []
    for given, gave in s.behind:
        x, y = s.runs(s.visual(given)), s.runs(s.visual(gave))
        turn = np.exp(1 - (unit(x) * unit(y)).sum(-1))
        length = np.linalg.norm(y, axis=-1) / np.linalg.norm(x, axis=-1)
        terms.append(length * turn / turn.sum(1, keepdims=True))
    return np.sum(terms, 0)


def ivc(s: Sequence, keep: int, share=0.1, rest="spectrum") -> Array:
    """Places of high mean cosine or sine come first, then what the other score ranks high."""
    others = SCORED[rest](s, keep)
    count = min(round(share * s.n), keep // 2)
    held = np.zeros_like(others)
    for part in s.turned:
        for row, places in zip(held, best(s.runs(s.visual(part)).mean(-1), count), strict=True):
            row[sorted(places)] = 1
    rank = np.argsort(np.argsort(-others, axis=1, kind="stable"), axis=1)
    return held * s.n - rank


SCORED: dict[str, Callable[..., Array]] = {
    "spectrum": spectrum,
    "uniform": uniform,
    "fastv": fastv,
    "pact": pact,
    "k-norm": k_norm,
    "transprune": transprune,
    "ivc": ivc,
}


# ---- one token after the other: [G, keep], in the order of picking
def _farthest(distance: Array, first: int, keep: int) -> list[int]:
    picked = [first]
    while len(picked) < keep:
        rest = [i for i in range(len(distance)) if i not in picked]
        picked.append(max(rest, key=lambda i: distance[i, picked].min()))
    return picked


def divprune(s: Sequence, keep: int) -> list[list[int]]:
    found = []
    for x in unit(s.runs(s.visual(s.hidden))):
        distance = 1 - x @ x.T
        nearest = [np.delete(row, i).min() for i, row in enumerate(distance)]
        found.append(_farthest(distance, int(np.argmax(nearest)), keep))
    return found


def todre(s: Sequence, keep: int) -> list[list[int]]:
    found = []
    for x in unit(s.runs(s.visual(s.hidden))):
        outermost = int(np.argmax(1 - x @ unit(x.mean(0))))
        found.append(_farthest(1 - x @ x.T, outermost, keep))
    return found


def mmtok(s: Sequence, keep: int, temperature=0.2) -> list[list[int]]:
    """Greedy maximum coverage: each token is covered as well as the best one picked covers it."""
    found = []
    for x in unit(s.runs(s.visual(s.hidden))):
        cover = softmax(x @ x.T / temperature)
        picked: list[int] = []
        while len(picked) < keep:
            rest = [i for i in range(len(x)) if i not in picked]
            picked.append(max(rest, key=lambda i: cover[:, [*picked, i]].max(1).sum()))
        found.append(picked)
    return found


PICKED: dict[str, Callable[..., list[list[int]]]] = {
    "divprune": divprune,
    "todre": todre,
    "mmtok": mmtok,
}


# ---- scores of the tower: [N, n]
def fastervlm(t: VisionTower) -> Array:
    return t.cls(DEPTH - 1)


def vtc_cls(t: VisionTower, start=0.5) -> Array:
    return np.sum([t.cls(i) for i in range(int(start * DEPTH), DEPTH)], 0)


def fopru_vectors(t: VisionTower) -> tuple[Array, Array]:
    """Attention among patches, received and given: [N, patches] each."""
    among = t.attention(DEPTH - 1)[:, t.prefix :, t.prefix :]
    return among.mean(1), among.mean(2)


def fopru(t: VisionTower) -> Array:
    received, given = fopru_vectors(t)
    pairs = zip(received, given, strict=True)
    return t.cells(np.stack([a if a.var() >= b.var() else b for a, b in pairs]))


def vflowopt(t: VisionTower, threshold=1.0) -> Array:
    found = []
    for weights in t.attention(DEPTH - 2)[:, t.prefix :, t.prefix :]:
        received = weights.mean(0)
        voters = received > threshold * received.mean()
        found.append(weights[voters].mean(0))
    return t.cells(np.stack(found))


MEASURED: dict[str, Callable[..., Array]] = {
    "fastervlm": fastervlm,
    "vtc-cls": vtc_cls,
    "fopru": fopru,
    "vflowopt": vflowopt,
}


# ---- choices of the tower: the places kept, and the tokens with what was merged into them
def hiprune(t: VisionTower, keep: int, alpha=0.1, middle=9 / 24) -> list[set[int]]:
    middles, deep = t.received(round(middle * DEPTH) - 1), t.received(DEPTH - 1)
    found, last = [], deep.shape[1] - 1
    for mid, end in zip(middles, deep, strict=True):
        held: set[int] = set()
        for anchor in np.argsort(-mid, kind="stable")[: round(keep * alpha / 5)].tolist():
            around = (0, -1, 1, -COLUMNS, COLUMNS)
            held |= {min(max(anchor + step, 0), last) for step in around}
        registers = [i for i in np.argsort(-end, kind="stable").tolist() if i not in held]
        found.append(held | set(registers[: keep - len(held)]))
    return found


def merging(scores: Array, keys: Array, values: Array, keep: int, merged: float) -> Any:
    """VisionZip's: (places kept, values) of each run."""
    contextual = max(1, round(keep * merged))
    found = []
    for row, key, value in zip(scores, unit(keys), values.copy(), strict=True):
        (dominant,) = best(row[None], keep - contextual)
        rest = [i for i in range(len(row)) if i not in dominant]
        step = len(rest) // contextual
        targets = [rest[i * step] for i in range(contextual)]
        joined: dict[int, list[int]] = {target: [] for target in targets}
        for i in (i for i in rest if i not in targets):
            joined[max(targets, key=lambda t: key[i] @ key[t])].append(i)
        new = {t: value[t] + value[i].mean(0) for t, i in joined.items() if i}
        for target, mean in new.items():
            value[target] = mean
        found.append((dominant | set(targets), value))
    return found


def visionzip(t: VisionTower, keep: int, merged=0.125) -> Any:
    return merging(t.received(DEPTH - 2), t.keys(DEPTH - 2), t.tokens, keep, merged)


def visiondrop(t: VisionTower, keep: int, merged=1 / 7) -> Any:
    return visionzip(t, keep, merged)


def visiondrop_inside(s: Sequence, keep: int, merged=1 / 7) -> Any:
    """Causal attention of the visual queries, mean over heads and queries, then as in the tower."""
    scores, keys = [], s.key[True].mean(1)
    for b, index in enumerate(s.index):
        rows = []
        for place in index:
            products = np.einsum(
                "hd,hsd->hs", s.query[True][b, :, place], s.keys(True)[b, :, : place + 1]
            )
            row = np.zeros(s.hidden.shape[1])
            row[: place + 1] = softmax(products * SCALE).mean(0)
            rows.append(row)
        scores.append(np.mean(rows, 0)[index])
    visual = s.runs(s.visual(keys)), s.runs(s.visual(s.hidden))
    return merging(s.runs(np.stack(scores)), *visual, keep, merged)


CHOSEN: dict[str, Callable[..., list[set[int]]]] = {"hiprune": hiprune}
MERGED: dict[str, Callable[..., Any]] = {"visionzip": visionzip, "visiondrop": visiondrop}
