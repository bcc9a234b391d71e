"""The one error for what the user can mend."""


class LuvcError(ValueError):
    """A request that cannot be met as it stands.

    The message names the value, the limit it broke and the mend. The commands print it without a
    trace and exit with code 2; every other exception is a bug and keeps its trace.
    """
