"""When an answer ends: at an end token, at a stop text, at its longest length.

Two ends lie outside of the answer itself, in decoding.py: its caches are full, or it was cancelled.
"""

from collections.abc import Sequence

from .sampling import Sampling

Ids = int | Sequence[int]


def end_tokens(generation: Ids | None, language: Ids | None, tokenizer: Ids | None) -> Ids | None:
    """Ids that end an answer, as transformers finds them; export writes them into the bundle.

    Args:
        generation: eos_token_id of the checkpoint's generation config.
        language: of its language model's config, for a checkpoint that names none there.
        tokenizer: of its tokenizer, when both name none: what ends a text ends an answer.
    """
    return next((ids for ids in (generation, language, tokenizer) if ids is not None), None)


def is_end(token: int, sampling: Sampling) -> bool:
    """Whether a token ends the answer."""
    return token in sampling.eos_token_id


def is_full(tokens: int, sampling: Sampling) -> bool:
    """Whether an answer of so many tokens is as long as it may be."""
    return tokens >= sampling.max_new_tokens


def stop_text(text: str, sampling: Sampling) -> int | None:
    """Where the first stop text begins, which ends the answer; None without one."""
    found = [i for i in (text.find(stop) for stop in sampling.stop if stop) if i >= 0]
    return min(found, default=None)


def unsure(text: str, sampling: Sampling) -> int:
    """Characters at the end of a text that may be the start of a stop text."""
    longest = 0
    for stop in sampling.stop:
        for n in range(min(len(stop) - 1, len(text)), 0, -1):
            if text.endswith(stop[:n]):
                longest = max(longest, n)
                break
    return longest
