"""`make demo`: the pocket VLM is exported and asked."""

import subprocess
from pathlib import Path

import numpy as np

from luvc.tools.demo import ask as demo
from luvc.tools.pocket.dataset import TEST_QUESTIONS, example

ROOT = Path(__file__).parent.parent.parent


def test_the_picture_is_fit_for_its_questions_and_not_of_the_test_set():
    picture, questions = demo.generated()
    assert [question.task for question in questions] == list(demo.ASKED)
    pixels = np.asarray(picture)
    assert np.array_equal(pixels, np.asarray(demo.generated()[0]))
    ocr = [n for n in range(TEST_QUESTIONS) if n % 10 == 5][:20]
    known = [np.asarray(example("test", n).pictures[0]) for n in ocr]
    assert not any(np.array_equal(pixels, one) for one in known)


def test_four_questions_with_tokens_in_and_out(workshop, tmp_path, capsys):
    bundle = tmp_path / "bundle"
    bundle.symlink_to(workshop.bundle("qwen2").path)
    demo.main(bundle)
    out = capsys.readouterr().out
    assert out.count("visual tokens (") == 4 and out.count("out: ") == 4
    assert "picture.png, 192 x 192" in out and "photo.png, 600 x 400" in out
    assert (tmp_path / "picture.png").is_file() and (tmp_path / "photo.png").is_file()


def test_make_demo_exports_and_asks_the_pocket_vlm():
    line = ["make", "--dry-run", "--assume-old", ".venv/demo", "demo"]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    export, ask, run = (c for c in result.stdout.splitlines() if c.startswith(".venv/bin"))
    assert "luvc-export --model tools/pocket/model --ratio 2x" in export
    assert "luvc.tools.demo.ask demo/bundle" in ask and "--show-tokens" in run
