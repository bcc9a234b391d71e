"""Bundles that a stranger made: what is listed bounds what is read, and every text and number has bounds."""

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from luvc.engines import VLM, Bundle
from luvc.engines.bundle.folder import MANIFEST
from luvc.engines.bundle.manifest import Manifest
from luvc.errors import LuvcError


def in_the_hubs_cache(bundle: Path, root: Path) -> Path:
    """The bundle as the hub's cache holds a repository: files in `blobs`, a folder of links to them."""
    repository = root / "models--someone--bundle"
    snapshot = repository / "snapshots" / ("c" * 40)
    (repository / "blobs").mkdir(parents=True)
    for file in [p for p in bundle.rglob("*") if p.is_file()]:
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        link = snapshot / file.relative_to(bundle)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


# ---- files and links


@pytest.mark.parametrize(
    "name",
    [
        "processor/added_tokens.json",
        "report/my-notes.txt",
        "onnx/more.bin",
        "engines/x/a.so",
        "notes.txt",
    ],
)
def test_what_is_not_listed_is_refused(copy, name):
    (copy / name).parent.mkdir(parents=True, exist_ok=True)
    (copy / name).write_text("{}")
    with pytest.raises(LuvcError, match=f"{name} is not listed in the manifest; if it is yours"):
        Bundle.load(copy)


def test_what_the_hub_and_a_stopped_build_leave_is_no_harm(copy):
    for name in (
        ".gitattributes",
        "README.md",
        ".cache/huggingface/x",
        ".engines.luvc-9-ab/a.plan",
        "engines/tensorrt-sm90-11.4/step.plan",
    ):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("")
    Bundle.load(copy, verify=True)


@pytest.mark.parametrize(
    "name", ["processor/chat_template.jinja", "onnx/weights.safetensors", MANIFEST]
)
@pytest.mark.parametrize("inside", [False, True])
def test_links_are_refused(copy, tmp_path, name, inside):
    """Also those to another file of the bundle, and those that nothing lists."""
    (copy / name).rename(copy / "engines" if inside else tmp_path / "elsewhere")
    (copy / name).symlink_to(copy / "engines" if inside else tmp_path / "elsewhere")
    with pytest.raises(LuvcError, match=r"leaves the bundle"):
        Bundle.load(copy)


def test_a_folder_that_is_a_link_is_refused(copy, tmp_path):
    (copy / "processor").rename(tmp_path / "elsewhere")
    (copy / "processor").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LuvcError, match="leaves the bundle"):
        Bundle.load(copy)
    shutil.rmtree(copy)


def test_an_empty_folder_that_is_a_link_is_refused(copy, tmp_path):
    """luvc-build would make folders behind it."""
    (tmp_path / "elsewhere").mkdir()
    (copy / "engines").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LuvcError, match="engines is a link"):
        Bundle.load(copy, engines=False)


def test_a_bundle_in_the_hubs_cache_answers(workshop, picture, tmp_path):
    plain = workshop.bundle("qwen2")
    snapshot = in_the_hubs_cache(plain.path, tmp_path / "hub")
    found = VLM.load(snapshot, backend="ort", threads=1, verify=True)
    wanted = VLM.load(plain.path, backend="ort", threads=1)
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": "Why?"}]
    batch = [[{"role": "user", "content": parts}]] * 2  # whose steps have weights of their own
    for messages in (batch[0], batch):
        answers = [vlm.generate(messages, max_new_tokens=6) for vlm in (found, wanted)]
        ids = [[a.token_ids for a in (x if isinstance(x, list) else [x])] for x in answers]
        assert ids[0] == ids[1]


@pytest.mark.parametrize(
    "target", ["another repository", "above the blobs", "a host file", "a linked blob"]
)
def test_links_out_of_the_hubs_cache_are_refused(workshop, tmp_path, target):
    snapshot = in_the_hubs_cache(workshop.bundle("qwen2").path, tmp_path / "hub")
    file = snapshot / "processor" / "chat_template.jinja"
    text, blob = file.read_text(), file.resolve()
    other = {
        "another repository": tmp_path / "hub" / "models--someone--else" / "blobs" / blob.name,
        "above the blobs": snapshot.parents[1] / blob.name,
    }.get(target, tmp_path / "secret")
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_text(text)
    (blob if target == "a linked blob" else file).unlink()
    (blob if target == "a linked blob" else file).symlink_to(other)
    with pytest.raises(LuvcError, match="leaves the bundle"):
        Bundle.load(snapshot)


# ---- the manifest


def change(bundle: Path, place: str, value) -> None:
    """Set a value of the manifest, by its place as "language.layers"."""
    data = json.loads((bundle / MANIFEST).read_text())
    *way, last = [int(x) if x.isdigit() else x for x in place.split(".")]
    inner = data
    for step in way:
        inner = inner[step]
    inner[last] = value
    (bundle / MANIFEST).write_text(json.dumps(data))


