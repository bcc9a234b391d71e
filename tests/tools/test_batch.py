"""Answers at scale: what goes in, what is kept when a run is killed, and that nothing is done twice."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from luvc.engines.prompt.processing import open_image
from luvc.errors import LuvcError
from luvc.tools.batch import cli as batch
from luvc.tools.batch import files as batch_files

from ..conftest import ask
from ..faults.places import DEAD, bad_places

pytest.importorskip("ray")
pq = pytest.importorskip("pyarrow.parquet")
COUNT = 120


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(seed)).save(file, "PNG")
    return file.getvalue()


def process(*arguments) -> list[str]:
    return [sys.executable, "-m", "luvc.tools.batch.cli", *map(str, arguments)]


def test_many_pictures_killed_half_way(workshop, tmp_path, command):
    bundle = workshop.bundle("qwen2").path
    source = tmp_path / "in"
    target = tmp_path / "out"
    (source / "sub").mkdir(parents=True)
    for i in range(COUNT - 1):
        (source / f"{'sub/' * (i % 2)}{i:03}.png").write_bytes(png(i))
    (source / "broken.png").write_bytes(b"no picture")
    options = ("--rows", 2, "--question", "Why?", "--max-new-tokens", 5, "--part", 8)
    asked = (bundle, source, target, *options)
    line = process(*asked)  # an actor answers 4 * rows at a time
    first = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while len(list(target.glob("part-*"))) < 3:
        assert first.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    first.kill()
    first.wait()
    before = batch_files.done(target)
    assert 0 < len(before) < COUNT, "it was killed on its way"
    refused = command(batch, *asked, "--question", "What?")
    assert refused.code == 2 and "begun with question 'Why?'" in refused.err
    second = subprocess.run(line, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert f"{COUNT} pictures, {len(before)} answered before" in second.stderr
    rows = [
        row for part in target.glob("part-*.parquet") for row in pq.read_table(part).to_pylist()
    ]
    assert len(rows) == COUNT and len({row["id"] for row in rows}) == COUNT
    (failed,) = (row for row in rows if row["error"])
    assert failed["id"] == "broken.png" and "cannot be read" in failed["error"]
    assert pq.read_table(target).num_rows == COUNT, "the folder is one table"
    vlm = workshop.vlm("qwen2")
    for row in [r for r in rows if not r["error"]][::20]:
        own = vlm.generate(ask("Why?", str(source / row["id"])), max_new_tokens=5)
        assert row["text"] == own.text and row["completion_tokens"] == len(own.token_ids)


def test_a_parquet_of_bytes_with_questions(workshop, tmp_path):
    """Through an actor's class, in this process: Ray is in the test above."""
    import pyarrow as pa

    rows = [
        {"id": f"r{i}", "image": {"bytes": png(i), "path": None}, "question": "Why?" if i else None}
        for i in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    read = batch_files.read_input(tmp_path / "in.parquet")
    options = {"max_new_tokens": 4, "temperature": 1.5, "seed": 3}
    bundle = str(workshop.bundle("qwen2").path)
    answerer = batch.Answerer(bundle, "What is it?", "ort", 1, 2, options)
    columns = {name: np.array([row[name] for row in read], object) for name in read[0]}
    found = answerer(columns).to_pylist()
    answerer.scheduler.close()
    assert [row["question"] for row in found] == ["What is it?", "Why?", "Why?"]
    own = workshop.vlm("qwen2").generate(ask("Why?", png(2)), **options)
    assert found[2]["id"] == "r2" and found[2]["text"] == own.text


def test_a_ratio_is_asked_of_every_picture(workshop, tmp_path, command):
    """What is asked goes to every request; what no picture can have is refused before Ray is started."""
    bundle = workshop.bundle("qwen2-ratios")
    asked = batch._wish(bundle, "1.5x", None)
    answerer = batch.Answerer(str(bundle.path), "Why?", "ort", 1, 2, {"max_new_tokens": 4, **asked})
    columns = {"id": ["a"], "image": [png(1)], "question": [None]}
    (row,) = answerer({k: np.array(v, object) for k, v in columns.items()}).to_pylist()
    answerer.scheduler.close()
    own = workshop.vlm("qwen2-ratios").generate(ask("Why?", png(1)), max_new_tokens=4, ratio=1.5)
    assert own.ratio == 1.5 and row["text"] == own.text
    assert row["ratio"] == 1.5 and row["layout"] == own.layout
    batch_files.check_run(tmp_path / "begun", dict(asked))
    with pytest.raises(LuvcError, match=r"begun with ratio 1.5, not None"):
        batch_files.check_run(tmp_path / "begun", dict(batch._wish(bundle, None, None)))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png(1))
    line = (bundle.path, tmp_path / "in", tmp_path / "out", "--image-tokens", 1)
    refused = command(batch, *line)
    assert refused.code == 2 and "the smallest is" in refused.err
    assert not (tmp_path / "out").exists()


