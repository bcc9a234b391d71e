"""docs/families.md says what the tests check, no more and no less."""

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
