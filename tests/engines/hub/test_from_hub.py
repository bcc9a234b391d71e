"""A bundle by its hub id: what is downloaded, what is checked, what refusals say."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from luvc.engines import VLM, Bundle
from luvc.engines.bundle.folder import MANIFEST
from luvc.engines.hub.fetching import open_bundle
from luvc.errors import LuvcError

from ...conftest import ask
from .conftest import TEMPLATE, changed, files_of
from .standin import TOKEN

ID = "someone/bundle"
PLAN = "engines/tensorrt-sm90-11.4/step.plan"


def with_engine(files: dict[str, bytes]) -> dict[str, bytes]:
    """A bundle's files, with an engine that its manifest lists."""
    manifest = json.loads(files[MANIFEST])
    graph = manifest["layouts"][0]["graphs"]["step"]
    plan = {"graph": graph, "file": PLAN, "key": "", "profiles": []}
    engine = {"backend": "tensorrt", "arch": "sm90", "version": "11.4", "plugins": "aot"}
    manifest["engines"] = [engine | {"graphs": [plan]}]
    manifest["files"][PLAN] = {"bytes": 6, "sha256": ""}
    return files | {PLAN: b"native", MANIFEST: json.dumps(manifest).encode()}


def test_a_bundle_of_the_hub_answers_and_only_what_it_lists_is_downloaded(hub, plain, picture):
    strange = {"README.md": b"# mine", "setup.py": b"import os", "onnx/more.bin": b"x"}
    hub.put(ID, with_engine(files_of(plain.path)) | strange)
    found = VLM.from_pretrained(ID, backend="ort", threads=1, verify=True)
    wanted = VLM.load(plain.path, backend="ort", threads=1)
    answers = [vlm.generate(ask("Why?", picture), max_new_tokens=6) for vlm in (found, wanted)]
    assert answers[0].token_ids == answers[1].token_ids
    assert found.manifest.engines == () and found.manifest.model == plain.manifest.model
    there = set(files_of(found.bundle.path))
    assert there == set(files_of(plain.path)) == {MANIFEST, *plain.manifest.files}
    downloads = [path for path in hub.asked if "/resolve/" in path]
    assert not [path for path in downloads if path.endswith(("README.md", ".py", ".bin", ".plan"))]
    assert len(downloads) > len(there)  # each is looked up, large ones also fetched elsewhere


def test_a_folder_is_loaded_as_ever(hub, plain):
    assert open_bundle(plain.path).manifest == plain.manifest
    with pytest.raises(LuvcError, match=r"revision v1 is for hub ids, and .* is here on the disk"):
        open_bundle(plain.path, revision="v1")
    assert hub.asked == []


def test_branches_commits_and_the_cache(hub, plain, monkeypatch, tmp_path):
    files = files_of(plain.path)
    repository = hub.put(ID, files)
    first = repository.branches["main"]
    repository.branches["v2"] = first
    repository.commit("v2", changed(files, created="2"))
    assert open_bundle(ID, revision="v2").manifest.created == "2"
    repository.commit("main", changed(files, created="3"))
    assert open_bundle(ID).manifest.created == "3"
    assert open_bundle(ID, revision=first).manifest == plain.manifest
    place = tmp_path / "other-cache"
    with pytest.raises(LuvcError, match="the cache does not hold it"):
        open_bundle(ID, cache_dir=place, local_files_only=True)
    assert open_bundle(ID, cache_dir=place).path.is_relative_to(place)
    asked = len(hub.asked)
    assert open_bundle(ID, cache_dir=place, local_files_only=True).manifest.created == "3"
    assert len(hub.asked) == asked  # nobody was asked
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere + TEMPLATE)
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # before it is tried again
    assert open_bundle(ID).manifest.created == "3"  # not reached, and not needed
    with pytest.raises(
        LuvcError, match="the cache does not hold it, and nothing comes from the hub"
    ):
        open_bundle("someone/else")


