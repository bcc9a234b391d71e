"""Tokenizers and image processors from a folder's files, whatever those hold."""

from pathlib import Path
from typing import Any

from ...errors import LuvcError, brief


def read_pretrained(auto: Any, folder: Path, what: str, source: str, mend: str) -> Any:
    """What `from_pretrained` makes of a folder; no code of it is run and nothing is downloaded.

    Args:
        auto: has `from_pretrained`.
        folder: of the files.
        what: they are, for messages.
        source: whose they are, for messages.
        mend: what is to be done where it fails.

    Raises:
        LuvcError: it cannot be made.
    """
    try:
        return auto.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (LuvcError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as e:  # readers raise what they like, those in Rust no Exception
        said = e if isinstance(e, Exception) else RuntimeError(str(e))
        raise LuvcError(f"{source}: {what} cannot be read: {brief(said)}; {mend}") from e