def test_json_lines(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text(
        '{"image": "a/b.png", "question": "Why?"}\n\n{"image": "c.png", "id": 7}\n'
        '{"image": "data:image/png;base64,AA==", "id": "inside"}\n'
    )
    assert batch_files.read_input(source) == [
        {"id": "a/b.png", "image": str(tmp_path / "a/b.png"), "question": "Why?"},
        {"id": "7", "image": str(tmp_path / "c.png"), "question": None},
        {"id": "inside", "image": "data:image/png;base64,AA==", "question": None},
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jsonl", "{", "line 1 is not valid JSON"),
        ("x.jsonl", '{"picture": "a.png"}', "line 1: image: Field required; mend or leave out"),
        ("x.jsonl", '{"image": ""}', "line 1: `image` must be"),
        ("x.jsonl", '{"image": {"bytes": null}}', "line 1: `image` must be"),
        ("x.jsonl", '{"image": [1]}', "line 1: image"),
        ("x.jsonl", '{"image": "DATA:image/png;base64,AA=="}', "line 1: .* needs an `id`"),
        ("x.jsonl", '\n{"image": "a.png", "id": {}}', "line 2: id"),
        ("x.jsonl", '{"image": "a.png", "id": "\\ud800"}', "line 1: id.*surrogate"),
        ("x.jsonl", '{"image": "a.png", "question": 5}', "line 1: question"),
        ("x.jsonl", '{"image": "a.png", "question": "\\udc80"}', "line 1: question: .*surrogate"),
        ("x.jsonl", "[" * 100_000, "line 1 is not valid JSON"),
        ("x.jsonl", "\udcff", "line 1 is not UTF-8"),
        ("x.parquet", "no table", "cannot be read as Parquet"),
        ("no.jsonl", None, "no.jsonl is no file"),
        ("no.parquet", None, "cannot be read as Parquet"),
        ("x.jsonl", '{"image": "a.png"}\n{"image": "a.png"}', "stands there twice"),
        ("x.csv", "image", "neither a folder"),
        ("x.jsonl", "", "holds no pictures"),
    ],
)
def test_input_that_cannot_be_used(tmp_path, name, text, message):
    source = tmp_path / name
    if text is not None:
        source.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(LuvcError, match=message):
        batch_files.read_input(source)


def test_a_name_that_is_no_text_is_refused(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(png(1))
    with pytest.raises(LuvcError, match=r"udcff.*surrogate"):
        batch_files.read_input(tmp_path)


def test_a_path_that_no_system_has_fails_alone(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"image": "\\u0000", "id": "a"}')
    (row,) = batch_files.read_input(tmp_path / "x.jsonl")
    with pytest.raises(LuvcError, match="cannot be read: embedded null"):
        open_image(row["image"])


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(LuvcError, match="holds something else"):
        batch_files.check_run(tmp_path, {"question": "Why?"})


def test_a_run_that_was_killed_at_its_start_goes_on(tmp_path):
    (tmp_path / f"._run.json.luvc-{DEAD}").write_text("{")
    (tmp_path / f".part-0123456789abcdef.parquet.luvc-{DEAD}").write_bytes(b"PAR1")
    batch_files.check_run(tmp_path, {"question": "Why?"})
    assert os.listdir(tmp_path) == ["_run.json"]
    batch_files.check_run(tmp_path, {"question": "Why?"})
    (tmp_path / "_run.json").write_text("{")
    with pytest.raises(LuvcError, match=r"_run\.json cannot be read .* give another folder"):
        batch_files.check_run(tmp_path, {"question": "Why?"})


def test_places_for_answers(tmp_path):
    for place, message in bad_places(tmp_path):
        with pytest.raises(LuvcError, match=message):
            batch_files.check_run(place, {})


def test_a_run_goes_on_with_its_own_sampling_alone(workshop, tmp_path, monkeypatch):
    """Otherwise one folder would hold draws of several settings. By default nothing is drawn."""
    handed = []

    def answers(rows, arguments, *rest):
        handed.append(arguments[-1])
        yield [dict.fromkeys(batch_files.COLUMNS) | {"id": row["id"]} for row in rows]

    monkeypatch.setattr(batch, "answers", answers)
    monkeypatch.setattr(batch, "start_ray", lambda *about: None)
    bundle, source = workshop.bundle("qwen2").path, tmp_path / "in"
    source.mkdir()
    (source / "a.png").write_bytes(png(1))
    batch.batch(bundle, source, tmp_path / "greedy")
    drawn: dict[str, Any] = {"temperature": 0.7, "seed": 3}
    batch.batch(bundle, source, tmp_path / "drawn", **drawn)
    usual = {"max_new_tokens": 64, "ratio": None, "image_tokens": None}
    assert handed == [usual | {"temperature": 0, "seed": None}, usual | drawn]
    for name, other in (("temperature", 0.8), ("seed", 4)):
        changed: dict[str, Any] = drawn | {name: other}
        with pytest.raises(LuvcError, match=f"begun with {name} {drawn[name]}, not"):
            batch.batch(bundle, source, tmp_path / "drawn", **changed)
    batch.batch(bundle, source, tmp_path / "drawn", **drawn)
    assert len(handed) == 2, "there was nothing left to answer"


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"seed": -1}, {"max_new_tokens": 0}])
def test_bad_options_are_refused_before_anything_is_written(workshop, tmp_path, options):
    with pytest.raises(LuvcError, match=f"generation option {next(iter(options))}"):
        batch.batch(workshop.bundle("qwen2").path, tmp_path, tmp_path / "answers", **options)
    assert not (tmp_path / "answers").exists()


@pytest.mark.parametrize("absent", ["ray", "pyarrow"])
def test_without_its_packages_nothing_is_written(workshop, tmp_path, monkeypatch, absent):
    monkeypatch.setattr(batch, "find_spec", lambda name: None if name == absent else object())
    with pytest.raises(LuvcError, match=r"is not installed: pip install 'luvc-export\[batch\]'"):
        batch.batch(workshop.bundle("qwen2").path, tmp_path, tmp_path / "answers")
    assert not (tmp_path / "answers").exists()


def test_a_part_is_whole_or_absent(tmp_path, monkeypatch):
    row = dict.fromkeys(batch_files.COLUMNS) | {"id": "a"}
    tmp_path.joinpath(".part-0123.parquet-99").write_bytes(b"what a killed run left")
    monkeypatch.setattr(Path, "replace", lambda *a: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        batch_files.write_part(tmp_path, [row])
    assert batch_files.done(tmp_path) == set()
    assert os.listdir(tmp_path) == [".part-0123.parquet-99"]
