"""Every example is run, on the pocket VLM and one bundle of it at 2x."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from luvc.tools.demo import ask

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.is_dir())
POCKET = ROOT / "tools" / "pocket" / "model"
pytestmark = pytest.mark.xdist_group("examples")  # they share a bundle


def run(folder: str, *arguments, **environment: str) -> str:
    """What an example prints."""
    (script,) = (ROOT / "examples" / folder).glob("example.*")
    program = sys.executable if script.suffix == ".py" else "bash"
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        [program, script, *arguments],
        cwd=ROOT,
        env=os.environ | environment | {"PATH": commands, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """The two pictures of `make demo`."""
    folder = tmp_path_factory.mktemp("demo")
    ask.generated()[0].save(folder / "picture.png")
    shutil.copy(ask.photograph(), folder / "photo.png")
    return folder


@pytest.fixture(scope="module")
def exported(demo) -> str:
    """What the first example prints; its bundle is the one that the others ask."""
    return run("01_export", POCKET, demo / "bundle")


def test_export(exported):
    assert exported.count("ratios (baseline / compressed FLOPs)") == 3  # two plans and the export
    assert "ONNX Runtime against PyTorch, all 8 language layers" in exported


def test_run(exported, demo):
    drawing = demo / "tokens.png"
    assert run("02_run", demo / "bundle", demo / "picture.png", drawing).startswith("463")
    with Image.open(drawing) as drawn:
        assert drawn.width > Image.open(demo / "picture.png").width


def test_stream_and_batch(exported, demo):
    out = run("03_stream_and_batch", demo / "bundle", demo / "picture.png", demo / "photo.png")
    assert "answer: 463 (stop)" in out and "stream: coffee" in out
    assert re.findall("batch: (.*)", out) == ["463", "coffee"]


def test_chat(exported, demo):
    first, second, messages = run("04_chat", demo / "bundle", demo / "picture.png").splitlines()
    assert first == "463 (tokens reused from the caches: 0)"
    assert re.fullmatch(r"black \(tokens reused from the caches: 1\d\d\)", second)
    assert messages == "4 messages so far"


def test_serve(exported, demo):
    out = run("05_serve", demo / "bundle", demo / "picture.png", demo / "photo.png")
    assert re.findall("client: (.*)", out) == ["463", "black", "coffee"]
    assert "stream: 463" in out and re.search(r"later: black \(1\d\d tokens reused\)", out)


@pytest.mark.skipif("LUVC_TRITON" not in os.environ, reason="LUVC_TRITON names no server")
def test_triton(exported, demo):
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    folders = demo / "bundle", demo / "picture.png", demo / "repository"
    server = os.environ["LUVC_TRITON"]
    assert '"text_output":"463"' in run("06_triton", *folders, PORT=str(port), SERVER=server)


def test_own_schedule(demo):
    out = run("07_own_schedule", POCKET, demo / "own", demo / "picture.png")
    assert "solved: [(1, 96), (2, 64), (4, 42), (7, 0)]" in out
    assert out.splitlines()[-1] == "463 {2: 64, 4: 42, 7: 0}"
    assert '"layer": 2' in (demo / "own.json").read_text()


def test_evaluate(exported, demo):
    run("08_evaluate", demo / "bundle", demo / "questions.jsonl")
    assert '"right": 2' in (demo / "hf.json").read_text()


def test_tensorrt(workshop, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(workshop.bundle("qwen2-fp16").path, bundle)
    out = run("09_tensorrt", bundle)
    assert len(re.findall(r"\.plan: .* built in", out)) == 3 and "sm89" in out


def test_openai(exported, demo):
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    out = run("10_openai", demo / "bundle", demo / "picture.png", PORT=str(port))
    assert '"content":"463"' in out and "black\n" in out
    assert re.search(r"\d+ tokens in, \d+ of them visual", out) and out.endswith("code 0\n")


def test_every_example_is_tested_and_listed():
    index = (ROOT / "examples" / "README.md").read_text()
    here = Path(__file__).read_text()
    for folder in EXAMPLES:
        assert f'run("{folder.name}"' in here, folder
        assert f"({folder.name}/README.md)" in index, folder
        text = (folder / "README.md").read_text()
        (script,) = folder.glob("example.*")
        assert f"examples/{folder.name}/{script.name}" in text, folder
