"""A bundle pushed to the hub: one commit, its card, what is refused and leaves the repository as it was."""

import json
import os
import shutil

import pytest
from huggingface_hub import ModelCard

from luvc.engines import VLM, Bundle
from luvc.engines.bundle.folder import MANIFEST
from luvc.engines.bundle.readme import README, is_sealed
from luvc.engines.hub.fetching import open_bundle
from luvc.engines.hub.pushing import check_access, public, push
from luvc.errors import LuvcError

from .conftest import changed, files_of
from .standin import OWNER, TOKEN, Refused

ID = f"{OWNER}/bundle"


def test_what_is_pushed_is_the_bundle_with_its_card(logged_in, workshop, plain):
    with workshop.vlm("qwen2") as vlm:
        address = vlm.push_to_hub(ID, private=True, commit_message="Half the work")
    repository = logged_in.repositories[ID]
    assert repository.private and address.endswith(repository.branches["main"])
    assert len(repository.commits) == 2  # the hub's own, and this one
    files = dict(repository.head())
    card, manifest = files.pop(README).decode(), json.loads(files.pop(MANIFEST))
    assert files.pop(".gitattributes")
    wanted = files_of(plain.path)
    assert files == {name: wanted[name] for name in plain.manifest.files}
    # where the checkpoint lay is nobody's matter
    own = json.loads(wanted[MANIFEST])
    assert os.path.isabs(own["model"]) and manifest["model"] == os.path.basename(own["model"])
    assert manifest == own | {"model": manifest["model"]} and own["model"] not in card
    assert ModelCard(card).data.to_dict()["library_name"] == "luvc-export" and is_sealed(
        card.encode()
    )
    found = open_bundle(ID, verify=True)
    assert found.manifest == public(plain.manifest)
    assert not [
        path for path in logged_in.asked if path.startswith("PUT") and "/large/" not in path
    ]


def test_a_name_alone_is_ones_own_and_a_branch_is_made(hub, plain):
    push(plain, "bundle", revision="v2", token=TOKEN)
    repository = hub.repositories[ID]
    assert MANIFEST in repository.head("v2") and MANIFEST not in repository.head("main")
    assert open_bundle(ID, revision="v2").manifest == public(plain.manifest)
    push(plain, "bundle", revision="v2", token=TOKEN)  # nothing is new but the commit
    assert repository.head("v2")[README]


def test_an_earlier_bundle_is_replaced_and_a_page_that_people_wrote_is_left(logged_in, plain):
    earlier = {"onnx/step-old.onnx": b"old", "engines/a/b.plan": b"old", "LICENSE": b"terms"}
    logged_in.put(ID, changed(files_of(plain.path) | earlier, created="before"))
    push(plain, ID)
    files = logged_in.repositories[ID].head()
    assert set(files) == {MANIFEST, README, "LICENSE", ".gitattributes", *plain.manifest.files}
    generated = files[README]
    files[README] = generated.replace(b"# ", b"# My ")
    with pytest.warns(UserWarning, match=f"the README.md of {ID} was written or changed"):
        push(plain, ID)
    assert (
        logged_in.repositories[ID].head()[README].startswith(b"---") and b"# My " in files[README]
    )
    assert logged_in.repositories[ID].head()[README] == files[README]
    logged_in.repositories[ID].commit("main", files | {README: generated})
    push(plain, ID)
    assert logged_in.repositories[ID].head()[README] == generated


