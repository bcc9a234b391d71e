"""--image-tokens: the largest picture of so many visual tokens, counted by Hugging Face's processors."""

import pytest

from luvc.exporter import plan

from . import reference
from .gallery import QUESTION, Gallery, pictures

# Blocks are 28 pixels; pictures have 4 to 36 blocks, and Pixtral's at most 7 a side. InternVL's are tiles.
LARGEST = [
    ("qwen2_vl", None, 20, (112, 112)),
    ("qwen2_vl", None, 1000, (168, 168)),
    ("qwen2_vl", (56, 84), 25, (112, 168)),
    ("paddleocr_vl", (84, 56), 29, (168, 112)),
    ("mistral3", (1000, 2000), 1000, (84, 168)),
    ("lighton_ocr", None, 48, (168, 168)),
    ("internvl", (168, 336), 330, (336, 672)),
]


@pytest.mark.parametrize(("name", "size", "tokens", "wanted"), LARGEST)
def test_the_largest_picture_of_so_many_tokens(gallery: Gallery, name, size, tokens, wanted):
    sizes = () if size is None else (size,)
    config = gallery.config(name, ratio=1, image_sizes=sizes, image_tokens=tokens)
    (layout,) = plan(config, gallery.family(name))
    assert layout.image_size == wanted
    _, proc = gallery.hugging_face(name)
    ids = reference.inputs(proc, QUESTION, pictures(wanted, 1))["input_ids"][0].tolist()
    token = gallery.family(name).language.image_token_id
    assert ids.count(token) == layout.visual_tokens <= tokens


def test_budgets_are_layouts_of_their_own(gallery: Gallery):
    sizes = ((56, 56), (56, 112))
    config = gallery.config("qwen2_vl", ratio=1.5, image_sizes=sizes, image_tokens=20)
    layouts = plan(config, gallery.family("qwen2_vl"))
    assert [layout.image_size for layout in layouts] == [(112, 112), (84, 168)]
    assert all(layout.ratios.prefill >= 1.5 for layout in layouts)
