"""How the documentation site is built: `make site`, or `sphinx-build -W docs site`."""

import dataclasses
import os
import re
from inspect import cleandoc
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

from luvc import __version__

LOG = logging.getLogger(__name__)

project = "luvc-export"
author = "the luvc-export contributors"
release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]

html_theme = "furo"
html_title = f"luvc-export {release}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
pygments_style = "default"

# Markdown as it reads on a code host: links to headings by their text.
myst_heading_anchors = 3

# Strict: with -W every reference that leads nowhere ends the build.
nitpicky = True
# Names of other libraries, which have their own documentation.
nitpick_ignore_regex = [
    ("py:.*", r"(np|numpy|torch|PIL|pydantic|typing|collections|os|pathlib|threading)\..*"),
    ("py:.*", r"(BaseModel|ConfigDict|Path|Any|Callable|Mapping|Sequence|optional)"),
    # aliases that signatures spell out
    ("py:.*", r"(luvc\.engines\.sampling\.SamplingOptions|ImageSource|Image)"),
    # what signatures name, and no other code builds on
    ("py:.*", r"luvc\.(engines\.(backends|prompt)|exporter\.checkpoint)\..*"),
]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "undoc-members": True}
napoleon_use_ivar = True


def fields(thing: type) -> list[str]:
    """The fields of a dataclass or a pydantic model."""
    if dataclasses.is_dataclass(thing):
        return [field.name for field in dataclasses.fields(thing)]
    return list(getattr(thing, "model_fields", {}))


def skip(app: Sphinx, what: str, name: str, thing: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out fields, which their class describes under "Attributes"."""
    data = not callable(thing) and not isinstance(thing, property | classmethod | staticmethod)
    return True if what == "class" and data else None


def demand(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Warn, which ends a strict build, where something public says nothing about itself."""
    text = cleandoc("\n".join(lines))
    if not text:
        LOG.warning("%s has no docstring", name)
    if what == "class":
        for field in fields(thing):
            if not re.search(rf"\b{field}\b", text):
                LOG.warning("%s does not describe its field %s", name, field)


def reread(app: Sphinx, name: str, source: list[str]) -> None:
    """Bring in the pages that lie beside docs/, and mend links that lead out of it.

    `<!-- page: ../CHANGELOG.md -->` becomes that page; with `lower` its heading becomes a lower one.
    """
    folder = app.env.doc2path(name).parent

    def bring(mark: re.Match[str]) -> str:
        file = (folder / mark[1]).resolve()
        text = linked(file.read_text(), file.parent, folder, app.srcdir)
        return f"#{text}" if mark[2] else text

    text = linked(source[0], folder, folder, app.srcdir)
    source[0] = re.sub(r"^<!-- page: (\S+)( lower)? -->$", bring, text, flags=re.M)


def linked(text: str, home: Path, folder: Path, root: Path) -> str:
    """Links of a text in `home` as they read in `folder`; of files that are no pages the name is left."""

    def link(found: re.Match[str]) -> str:
        target = (home / found[2]).resolve()
        if not target.is_relative_to(root):
            name = f"`{target.relative_to(root.parent)}`"
            return name if "/" in found[1] or "." in found[1] else f"{found[1]} ({name})"
        return f"[{found[1]}]({os.path.relpath(target, folder)}{found[3] or ''})"

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s#:]+)(#[^)\s]*)?\)", link, text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry point; what is demanded is demanded of the docstrings as they were written."""
    app.connect("source-read", reread)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", demand, priority=100)
    return {"parallel_read_safe": True}
