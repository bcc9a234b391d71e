"""docs/families.md says what the tests check, no more and no less."""

import json

from luvc.exporter.vision.families import FAMILIES

from . import table
from .checkpoints import NAMES, family_of


def test_every_family_has_test_checkpoints_and_a_row():
    assert {family_of(n) for n in NAMES} == set(FAMILIES) == set(table.FEATURES)


def test_the_page_says_what_the_tests_check():
    assert table.PAGE.read_text() == table.page(table.covered())


def test_a_cell_that_no_test_passed_is_a_no():
    wanted = table.page(table.covered() - {("llava", "RTX")})
    (before,) = [x for x in table.page(table.covered()).splitlines() if x.startswith("| llava |")]
    (after,) = [x for x in wanted.splitlines() if x.startswith("| llava |")]
    assert before.endswith("yes |") and after == before.removesuffix("yes |") + "no |"


def test_records_of_several_runs_make_one_page(tmp_path, monkeypatch, capsys):
    """What is in none of them is a no, and told."""
    cells = sorted(table.covered())
    files = [tmp_path / "new.jsonl", tmp_path / "old.jsonl"]
    for file, part in zip(files, (cells[1::2], cells[2::2]), strict=True):
        lines = [json.dumps({"name": name, "cell": cell}) for name, cell in part]
        file.write_text("\n".join(lines))
    monkeypatch.setattr("sys.argv", ["table", *map(str, files)])
    table.main()
    printed, (name, cell) = capsys.readouterr(), cells[0]
    assert printed.out == table.page(set(cells[1:]))
    assert printed.err == f"not passed: {name}, {cell}\n"
