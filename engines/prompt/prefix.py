"""What a prompt begins with, up to the end of its last picture: how far it goes, and what tells it apart.

Attention is causal and scores read visual tokens alone, so what is kept of a picture, and its keys and
values, are the same whatever is asked behind it. Where a model or a score looks further, nothing of the
caches may be shared, and `unshared` says why.
"""

import hashlib
from typing import Any

import numpy as np

from ..bundle.layout import Layout
from ..bundle.manifest import LanguageModel
from .processing import Prompt
from .videos import Video, Visual


def unshared(language: LanguageModel, layout: Layout) -> str | None:
    """None, or why the caches of a picture depend on what is asked about it."""
    if language.whole_prompt:
        return "the pictures of this model look at the question behind them"
    if layout.schedule.scored and layout.schedule.score.question:
        return f"the score {layout.schedule.score.name} reads the question to choose visual tokens"
    return None


def marks_of(tokenizer: Any, language: LanguageModel, layout: Layout) -> set[int]:
    """Ids of the special tokens that a picture becomes beside its visual tokens."""
    text = "".join(piece for piece, _ in layout.expansion).replace(language.image_token, " ")
    ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    return set(ids) & set(tokenizer.added_tokens_decoder)


def prefix_length(prompt: Prompt, token: int, marks: set[int]) -> int:
    """Ids of a prompt up to the end of its last picture, the marks behind it included.

    Args:
        prompt: with pictures.
        token: id of the visual tokens.
        marks: of `marks_of`; the prompt graph alone embeds them as some families do (Ovis2).

    Returns:
        0 where there is no text on one side of the pictures, which the graphs need, or where a mark
        stands in the text behind them.
    """
    ids = prompt.input_ids
    if ids[0] == token:
        return 0
    end = len(ids) - ids[::-1].index(token)
    while end < len(ids) and ids[end] in marks:
        end += 1
    rest = ids[end:]
    return 0 if not rest or marks.intersection(rest) else end


def fingerprint(prompt: Prompt, length: int) -> bytes:
    """What no two prefixes share: of the layout, the first `length` ids and the pictures' contents."""
    found = hashlib.sha256()
    ids = np.asarray(prompt.input_ids[:length], np.int64)
    # every part with its length, so that no two lists of parts read the same
    for part in (prompt.layout.name.encode(), ids.tobytes(), repr(prompt.seconds).encode()):
        _add(found, part)
    for visual in prompt.images:
        _add_visual(found, visual)
    return found.digest()


def _add_visual(found: Any, visual: Visual) -> None:
    frames = visual.frames if isinstance(visual, Video) else (visual,)
    _add(found, f"{len(frames)} {isinstance(visual, Video)}".encode())
    for frame in frames:
        _add(found, f"{frame.mode} {frame.size}".encode())
        _add(found, frame.tobytes())


def _add(found: Any, part: bytes) -> None:
    found.update(len(part).to_bytes(8, "little"))
    found.update(part)
