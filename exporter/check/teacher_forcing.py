"""The product's prefill graph over prompt and right answer at once: every place of the answer is told.

The graph takes what stands behind a prompt's last token for padding: no token of the prompt sees it, no
score reads it, no stage drops it. Letters: B questions, S sequence, A places of an answer and its end.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...engines.backends.base import PrefillFeed
from ...engines.bundle.layout import Layout
from ...engines.decoding import prompt_feed
from ...plugins.tokens.reference import take_rows
from ..language.graphs import PrefillGraph
from ..language.spu import Tokens
from ..vision.graph import VisionGraph
from .torch_runner import TorchRunner


class AnswerGraph(PrefillGraph):
    """PrefillGraph whose logits are those of the prompt's last token and of the places behind it.

    Attributes:
        places: A; set before each run.
    """

    places = 1

    def logits(self, tokens: Tokens) -> Tensor:
        """float32 [B, A, vocabulary]; places behind the sequence repeat its last one."""
        B, S, _ = tokens.hidden.shape
        place = tokens.last[:, None] + torch.arange(self.places, device=tokens.last.device)
        rows = take_rows(tokens.hidden, place.clamp(max=S - 1)).flatten(0, 1)[:, None]
        each = replace(tokens, hidden=rows, last=torch.zeros_like(place).flatten())
        return super().logits(each)[:, 0].unflatten(0, (B, -1))

    def _masks(self, tokens: Tokens) -> dict[str, Tensor | None]:
        """Where a prompt sees the whole of itself, the answer sees what is before it, too."""
        masks = super()._masks(tokens)
        if self.traits.mask != "prompt":
            return masks
        place = torch.arange(tokens.hidden.shape[1], device=tokens.hidden.device)
        before = place[None] <= place[:, None]
        return {kind: None if mask is None else mask | before for kind, mask in masks.items()}


class AnswerRunner(TorchRunner):
    """The product's stages in PyTorch, and `logits` of whole answers."""

    def feed(
        self,
        layout: Layout,
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        embeds: np.ndarray,
    ) -> PrefillFeed:
        """Prompts with their right answers behind them.

        Args:
            layout: of all prompts.
            prompts: token ids, image tokens in place.
            answers: token ids, B of them.
            embeds: visual embeddings [B, V, D].
        """
        both = [[*p, *a] for p, a in zip(prompts, answers, strict=True)]
        feed, _ = prompt_feed(self.family.language, layout, both, embeds)
        return replace(feed, last_index=np.array([len(p) for p in prompts]) - 1)

    def embeds(self, layout: Layout, pixels: np.ndarray, batch: int) -> np.ndarray:
        """Visual embeddings [B, V, D] of B prompts, from the pixels of all their pictures [B * N, ...]."""
        return self.vision(layout, pixels).reshape(batch, layout.visual_tokens, -1)

    def logits(self, layout: Layout, feed: PrefillFeed, places: int) -> Tensor:
        """Logits of A = `places` places from the last token of the prompt on, float32 [B, A, vocabulary]."""
        graph = self.graph(AnswerGraph, layout)
        graph.places = places
        caches = self.new_caches(layout, len(feed.input_ids))
        return self._run(graph, feed, caches)[0]

    def forget(self) -> None:
        """Let go of the graphs of layouts that were run."""
        for kind in (AnswerGraph, VisionGraph):
            self._graphs.pop(kind, None)
