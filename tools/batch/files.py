"""What luvc-batch reads and writes: rows of pictures, and Parquet parts that are whole or absent."""

import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

from pydantic import BaseModel, StrictBytes, ValidationError

from ... import strict_json
from ...drafts import remove_leftovers
from ...engines.data_urls import is_data_url
from ...errors import LuvcError, brief
from ...files import whole
from ...places import check_path, writing
from ...strict_json import Words

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
RUN = "_run.json"  # a name that readers of Parquet folders pass over
DRAFTS = rf"{re.escape(RUN)}|part-[0-9a-f]+\.parquet"
COLUMNS = {
    "id": str,
    "question": str,
    "text": str,
    "finish_reason": str,
    "prompt_tokens": int,
    "visual_tokens": int,
    "completion_tokens": int,
    "layout": str,
    "ratio": float,
    "notes": str,
    "error": str,
}


def read_input(source: Path) -> list[dict[str, Any]]:
    """Rows with `id`, `image` (a path, or the bytes of a file) and perhaps `question`.

    Args:
        source: a folder of pictures, or a .jsonl or .parquet file with the column `image` and, where
            that holds bytes or a data: URL, `id`. Paths are relative to the file.

    Raises:
        LuvcError: not readable, or an id is missing or stands there twice.
    """
    if source.is_dir():
        paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in PICTURES)
        found = [{"id": p.relative_to(source).as_posix(), "image": str(p)} for p in paths]
        rows = [_row(row, source.parent, f"{source}: {row['id']!r}") for row in found]
    elif source.suffix == ".jsonl":
        read = strict_json.lines(source)
        rows = [_row(row, source.parent, f"{source}, line {n}") for n, row in read]
    elif source.suffix == ".parquet":
        table = enumerate(_table(source), 1)
        rows = [_row(row, source.parent, f"{source}, row {n}") for n, row in table]
    else:
        raise LuvcError(f"{source} is neither a folder nor a .jsonl or .parquet file")
    if not rows:
        raise LuvcError(f"{source} holds no pictures ({', '.join(sorted(PICTURES))})")
    seen = set()
    for row in rows:
        if row["id"] in seen:
            raise LuvcError(f"{source}: id {row['id']!r:.80} stands there twice")
        seen.add(row["id"])
    return rows


class _File(BaseModel):
    """A picture as Hugging Face's datasets write it."""

    bytes: StrictBytes | None = None
    path: Words | None = None


class _Row(BaseModel):
    image: Words | StrictBytes | _File
    id: Words | int | None = None
    question: Words | None = None


def _table(source: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as parquet

    try:
        return parquet.read_table(source).to_pylist()
    except (OSError, ValueError, NotImplementedError) as e:  # Arrow's own are among them
        raise LuvcError(f"{source} cannot be read as Parquet: {brief(e)}; write it again") from e


def _row(data: Any, folder: Path, where: str) -> dict[str, Any]:
    """A row as the actors take it.

    Args:
        data: as it was read.
        folder: where paths begin.
        where: it stands, for messages.
    """
    try:
        row = _Row.model_validate(data)
    except ValidationError as e:
        raise LuvcError(f"{where}: {strict_json.first_error(e)}; mend or leave out the row") from e
    image, name = row.image, row.id
    if isinstance(image, _File):
        image = image.bytes or image.path
    if not image:
        raise LuvcError(f"{where}: `image` must be a path or the bytes of a file")
    if isinstance(image, str) and not is_data_url(image):
        name, image = image if name is None else name, os.path.abspath(folder / image)
    if name is None:
        raise LuvcError(f"{where}: a row whose `image` is no path needs an `id`")
    return {"id": str(name), "image": image, "question": row.question}


def done(target: Path) -> set[str]:
    """Ids of the answers that are written."""
    import pyarrow.parquet as parquet

    found: set[str] = set()
    for part in target.glob("part-*.parquet"):
        found.update(parquet.read_table(part, columns=["id"]).column("id").to_pylist())
    return found


def check_run(target: Path, settings: dict[str, Any]) -> None:
    """Note what a run's answers depend on; refuse to go on with something else.

    Raises:
        LuvcError: the folder holds a run with other settings, or something else, or cannot be written to.
    """
    check_path(target, "output")
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target, DRAFTS)
        begun, empty = (target / RUN).exists(), not any(target.iterdir())
    if not begun:
        if not empty:
            raise LuvcError(f"output {target} holds something else; give another folder")
        with whole(target / RUN, lasting=True) as draft:
            draft.write_text(json.dumps(settings, indent=1))
        return
    earlier = _settings(target / RUN)
    for name, value in settings.items():
        if earlier.get(name) != value:
            raise LuvcError(
                f"output {target} was begun with {name} {earlier.get(name)!r}, not {value!r}: use the "
                "same, or another folder"
            )


def _settings(note: Path) -> dict[str, Any]:
    """What an earlier run noted."""
    try:
        data = strict_json.read(note)
    except (OSError, ValueError) as error:
        raise LuvcError(f"{note} cannot be read ({error}); give another folder") from error
    return data if isinstance(data, dict) else {}


def write_part(target: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as a Parquet file that appears whole."""
    import pyarrow.parquet as parquet

    table = as_table(rows)
    with whole(target / f"part-{secrets.token_hex(8)}.parquet", lasting=True) as draft:
        parquet.write_table(table, draft)


def as_table(rows: list[dict[str, Any]]) -> Any:
    """Rows of answers as an Arrow table."""
    import pyarrow as pa

    kinds = {int: pa.int32(), float: pa.float64(), str: pa.string()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    return pa.Table.from_pylist(rows, schema=schema)
