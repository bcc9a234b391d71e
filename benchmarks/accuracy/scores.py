"""Scores that the product does not have, made known to its graphs: the study's own, for comparison.

Letters as in plugins/scores/base.py.
"""

from torch import Tensor

from luvc.plugins.scores.base import HEADS, Score, Seen, option_class
from luvc.plugins.scores.registry import add
from luvc.plugins.scores.visiondrop import visual_attention


@add
@option_class
class VisualAttention(Score):
    """Attention that visual tokens give each other, mean over heads and queries.

    Softmax over all keys up to the query (causal), in the layer ahead.
    """

    name = "visual-attention"
    about = "attention from the visual tokens"
    source = "the rule of VisionDrop inside the language model"
    reads = frozenset({HEADS})

    def __call__(self, seen: Seen, keep: int) -> Tensor:
        """[G, n]."""
        return visual_attention(seen, seen.heads(True))
