"""What a client or a calling program sends: pictures, messages, options, requests of Triton."""

import io
import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from PIL import Image

from luvc.engines.prompt.processing import open_image
from luvc.tools.triton import requests
from luvc.tools.triton.requests import Bounds

from . import values
from .material import Material
from .mutations import NUMBERS, OTHERS, TEXTS, changed, spoilt
from .surfaces import Surface, surface
from .values import special

FORMATS = (
    "PNG",
    "JPEG",
    "GIF",
    "WEBP",
    "BMP",
    "TIFF",
    "AVIF",
    "PPM",
    "ICO",
    "TGA",
    "JPEG2000",
    "PDF",
)


def _pictures() -> list[bytes]:
    """A small file of each format and kind of pixels that Pillow writes."""
    found = []
    for kind, mode in itertools.product(FORMATS, ("RGB", "RGBA", "L", "P", "I;16", "1", "LA")):
        file = io.BytesIO()
        try:
            Image.new(mode, (13, 7)).save(file, kind)
        except (OSError, KeyError, ValueError):  # that format has no such pixels
            continue
        found.append(file.getvalue())
    return found


@surface
def pictures(material: Material) -> Surface:
    """Bytes of picture files, up to what a model sees of them."""
    layout = material.loaded.manifest.pictured[0]

    def check(data: bytes) -> None:
        processor = material.vlm.processor
        parts = [{"type": "image", "image": open_image(data)}, {"type": "text", "text": "a"}]
        processor.pixels(processor.prompt([{"role": "user", "content": parts}], layout.name))

    return Surface(st.sampled_from(_pictures()).flatmap(spoilt), check)


def _odd() -> SearchStrategy[Any]:
    """Values that JSON has no notation of, and those it has."""
    sizes = st.sampled_from((0, 1, 3, 7, 224))
    arrays = st.builds(
        lambda dtype, shape: special("array", dtype, tuple(shape)),
        st.sampled_from(
            ("uint8", "float32", "float64", "int64", "bool", "object", "U3", "complex64")
        ),
        st.lists(sizes, max_size=4),
    )
    modes = st.sampled_from(("RGB", "RGBA", "L", "I", "F", "P", "CMYK", "1", "I;16", "LA", "HSV"))
    opened = st.builds(lambda mode, w, h: special("picture", mode, (w, h)), modes, sizes, sizes)
    return st.one_of(
        arrays,
        opened,
        st.sampled_from([special("float", x) for x in ("nan", "inf", "-inf")]),
        st.sampled_from([special("deep", n, k) for n in (50, 150, 5000) for k in ("list", "dict")]),
        st.sampled_from([special("many", x, 1_000_000) for x in ("a", "<image>", 1, {})]),
        st.sampled_from((special("object"), b"", b"\xff\xd8", b"a" * 1000, (), {1, 2}, 1j, {1: 2})),
        st.sampled_from([x for x in NUMBERS if x == x and abs(x) < 10**300]),
        st.sampled_from(TEXTS),
        st.sampled_from(OTHERS),
        st.text(max_size=8),
    )


@st.composite
def _near(draw: st.DrawFn, right: Any) -> bytes:
    """A value with odd ones in places of it."""
    if draw(st.integers(0, 9)) == 0:
        return values.encode(draw(_odd()))
    return values.encode(_with(draw, draw(changed(right))))


def _with(draw: st.DrawFn, value: Any) -> Any:
    """The value, some leaves of it odd."""
    if isinstance(value, dict):
        return {k: _with(draw, v) for k, v in value.items()}
    if isinstance(value, list):
        return [_with(draw, v) for v in value[:20]]
    if isinstance(value, float) and not abs(value) < 10**300:
        return special("float", str(value))
    return draw(_odd()) if draw(st.integers(0, 4)) == 0 else value


URL = "data:image/png;base64,iVBORw0KGgo="
CONVERSATIONS = (
    [{"role": "user", "content": "Which colour?"}],
    [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "image", "image": special("picture", "RGB", (168, 168))},
                {"type": "text", "text": "Which colour?"},
            ],
        },
        {"role": "assistant", "content": "Red."},
        {"role": "user", "content": [{"type": "text", "text": "Why?"}]},
    ],
    [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": URL, "detail": "auto"}},
                {"type": "video", "video": [special("picture", "RGB", (168, 168))], "fps": 2.0},
            ],
            "name": "me",
            "tool_calls": [{"function": {"name": "f", "arguments": {}}}],
        }
    ],
    [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]],
)


@surface
def conversations(material: Material) -> Surface:
    """What `generate` is given to answer."""

    def check(data: bytes) -> None:
        material.vlm.generate(values.decode(data), max_new_tokens=1)

    return Surface(st.sampled_from(CONVERSATIONS).flatmap(_near), check)


OPTIONS = {
    "max_new_tokens": 2,
    "do_sample": True,
    "temperature": 0.5,
    "top_k": 5,
    "top_p": 0.5,
    "repetition_penalty": 1.1,
    "eos_token_id": [1],
    "stop": ["a"],
    "seed": 1,
    "layout": None,
    "stream": False,
}


@surface
def options(material: Material) -> Surface:
    """Keyword arguments of `generate`."""

    def check(data: bytes) -> None:
        given = values.decode(data)
        if isinstance(given, dict) and all(isinstance(key, str) for key in given):
            answer = material.vlm.generate(CONVERSATIONS[0], **given)
            list(answer) if given.get("stream") else answer

    return Surface(_near(OPTIONS), check)


REQUEST = {
    "text_input": b"Which colour?",
    "messages": b'[{"role": "user", "content": "a"}]',
    "image": [b"\x89PNG"],
    "max_tokens": 1,
    "temperature": 0.5,
    "stop": [b"a"],
    "session": b"s",
    "stream": True,
    "seed": 1,
    "layout": b"",
}


@surface
def triton_requests(material: Material) -> Surface:
    """Tensors of a request, as Triton's Python backend hands them over."""

    def tensor(value: Any) -> np.ndarray:
        items = value if isinstance(value, (list, tuple)) else [value]
        texts = [v.encode(errors="replace") if isinstance(v, str) else v for v in items]
        kept = all(isinstance(v, (bool, int, float)) for v in texts)
        array = np.empty(len(texts), object)
        array[:] = texts
        if kept and texts:
            try:
                return np.array(texts)
            except OverflowError:
                pass
        return array

    def check(data: bytes) -> None:
        given = values.decode(data)
        if not isinstance(given, dict):
            return
        tensors = {k: v if isinstance(v, np.ndarray) else tensor(v) for k, v in given.items()}
        asked = requests.read(tensors.get, Bounds(), images=1)
        vlm = material.vlm
        vlm.sampling.override(**{k: v for k, v in asked.options.items() if k != "layout"})
        vlm.processor.prompt(asked.messages, asked.options.get("layout"))

    return Surface(_near(REQUEST), check)
