"""Messages and images to prompts: what Hugging Face's processor would give, and refusals."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.image_utils import load_image

from luvc.engines.prompt.processing import open_image
from luvc.engines.prompt.videos import open_video
from luvc.errors import LuvcError

from ...conftest import ask


def test_prompt_is_the_templates_with_the_reduced_run(workshop, picture):
    vlm = workshop.vlm("qwen2")
    prompt = vlm.processor.prompt(ask("Why?", picture))
    run = "<IMG_CONTEXT>" * vlm.manifest.layouts[0].visual_tokens
    assert prompt.text == (
        f"<|im_start|>user\n<img>{run}</img>\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert vlm.processor.tokenizer.decode(prompt.input_ids) == prompt.text


@pytest.mark.parametrize("case", ["qwen2", "qwen3-128-untied-tiles"])
def test_pixels_equal_the_image_processors(workshop, picture, case):
    from transformers import GotOcr2ImageProcessorPil

    vlm = workshop.vlm(case, 1.0)
    prompt = vlm.processor.prompt(ask("Why?", picture))
    layout = prompt.layout
    processor = GotOcr2ImageProcessorPil.from_pretrained(vlm.manifest.model)
    options: dict[str, Any] = {"crop_to_patches": False}
    if layout.tiles == 3:
        options = {"crop_to_patches": True, "min_patches": 2, "max_patches": 2}
    wanted = processor(Image.fromarray(picture), return_tensors="np", **options).pixel_values
    assert wanted.shape[0] == layout.tiles
    np.testing.assert_array_equal(vlm.processor.pixels(prompt), wanted)


def test_images_come_in_every_form(picture, tmp_path):
    image = Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(buffer.getvalue())
    forms = [image, picture, buffer.getvalue(), path, str(path), f"file://{path}"]
    encoded = base64.b64encode(buffer.getvalue()).decode()
    broken = base64.encodebytes(buffer.getvalue()).decode()  # into lines
    forms += [f"data:image/png;base64,{data}" for data in (encoded, broken)]
    for form in forms:
        assert np.array_equal(np.asarray(open_image(form)), picture)
    grey = Image.fromarray(picture[..., 0])
    assert open_image(grey).mode == "RGB"


def data_url(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def test_image_urls_are_images(workshop, picture, tmp_path):
    """OpenAI's parts, with the pixels that Hugging Face's loader reads from the same URLs."""
    processor = workshop.vlm("qwen2").processor
    Image.fromarray(picture).save(tmp_path / "a.png")
    wanted = processor.prompt(ask("Why?", picture))
    for url in (data_url(picture), str(tmp_path / "a.png")):
        for source in ({"url": url}, url):
            parts = [{"type": "image_url", "image_url": source}, {"type": "text", "text": "Why?"}]
            found = processor.prompt([{"role": "user", "content": parts}])
            assert found.text == wanted.text
            np.testing.assert_array_equal(np.asarray(found.images[0]), np.asarray(load_image(url)))


LONG = "A" * 100_000  # base64 of something


@pytest.mark.parametrize(
    "source",
    [
        f"data:image/png;base64,{LONG}",
        f"data:image/png;base64,{LONG}!",
        LONG,
        Path("a", LONG),
        f"https://example.com/{LONG}",
        f"{LONG}\0",
    ],
    ids=["no picture", "no base64", "name", "path", "remote", "null byte"],
)
def test_errors_do_not_repeat_a_whole_source(source):
    for opened in (open_image, open_video):
        with pytest.raises(LuvcError) as caught:
            opened(source)
        assert len(str(caught.value)) < 250 and "A" * 80 not in str(caught.value)


def test_errors_name_the_end_of_a_long_path(tmp_path):
    path = tmp_path / ("a" * 100) / "photograph.png"
    with pytest.raises(LuvcError, match=r"\.\.\.a+/photograph\.png cannot be read: No such file"):
        open_image(path)


def test_a_turned_photograph_is_set_upright(picture, tmp_path):
    image = Image.fromarray(picture)
    exif = image.getexif()
    exif[0x0112] = 6  # taken with the camera on its side
    image.save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == (picture.shape[0], picture.shape[1])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.png", "nowhere.png"),
        (b"not an image", "cannot be read"),
        ("https://example.com/a.png", "remote"),
        (7, "got int"),
        (np.zeros((2, 2, 9)), r"\[2, 2, 9\] of float64 is no picture: give uint8"),
        (Image.new("RGB", (8, 8)).crop((5, 5, 5, 9)), "has 0x4 pixels"),
    ],
)
def test_unreadable_images(source, message):
    with pytest.raises(LuvcError, match=message):
        open_image(source)


def test_a_truncated_photograph(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG")
    with pytest.raises(LuvcError, match="cannot be read"):
        open_image(buffer.getvalue()[:2000])


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "list of"),
        ("hello", "list of"),
        ([{"role": "user"}], "'role' and 'content'"),
        ([{"role": "user", "content": None}], "'role' and 'content'"),
        ([{"role": "user", "content": 7}], "text or a list of parts"),
        (ask("no picture"), "no image"),
        ([{"role": "user", "content": [{"type": "audio", "audio": "a.wav"}]}], "type"),
        (
            [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}],
            "video a.mp4 cannot",
        ),
        ([{"role": "user", "content": [{"type": "video", "video": 7}]}], "got int"),
        ([{"role": "user", "content": [{"type": "image"}]}], "needs 'image'"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "'image_url'"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "https://x/a.png"}]}],
            "https://x/a.png is remote; download it",
        ),
    ],
)
def test_bad_messages(workshop, messages, message):
    vlm = workshop.vlm("qwen2")
    with pytest.raises(LuvcError, match=message):
        vlm.generate(messages)


def test_prompts_that_do_not_fit(workshop, picture):
    vlm = workshop.vlm("qwen2")
    with pytest.raises(LuvcError, match="2 images, this bundle holds 1"):
        vlm.generate(ask("Compare", picture, picture))
    with pytest.raises(LuvcError, match=r"text tokens, the bundle holds 96"):
        vlm.generate(ask("word " * 200, picture))
    with pytest.raises(LuvcError, match="remove <IMG_CONTEXT>"):
        vlm.generate(ask("what is <IMG_CONTEXT>?", picture))
    two = workshop.vlm("qwen2-two-images")
    with pytest.raises(LuvcError, match="1 image, this bundle holds 2"):
        two.generate(ask("Compare", picture))


LOW = {"type": "image_url", "image_url": {"url": "a", "detail": "low"}}
IMAGE = {"type": "image", "image": np.zeros((8, 8, 3), np.uint8)}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (-1, "list of .* got -1"),
        (None, "list of .* got None"),
        ([1], "list of .* got 1"),
        (np.zeros((2, 2)), "list of .* got ndarray"),
        (Image.new("L", (2, 2)), "list of .* got Image"),
        ([{"role": "user", "content": IMAGE["image"]}], "content is a text .* got ndarray"),
        ([{"role": "user", "content": [IMAGE["image"]]}], "a content part .* got ndarray"),
        ([{"role": "user", "content": [{"type": ["image"]}]}], "a content part"),
        ([{"role": "user\udc80", "content": "a"}], "'role' of a message is not valid Unicode"),
        ([{"role": 7, "content": "a"}], "a message's role must be a text, got 7"),
        (ask("half \ud800", IMAGE["image"]), "not valid Unicode: half a surrogate .* character 5"),
        ([{"role": "user", "content": [IMAGE], "name": "Ada"}], "prints no 'name'"),
        ([{"role": "user", "content": [IMAGE], "data": b"a"}], "'data' of a message holds texts"),
        ([{"role": "user", "content": [IMAGE | {"min_pixels": 4}]}], "has no 'min_pixels'"),
        ([{"role": "user", "content": [IMAGE | {"path": "a.png"}]}], "image and path"),
        ([{"role": "user", "content": [LOW]}], "no 'detail' of 'low'"),
    ],
)  # fmt: skip
def test_what_is_no_message_is_said_so(workshop, messages, message):
    vlm = workshop.vlm("qwen2")
    with pytest.raises(LuvcError, match=message) as caught:
        vlm.generate(messages)
    assert len(str(caught.value)) < 300


def test_openais_parts_may_say_auto(workshop, picture):
    processor = workshop.vlm("qwen2").processor
    url = {"url": data_url(picture), "detail": "auto"}
    parts = [
        {"type": "image_url", "image_url": url, "image": None},
        {"type": "text", "text": "Why?"},
    ]
    found = processor.prompt([{"role": "user", "content": parts, "name": None}])
    assert found.input_ids == processor.prompt(ask("Why?", picture)).input_ids


def test_counted_and_measured_before_anything_is_opened_or_tokenised(workshop, monkeypatch):
    from luvc.engines.prompt import processing

    processor = workshop.vlm("qwen2").processor
    _ = processor.template, processor._longest_token
    monkeypatch.setattr(processing, "open_visual", lambda *about: pytest.fail("opened"))
    for many in (processor.prompt, processor.opened):
        with pytest.raises(LuvcError, match="12 images, this bundle holds 1"):
            many(ask("Compare", *[b"a picture"] * 12))
    monkeypatch.setattr(processing, "open_visual", lambda *about: open_image(IMAGE["image"]))
    monkeypatch.setattr(type(processor), "tokenise", lambda *about: pytest.fail("tokenised"))
    with pytest.raises(LuvcError, match="10000004 characters, the bundle holds 96 text tokens"):
        processor.prompt(ask("x" * 10_000_000, b"a picture"))


def test_no_text_that_fits_is_too_long_in_characters(workshop, picture):
    """The longest token of the vocabulary as often as the bundle holds tokens."""
    processor = workshop.vlm("qwen2").processor
    longest = max(processor.tokenizer.get_vocab(), key=len)
    processor._check_length([{"content": longest * processor.manifest.text_capacity}])


def test_a_token_without_an_embedding_is_refused(workshop, picture):
    vlm = workshop.vlm("qwen2")
    vlm.processor.tokenizer.add_tokens(["<new>"])
    with pytest.raises(LuvcError, match=r"'<new>' \(id 1024\), .* below 1024 alone"):
        vlm.generate(ask("What is <new>?", picture))


def test_a_large_picture_is_refused_by_the_processors_bound(workshop, picture):
    processor = workshop.vlm("qwen2").processor
    processor.megapixels = 0.05
    with pytest.raises(LuvcError, match=r"260x200 pixels, the limit is 0\.05 megapixels"):
        processor.prompt(ask("Why?", picture))


def test_a_named_layout_says_what_it_takes(workshop, picture):
    """Others of the bundle might do: to export again is not the mend."""
    processor = workshop.vlm("qwen2-layouts", 1).processor
    image = open_image(picture)
    with pytest.raises(LuvcError, match="2 images, layout 56x56 holds 1: name another layout"):
        processor.layout_for([image, image], "56x56")
    with pytest.raises(LuvcError, match="no images, layout 56x56-2images holds 2"):
        processor.layout_for([], "56x56-2images")
    video = open_video([picture] * 3)
    with pytest.raises(
        LuvcError, match="3 frames, layout 56x56 answers about images: name another"
    ):
        processor.layout_for([video], "56x56")


def test_videos_from_files(tmp_path):
    """A folder of frames in the order of their names, and an animation, give the same frames."""
    frames = [Image.fromarray(np.full((8, 10, 3), shade, np.uint8)) for shade in (9, 90, 200)]
    for n, frame in enumerate(frames):
        frame.save(tmp_path / f"{n}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    animation = tmp_path / "animation.webp"
    frames[0].save(animation, save_all=True, append_images=frames[1:], lossless=True)
    animation.rename(tmp_path.parent / "animation.webp")
    for source in (frames, tmp_path, str(tmp_path.parent / "animation.webp")):
        video = open_video(source, fps=2)
        assert [np.asarray(f)[0, 0, 0] for f in video.frames] == [9, 90, 200]
    assert video.sample(2).frames == (video.frames[0], video.frames[2])
    assert video.sample(2).fps == pytest.approx(2 * 2 / 3)
    with pytest.raises(LuvcError, match="fps"):
        open_video(frames, fps=0)
    with pytest.raises(LuvcError, match="one size"):
        open_video([frames[0], frames[1].resize((4, 4))])
