"""Where a checkpoint comes from: hub ids, their commits and their download; what a bundle says of it."""

import json
import shutil
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import Any

import pytest

from luvc.engines import Bundle
from luvc.engines.bundle.folder import sha256
from luvc.errors import LuvcError
from luvc.exporter import assemble, cli
from luvc.exporter import cli_plan as plan
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.checkpoint.hub import checkpoint_of, locate
from luvc.exporter.checkpoint.weights import fetch_weights, load_model
from luvc.exporter.layouts.planned import image_geometry
from luvc.tools import validate as validate_tool
from luvc.tools.bench.systems import hugging_face
from luvc.tools.eval.answering import load

SHAPE = {"vision_layers": 1, "image": 112}
LAYERS = {"main": 4, "v2": 3}  # of the model at each branch
COMMITS = {"main": "a" * 40, "v2": "b" * 40}
ASKED = ("--model", "someone/model", "--revision", "v2")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The folder of someone/model in a hub's cache of its own; offline, as all tests are."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "models--someone--model"
    (folder / "refs").mkdir(parents=True)
    for branch, commit in COMMITS.items():
        (folder / "refs" / branch).write_text(commit)
    return folder


@pytest.fixture
def cached(hub, workshop):
    """The same with both branches, and terms as the hub's cache has files: as links."""
    for branch, commit in COMMITS.items():
        source = workshop.checkpoint(layers=LAYERS[branch], **SHAPE)
        shutil.copytree(source, hub / "snapshots" / commit)
    (hub / "blobs").mkdir()
    (hub / "blobs" / "terms").write_text("As is.\n")
    (hub / "snapshots" / COMMITS["v2"] / "LICENSE").symlink_to("../../blobs/terms")
    return hub


@pytest.fixture
def bundle(cached, command, tmp_path):
    """Of the branch v2, as the command writes it."""
    target = tmp_path / "bundle"
    small = ("--ratio", "1.23x", "--text-tokens", "8", "--text-capacity", "96", "--no-validate")
    result = command(cli, *ASKED, "--output", target, *small)
    assert result.code == 0, result.err
    return Bundle.load(target, verify=True)


def test_the_commit_is_recorded_and_read_again(cached, bundle, command):
    m = bundle.manifest
    assert (m.model, m.revision, m.language.layers) == ("someone/model", COMMITS["v2"], 3)
    for model in ((), ("--model", "someone/model")):
        result = command(validate_tool, bundle.path, *model)
        assert result.code == 0, result.err
    other = command(validate_tool, bundle.path, "--model", "someone/model@main")
    assert other.code == 2 and "is not the model this bundle was made from" in other.err
    in_pytorch: Any = load(bundle.path, "torch", None, 4, 1)
    assert in_pytorch.vlm.runner.family.commit == COMMITS["v2"]
    for model, commit in ((None, "v2"), ("someone/model@main", "main")):
        hugging_faces: Any = load(bundle.path, "hf", model, 4, 1)
        assert hugging_faces._family.commit == COMMITS[commit]


def test_a_benchmark_reads_the_commit(bundle, monkeypatch):
    plain, found = Family.load, []
    monkeypatch.setattr(Family, "load", lambda source: found.append(plain(source)) or found[-1])
    layout = bundle.manifest.layouts[0].name
    for model in (checkpoint_of(bundle.manifest), "someone/model@main"):
        about, _ = hugging_face(str(bundle.path), model, layout, "Why?", [], 1)
        assert about["model"] == "someone/model"
    assert [family.commit for family in found] == [COMMITS["v2"], COMMITS["main"]]


def test_terms_go_with_the_weights(bundle):
    name = "processor/LICENSE"
    assert bundle.file(name).read_text() == "As is.\n" and not bundle.file(name).is_symlink()
    assert bundle.manifest.files[name].sha256 == sha256(bundle.file(name))


def test_terms_of_a_directory(workshop, tmp_path):
    source = shutil.copytree(workshop.checkpoint(layers=3, **SHAPE), tmp_path / "checkpoint")
    for name in ("LICENSE.txt", "NOTICE", "README.md"):
        (source / name).write_text(name)
    (source / "LICENSES").mkdir()
    family, target = Family.load(str(source)), tmp_path / "processor"
    assemble.write_processor(family, load_model(family), target)
    assert (family.commit, family.model) == (None, str(source.resolve()))
    written = {p.name for p in target.iterdir()}
    assert written & {"LICENSE.txt", "NOTICE", "README.md", "LICENSES"} == {"LICENSE.txt", "NOTICE"}


