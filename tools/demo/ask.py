"""Asks a bundle three questions about a generated picture and one about a photograph.

python -m luvc.tools.demo.ask demo/bundle
"""

from pathlib import Path
from random import Random
from typing import Annotated

import typer
from PIL import Image

from ... import console
from ...engines.answer import Answer
from ...engines.bundle.layout import Layout
from ...files import whole
from ..pocket.dataset import ASKERS, BUILDERS, SPLITS, TEST_QUESTIONS
from ..pocket.render import render
from ..pocket.scene import Question
from .random_checkpoint import photograph

ASKED = ("ocr", "colour", "shape")
PHOTO = Question("photo", "What does the photo show?", "coffee")


def generated(start: int = TEST_QUESTIONS) -> tuple[Image.Image, list[Question]]:
    """A picture that no training seed draws, fit for a question of each task in ASKED.

    Args:
        start: number of the first seed of the test split to try; those before it are the test set's.
    """
    for seed in range(SPLITS["test"].start + start, SPLITS["test"].stop):
        rng = Random(seed)
        scene = BUILDERS["ocr"](rng, [])
        found = [ASKERS[task](rng, scene) for task in ASKED] if len(scene.items) > 2 else []
        questions = [question for question in found if question]
        if len(questions) == len(ASKED):
            return render(scene).image, questions
    raise AssertionError("no seed gives a picture with texts and shapes")


def tell(layout: Layout, question: Question, answer: Answer) -> None:
    """Print an answer beside the right one, and the tokens in and out."""
    mark = "[green]right[/green]" if answer.text.strip() == question.answer else "[red]wrong[/red]"
    console.show(f"[bold]{question.text}[/bold]")
    console.out.print(f"  {answer.text.strip()!r}", markup=False, end=" ")
    console.show(f"({mark}: {question.answer})")
    left = ", ".join(f"{count} from layer {layer} on" for layer, count in answer.stages.items())
    console.show(
        f"  [dim]in: {answer.visual_tokens} visual tokens ({layout.baseline_visual_tokens} at ratio 1), "
        f"{answer.prompt_tokens} text tokens; visual tokens left: {left or 'all'}; "
        f"out: {len(answer.token_ids)} tokens"
    )


def main(
    bundle: Annotated[
        Path, typer.Argument(help="Bundle of the pocket VLM; pictures go beside it.")
    ],
) -> None:
    """Draw the picture, fetch the photograph, ask."""
    from ...engines import VLM

    picture, questions = generated()
    photo = Image.open(photograph()).convert("RGB")
    asked = [("picture.png", picture, questions), ("photo.png", photo, [PHOTO])]
    with VLM.load(bundle) as vlm:
        for name, image, about in asked:
            with whole(bundle.parent / name) as draft:
                image.save(draft, "PNG")
            console.show(f"\n{bundle.parent / name}, {image.width} x {image.height} pixels")
            for question in about:
                parts = [{"type": "image", "image": image}, {"type": "text", "text": question.text}]
                messages = [{"role": "user", "content": parts}]
                answer = vlm.generate(messages, max_new_tokens=16, temperature=0)
                layout = next(x for x in vlm.manifest.layouts if x.name == answer.layout)
                tell(layout, question, answer)


if __name__ == "__main__":
    typer.run(main)
