"""How far a prefix goes, and that only what is the same is taken for the same."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from luvc.engines.bundle.schedule import Schedule
from luvc.engines.prompt.prefix import fingerprint, marks_of, prefix_length, unshared
from luvc.engines.prompt.processing import Prompt
from luvc.engines.prompt.videos import Video

from ...conftest import ask

IMAGE = 7
START, END = 8, 9


@pytest.fixture(scope="module")
def prompt(workshop, picture) -> Prompt:
    return workshop.vlm("qwen2").processor.prompt(ask("Why?", picture))


@pytest.mark.parametrize(
    ("ids", "length"),
    [
        ([1, 7, 7, 2, 3], 3),
        ([1, 8, 7, 7, 9, 2, 3], 5),
        ([1, 7, 7, 2, 7, 7, 3], 6),
        ([1, 8, 7, 9, 2, 8, 7, 7, 9, 9, 3], 10),
        ([7, 7, 2], 0),
        ([1, 7, 7], 0),
        ([1, 8, 7, 9], 0),
        ([1, 8, 7, 9, 2, 9, 3], 0),
    ],
    ids=["plain", "marks", "two", "two with marks", "first", "last", "mark last", "mark in a text"],
)
def test_it_ends_behind_the_last_picture_and_its_marks(prompt, ids, length):
    assert prefix_length(replace(prompt, input_ids=ids), IMAGE, {START, END}) == length


def test_marks_are_special_tokens_and_no_visual_ones(workshop, prompt):
    vlm = workshop.vlm("qwen2")
    language, tokenizer = vlm.manifest.language, vlm.processor.tokenizer
    marks = marks_of(tokenizer, language, prompt.layout)
    assert {tokenizer.convert_ids_to_tokens(i) for i in marks} == {"<img>", "</img>"}
    length = prefix_length(prompt, language.image_token_id, marks)
    assert tokenizer.convert_ids_to_tokens(prompt.input_ids[length - 1]) == "</img>"


@pytest.mark.parametrize("said", [{}, {"question": False}, {"question": True}])
def test_fastv_reads_the_question_whatever_a_bundle_says_of_it(workshop, prompt, said):
    """Bundles of before said it only where FastV was asked for with an option."""
    language = workshop.vlm("qwen2").manifest.language
    entry = {
        "language": [{"layer": 1, "keep": 4}],
        "score": {"name": "fastv", "options": {}} | said,
    }
    layout = prompt.layout.model_copy(update={"schedule": Schedule.model_validate(entry)})
    assert "fastv reads the question" in str(unshared(language, layout))
    other = Schedule.model_validate(entry | {"score": {"name": "k-norm", "options": {}}})
    assert unshared(language, layout.model_copy(update={"schedule": other})) is None


def test_what_differs_has_another_fingerprint(prompt, picture):
    """Also where bytes of one part could be taken for those of the next."""
    image = Image.fromarray(picture)
    ids, half = prompt.input_ids, Image.fromarray(picture[:100])
    rest = Image.fromarray(picture[100:])
    dot = picture.copy()
    dot[0, 0, 0] += 1
    other = prompt.layout.model_copy(update={"name": "other"})
    turned = image.transpose(Image.Transpose.ROTATE_90)
    same_bytes = Image.frombytes("RGB", (image.height, image.width), image.tobytes())
    prompts = [
        prompt,
        replace(prompt, input_ids=[ids[0] + 1, *ids[1:]]),
        replace(prompt, layout=other),
        *(
            replace(prompt, images=shown)
            for shown in [
                (Image.fromarray(dot),),
                (turned,),
                (same_bytes,),
                (image, image),
                (half, rest),
                (rest, half),
                (Video((half, rest), 1.0),),
            ]
        ),
    ]
    found = [fingerprint(p, 30) for p in prompts] + [fingerprint(prompt, n) for n in (0, 29, 31)]
    assert len(set(found)) == len(found)
    later = replace(prompt, input_ids=[*ids[:30], 1, 2, 3], images=(Image.fromarray(picture),))
    assert fingerprint(later, 30) == found[0]


def test_a_films_pace_tells_it_apart(prompt):
    """Its positions follow the time."""
    frames = tuple(Image.fromarray(np.full((8, 8, 3), n, np.uint8)) for n in range(4))
    layout = prompt.layout.model_copy(update={"frames": 4, "pixel_shape": (2, 3)})
    films = [
        replace(prompt, layout=layout, images=(Video(frames, fps),)) for fps in (1.0, 2.0, 1.0)
    ]
    found = [fingerprint(film, 30) for film in films]
    assert found[0] == found[2] != found[1]
