"""What all tables say alike."""

import re


def command(data: dict) -> str:
    """What made a result: recorded as a script's path before every benchmark was a module."""

    def module(script: re.Match) -> str:
        return "python -m benchmarks." + script[1].replace("/", ".")

    return re.sub(r"python benchmarks/([\w/]+)\.py", module, data["command"])
