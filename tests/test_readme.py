"""The README is executed: its Python, its table, its length."""

import re
from pathlib import Path

from PIL import Image

from .test_docs import python_of, ran

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_minute_of_python_runs(workshop, picture, tmp_path):
    (tmp_path / "bundle").symlink_to(workshop.bundle("qwen2").path)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    out = ran("\n".join(python_of(ROOT / "README.md")), tmp_path)
    assert "visual tokens enter" in out and "tokens were not run again" in out


def test_it_stays_short():
    assert len(README.splitlines()) <= 150


def test_it_leads_to_every_page_of_the_user():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = re.findall(r"\]\(([\w-]+\.md)\)", index)
    assert len(pages) > 15
    for page in set(pages) - {"examples.md"}:
        assert f"docs/{page}" in README, page
