"""One SPU stage on the GPU: the three kernels with the launches that the plugins report.

Outputs are poisoned, so that what a kernel does not write is seen. Letters: contract.py.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch

from luvc.plugins import cuda_kernel
from luvc.plugins.launch import Launch
from luvc.plugins.scores.spectrum.launch import score_call, score_launch
from luvc.plugins.scores.spectrum.reference import twiddle
from luvc.plugins.tokens.launch import gather_call, gather_launch, select_call, select_launch
from luvc.plugins.tokens.reference import gather_tokens, spectrum_select

TEXT = 9


@dataclass(frozen=True)
class Sizes:
    """What a stage is checked or timed at."""

    tokens: int
    groups: int = 1
    batch: int = 1
    channels: int = 40
    dtype: str = "float16"
    band: int = 0

    @property
    def cutoff(self) -> int:
        """An eighth of the bins of a group, as with a cutoff of 0.25, whatever the band."""
        return self.tokens // self.groups // 8

    @property
    def keep(self) -> int:
        """Half, in whole groups."""
        return max(1, self.tokens // self.groups // 2) * self.groups

    @property
    def plans(self) -> tuple[Launch, ...]:
        """Of score, select and gather."""
        return (
            score_launch(
                self.tokens, self.groups, self.channels, self.cutoff, self.band, self.dtype
            ),
            select_launch(self.tokens, self.groups, self.keep),
            gather_launch(self.channels, self.dtype),
        )


class Stage:
    """The kernels at these sizes, with inputs and poisoned outputs.

    Args:
        sizes: of the tokens, the batch and the channels.
        index: where the visual tokens stand, int64 [B, V]; default side by side.
        text: text tokens around them.
        device: where tensors lie.
    """

    def __init__(
        self,
        sizes: Sizes,
        index: torch.Tensor | None = None,
        text: int = TEXT,
        device: str = "cuda",
    ):
        self.sizes, self.text = sizes, text
        B = sizes.batch
        V = sizes.tokens
        D = sizes.channels
        S = sizes.tokens + text
        k, rows = sizes.keep, text + sizes.keep
        self.score_plan, self.select_plan, self.gather_plan = sizes.plans
        self._kernels = [cuda_kernel.kernel(plan) for plan in sizes.plans]
        side_by_side = torch.arange(4, 4 + V, device=device).expand(B, -1)
        self.index = (side_by_side if index is None else index.to(device)).contiguous()
        self.positions = torch.arange(S, device=device)[None, :, None].expand(B, -1, 3).contiguous()
        self.twiddle = twiddle(V // sizes.groups).to(device)
        dtype = getattr(torch, sizes.dtype)
        nan = float("nan")
        self.energies = torch.full((B, self.score_plan.chunks, V), nan, device=device)
        self.selected = tuple(
            torch.full((B, n), -1, dtype=torch.int64, device=device) for n in (rows, k, k)
        )
        self.gathered = (
            torch.full((B, rows, D), nan, dtype=dtype, device=device),
            torch.full((B, rows, 3), -1, dtype=torch.int64, device=device),
        )

    def score(self, hidden: torch.Tensor) -> None:
        """Energies of hidden [B, S, D]."""
        call = score_call(self.score_plan, *hidden.shape, cutoff=self.sizes.cutoff)
        self._kernels[0](call, (hidden, self.index, self.twiddle), (self.energies,))

    def select(self, hidden: torch.Tensor) -> None:
        """Indices from the energies; hidden is not read."""
        B, S, _ = self.positions.shape
        call = select_call(self.select_plan, B, S, self.score_plan.chunks, self.sizes.keep)
        self._kernels[1](call, (self.energies, self.index, self.positions), self.selected)

    def gather(self, hidden: torch.Tensor, outputs: tuple[torch.Tensor, ...] | None = None) -> None:
        """Surviving rows, into these outputs or the stage's own."""
        (B, S, D), rows = hidden.shape, self.selected[0].shape[1]
        call = gather_call(D, self.sizes.dtype, B, S, rows, 3)
        found = self.gathered if outputs is None else outputs
        self._kernels[2](call, (hidden, self.positions, self.selected[0]), found)

    def run(self, hidden: torch.Tensor) -> None:
        """The whole stage."""
        self.score(hidden)
        self.select(hidden)
        self.gather(hidden)


def check(sizes: Sizes, device: str = "cuda") -> dict:
    """The kernels against numpy in float64 (energies) and the reference (select and gather, exactly).

    All inputs are made on the host, so that a memory checker sees little but these kernels.
    """
    rng = np.random.default_rng(sizes.tokens)
    S, B = sizes.tokens + TEXT, sizes.batch
    index = np.stack([np.sort(rng.permutation(S)[: sizes.tokens]) for _ in range(B)])
    values = torch.from_numpy(rng.standard_normal((B, S, sizes.channels)) + 0.5)
    hidden = values.to(getattr(torch, sizes.dtype))
    stage = Stage(sizes, torch.from_numpy(index), device=device)
    stage.run(hidden.to(device))
    visual = np.take_along_axis(hidden.double().numpy(), index[..., None], 1)
    wanted = energies(visual, sizes.groups, sizes.cutoff, sizes.band)
    parts, positions = stage.energies.cpu(), stage.positions.cpu()
    summed = parts.double().sum(1).numpy()
    # from the kernel's own energies, added in its order, so that select is compared exactly
    ordered = reduce(torch.add, parts.unbind(1))[:, None]
    selected = spectrum_select(
        ordered, torch.from_numpy(index), positions, sizes.keep, sizes.groups
    )
    gathered = gather_tokens(hidden, positions, selected[0])
    return {
        "tokens": sizes.tokens,
        "groups": sizes.groups,
        "channels": sizes.channels,
        "dtype": sizes.dtype,
        "band": sizes.band,
        "kernel": stage.score_plan.source,
        "relative_error": float(np.abs(summed - wanted).max() / wanted.max()),
        "select_exact": _equal(stage.selected, selected),
        "gather_exact": _equal(stage.gathered, gathered),
    }


def energies(x: np.ndarray, groups: int, cutoff: int, band: int = 0) -> np.ndarray:
    """The definition in float64: x [B, V, D] -> [B, V]."""
    B, V, D = x.shape
    spectrum = np.fft.rfft(x.reshape(B, groups, -1, D), axis=2)
    spectrum[:, :, cutoff + 1 :] = 0
    low = np.fft.irfft(spectrum, V // groups, axis=2)
    found = x - low.reshape(x.shape) if band else low
    return (found**2).sum(-1).reshape(B, V)


def _equal(ours, theirs) -> bool:
    return all(torch.equal(a.cpu(), b) for a, b in zip(ours, theirs, strict=True))
