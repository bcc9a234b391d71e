"""What all tables say alike."""

import re


def counted(number: int, what: str) -> str:
    """A number with what it counts: "1 thread", "2 threads"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def cores(machine: dict) -> str:
    """The processor of a result."""
    return f"{counted(machine['cores'], 'core')} of {machine['cpu']}"


def command(data: dict) -> str:
    """What made a result: recorded as a script's path before every benchmark was a module."""

    def module(script: re.Match) -> str:
        return "python -m benchmarks." + script[1].replace("/", ".")

    return re.sub(r"python benchmarks/([\w/]+)\.py", module, data["command"])
