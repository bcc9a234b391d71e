"""Bundles that a stranger made: manifest, graphs, weights, processor files, chat template."""

import json
from pathlib import Path

import numpy as np
import onnx
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from luvc.engines import VLM, Bundle
from luvc.engines.bundle.folder import MANIFEST, WEIGHTS
from luvc.engines.serving.limits import Limits
from luvc.tools import info
from luvc.tools.triton import repository
from luvc.tools.triton.requests import Bounds

from .material import Material, replaced
from .mutations import NUMBERS, json_bytes, messages, spoilt
from .surfaces import Surface, surface

PICTURE = np.zeros((168, 168, 3), np.uint8)
PARTS = [{"type": "image", "image": PICTURE}, {"type": "text", "text": "Which colour?"}]
QUESTION = [{"role": "user", "content": PARTS}]
SIZES = st.sampled_from([n for n in NUMBERS if isinstance(n, int) and abs(n) < 2**63])


def used(folder: Path) -> None:
    """A bundle is shown, loaded and asked."""
    info.facts(Bundle.load(folder, verify=True))
    with VLM.load(folder, threads=1) as vlm:
        vlm.generate(QUESTION, max_new_tokens=1)


@surface
def manifest(material: Material) -> Surface:
    """What a manifest says is believed nowhere: it is loaded, shown, and served by a repository."""

    def check(data: bytes) -> None:
        with replaced(material.bundle / MANIFEST, data):
            bundle = Bundle.load(material.bundle)
            info.facts(bundle)
            target = material.scratch / "repository"
            repository.write(bundle, target, repository.Options(Limits(), Bounds()))
            with VLM.load(material.bundle, threads=1) as vlm:
                vlm.generate(QUESTION, max_new_tokens=1)

    return Surface(json_bytes(material.manifest), check)


@surface
def graphs(material: Material) -> Surface:
    """The ONNX files of a prompt with a picture; the first byte says which."""
    names = sorted(material.manifest["layouts"][0]["graphs"].values())
    right = [
        onnx.load(material.source / "bundle" / name, load_external_data=False) for name in names
    ]

    def spoiled(number: int) -> SearchStrategy[bytes]:
        model = right[number]
        inputs = st.one_of(messages(model, SIZES), spoilt(model.SerializeToString()))
        return inputs.map(lambda data: bytes([number]) + data)

    def check(data: bytes) -> None:
        with material.spoilt(names[data[0] % len(names)], data[1:]) as folder:
            used(folder)

    return Surface(st.integers(0, len(names) - 1).flatmap(spoiled), check)


@surface
def weights(material: Material) -> Surface:
    """The bundle's safetensors file."""
    right = (material.source / "bundle" / WEIGHTS).read_bytes()

    def check(data: bytes) -> None:
        with material.spoilt(WEIGHTS, data) as folder:
            used(folder)

    return Surface(safetensors(right), check)


def safetensors(right: bytes) -> SearchStrategy[bytes]:
    """Files of tensors with another header, or other bytes."""
    length = int.from_bytes(right[:8], "little")
    header, body = json.loads(right[8 : 8 + length]), right[8 + length :]

    def whole(text: bytes, size: int | None = None) -> bytes:
        return (len(text) if size is None else size).to_bytes(8, "little") + text + body

    return st.one_of(
        json_bytes(header).map(whole),
        st.sampled_from((0, 1, 2**40, 2**63)).map(lambda n: whole(b"{}", n)),
        spoilt(right),
    )


@surface
def processor_files(material: Material) -> Surface:
    """Tokenizer, configs and whatever else lies in processor/; the first byte says which."""
    folder = material.source / "bundle" / "processor"
    files = sorted(p for p in folder.iterdir() if p.suffix == ".json")

    def spoiled(number: int) -> SearchStrategy[bytes]:
        right = files[number].read_bytes()
        if len(right) < 20_000:
            inputs = json_bytes(json.loads(right))
        else:  # the tokenizer: its vocabulary is long and dull
            inputs = st.one_of(spoilt(right), _tokenizer(json.loads(right)))
        return inputs.map(lambda data: bytes([number]) + data)

    def check(data: bytes) -> None:
        name = f"processor/{files[data[0] % len(files)].name}"
        with material.spoilt(name, data[1:]) as changed:
            used(changed)

    return Surface(st.integers(0, len(files) - 1).flatmap(spoiled), check)


def _tokenizer(right: dict) -> SearchStrategy[bytes]:
    """A tokenizer.json changed outside its vocabulary."""
    model = {k: v for k, v in right["model"].items() if k not in ("vocab", "merges")}
    plain = right | {"model": model}

    def whole(data: bytes) -> bytes:
        try:
            changed = json.loads(data)
            kept = {k: right["model"][k] for k in ("vocab", "merges") if k in right["model"]}
            return json.dumps(changed | {"model": changed["model"] | kept}).encode()
        except (ValueError, TypeError, KeyError, RecursionError):
            return data

    return json_bytes(plain).map(whole)


PIECES: tuple[str, ...] = (
    "{% for m in messages %}", "{% endfor %}", "{{ m.role }}", "{{ m.content }}", "{{ m['content'][0] }}",
    "{% if m.role == 'user' %}", "{% else %}", "{% endif %}", "{% set a = 'ab' * 9 %}",
    "{% set n = namespace(x='a') %}", "{% set n.x = n.x + n.x %}", "{% for i in range(99999) %}",
    "{% for j in range(999999999) %}", "{{ 'a' * 3 * 10**9 }}", "{{ 9**9**9 }}", "{{ 'a'|center(10**10) }}",
    "{{ '%9999999999d' % 1 }}", "{{ '{:9999999999}'.format(1) }}", "{{ messages|tojson(indent=10**9) }}",
    "{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}", "{{ raise_exception('no') }}",
    "{{ strftime_now('%Y' * 10**8) }}", "{{ ''.__class__.__mro__ }}", "{{ cycler }}", "{{ lipsum(n=10**9) }}",
    "{% for c in m.content recursive %}{{ loop(m.content) }}{% endfor %}", "{{ messages * 10**9 }}",
    "{{ [1] * 10**10 }}", "{{ x.y.z }}", "{% include 'a' %}", "{% import 'os' as os %}", "{% break %}",
    "{{ (1).__add__(1) }}", "{{ '\\ud800' }}", "<image>", "text\n", "{# ", " #}", "{% raw %}", "{%- -%}",
    "{{ m.content|join('a' * 10**9) }}", "{{ ('a' * 99999)|replace('a', 'a' * 99999) }}",
    "{{ '~' ~ n.x ~ n.x }}",
    "{% generation %}", "{% endgeneration %}", "{{ m.content|upper|lower|trim|length }}", "{{ 1 / 0 }}",
    "{{ range(10**9)|list }}", "{{ range(10**12)|sum }}", "{{ m.content|batch(10**9, 'a')|list }}",
)  # fmt: skip


@surface
def chat_template(material: Material) -> Surface:
    """A Jinja template: it may be anything, and must end."""
    (file,) = (material.source / "bundle" / "processor").glob("chat_template.jinja")
    right = file.read_bytes()
    around = right.decode()

    def mixed(pieces: list[str]) -> bytes:
        return "".join(pieces).encode(errors="surrogatepass")

    def inside(pieces: list[str]) -> bytes:
        return around.encode() + mixed(pieces)

    pieces = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12)
    inputs = st.one_of(pieces.map(mixed), pieces.map(inside), spoilt(right))

    def check(data: bytes) -> None:
        with material.spoilt("processor/chat_template.jinja", data) as folder:
            used(folder)

    return Surface(inputs, check)
