"""Names of weights that differ between a file and a model."""

COMMON = 3
"""Last parts of a name that loaders leave as they are, from the layer's number on."""


def ending(name: str, common: int = COMMON) -> str:
    """The name from the last layer's number on, or its last `common` parts."""
    parts = name.split(".")
    numbered = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbered[-1] :] if numbered else parts[-common:])
