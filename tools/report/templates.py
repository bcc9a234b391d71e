"""What all pages have in common: one style, templates beside their code, nothing loaded from anywhere."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

STYLE = Path(__file__).parent / "page.css"


def render(folder: Path, /, **values: Any) -> str:
    """The page.html.j2 of a folder as HTML; a value that it does not get is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.j2")
    return template.render(style=Markup(STYLE.read_text()), **values)
