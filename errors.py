"""The one error for what the user can mend, and others in brief."""

import re
import unicodedata

LONGEST = 4000
"""Characters of a message; more would be somebody's data."""


class LuvcError(ValueError):
    """A request that cannot be met as it stands.

    The message names the value, the limit and the mend. The commands print it without a
    trace and exit with `exit_code`; every other exception is a bug and keeps its trace. What files
    and requests say of themselves is echoed in it, so it is made fit for a terminal: see `printable`.
    """

    exit_code = 2

    def __init__(self, message: str = ""):
        super().__init__(printable(message, LONGEST))


class Mismatch(LuvcError):
    """A bundle whose outputs differ from PyTorch's."""

    exit_code = 1


def printable(text: str, limit: int) -> str:
    r"""A text of at most `limit` characters that a terminal shows and does not obey.

    Control characters but the line's end (the escapes of terminals among them), marks that turn the
    direction of writing and lone surrogates are spelled out, as in "\x1b".
    """
    if len(text) > limit:
        text = f"{text[:limit]}... ({len(text)} characters)"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def is_line(text: str) -> bool:
    """Whether a name is text of one line: no control characters, no bytes that are none of a text."""
    return all(c.isprintable() or unicodedata.category(c) == "Zs" for c in text)


def os_error(error: BaseException) -> int | None:
    """The system's number of an error; libraries in Rust tell it in their words alone."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else None


def shown(value: object) -> str:
    """A value as errors echo it, 80 characters at most; of one that is nested without end, its type."""
    try:
        return f"{value!r:.80}"
    except RecursionError:
        return f"{type(value).__name__} nested too deep to be shown"


def brief(error: Exception) -> str:
    """The first line of an error's text, at most 200 characters of it."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return printable(line if len(line) <= 200 else f"{line[:200]}...", 300)
