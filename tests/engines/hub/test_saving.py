"""A bundle saved elsewhere: whole, with its page, and nobody's files lost."""

import shutil

import pytest

from luvc.engines import Bundle
from luvc.engines.bundle.folder import MANIFEST
from luvc.engines.bundle.readme import README, is_generated, is_sealed, sealed
from luvc.engines.bundle.swap import check_target
from luvc.engines.hub.fetching import open_bundle
from luvc.engines.hub.saving import save
from luvc.errors import LuvcError

from .conftest import files_of


def test_a_copy_is_the_bundle_and_a_page(workshop, plain, tmp_path):
    with workshop.vlm("qwen2") as vlm:
        copy = vlm.save_pretrained(tmp_path / "new" / "copy")
    assert copy.path == tmp_path / "new" / "copy"
    files = files_of(copy.path)
    page = files.pop(README)
    assert files == files_of(plain.path)
    assert Bundle.load(copy.path, verify=True).manifest == plain.manifest
    assert is_sealed(page) and b"from_pretrained('copy')" in page
    save(copy, copy.path)  # onto itself
    assert files_of(copy.path) == files | {README: page}
    check_target(copy.path)  # an export may take its place


def test_links_of_the_hubs_cache_become_files(hub, plain, tmp_path):
    hub.put("someone/bundle", files_of(plain.path))
    found = open_bundle("someone/bundle")
    assert (found.path / MANIFEST).is_symlink()
    copy = save(found, tmp_path / "copy")
    assert not [path for path in copy.path.rglob("*") if path.is_symlink()]
    assert Bundle.load(tmp_path / "copy", verify=True).manifest == plain.manifest


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("notes.txt", "mine"),
        (README, "# Mine\n"),
        (README, sealed("# Generated\n").replace("Generated", "Changed")),
        (README, sealed("# Generated\n") + "mine\n"),
    ],
)
def test_what_somebody_wrote_is_not_replaced(plain, tmp_path, name, text):
    copy = save(plain, tmp_path / "copy").path
    (copy / name).write_text(text)
    before = files_of(copy)
    with pytest.raises(LuvcError, match=f"it holds {name}, which no export wrote"):
        save(plain, copy)
    assert files_of(copy) == before and [p.name for p in tmp_path.iterdir()] == ["copy"]
    Bundle.load(copy, engines=False) if name == README else None


def test_a_folder_of_something_else(plain, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(LuvcError, match="is not a bundle alone"):
        save(plain, tmp_path)
    (tmp_path / "link.md").symlink_to("letter.txt")
    assert not is_generated(tmp_path / "link.md") and not is_generated(tmp_path / "nothing.md")


def test_a_bundle_that_was_replaced_is_not_mixed(plain, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(plain.path, bundle)
    loaded = Bundle.load(bundle)
    manifest = (bundle / MANIFEST).read_text()
    sha = plain.manifest.files["onnx/weights.safetensors"].sha256
    (bundle / MANIFEST).write_text(manifest.replace(sha, "0" * 64))
    with pytest.raises(LuvcError, match="was replaced or removed since it was loaded"):
        save(loaded, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
