"""Coloured shapes and their questions: colour, shape, count, relation, compare, needle."""

from __future__ import annotations

from collections import Counter
from random import Random

from . import backgrounds
from .scene import Box, Item, Question, Scene, place
from .vocabulary import COLOURS, CORNERS, DIGITS, PLURALS, SHAPES, SIZE

COLOUR_NAMES = tuple(COLOURS)
YES_NO = ("yes", "no")
CLEAR_GAP = 18
"""Least difference of two centres, pixels, before a relation is asked about."""
CLEAR_RATIO = 1.35
"""Least ratio of two sizes before they are compared."""
TINY = 12
"""Largest size of an object that is called tiny, pixels."""


def _turn(rng: Random) -> int:
    return rng.randrange(-12, 13, 3)


def add_item(
    rng: Random, items: list[Item], taken: list[Box], shape: str, colour: str, size: int
) -> None:
    """Place one shape, smaller if the picture is full, and append it to `items`."""
    for side in (size, max(14, size * 2 // 3), 12):
        box = place(rng, side, side, taken)
        if box:
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            items.append(Item(shape, colour, round(x, 1), round(y, 1), side, _turn(rng)))
            return


def random_items(rng: Random, taken: list[Box], count: int) -> list[Item]:
    """Place up to `count` shapes of which no two share both colour and shape."""
    largest = 58 if count <= 4 else 42
    pairs = {(rng.choice(SHAPES), rng.choice(COLOUR_NAMES)) for _ in range(count)}
    items: list[Item] = []
    for shape, colour in sorted(pairs):
        add_item(rng, items, taken, shape, colour, rng.randint(16, largest))
    rng.shuffle(items)
    return items


def build_mixed(rng: Random, taken: list[Box]) -> Scene:
    """Draw a scene of two to seven different objects."""
    items = random_items(rng, taken, rng.randint(2, 7))
    return Scene(backgrounds.sample(rng), tuple(items))


def build_count(rng: Random, taken: list[Box]) -> Scene:
    """Draw a scene in which one kind of object occurs 0 to 9 times, each number equally often."""
    number, by = rng.randint(0, 9), rng.choice(("shape", "colour", "all"))
    shape, colour = rng.choice(SHAPES), rng.choice(COLOUR_NAMES)
    others = rng.randint(0, min(4, 10 - number)) if by != "all" else 0
    kinds = [(shape, colour)] * number if rng.random() < 0.5 and by != "all" else []
    while len(kinds) < number:
        kinds.append(
            (
                shape if by == "shape" else rng.choice(SHAPES),
                colour if by == "colour" else rng.choice(COLOUR_NAMES),
            )
        )
    rest_shapes = [s for s in SHAPES if s != shape]
    rest_colours = [c for c in COLOUR_NAMES if c != colour]
    for _ in range(others):
        kinds.append(
            (
                rng.choice(rest_shapes) if by == "shape" else rng.choice(SHAPES),
                rng.choice(rest_colours) if by == "colour" else rng.choice(COLOUR_NAMES),
            )
        )
    rng.shuffle(kinds)
    items: list[Item] = []
    largest = 44 if len(kinds) <= 6 else 36
    for kind in kinds:
        add_item(rng, items, taken, *kind, rng.randint(16, largest))
    return Scene(backgrounds.sample(rng), tuple(items))


def build_needle(rng: Random, taken: list[Box]) -> Scene:
    """Draw a tiny object beside large ones, or a field of equal objects with an odd one."""
    items: list[Item] = []
    if rng.random() < 0.4:
        shape, colour = rng.choice(SHAPES), rng.choice(COLOUR_NAMES)
        add_item(rng, items, taken, shape, colour, rng.randint(8, TINY))
        for _ in range(rng.randint(0, 4)):
            shape, colour = rng.choice(SHAPES), rng.choice(COLOUR_NAMES)
            add_item(rng, items, taken, shape, colour, rng.randint(26, 52))
        items = [items[0], *(item for item in items[1:] if item.size > 2 * TINY)]
        return Scene(backgrounds.sample(rng), tuple(items))
    shape, odd_shape = rng.sample(SHAPES, 2)
    colour, odd_colour = rng.sample(COLOUR_NAMES, 2)
    if rng.random() < 0.5:
        odd_shape = shape
    else:
        odd_colour = colour
    size, count = rng.randint(13, 17), rng.randint(12, 30)
    add_item(rng, items, taken, odd_shape, odd_colour, size)
    for _ in range(count):
        box = place(rng, size, size, taken, tries=15)
        if box:
            x, y = box[0] + size / 2, box[1] + size / 2
            items.append(Item(shape, colour, round(x, 1), round(y, 1), size, _turn(rng)))
    rng.shuffle(items)
    return Scene(backgrounds.sample(rng), tuple(items))


def unique(items: tuple[Item, ...], attribute: str) -> list[Item]:
    """Items whose shape, colour or name occurs once."""
    counts = Counter(getattr(item, attribute) for item in items)
    return [item for item in items if counts[getattr(item, attribute)] == 1]


def ask_colour(rng: Random, scene: Scene) -> Question | None:
    """Ask for the colour of the only object of a shape."""
    found = unique(scene.items, "shape")
    if not found:
        return None
    item = rng.choice(found)
    text = rng.choice(("What colour is the {}?", "What is the colour of the {}?"))
    return Question("colour", text.format(item.shape), item.colour, COLOUR_NAMES)


def ask_shape(rng: Random, scene: Scene) -> Question | None:
    """Ask for the shape of the only object of a colour."""
    found = unique(scene.items, "colour")
    if not found:
        return None
    item = rng.choice(found)
    text = rng.choice(("What shape is the {} object?", "What is the shape of the {} object?"))
    return Question("shape", text.format(item.colour), item.shape, SHAPES)


def ask_count(rng: Random, scene: Scene) -> Question | None:
    """Ask how many objects there are, in all or of a shape or colour, mostly the frequent one."""
    if not scene.items or rng.random() < 0.3:
        number, what = len(scene.items), "objects"
    else:
        shapes = Counter(item.shape for item in scene.items)
        colours = Counter(item.colour for item in scene.items)
        # The kind that repeats most is the one worth counting; else most answers would be 1.
        by_shape = max(shapes.values()) > max(colours.values())
        if max(shapes.values()) == max(colours.values()) or rng.random() < 0.1:
            by_shape = rng.random() < 0.5
        counts, every = (shapes, SHAPES) if by_shape else (colours, COLOUR_NAMES)
        kinds = (counts.most_common(1)[0][0], rng.choice(sorted(counts)), rng.choice(every))
        (kind,) = rng.choices(kinds, (0.85, 0.1, 0.05))
        number, what = counts[kind], PLURALS[kind] if by_shape else f"{kind} objects"
    if number > 9:
        return None
    return Question("count", f"How many {what} are there?", str(number), DIGITS)


def corner(item: Item) -> str | None:
    """Quarter of the picture that an item is clearly in, else None."""
    dx, dy = item.x - SIZE / 2, item.y - SIZE / 2
    if min(abs(dx), abs(dy)) < CLEAR_GAP:
        return None
    return CORNERS[2 * (dy > 0) + (dx > 0)]


RELATIONS = {
    "left of": lambda a, b: b.x - a.x,
    "right of": lambda a, b: a.x - b.x,
    "above": lambda a, b: b.y - a.y,
    "below": lambda a, b: a.y - b.y,
}
"""Relation -> by how many pixels it holds (negative: it does not)."""


def ask_relation(rng: Random, scene: Scene) -> Question | None:
    """Ask where an object is, or whether a relation of two holds."""
    found = unique(scene.items, "name")
    if not found:
        return None
    a = rng.choice(found)
    if len(found) == 1 or rng.random() < 0.4:
        place_name = corner(a)
        if place_name is None:
            return None
        return Question("relation", f"Where is the {a.name}?", place_name, CORNERS, "corner")
    b = rng.choice([item for item in found if item is not a])
    relation = rng.choice(tuple(RELATIONS))
    margin = RELATIONS[relation](a, b)
    if abs(margin) < CLEAR_GAP:
        return None
    text = f"Is the {a.name} {relation} the {b.name}?"
    return Question("relation", text, YES_NO[margin < 0], YES_NO, "pair")


def ask_compare(rng: Random, scene: Scene) -> Question | None:
    """Ask which object is larger, what there is more of, or whether two colours are the same."""
    kind = rng.choice(("size", "number", "same"))
    if kind == "number":
        counts = Counter(item.shape for item in scene.items)
        a, b = rng.sample(SHAPES, 2)
        if counts and rng.random() < 0.9:
            a = rng.choice(sorted(counts))
            b = rng.choice([shape for shape in (sorted(counts) or SHAPES) if shape != a] or [b])
            a, b = rng.sample((a, b), 2)
        if a == b or counts[a] == counts[b]:
            return None
        text = f"Are there more {PLURALS[a]} than {PLURALS[b]}?"
        return Question("compare", text, YES_NO[counts[a] < counts[b]], YES_NO, kind)
    found = unique(scene.items, "shape")
    if len(found) < 2:
        return None
    a, b = rng.sample(found, 2)
    if kind == "same":
        text = f"Are the {a.shape} and the {b.shape} the same colour?"
        return Question("compare", text, YES_NO[a.colour != b.colour], YES_NO, kind)
    large, small = (a, b) if a.size > b.size else (b, a)
    if large.size < CLEAR_RATIO * small.size:
        return None
    text = f"Which is larger, the {a.shape} or the {b.shape}?"
    return Question("compare", text, large.shape, (a.shape, b.shape), kind)


def build_compare(rng: Random, taken: list[Box]) -> Scene:
    """Draw a scene in which colours and numbers often repeat."""
    items: list[Item] = []
    shapes = rng.sample(SHAPES, rng.randint(2, 4))
    colours = rng.sample(COLOUR_NAMES, 2)
    kinds = [(shape, rng.choice(colours)) for shape in shapes]
    kinds += [(rng.choice(shapes), rng.choice(colours)) for _ in range(rng.choice((0, 0, 2, 4)))]
    for kind in kinds:
        add_item(rng, items, taken, *kind, rng.randint(16, 48))
    return Scene(backgrounds.sample(rng), tuple(items))


def odd_item(items: tuple[Item, ...]) -> Item | None:
    """The tiny object among large ones, or the one that differs in a field; None if neither."""
    tiny = [item for item in items if item.size <= TINY]
    if len(tiny) == 1 and all(item.size > 2 * TINY for item in items if item is not tiny[0]):
        return tiny[0]
    counts = Counter(item.name for item in items)
    if len(counts) != 2 or len(items) < 8 or min(counts.values()) != 1:
        return None
    return unique(items, "name")[0]


def ask_needle(rng: Random, scene: Scene) -> Question | None:
    """Ask for the colour, shape or place of the tiny or odd object."""
    item = odd_item(scene.items)
    if item is None:
        return None
    kind = "tiny" if item.size <= TINY else "odd"
    # Only what makes it odd: the rest is the same for all, and no needle need be found to tell.
    what = (
        "colour" if kind == "tiny" or any(i.colour != item.colour for i in scene.items) else "shape"
    )
    what = rng.choice((what, "place"))
    if what == "place":
        answer = corner(item)
        options = CORNERS
        text = f"Where is the {kind} object?"
    elif what == "colour":
        answer = item.colour
        options = COLOUR_NAMES
        text = f"What colour is the {kind} object?"
    else:
        answer = item.shape
        options = SHAPES
        text = f"What shape is the {kind} object?"
    return Question("needle", text, answer, options, kind) if answer else None