def test_engines_stay_at_home(logged_in, plain, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(plain.path, bundle)
    plan = "engines/tensorrt-sm90-11.4/step.plan"
    (bundle / plan).parent.mkdir(parents=True)
    (bundle / plan).write_bytes(b"native")
    manifest = json.loads((bundle / MANIFEST).read_text())
    graph = {
        "graph": manifest["layouts"][0]["graphs"]["step"],
        "file": plan,
        "key": "",
        "profiles": [],
    }
    kind = {"backend": "tensorrt", "arch": "sm90", "version": "11.4", "plugins": "aot"}
    manifest["engines"] = [kind | {"graphs": [graph]}]
    sha = "5c8ff6b8ee6e45ca1aa0b1ae4d0a3bfa7b5b0f8b6f6c6d4c5d3a7a3b2c1d0e9f"
    manifest["files"][plan] = {"bytes": 6, "sha256": sha}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    push(Bundle.load(bundle), ID)
    files = logged_in.repositories[ID].head()
    assert plan not in files and plan not in json.loads(files[MANIFEST])["files"]
    assert json.loads(files[MANIFEST])["engines"] == []
    assert Bundle.load(bundle).manifest.engines  # it keeps them


def test_refusals_leave_the_repository_as_it_was(hub, plain, monkeypatch):
    checkpoint = {"config.json": b"{}", "model.safetensors": b"x"}
    hub.put(f"{OWNER}/checkpoint", checkpoint)
    hub.put(f"{OWNER}/open", {})
    hub.put("someone/else", {})
    hub.put(f"{OWNER}/ignoring", {".gitignore": b"report/validation-168x168-ort.json"})
    before = {name: dict(found.branches) for name, found in hub.repositories.items()}
    cases = [
        (f"{OWNER}/checkpoint", {}, "holds config.json, which no bundle has"),
        (
            f"{OWNER}/open",
            {"private": True},
            "is public on the hub, and private=True was asked for",
        ),
        ("someone/else", {}, r"the hub refuses it .*; log in with"),
        ("a/b/c", {}, "it is no hub id, which is NAME or OWNER/NAME"),
        (f"{OWNER}/open", {"token": "hf_wrong"}, "the hub refuses it .* of one who may"),
    ]
    for name, options, message in cases:
        with pytest.raises(LuvcError, match=message):
            push(plain, name, **{"token": TOKEN} | options)
    assert {name: dict(found.branches) for name, found in hub.repositories.items()} == before
    with pytest.raises(LuvcError, match=r"lacks report/validation-168x168-ort.json after the push"):
        push(plain, f"{OWNER}/ignoring", token=TOKEN)


def test_who_pushes_meanwhile_wins(logged_in, plain):
    repository = logged_in.put(ID, {})

    def meanwhile():
        logged_in.before_commit = lambda: None
        repository.commit("main", {"README.md": b"# theirs"})

    logged_in.before_commit = meanwhile
    with pytest.raises(LuvcError, match=r"somebody changed it meanwhile .*; try again"):
        push(plain, ID)
    assert repository.head() == {"README.md": b"# theirs"}


def test_a_damaged_bundle_is_not_pushed(logged_in, plain, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(plain.path, bundle)
    found = Bundle.load(bundle)
    template = bundle / "processor" / "chat_template.jinja"
    template.write_text("x" * template.stat().st_size)
    with pytest.raises(LuvcError, match="was changed"):
        push(found, ID)
    assert logged_in.repositories == {} and logged_in.asked == []


@pytest.mark.parametrize(
    ("name", "token", "message"),
    [
        (ID, None, "nothing can be pushed to owner/bundle: nobody is logged in; log in with"),
        (ID, "hf_wrong", "the hub refuses it"),
        ("a b", TOKEN, "it is no hub id"),
        ("checkpoint", TOKEN, "owner/checkpoint holds config.json, which no bundle has"),
    ],
)
def test_a_push_that_cannot_work_is_refused_before_the_work(hub, name, token, message):
    hub.put(f"{OWNER}/checkpoint", {"config.json": b"{}"})
    with pytest.raises(LuvcError, match=message):
        check_access(name, token)
    check_access(ID, TOKEN)
    assert ID not in hub.repositories


# ---- luvc-export --push-to-hub


def test_an_export_is_pushed(logged_in, command, workshop, tmp_path, monkeypatch):
    from luvc.exporter import cli

    model = tmp_path / "checkpoint"
    shutil.copytree(workshop.checkpoint(layers=3, vision_layers=1, image=112), model)
    (model / README).write_text("---\nlicense: mit\ntags: [a]\n---\n# A model\n")
    line = "--model", model, "--ratio", "1.23x", "--text-tokens", 8, "--text-capacity", 96
    where = "--output", tmp_path / "bundle"
    monkeypatch.delenv("HF_TOKEN")
    refused = command(cli, *line, *where, "--push-to-hub", ID)
    assert refused.code == 2 and "nobody is logged in" in refused.err
    assert not (tmp_path / "bundle").exists()
    alone = command(cli, *line, *where, "--private")
    assert alone.code == 2 and "--private is of --push-to-hub" in alone.err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    done = command(cli, *line, *where, "--push-to-hub", ID, "--private", "--json")
    assert done.code == 0, done.err
    repository = logged_in.repositories[ID]
    assert repository.private and json.loads(done.out)["pushed"].endswith(
        repository.branches["main"]
    )
    card = ModelCard(repository.head()[README].decode())
    assert card.data.to_dict()["license"] == "mit" and "all 3 language layers" in card.text
    logged_in.before_commit = lambda: (_ for _ in ()).throw(Refused(403, message="no"))
    with pytest.raises(LuvcError) as caught:
        cli._push(Bundle.load(tmp_path / "bundle"), ID, False, lambda step: None)
    said = str(caught.value)
    assert "is written and not uploaded" in said and ".push_to_hub('owner/bundle')" in said
    logged_in.before_commit = lambda: None
    with VLM.load(tmp_path / "bundle", backend="ort", threads=1) as vlm:
        vlm.push_to_hub(ID)
