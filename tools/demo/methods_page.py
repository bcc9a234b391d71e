"""Writes the page of the methods from the methods themselves.

python -m luvc.tools.demo.methods_page docs/methods.md
"""

import inspect
from pathlib import Path
from typing import Annotated

import typer

from ...exporter.planning.defaults import shown
from ...exporter.planning.methods import METHODS, NOT_BUILT, Method, spec_of
from ...plugins.scores.base import QUESTION
from ...plugins.scores.registry import OWN, SCORES

HEAD = """# Methods

LUVC's own way to choose tokens is one of several. `--method NAME` bakes another training-free method of the
field into the same graphs, so that it runs in every engine, is planned like LUVC's, and is validated against
PyTorch:

```
luvc-plan --methods
luvc-export --model MODEL --ratio 2x --method divprune
```

A method is a **score** (what visual tokens are kept by) and a way to spend the ratio (where, how many). The
solver's options move the second (`--stages`, `--keeps`, `--elimination`, `--scope`), `--method-option
NAME=VALUE` the first. Rules are written from the papers, never from their code; how each was fitted to fixed
shapes is said below. How well they do on one small model: [Accuracy](accuracy.md). To add one:
[Contributing](contributing/score.md). `python -m luvc.tools.demo.methods_page` writes this page.
"""


def page() -> str:
    """The page's text."""
    return "\n".join([HEAD, *_methods(), *_scores(), *_not_built()]) + "\n"


def _methods() -> list[str]:
    rows = [
        f"| `{name}` | {method.about} | {_score(method)} | {_where(method)} |"
        for name, method in METHODS.items()
    ]
    return [
        "## What `--method` takes\n",
        "| method | what it does | score | stages, as parts of the layers |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def _score(method: Method) -> str:
    if not method.options.stages:
        return "none"
    options = method.options.score.options
    usual = spec_of(type(method.score)()).options
    moved = ", ".join(f"{k} {shown(v)}" for k, v in options.items() if usual[k] != v)
    return f"`{method.score.name}`" + (f", {moved}" if moved else "")


def _where(method: Method) -> str:
    o = method.options
    rest = {"last": "none in the last layer", "never": "", "fit": "none from the layer that fits"}
    told = [shown(tuple(round(part, 3) for part in o.stages))] if o.stages else []
    if not isinstance(o.keeps, str):
        told.append(f"keeps in proportions {shown(tuple(round(part, 2) for part in o.keeps))}")
    told += [f"each {o.scope} apart"] * (o.scope != "prompt")
    return "; ".join([*told, *filter(None, [rest[o.elimination]])])


def _scores() -> list[str]:
    found = ["## What tokens are kept by\n"]
    for name in OWN:
        kind = SCORES[name]
        score = kind()
        options = ", ".join(f"`{k}={shown(v)}`" for k, v in spec_of(score).options.items())
        needs = ", ".join(sorted(score.reads)) or "nothing but the tokens"
        first, *rest = (inspect.getdoc(kind) or "").split("\n\n")
        told = [part for part in (first, *rest) if not part.startswith("Attributes:")]
        said = " ".join(" ".join(told).split())
        shared = ""
        if QUESTION in score.reads:
            shared = " It reads the question, so a pruned picture is another for another question."
        found.append(
            f"**`{name}`** {said}{shared} Needs: {needs}. "
            + (f"Options: {options}. " if options else "")
            + f"Source: {score.source}.\n"
        )
    return found


def _not_built() -> list[str]:
    rows = [f"- **{name}**: {reason}" for name, reason in NOT_BUILT.items()]
    return ["## What is not built, and why\n", *rows]


def main(target: Annotated[Path, typer.Argument(help="The page.")]) -> None:
    """Write the page."""
    target.write_text(page())


if __name__ == "__main__":
    typer.run(main)
