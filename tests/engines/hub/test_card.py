"""The model card: all of it is the bundle's own, and the hub's library reads its tags."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from luvc.engines import Bundle
from luvc.engines.bundle.license import FILE, License
from luvc.engines.hub.card import card
from luvc.engines.validate import Report
from luvc.exporter.checkpoint.license import license_of

from .conftest import changed, files_of


def told(bundle: Bundle, **values) -> ModelCard:
    """The card of a bundle whose manifest says something else."""
    return ModelCard(card(replace(bundle, manifest=bundle.manifest.model_copy(update=values)), "x"))


def test_figures_are_those_of_manifest_and_reports(plain):
    m, page = plain.manifest, card(plain, "owner/bundle")
    (layout,) = m.layouts
    (report,) = (plain.path / "report").glob("validation-*.json")
    found = Report.model_validate(json.loads(report.read_text()))
    row = next(line for line in page.splitlines() if line.startswith(f"| {layout.name} | 1 of"))
    assert (
        f"| {layout.ratios.prefill:.2f}x | {layout.ratios.vision:.2f}x | {layout.ratios.both:.2f}x |"
        in row
    )
    for prune in layout.schedule.language:
        assert f"{prune.layer}: {prune.keep}" in row
    worst = max(stage.relative_error for stage in found.stages)
    assert f"| {worst:.1e} | {min(k.overlap for k in found.kept):.2%} |" in page
    assert f"{found.greedy_equal} of {found.greedy_tokens} equal" in page
    assert f"all {m.language.layers} language layers" in page and f"{m.parameters:,}" in page
    # no other number stands in it
    text = page.partition("## Use")[2].partition("<!--")[0]
    allowed = json.dumps(m.model_dump(mode="json")) + report.read_text() + row + "max_new_tokens=64"
    allowed += f"{worst:.1e} 100.00%"
    unknown = {n for n in re.findall(r"\d+(?:\.\d+)?", text) if n not in allowed}
    assert not unknown


def test_tags_as_the_hubs_library_reads_them(plain):
    assert told(
        plain
    ).data.to_dict() == {  # no base model and no license: a folder, which says none
        "library_name": "luvc-export",
        "pipeline_tag": "image-text-to-text",
        "tags": ["luvc", "onnx", "vision-language-model", plain.manifest.family],
    }
    of_hub = told(plain, model="OpenGVLab/InternVL3-1B-hf", revision="c" * 40)
    assert of_hub.data.to_dict()["base_model"] == "OpenGVLab/InternVL3-1B-hf"
    assert "# InternVL3-1B-hf at" in of_hub.text and "c" * 40 in of_hub.text


def test_what_was_not_validated_is_said(plain):
    assert "Not validated: `luvc-validate`" in told(plain, validated=False, validated_layers=0).text
    some = told(plain, validated=False, validated_layers=2).text
    assert "the first 2 of 4 language layers, which is what memory held" in some


def test_names_are_no_markup(plain):
    page = told(plain, model="`a|b`<script>", created="<b>|`", revision="`|<x>").text
    body = page.partition("<!-- generated")[0]
    assert "<" not in body.replace("<=", "") and "`a|" not in body


def test_the_python_it_shows_runs(workshop, plain, picture, tmp_path, monkeypatch):
    from PIL import Image

    Image.fromarray(picture).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", card(plain, str(plain.path)), re.S)
    assert len(code.splitlines()) <= 6
    exec(compile(code.replace("64", "2"), "card", "exec"), {})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("---\nlicense: apache-2.0\n---\n", License(license="apache-2.0")),
        (
            "---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\n---\n# A\n",
            License(license="other", license_name="own", license_link="LICENSE"),
        ),
        ("# No front matter\n", None),
        ("---\ntags: [a]\n---\n", None),
    ],
)
def test_a_license_is_what_the_checkpoint_says(tmp_path, text, wanted):
    (tmp_path / "README.md").write_text(text)
    assert license_of(tmp_path) == wanted


@pytest.mark.parametrize("text", ["---\nlicense: [a, b]\n---\n", "---\nlicense: {\n---\n"])
def test_a_license_that_is_none_is_said(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    with pytest.warns(UserWarning, match="the license in .*; the bundle names none"):
        assert license_of(tmp_path) is None
    assert license_of(tmp_path / "nowhere") is None


def test_the_license_is_carried_to_the_card(plain, tmp_path):
    shutil.copytree(plain.path, tmp_path / "bundle")
    data = License(license="other", license_name="own").model_dump_json(exclude_none=True)
    (tmp_path / "bundle" / FILE).write_text(data)
    listed = plain.manifest.model_dump(mode="json")["files"] | {
        FILE: {"bytes": len(data), "sha256": ""}
    }
    manifest = changed(files_of(plain.path), files=listed)["manifest.json"]
    (tmp_path / "bundle" / "manifest.json").write_bytes(manifest)
    found = told(Bundle.load(tmp_path / "bundle")).data.to_dict()
    assert found["license"] == "other" and found["license_name"] == "own"
