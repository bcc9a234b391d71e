"""How far a plan's next tokens are from the unmodified model's, token by token.

Letters: A tokens of an answer, K tokens whose probabilities are kept.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

KEPT = 1024
"""K at most: a vocabulary of 150,000 for every token of every answer would fill the memory."""


@dataclass(frozen=True)
class Expected:
    """What the unmodified model expects at each token of its own answer.

    Attributes:
        tokens: int64 [A, K], the likeliest first; all of a small vocabulary.
        logs: float64 [A, K], logarithms of their probabilities.
        rest: float64 [A], that of all others together; -inf where there are none.
    """

    tokens: Tensor
    logs: Tensor
    rest: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> "Expected":
        """Of logits [A, vocabulary]."""
        logs = logits.double().log_softmax(-1)
        kept, tokens = logs.topk(min(KEPT, logs.shape[-1]), dim=-1)
        return cls(tokens, kept, _others(logs, tokens))

    def divergence(self, logits: Tensor) -> Tensor:
        """Kullback-Leibler divergence of logits [A, vocabulary] from this, nats, float64 [A].

        The tokens that are not kept count as one: of a vocabulary larger than K it is a little less than
        the whole divergence, never more.
        """
        logs = logits.double().log_softmax(-1)
        each = self.logs.exp() * (self.logs - logs.gather(-1, self.tokens))
        others = self.rest.exp() * (self.rest - _others(logs, self.tokens))
        return each.sum(-1) + torch.where(self.rest.isinf(), 0.0, others)


def _others(logs: Tensor, tokens: Tensor) -> Tensor:
    """Logarithm of the probability of all but these tokens [A, K], float64 [A]."""
    return logs.scatter(-1, tokens, float("-inf")).logsumexp(-1)
