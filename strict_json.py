"""JSON from outside: one reader, which refuses what would exhaust those who read on."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError

from .errors import LuvcError, brief, printable

M = TypeVar("M", bound=BaseModel)

DEEPEST = 100
"""Lists and objects inside each other; a config has about 5, a tool's schema about 15."""


def _whole(text: str) -> str:
    r"""Refuse half a surrogate pair, which JSON can spell ("\ud800") and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise ValueError(f"holds half a surrogate pair at character {e.start}") from e
    return text


Words = Annotated[str, AfterValidator(_whole)]
"""A text of a file's field."""


def parse(text: str | bytes) -> Any:
    """What a JSON text says.

    Args:
        text: JSON; bytes are UTF-8.

    Raises:
        ValueError: it is not JSON or not UTF-8, or as a LuvcError: nested too deep.
    """
    try:
        data = json.loads(text if isinstance(text, str) else text.decode())
    except RecursionError:
        raise _too_deep() from None
    level = [data] if isinstance(data, (dict, list)) else []
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _nested(outer)]
    if level:
        raise _too_deep()
    return data


def read(path: Path) -> Any:
    """What a JSON file says.

    Raises:
        OSError: it cannot be read.
        ValueError: as `parse`.
    """
    return parse(path.read_bytes())


def lines(path: Path) -> Iterator[tuple[int, Any]]:
    """What the lines of a JSONL file say, with their numbers from 1 on; blank ones are passed over.

    Raises:
        LuvcError: the file cannot be read, or a line is not JSON; names it.
    """
    if not os.path.isfile(path):
        raise LuvcError(f"{path} is no file; give a JSONL file")
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _line(path, number, line)
    except OSError as e:
        raise LuvcError(f"{path} cannot be read: {e.strerror or brief(e)}") from e


def _line(path: Path, number: int, line: bytes) -> Any:
    try:
        return parse(line)
    except UnicodeDecodeError as e:
        raise LuvcError(
            f"{path}, line {number} is not UTF-8 (byte {e.start}): write the file in UTF-8"
        ) from e
    except ValueError as e:
        raise LuvcError(f"{path}, line {number} is not valid JSON: {brief(e)}") from e


def read_as(model: type[M], path: Path, writer: str) -> M:
    """A file that a command of luvc wrote, read back.

    Args:
        model: what stands in it.
        path: of the file.
        writer: the command, with its option.

    Raises:
        LuvcError: it cannot be read, or something else stands in it; names file, field and mend.
    """
    try:
        return model.model_validate(read(path))
    except OSError as e:
        raise LuvcError(f"{path} cannot be read ({e.strerror or brief(e)})") from e
    except ValidationError as e:
        said = first_error(e)
    except ValueError as e:
        said = f"not valid JSON: {brief(e)}"
    raise LuvcError(f"{path} is not a file of {writer}, or was changed ({said}): write it again")


def first_error(error: ValidationError, names: Mapping[str, str] | None = None) -> str:
    """The first finding of a validation error, as `where: what, got value`.

    Args:
        error: of pydantic.
        names: of fields ("solver.cutoff" is one inside another), where their users know them by another
            name.
    """
    finding, known = error.errors()[0], names or {}
    path = [str(part) for part in finding["loc"] if "[" not in str(part)]  # kinds of a union
    if len(path) > 1 and (inner := f"{path[0]}.{path[1]}") in known:
        path = [known[inner], *path[2:]]
    elif path:
        path[0] = known.get(path[0], path[0])
    where = ".".join(path)
    what = finding["msg"].removeprefix("Value error, ")
    got = finding.get("input")
    if isinstance(got, (str, int, float)):
        what += f", got {printable(repr(got), 80)}"
    return printable(f"{where}: {what}" if where else what, 400)


def _nested(data: dict | list) -> list[Any]:
    """The lists and objects that stand in one."""
    inside = data.values() if isinstance(data, dict) else data
    return [value for value in inside if isinstance(value, (dict, list))]


def _too_deep() -> LuvcError:
    return LuvcError(
        f"its lists and objects are nested more than {DEEPEST} deep; give flatter JSON"
    )