def test_bundles_of_before_have_no_revision(bundle):
    file = bundle.path / "manifest.json"
    data = json.loads(file.read_text())
    assert data.pop("revision") == COMMITS["v2"]
    file.write_text(json.dumps(data))
    old = Bundle.load(bundle.path).manifest
    assert old.revision is None and checkpoint_of(old) == "someone/model"
    assert checkpoint_of(bundle.manifest, "/elsewhere") == "/elsewhere"


def test_a_plan_is_of_the_revision(cached, command):
    for branch, layers in LAYERS.items():
        result = command(plan, *ASKED[:3], branch, "--ratio", "1x", "--json")
        assert result.code == 0, result.err
        (found,) = json.loads(result.out)["plans"]
        assert found["layout"]["stages"][-1]["last"] + 1 == layers
    assert Family.load("someone/model").commit == COMMITS["main"]
    refused = command(plan, "--model", "someone/model", "--revision", "v9")
    assert refused.code == 2 and "no checkpoint can be read at 'someone/model@v9'" in refused.err


def test_a_directory_has_no_revision(command, workshop, tmp_path, monkeypatch):
    source = workshop.checkpoint(layers=3, **SHAPE)
    refused = command(plan, "--model", source, "--revision", "v2")
    assert refused.code == 2 and "--revision v2 is for hub ids" in refused.err
    assert "--revision: " in command(plan, "--model", "someone/model", "--revision", "").err
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LuvcError, match=r"model is a directory here, .* write \./model"):
        Family.load("model@v2")
    with pytest.raises(LuvcError, match=r"no directory /nowhere: .* with --model"):
        Family.load("/nowhere")


# ---- download


class Told(list):
    """What a display of steps was told, and when it made room for bars."""

    __call__ = list.append

    @contextmanager
    def aside(self):
        self.append("bars")
        yield


@pytest.fixture
def remote(hub, workshop, monkeypatch):
    """A sharded model on a stand-in for the hub; of it the cache has config.json -> asked patterns."""
    source = workshop.checkpoint(layers=3, shard="400KB", **SHAPE)
    snapshot = hub / "snapshots" / COMMITS["main"]
    snapshot.mkdir(parents=True)
    shutil.copy(source / "config.json", snapshot)
    asked = []

    def download(model, *, revision, allow_patterns):
        assert model == "someone/model" and revision in (None, "main", COMMITS["main"])
        asked.append(allow_patterns)
        for file in source.iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, snapshot)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return asked


def test_weights_are_downloaded_once_in_a_step_of_their_own(remote, workshop):
    family, told = Family.load("someone/model"), Told()
    assert family.tokenizer and family.image_processor and image_geometry(family)
    weights = workshop.checkpoint(layers=3, shard="400KB", **SHAPE).glob("*.safetensors")
    shards = {file.name for file in weights}
    assert len(shards) > 2 and not list(family.folder.glob("*.safetensors"))
    fetch_weights(family, told)
    assert told == ["downloading the weights", "bars"]
    assert {file.name for file in family.folder.glob("*.safetensors")} == shards
    assert shards <= set(remote[-1]) and len(remote) == 2
    fetch_weights(family, told)
    assert load_model(family) and len(told) == len(remote) == 2


def test_weights_in_one_file_or_as_pickles(remote):
    family = Family.load("someone/model")
    (family.folder / "model.safetensors.index.json").unlink()
    (family.folder / "pytorch_model.bin").write_bytes(b"")
    fetch_weights(family)
    assert len(remote) == 1, "the file is there"
    (family.folder / "pytorch_model.bin").unlink()
    with pytest.raises(
        LuvcError, match=r"no model\.safetensors or pytorch_model\.bin, and none was"
    ):
        fetch_weights(family)
    assert remote[1:] == [["model.safetensors"], ["pytorch_model.bin"]]


def test_weights_that_the_cache_lacks_offline(cached):
    snapshot = cached / "snapshots" / COMMITS["main"]
    (snapshot / "model.safetensors").unlink()
    family = Family.load("someone/model")
    with pytest.raises(LuvcError, match="go online if HF_HUB_OFFLINE is set"):
        load_model(family)


def test_a_download_that_fails(remote, monkeypatch):
    family = Family.load("someone/model")

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    with pytest.raises(
        LuvcError, match=r"someone/model: the weights cannot be downloaded: .*space"
    ):
        fetch_weights(family)


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "\x1b[2J", "\udcff", "a" * 5000])
def test_names_that_a_manifest_could_not_hold_are_refused_at_once(name):
    with pytest.raises(LuvcError, match="control characters in its name, or more than"):
        locate(name)
