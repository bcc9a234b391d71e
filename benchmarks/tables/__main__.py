"""Writes the marked tables of pages anew.

python -m benchmarks.tables README.md docs/cpu.md docs/serving.md tools/pocket/README.md [--check]
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .marks import fill


def main(
    pages: Annotated[list[Path], typer.Argument(help="Files with marked tables.")],
    check: Annotated[bool, typer.Option("--check", help="Write nothing.")] = False,
) -> None:
    """Fill the files, or with --check exit with 1 when one is out of date."""
    for page in pages:
        text = page.read_text()
        if not check:
            page.write_text(fill(text))
        elif fill(text) != text:
            sys.exit(f"{page} is out of date: run python -m benchmarks.tables {page}")


if __name__ == "__main__":
    typer.run(main)
