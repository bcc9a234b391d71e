"""The one error for what the user can mend."""


class LuvcError(ValueError):
    """A request that cannot be met as it stands.

    The message names the value, the limit and the mend. The commands print it without a
    trace and exit with `exit_code`; every other exception is a bug and keeps its trace.
    """

    exit_code = 2


class Mismatch(LuvcError):
    """A bundle whose outputs differ from PyTorch's."""

    exit_code = 1