FILE = {"bytes": 1, "sha256": ""}
PLAN = {
    "graph": "onnx/a.onnx",
    "file": "engines/tensorrt-sm90-11.4/a.plan",
    "key": "",
    "profiles": [],
}
ENGINE = {"backend": "tensorrt", "arch": "sm90", "version": "11.4", "plugins": "aot", "graphs": []}
OTHER = "/../../../../other-repository/luvc_vision/1/model_sm90"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("engines", [ENGINE | {"arch": OTHER}]),
        ("engines", [ENGINE | {"version": "../../11.4"}]),
        ("engines", [ENGINE | {"backend": "../tensorrt"}]),
        ("engines", [ENGINE | {"graphs": [PLAN | {"file": "onnx/weights.safetensors"}]}]),
        ("engines", [ENGINE | {"graphs": [PLAN | {"file": "engines/../onnx/a.plan"}]}]),
        ("engines", [ENGINE | {"graphs": [PLAN | {"file": "/home/somebody/a.plan"}]}]),
        ("engines", [ENGINE | {"graphs": [PLAN | {"file": "engines/tensorrt-sm89-11.4/a.plan"}]}]),
        ("files", {"processor/../onnx/weights.safetensors": FILE}),
        ("files", {"onnx/./weights.safetensors": FILE}),
        ("files", {"onnx//weights.safetensors": FILE}),
        ("files", {"": FILE}),
        ("files", {"processor/a\x1b[2J": FILE}),
        ("layouts.0.name", "../../x"),
        ("layouts.0.name", "a\x1b[2J"),
        ("layouts.0.graphs.step", "/etc/passwd"),
        ("layouts.0.graphs.step", "onnx/../../x.onnx"),
        ("family", "a/b"),
        ("model", "x\x1b]0;owned\x07"),
        ("created", "now\n\x1b[1A"),
        ("versions", {"torch": "\x9b2J"}),
        ("language.layers", 8e9),
        ("language.layers", 5),
        ("language.vocab_size", 1 << 62),
        ("language.head_dim", -1),
        ("text_capacity", 1 << 40),
        ("parameters", 1 << 70),
        ("layouts.0.image_size", [1 << 40, 1]),
        ("layouts.0.pixel_shape", [1 << 20, 1 << 20]),
        ("layouts.0.expansion", [["x" * 4000, 1 << 24]]),
        ("layouts.0.sampling", "all"),
        ("layouts.0.schedule.language", [{"layer": 1 << 40, "keep": 1}]),
        ("layouts.0.stages.0.last", 10**12),
        ("layouts.0.ratios.both", float("inf")),
        ("language.time_scale", float("nan")),
    ],
)
def test_texts_and_numbers_of_a_manifest_have_bounds(copy, place, value):
    change(copy, place, value)
    start = time.perf_counter()
    with pytest.raises(LuvcError, match="is not valid") as caught:
        Bundle.load(copy)
    message = str(caught.value).replace(str(copy), "")
    assert len(message) < 600 and message.isprintable() and time.perf_counter() - start < 1


def test_a_long_value_is_not_echoed(copy):
    change(copy, "dtype", "\x1b[31m" + "x" * 100_000)
    with pytest.raises(LuvcError) as caught:
        Bundle.load(copy)
    assert len(str(caught.value)) < 1000 and "\x1b" not in str(caught.value)


def test_bounds_leave_room_for_the_largest_models(workshop):
    """Of published models: 126 layers, 262,208 words, 10 million positions, 405 billion parameters."""
    data = workshop.bundle("qwen2").manifest.model_dump()
    data["parameters"] = 405_000_000_000
    data["language"] |= {
        "layers": 126,
        "layer_types": ("full",) * 126,
        "hidden": 16384,
        "kv_heads": 128,
        "head_dim": 256,
        "vocab_size": 262_208,
        "max_positions": 10_485_760,
    }
    Manifest.model_validate(data)


# ---- while it is replaced


def test_a_bundle_that_is_replaced_while_it_is_loaded_is_read_again(copy, workshop, monkeypatch):
    """The sizes of the other bundle's files would be damage by the first one's manifest."""
    plain, other = Bundle._check_files, workshop.bundle("qwen2", 1).path
    checked = []

    def check(self, verify, engines):
        checked.append(self.manifest)
        if len(checked) == 1:
            shutil.rmtree(copy)
            shutil.copytree(other, copy)
        plain(self, verify, engines)

    monkeypatch.setattr(Bundle, "_check_files", check)
    assert Bundle.load(copy, verify=True).manifest == Bundle.load(other).manifest
    assert checked[0] != checked[1]


def test_damage_stays_damage(copy, monkeypatch):
    checked, plain = [], Bundle._check_files
    monkeypatch.setattr(Bundle, "_check_files", lambda *a: checked.append(1) or plain(*a))
    os.truncate(copy / "onnx/weights.safetensors", 100)
    with pytest.raises(LuvcError, match="has 100 bytes"):
        Bundle.load(copy)
    assert len(checked) == 1
