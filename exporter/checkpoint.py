"""Weights of a checkpoint, with errors that say what is wrong with which file."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from ..errors import LuvcError
from .family import Family, brief


def load_model(family: Family) -> Any:
    """The Hugging Face model in the checkpoint's own dtype, in evaluation mode; no remote code is run.

    Without a conversion the parameters stay mapped files: nothing is read before it is used.

    Raises:
        LuvcError: a weight file is missing, truncated or does not fit the config.
    """
    from transformers import AutoModelForImageTextToText

    try:
        with _quiet():
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                family.source, config=family.config, dtype="auto", output_loading_info=True,
                trust_remote_code=False,
            )  # fmt: skip
            model, info = loaded
    except Exception as e:  # the loader raises whatever its readers raise
        if isinstance(e, (MemoryError, KeyboardInterrupt)):
            raise
        raise LuvcError(f"{family.source}: the weights cannot be loaded: {brief(e)}") from e
    missing = sorted(info["missing_keys"])
    if missing:
        raise LuvcError(
            f"{family.source}: {len(missing)} weights are missing, such as {missing[0]}; "
            "complete the checkpoint (is a shard absent?)"
        )
    mismatched = info.get("mismatched_keys")
    if mismatched:
        raise LuvcError(
            f"{family.source}: weights do not fit the config: {sorted(map(str, mismatched))[0]}"
        )
    return model.eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Our own progress is enough: no bars and no loading reports on the terminal."""
    from transformers.utils import logging as hf

    level, bars = hf.get_verbosity(), hf.is_progress_bar_enabled()
    hf.set_verbosity(logging.ERROR)
    hf.disable_progress_bar()
    try:
        yield
    finally:
        hf.set_verbosity(level)
        if bars:
            hf.enable_progress_bar()
