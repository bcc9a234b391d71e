"""What a long run has found so far: it goes on, refuses what is another run's, and loses no line."""

import json

import pytest

from luvc.errors import LuvcError
from luvc.tools.journal import Journal


def test_a_run_goes_on_behind_the_last_whole_line(tmp_path):
    path = tmp_path / "a.jsonl"
    journal = Journal(path, {"of": (1, 2)})
    journal.keep_all({"x": 1, "y": [2]})
    journal.keep_all({"x": 3})
    assert journal.known == {"x": 1, "y": [2]}, "what is known stays"
    with path.open("a") as file:
        file.write('["z", 12')
    again = Journal(path, {"of": [1, 2]})
    assert again.known == {"x": 1, "y": [2]}
    assert again.once("y", lambda: pytest.fail("known")) == [2] and again.once("z", lambda: 4) == 4
    assert [json.loads(line) for line in path.read_text().splitlines()[1:]] == [
        ["x", 1],
        ["y", [2]],
        ["z", 4],
    ]


def test_another_runs_file_is_refused_or_begun_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    Journal(path, {"of": 1}).keep("x", 1)
    with pytest.raises(LuvcError, match="holds the results of another run"):
        Journal(path, {"of": 2})
    assert Journal(path, {"of": 1}).known == {"x": 1}, "it is as it was"
    assert Journal(path, {"of": 2}, anew=True).known == {}
    assert Journal(path, {"of": 2}).known == {}


@pytest.mark.parametrize("line", ["{broken", "[1, 2, 3]", "7"])
def test_a_damaged_file_is_refused(tmp_path, line):
    path = tmp_path / "a.jsonl"
    Journal(path, {})
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(LuvcError, match=r"not valid JSON|holds what this version does not write"):
        Journal(path, {})
