"""Bundles that are damaged, and those that change while they are loaded."""

import json
import os
import shutil

import pytest

from luvc.engines import Bundle
from luvc.engines.bundle.engine_files import store, working_folder
from luvc.engines.bundle.folder import MANIFEST
from luvc.engines.bundle.manifest import Engine, EngineFile
from luvc.engines.bundle.swap import replacing
from luvc.errors import LuvcError


def edit(bundle, change):
    path = bundle / MANIFEST
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_loads_and_verifies(copy):
    bundle = Bundle.load(copy, verify=True)
    listed = {copy / n for n in bundle.manifest.files} | {copy / MANIFEST}
    assert listed == {p for p in copy.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "is not a folder"),
        (lambda b: (b / MANIFEST).unlink(), "not a bundle"),
        (lambda b: (b / MANIFEST).write_text("{"), "not a readable manifest"),
        (lambda b: edit(b, lambda d: d.update(schema_version=99)), "upgrade luvc-export"),
        (lambda b: edit(b, lambda d: d.update(schema_version="2")), "not a readable manifest"),
        (lambda b: edit(b, lambda d: d.update(schema_version=0)), "export the bundle again"),
        (lambda b: edit(b, lambda d: d.pop("layouts")), "layouts"),
        (lambda b: edit(b, lambda d: d.update(surprise=1)), "surprise"),
        (lambda b: (b / "onnx/weights.safetensors").unlink(), "weights.safetensors is missing"),
        (lambda b: os.truncate(b / "onnx/weights.safetensors", 1000), "has 1000 bytes"),
        (
            lambda b: edit(b, lambda d: d["files"].update({"../evil": {"bytes": 1, "sha256": ""}})),
            "leaves the bundle",
        ),
        (
            lambda b: edit(
                b, lambda d: d["files"].update({"/etc/hostname": {"bytes": 1, "sha256": ""}})
            ),
            "leaves the bundle",
        ),
        (
            lambda b: edit(b, lambda d: d["layouts"][0]["graphs"].update(step="onnx/x.onnx")),
            "not listed",
        ),
    ],
)
def test_damage_is_named(copy, damage, message):
    damage(copy)
    with pytest.raises(LuvcError, match=message):
        Bundle.load(copy)


def test_a_link_out_of_the_bundle_is_refused(copy, tmp_path):
    outside = tmp_path / "outside.jinja"
    file = copy / "processor/chat_template.jinja"
    outside.write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(outside)
    with pytest.raises(LuvcError, match="leaves the bundle"):
        Bundle.load(copy)


def test_a_changed_byte_is_found_by_hash(copy):
    path = copy / "onnx/weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    Bundle.load(copy)
    with pytest.raises(LuvcError, match="SHA-256"):
        Bundle.load(copy, verify=True)


def test_a_manifest_that_cannot_be_written_leaves_no_draft(copy, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    bundle, names = Bundle.load(copy), {p.name for p in copy.iterdir()}
    monkeypatch.setattr("luvc.files.flush", full)
    with pytest.raises(LuvcError, match=r"manifest\.json cannot be written: the disk is full"):
        bundle.with_manifest(bundle.manifest)
    assert {p.name for p in copy.iterdir()} == names
    Bundle.load(copy, verify=True)


def add_engine(bundle, plan):
    """As luvc-build does, with one plan, of the vision graph -> the bundle and the plan's name."""
    engine = Engine(backend="tensorrt", arch="sm90", version="11.4", plugins="aot", graphs=())
    name = f"{engine.folder}/vision.plan"
    graph = bundle.manifest.layouts[0].graphs.vision
    file = EngineFile(graph=graph, file=name, key=plan, profiles=())
    with working_folder(bundle) as work:
        (work / "vision.plan").write_text(plan)
        return store(bundle, engine.model_copy(update={"graphs": (file,)}), work), name


def test_engines_that_are_added_do_not_disturb_who_has_loaded_the_bundle(copy):
    before = Bundle.load(copy)
    graph = before.manifest.layouts[0].graphs.step
    first, plan = add_engine(before, "one")
    for bundle, name in ((before, graph), (first, graph), (first, plan)):
        with bundle.opening(name) as path:
            assert path == copy / name and path.is_file()
    second, _ = add_engine(first, "another")
    with first.opening(graph) as path:
        assert path.is_file()
    with pytest.raises(LuvcError, match="was replaced"), first.opening(plan):
        pass
    with Bundle.load(copy, verify=True).opening(plan) as path, second.opening(plan) as same:
        assert path == same and path.read_text() == "another"


def test_a_bundle_that_was_replaced_opens_nothing_more(copy, workshop):
    loaded, opened = Bundle.load(copy), []
    graph = loaded.manifest.layouts[0].graphs.step
    with replacing(copy) as work:
        shutil.copytree(workshop.bundle("qwen2", 1).path, work, dirs_exist_ok=True)
    message = "bundle was replaced or removed since it was loaded: load it again"
    with pytest.raises(LuvcError, match=message), loaded.opening(graph) as path:
        opened.append(path)
    shutil.rmtree(copy)
    message = r"since it was loaded \(.*bundle is not a folder.*\): load it again"
    with pytest.raises(LuvcError, match=message), loaded.opening(graph) as path:
        opened.append(path)
    assert not opened


def test_the_same_bundle_copied_anew_is_no_other(copy, workshop):
    loaded = Bundle.load(copy)
    shutil.rmtree(copy)
    shutil.copytree(workshop.bundle("qwen2").path, copy)
    edit(copy, lambda data: data.update(created="later"))
    with loaded.opening(loaded.manifest.layouts[0].graphs.step) as path:
        assert path.is_file()


def test_a_bundle_that_is_replaced_while_a_file_is_opened(copy, workshop):
    """Whatever the opening came to: a session of the other model, or a file that is not there."""
    loaded, other = Bundle.load(copy), workshop.bundle("qwen2", 1).path
    graph = loaded.manifest.layouts[0].graphs.step
    with pytest.raises(LuvcError, match="was replaced"), loaded.opening(graph):
        shutil.copy(other / MANIFEST, copy)
    shutil.copy(workshop.bundle("qwen2").path / MANIFEST, copy)
    with pytest.raises(LuvcError, match="was replaced"), loaded.opening(graph) as path:
        shutil.rmtree(copy)
        path.read_bytes()
