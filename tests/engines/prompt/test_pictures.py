"""Pictures in every form: what Hugging Face's `convert_to_rgb`, Pillow and numpy make of them; refusals."""

import base64
import io
import urllib.parse
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.image_transforms import convert_to_rgb

from luvc.engines.data_urls import from_base64
from luvc.engines.prompt.pictures import open_image
from luvc.engines.prompt.videos import open_video
from luvc.errors import LuvcError

RANDOM = np.random.default_rng(5)


def noise(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def stored(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def palette(transparency) -> Image.Image:
    image = Image.fromarray(noise(9, 7, 3)).quantize(16)
    image.info["transparency"] = transparency
    return image


def keyed(mode: str, key) -> Image.Image:
    image = Image.new(mode, (6, 4), key)
    image.paste(77 if mode == "L" else (7, 80, 200), (0, 0, 3, 4))
    image.info["transparency"] = key
    return image


TRANSPARENT = {
    "RGBA": Image.fromarray(noise(8, 6, 4)),
    "LA": Image.fromarray(noise(8, 6, 2)),
    "RGBa": Image.fromarray(noise(8, 6, 4)).convert("RGBa"),
    "P with one clear colour": palette(3),
    "P with alpha": palette(bytes(range(0, 256, 16))),
    "L with a key": keyed("L", 200),
    "RGB with a key": keyed("RGB", (1, 2, 3)),
}


@pytest.mark.parametrize("image", TRANSPARENT.values(), ids=TRANSPARENT)
def test_what_is_transparent_shows_white(image):
    """Blended by numpy from Pillow's RGBA, and as Hugging Face's processors do it."""
    rgba = np.asarray(image.convert("RGBA")).astype(float)
    alpha = rgba[..., 3:] / 255
    wanted = rgba[..., :3] * alpha + 255 * (1 - alpha)
    found = np.asarray(open_image(image))
    assert np.abs(found - wanted).max() <= 1
    if image.mode != "RGBa":  # whose alpha Hugging Face does not see
        np.testing.assert_array_equal(found, convert_to_rgb(image, return_numpy=True))
        again = np.asarray(open_image(stored(image)))
        np.testing.assert_array_equal(again, found)


def test_black_text_on_nothing_is_black_on_white():
    page = np.zeros((5, 5, 4), np.uint8)
    page[2, 1:4, 3] = 255
    found = np.asarray(open_image(stored(Image.fromarray(page))))
    assert (found == np.where(page[..., 3:] == 255, 0, 255)).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV"])
def test_opaque_pictures_are_pillows_rgb(mode):
    image = Image.fromarray(noise(8, 6, 3)).convert(mode)
    np.testing.assert_array_equal(np.asarray(open_image(image)), np.asarray(image.convert("RGB")))


def test_frames_of_an_animation_show_white_too(tmp_path):
    frames = [Image.fromarray(np.full((6, 6, 4), (0, 0, 0, a), np.uint8)) for a in (0, 255)]
    path = tmp_path / "a.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert [np.asarray(f).max() for f in open_video(path).frames] == [255, 0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled(kind):
    wide = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    found = np.asarray(open_image(stored(Image.fromarray(wide), kind)))
    wanted = np.round(wide / 65535 * 255)
    assert np.abs(found.astype(float) - wanted[..., None]).max() == 0


def test_a_clear_grey_of_16_bits_shows_white():
    wide = np.full((4, 4), 300, np.uint16)
    wide[0] = 20_000
    found = open_image(stored(Image.fromarray(wide), transparency=300))
    assert np.asarray(found)[1:].min() == 255 and np.asarray(found)[0].max() == 78


@pytest.mark.parametrize(
    "source",
    [
        Image.new("F", (4, 4), 0.5),
        Image.new("I", (4, 4), 70_000),
        stored(Image.new("F", (4, 4), 0.5), "TIFF"),
        stored(Image.new("I", (4, 4), -5), "TIFF"),
        noise(4, 4, 3).astype(np.float32) / 255,
        noise(4, 4).astype(np.float64),
        noise(4, 4, 3).astype(np.int64),
        noise(4, 4, 3).astype(np.uint16),
        noise(3, 20, 20),
        noise(20, 20, 1),
        noise(20, 20, 2),
        noise(1, 20, 20, 3),
        noise(20),
        np.ones((4, 4), bool),
        np.array(3, np.uint8),
        np.array([["a"]]),
        np.array([None]),
    ],
)
def test_what_has_no_known_white_or_order_is_refused(source):
    with pytest.raises(LuvcError, match=r"give uint8 \[H, W, 3\]"):
        open_image(source)


def test_arrays_of_pixels():
    for array in (noise(5, 4, 3), noise(5, 4), noise(5, 4, 3)[::2, ::-1], noise(3, 9, 3)):
        wanted = np.broadcast_to(array.reshape(*array.shape[:2], -1), (*array.shape[:2], 3))
        np.testing.assert_array_equal(np.asarray(open_image(array)), wanted)
    clear = noise(5, 4, 4)
    np.testing.assert_array_equal(
        np.asarray(open_image(clear)), np.asarray(open_image(Image.fromarray(clear)))
    )
    with pytest.raises(LuvcError):
        open_image(np.zeros((0, 4, 3), np.uint8))


# ---- bounds, before anything is decoded
@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((10_000, 5_001), "10000x5001 pixels, the limit is 50 megapixels"),
        ((1, 65_536), "1x65536 pixels, the limit is .* 65535 pixels a side"),
        ((65_536, 2), "65535 pixels a side"),
    ],
)
def test_large_pictures_are_refused_by_their_header(size, message, monkeypatch):
    file = stored(Image.new("1", size), "PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *about: pytest.fail("decoded"))
    with pytest.raises(LuvcError, match=message):
        open_image(file)


def test_a_decompression_bomb_is_refused_by_its_header():
    """A header that promises 2 gigapixels; nothing of it is there."""
    header = bytearray(stored(Image.new("L", (8, 8))))
    header[16:24] = (50_000).to_bytes(4) + (40_000).to_bytes(4)
    with pytest.raises(LuvcError, match=r"cannot be read|too large|megapixels"):
        open_image(bytes(header))


def test_the_bound_is_the_callers():
    with pytest.raises(LuvcError, match=r"8x8 pixels, the limit is 6e-05 megapixels"):
        open_image(Image.new("L", (8, 8)), megapixels=6e-5)
    assert open_image(Image.new("L", (8, 8)), megapixels=6.4e-5).size == (8, 8)


def test_the_frames_of_a_video_are_bounded_together():
    frame = Image.new("L", (100, 100))
    assert len(open_video([frame] * 20, megapixels=0.01).frames) == 20
    with pytest.raises(LuvcError, match=r"21 frames of 100x100 pixels, the limit is 0\.2 meg"):
        open_video([frame] * 21, megapixels=0.01)
    wrong: tuple[Any, ...] = (float("inf"), float("nan"), True, "1", -1)
    for fps in wrong:
        with pytest.raises(LuvcError, match="fps"):
            open_video([frame], fps)


# ---- files that are broken
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF"])
def test_broken_files_are_refused(kind):
    """Cut off anywhere, or with bytes changed: a picture or a refusal, and nothing else."""
    if kind not in Image.registered_extensions().values():
        pytest.skip(f"this Pillow writes no {kind}")
    whole = stored(Image.fromarray(noise(24, 24, 3)), kind)
    refused = 0
    for trial in range(60):
        broken = bytearray(whole[: len(whole) * (trial + 1) // 60])
        for place in RANDOM.integers(0, len(broken), 1 + trial % 4):
            broken[place] = RANDOM.integers(0, 256)
        try:
            open_image(bytes(broken))
        except LuvcError as error:
            refused += 1
            assert len(str(error)) < 250
    assert refused


# ---- base64
TALL = stored(Image.fromarray(noise(9, 40, 3)))
PLAIN = base64.b64encode(TALL).decode()
FORMS = {
    "plain": PLAIN,
    "in lines": base64.encodebytes(TALL).decode(),
    "with blanks": " ".join(PLAIN[i : i + 7] for i in range(0, len(PLAIN), 7)) + "\t\r\n",
    "URL-safe": base64.urlsafe_b64encode(TALL).decode(),
    "unpadded": PLAIN.rstrip("="),
    "percent-encoded": urllib.parse.quote(PLAIN, safe=""),
}


@pytest.mark.parametrize("form", FORMS)
def test_base64_in_all_its_forms(form):
    assert from_base64(FORMS[form]) == TALL
    for head in (
        "data:image/png;base64,",
        "DATA:image/png;base64,",
        "data:;Base64 ,",
        "Data:IMAGE/PNG;BASE64,",
    ):
        assert np.array_equal(open_image(head + FORMS[form]), open_image(TALL))


def test_every_length_of_base64():
    for n in range(9):
        data = bytes(range(250, 250 + n)) if n < 6 else RANDOM.bytes(n)
        for text in (base64.b64encode(data), base64.urlsafe_b64encode(data).rstrip(b"=")):
            assert from_base64(text) == data


def test_a_data_url_without_base64_holds_bytes():
    assert open_image("data:image/png," + urllib.parse.quote_from_bytes(TALL)).size == (40, 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:image/png;base64", "comma"),
        (f"data:image/png;base64,{PLAIN.rstrip('=')}!", r"not base64: b'!' stands at digit \d+"),
        ("data:image/png;base64,AAAAA", "not base64: 5 digits"),
        ("data:image/png;base64,AA=A", "not base64: b'=' stands at digit 2"),
        ("data:image/png;base64,AAA===", "not base64: 3 padding signs"),
        ("data:image/png;base64,AAAA", "of no known format"),
        ("data:image/png;base64,ä", "not base64"),
        ("data:image/png;base64,\udc80", "not base64"),
        ("data:image/png;base64,", "of no known format"),
    ],
)
def test_what_is_not_base64_says_so(text, message):
    with pytest.raises(LuvcError, match=message):
        open_image(text)