def test_a_download_that_was_stopped_goes_on(hub, plain):
    hub.put(ID, files_of(plain.path))
    folder = open_bundle(ID).path
    lost = folder / "onnx" / "weights.safetensors"
    lost.resolve().unlink()
    lost.unlink()
    with pytest.raises(LuvcError, match="the cache does not hold it"):
        open_bundle(ID, local_files_only=True)
    assert open_bundle(ID).path == folder


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("someone/nothing", {}, "the hub has no such repository, or it is private; check the name"),
        ("owner/secret", {}, "it is private; check the name, or log in with `hf auth login`"),
        ("owner/gated", {"token": TOKEN}, "it is gated; ask for access on its page"),
        (
            "owner/checkpoint",
            {},
            "owner/checkpoint is no bundle: it has no manifest.json; .* --model",
        ),
        (ID, {"revision": "v9"}, "it has no such branch, tag or commit; check revision="),
        ("a/b/c", {}, "there is no folder a/b/c: give a bundle's folder, or its hub id"),
        ("./bundle", {}, "there is no folder ./bundle"),
        ("some one", {}, "it is no hub id, which is NAME or OWNER/NAME"),
        ("a\x1b[2J", {}, "there is no folder"),
    ],
)
def test_refusals(hub, plain, source, options, message):
    hub.put(ID, files_of(plain.path))
    hub.put("owner/secret", files_of(plain.path), private=True)
    hub.put("owner/gated", files_of(plain.path), gated=True)
    hub.put("owner/checkpoint", {"config.json": b"{}", "model.safetensors": b"x"})
    with pytest.raises(LuvcError, match=message) as caught:
        open_bundle(source, **options)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_a_private_bundle_with_a_token(hub, plain):
    hub.put("owner/secret", files_of(plain.path), private=True)
    assert open_bundle("owner/secret", token=TOKEN).manifest == plain.manifest
    assert hub.elsewhere == {None}  # the token goes to the hub alone


def test_offline(hub, plain, monkeypatch):
    hub.put(ID, files_of(plain.path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(LuvcError, match=r"the cache does not hold it.*HF_HUB_OFFLINE"):
        open_bundle(ID)
    assert hub.asked == []


def test_a_bundle_of_the_hub_is_checked_as_any_other(hub, plain):
    files = files_of(plain.path)
    template = files["processor/chat_template.jinja"]
    manifest = json.loads(files[MANIFEST])
    manifest["files"]["../../../stolen"] = {"bytes": 1, "sha256": ""}
    cases = {
        "leaves the bundle": {MANIFEST: json.dumps(manifest).encode()},
        "has 1 bytes, the manifest says": {"processor/chat_template.jinja": b"x"},
        "was changed": {"processor/chat_template.jinja": b"x" * len(template)},
    }
    for number, (message, change) in enumerate(cases.items()):
        hub.put(f"someone/{number}", files | change)
        with pytest.raises(LuvcError, match=message):
            open_bundle(f"someone/{number}", verify=True)
    del files["processor/chat_template.jinja"]
    hub.put("someone/less", files)
    with pytest.raises(LuvcError, match=r"processor/chat_template.jinja is missing"):
        open_bundle("someone/less")


def test_a_bundle_that_the_disk_does_not_hold_is_not_begun(hub, plain):
    files = files_of(plain.path)
    manifest = json.loads(files[MANIFEST])
    manifest["files"]["onnx/weights.safetensors"]["bytes"] = 1 << 49
    hub.put(ID, files | {MANIFEST: json.dumps(manifest).encode()})
    with pytest.raises(LuvcError, match="MiB free"):
        open_bundle(ID)
    assert not [path for path in hub.asked if path.endswith(".safetensors")]


def test_the_hubs_own_environment_variables_in_a_fresh_process(hub, plain, tmp_path):
    hub.put(ID, files_of(plain.path))
    code = f"from luvc.engines.hub.fetching import open_bundle\nprint(open_bundle({ID!r}).path)"
    env = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env, "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.is_relative_to(tmp_path / "home") and Bundle.load(path).manifest == plain.manifest
