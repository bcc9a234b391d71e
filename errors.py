"""The one error for what the user can mend, and others in brief."""


class LuvcError(ValueError):
    """A request that cannot be met as it stands.

    The message names the value, the limit and the mend. The commands print it without a
    trace and exit with `exit_code`; every other exception is a bug and keeps its trace.
    """

    exit_code = 2


class Mismatch(LuvcError):
    """A bundle whose outputs differ from PyTorch's."""

    exit_code = 1


def brief(error: Exception) -> str:
    """The first line of an error's text, at most 200 characters of it."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= 200 else f"{line[:200]}..."
