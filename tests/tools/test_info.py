"""luvc-info: what it says of a bundle, and that it needs the manifest alone."""

import json
import shutil
import subprocess
import sys

import pytest

from luvc.engines import Bundle
from luvc.engines.bundle.manifest import Engine, EngineFile, File
from luvc.engines.bundle.schedule import Prune, Schedule
from luvc.exporter import cli_plan
from luvc.tools import info


@pytest.fixture
def copy(workshop, tmp_path) -> Bundle:
    """A bundle that a test may change."""
    return Bundle.load(shutil.copytree(workshop.bundle("qwen2").path, tmp_path / "bundle"))


def test_the_data_is_what_the_folder_holds_and_the_plan_says(command, workshop):
    bundle = workshop.bundle("qwen2-defaults")
    result = command(info, bundle.path, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    files = [p for p in bundle.path.rglob("*") if p.is_file() and p.name != "manifest.json"]
    assert found["files"] == len(files)
    assert found["bytes"] == sum(p.stat().st_size for p in files)
    assert found["validated"] is True and found["verified"] is False and found["engines"] == []
    (layout,) = found["layouts"]
    caches = layout.pop("cache_bytes")
    asked = ("--ratio", "2", "--text-tokens", "8")  # as the workshop exports it
    plans = json.loads(command(cli_plan, "--model", found["model"], *asked, "--json").out)["plans"]
    assert [layout] == [p["layout"] for p in plans]
    lm = bundle.manifest.language
    tokens = sum((s["last"] - s["first"] + 1) * (96 + s["visual"]) for s in layout["stages"])
    assert caches == 2 * lm.kv_heads * lm.head_dim * 4 * tokens, "keys and values in float32"


def test_the_text_says_it_too(command, workshop):
    bundle = workshop.bundle("qwen2")
    (layout,) = bundle.manifest.layouts
    result = command(info, bundle.path)
    assert result.code == 0, result.err
    assert "against PyTorch, all 4 language layers" in result.out
    assert "96 tokens for the prompts and answers" in result.out
    assert "none; it runs on ONNX Runtime" in result.out
    assert (
        "keeps      visual tokens, by score spectrum (cutoff 0.5, band low, signal normed)"
        in result.out
    )
    line = next(x for x in result.out.splitlines() if "1 image of 168x168" in x)
    last = layout.stages[-1]
    for shown in (
        "2x",
        f"{layout.ratios.prefill:.2f}x",
        f"36 -> {layout.visual_tokens}",
        f"{last.first}-3: {last.visual}",
    ):
        assert shown in line, shown


@pytest.mark.parametrize(
    ("case", "stored", "run"),
    [
        (
            "qwen2-int8",
            "int8 with a scale for each output",
            "rounded to 8 bits with a scale for each",
        ),
        ("qwen3-int4", "int4 with a scale for each 64 inputs", "rounded to 8 bits in groups"),
    ],
)
def test_quantised_weights_and_their_kernels_are_told(command, workshop, case, stored, run):
    bundle = workshop.bundle(case)
    out = command(info, bundle.path).out
    assert f"products   {stored}" in out and run in out
    data = json.loads(command(info, bundle.path, "--json").out)
    assert data["weights"] == bundle.manifest.weights.model_dump()


def test_every_layout_has_a_line(command, workshop):
    out = command(info, workshop.bundle("qwen2-layouts", 1).path).out
    assert "no; luvc-validate compares it with PyTorch" in out
    assert "no visual token is scored" in out
    for takes in ("1 image of 56x56", "2 images of 56x56", "2 images of 56x112 in 3 tiles"):
        assert takes in out


def test_what_was_validated_in_part_and_what_runs_nowhere_yet(command, copy):
    part = {"validated": False, "validated_layers": 2, "dtype": "bfloat16"}
    copy.with_manifest(copy.manifest.model_copy(update=part))
    out = command(info, copy.path).out
    assert "against PyTorch, the first 2 of 4 language layers" in out
    assert "ONNX Runtime does not run bfloat16: build them with luvc-build" in out


def test_engines(command, copy):
    (layout,) = copy.manifest.layouts
    graphs = layout.graphs.model_dump()
    profiles = {"vision": {"N": (3, 6, 24)}, "prefill": {"B": (1, 2, 8)}, "step": {"B": (1, 2, 8)}}
    about = {"backend": "tensorrt", "arch": "sm90", "version": "11.4", "plugins": "aot"}
    folder = Engine.model_validate({**about, "graphs": ()}).folder
    plans = tuple(
        EngineFile(graph=g, file=f"{folder}/{kind}.plan", key="", profiles=(profiles[kind],))
        for kind, g in graphs.items()
    )
    engine = Engine.model_validate({**about, "graphs": plans})
    (copy.path / folder).mkdir(parents=True)
    for size, plan in enumerate(plans, 1):
        (copy.path / plan.file).write_bytes(bytes(size))
    files = {p.file: File(bytes=n, sha256="") for n, p in enumerate(plans, 1)}
    files = copy.manifest.files | files
    copy.with_manifest(copy.manifest.model_copy(update={"engines": (engine,), "files": files}))
    size = 1 + 2 + 3
    found = json.loads(command(info, copy.path, "--json").out)["engines"]
    assert found == [{**about, "batch": [1, 2, 8], "bytes": size}]
    line = next(x for x in command(info, copy.path).out.splitlines() if "sm90" in x)
    assert "11.4" in line and "1 to 8" in line


@pytest.mark.parametrize(
    ("schedule", "shown"),
    [
        (Schedule(), "1x"),
        (Schedule(ratio=2.5, language=(Prune(layer=1, keep=5),)), "2.5x"),
        (Schedule(language=(Prune(layer=1, keep=5),)), "a schedule"),
    ],
)
def test_what_was_asked(schedule, shown):
    assert info._asked(schedule.model_dump()) == shown


def test_a_changed_byte_is_found_where_it_is_looked_for(command, copy):
    whole = command(info, copy.path, "--verify")
    assert whole.code == 0 and "SHA-256 as the manifest says" in whole.out
    assert "done comparing the SHA-256 of" in whole.err
    template = copy.path / "processor" / "chat_template.jinja"
    data = bytearray(template.read_bytes())
    data[0] ^= 1
    template.write_bytes(data)
    assert command(info, copy.path).code == 0, "of the files only the sizes"
    changed = command(info, copy.path, "--verify", "--json")
    assert changed.code == 2 and changed.out == ""
    assert "chat_template.jinja was changed (SHA-256 differs)" in changed.err


def test_something_else_than_a_bundle(command, tmp_path):
    result = command(info, tmp_path)
    assert result.code == 2 and "is not a bundle" in result.err


@pytest.mark.parametrize("case", ["qwen2", "qwen2-int8"])
def test_nothing_heavy_is_imported(workshop, case):
    absent = "torch", "transformers", "onnx", "onnxruntime", "tokenizers", "PIL"
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n"
        "from luvc.tools.info import main\nmain()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, workshop.bundle(case).path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
