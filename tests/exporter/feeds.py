"""Random prompts at the language graphs' own inputs."""

import numpy as np

from luvc.engines.backends.base import PrefillFeed

HIDDEN = 256  # of the workshop's checkpoints


def random_feed(visual: int, text: int, batch: int, seed: int = 0) -> PrefillFeed:
    """Equally long prompts whose visual tokens stand behind the fifth token."""
    random = np.random.default_rng(seed)
    length = visual + text
    return PrefillFeed(
        input_ids=random.integers(10, 900, (batch, length)),
        visual_embeds=random.normal(size=(batch, visual, HIDDEN)).astype(np.float32),
        visual_index=np.tile(np.arange(5, 5 + visual), (batch, 1)),
        position_ids=np.tile(np.arange(length), (batch, 1)),
        last_index=np.full(batch, length - 1),
    )
