"""Scenes with words, numbers and codes to read."""

from __future__ import annotations

from random import Random

from . import backgrounds
from .drawing import FONTS, brightness, text_extent
from .objects import COLOUR_NAMES, random_items
from .scene import Box, Question, Scene, Text, place
from .vocabulary import CODE_CHARACTERS, LETTERS, WORDS

SIZES = {"small": (11, 14), "medium": (15, 22), "large": (23, 38)}
"""Font sizes in pixels, first and last."""


def random_string(rng: Random) -> str:
    """Draw a word, a number or a code of at most six characters."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(WORDS)
    if kind < 0.65:
        return str(rng.randrange(10 ** rng.randint(1, 5)))
    characters = LETTERS if kind < 0.8 else CODE_CHARACTERS
    return "".join(rng.choice(characters) for _ in range(rng.randint(2, 6)))


def readable_on(colour: str, panels: tuple[str, ...]) -> list[str]:
    """Those of some panel colours on which a text in `colour` is easily read."""
    return [panel for panel in panels if abs(brightness(panel) - brightness(colour)) > 90]


def add_text(
    rng: Random, texts: list[Text], taken: list[Box], colour: str, size_class: str
) -> None:
    """Place a random text, if there is room, and append it to `texts`."""
    size = rng.randint(*SIZES[size_class])
    face = rng.choice(FONTS)
    string = random_string(rng)
    # Thin small letters are lost on a photograph: they always get a panel.
    panels = readable_on(colour, ("white", "black", "yellow", "blue"))
    panel = rng.choice(panels) if panels and (size < 15 or rng.random() < 0.5) else None
    left, top, right, bottom = text_extent(string, face, size)
    pad = 3
    box = place(rng, right - left + 2 * pad, bottom - top + 2 * pad, taken, tries=25)
    if box:
        x, y = round(box[0] + pad - left), round(box[1] + pad - top)
        ink = (x + left - pad, y + top - pad, x + right + pad, y + bottom + pad)
        texts.append(Text(string, colour, x, y, size, face, panel, ink))


def build_text(rng: Random, taken: list[Box]) -> Scene:
    """Draw a scene of one to four texts in different colours, sometimes beside a few shapes."""
    texts: list[Text] = []
    for colour in rng.sample(COLOUR_NAMES, rng.choice((1, 1, 2, 3, 4))):
        add_text(rng, texts, taken, colour, rng.choice(tuple(SIZES)))
    items = random_items(rng, taken, rng.randint(1, 4)) if rng.random() < 0.3 else []
    return Scene(backgrounds.sample(rng), tuple(items), tuple(texts))


def build_page(rng: Random, taken: list[Box]) -> Scene:
    """Draw a scene full of texts, each in a colour of its own, and shapes between them."""
    texts: list[Text] = []
    for colour in rng.sample(COLOUR_NAMES, rng.randint(4, 9)):
        add_text(rng, texts, taken, colour, rng.choice(("small", "medium", "medium")))
    items = random_items(rng, taken, rng.randint(0, 7))
    return Scene(backgrounds.sample(rng), tuple(items), tuple(texts))


def size_class(size: int) -> str:
    """Class of a font size."""
    return next(name for name, (_, last) in SIZES.items() if size <= last)


def ask_text(rng: Random, scene: Scene) -> Question | None:
    """Ask what a text says, told apart by its colour or by its height in the picture."""
    texts = scene.texts
    if not texts:
        return None
    if len(texts) == 1:
        text, question = texts[0], rng.choice(("What does the text say?", "Read the text."))
    elif rng.random() < 0.7:
        text = rng.choice(texts)
        question = f"What does the {text.colour} text say?"
    else:
        ordered = sorted(texts, key=lambda t: t.box[1] + t.box[3])
        which = rng.choice(("top", "bottom"))
        text, near = ordered[:2] if which == "top" else ordered[:-3:-1]
        if abs((text.box[1] + text.box[3]) - (near.box[1] + near.box[3])) < 40:
            return None
        question = f"What does the {which} text say?"
    return Question("ocr", question, text.string, (), size_class(text.size))
