"""Types of manifest entries: every text and number of a bundle that a stranger made has its bounds.

Bounds lie an order of magnitude and more above what any published model has; they are there so that no
single number makes a loop endless, and no text steers a path or a terminal.
"""

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from ...errors import is_line

SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"  # of a path: never "..", never hidden


def _one_line(text: str) -> str:
    if not is_line(text):
        raise ValueError("holds a control character")
    return text


def _words(text: str) -> str:
    if not all(c.isprintable() or c in "\n\t" for c in text):
        raise ValueError("holds a control character")
    return text


def _inside(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != text or text == ".":
        raise ValueError("leaves the bundle, or is no plain path of a file in it")
    return _one_line(text)


Name = Annotated[str, Field(max_length=200, pattern=rf"^{SEGMENT}$")]
"""Becomes part of a file's name, or is looked up."""
Line = Annotated[str, Field(max_length=4096), AfterValidator(_one_line)]
"""Is shown to people."""
Words = Annotated[str, Field(max_length=4096), AfterValidator(_words)]
"""Goes into a prompt; may break lines."""
GraphPath = Annotated[str, Field(max_length=300, pattern=rf"^(onnx/{SEGMENT}\.onnx)?$")]
"""Of a graph in the bundle; empty where there is none."""
PlanPath = Annotated[str, Field(max_length=500, pattern=rf"^engines/{SEGMENT}/{SEGMENT}\.plan$")]
"""Of a graph's engine in the bundle."""
FilePath = Annotated[str, Field(max_length=1000), AfterValidator(_inside)]
"""Of any file in the bundle; one name a file."""
Digest = Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]*$")]

Arch = Annotated[str, Field(max_length=200, pattern=r"^(portable|sm[0-9]{2,3}(\+sm[0-9]{2,3})*)$")]
Version = Annotated[str, Field(max_length=50, pattern=r"^[0-9][0-9A-Za-z.+-]*$")]

Layers = Annotated[int, Field(ge=0, le=1024)]
"""A layer's index, or how many there are."""
Width = Annotated[int, Field(ge=0, le=1 << 20)]
"""Of hidden states, heads, kernels."""
Pixels = Annotated[int, Field(ge=0, le=1 << 16)]
"""Along one side of an image or a grid, or frames of a video."""
Count = Annotated[int, Field(ge=0, le=4096)]
"""Of images, tiles or files."""
Tokens = Annotated[int, Field(ge=0, le=1 << 24)]
"""Of a prompt, or in a vocabulary."""
Position = Annotated[int, Field(ge=0, le=1 << 31)]
Bytes = Annotated[int, Field(ge=0, le=1 << 50)]
"""Or parameters."""
Factor = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
