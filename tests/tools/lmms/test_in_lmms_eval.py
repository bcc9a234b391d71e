"""A bundle in the installed lmms-eval, on PocketVQA as a task of its own, beside luvc-eval.

`make .lmms/ready` installs it; LUVC_LMMS names the environment.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from luvc.exporter import ExportConfig, export
from luvc.tools.eval import cli as eval_tool

from . import pocket_task

ROOT = Path(__file__).parents[3]
PLACE = Path(os.environ.get("LUVC_LMMS", ROOT / ".lmms"))
# it declares what torchvision misses beside a CPU build of PyTorch
START = ROOT / "tests" / "families" / "with_torchvision.py"
QUESTIONS = 60  # six of each task
pytestmark = [
    pytest.mark.xdist_group("lmms"),
    pytest.mark.skipif(
        "LUVC_LMMS" not in os.environ,
        reason="LUVC_LMMS names no environment with lmms-eval: make .lmms/ready, then make lmms",
    ),
]


def exported(folder: Path, *images: int) -> Path:
    config = ExportConfig.make(
        model=str(ROOT / "tools" / "pocket" / "model"),
        ratio=2.0,
        reference_text=24,
        images=images,
        check=False,
        output=folder,
    )
    return export(config).path


def lmms(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    """Run Python of the environment with this checkout's luvc, offline, in a folder."""
    (folder / "path").mkdir(exist_ok=True)
    if not (folder / "path" / "luvc").exists():
        (folder / "path" / "luvc").symlink_to(ROOT)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [PLACE / "bin" / "python", START, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **offline, "PYTHONPATH": str(folder / "path")},
        capture_output=True,
        text=True,
        check=False,
    )


def evaluated(folder: Path, task: Path, *arguments: object) -> tuple[dict, list[dict]]:
    """What lmms_eval writes of a run: results and samples."""
    out = folder / "out"
    where = "--tasks", pocket_task.NAME, "--include_path", task, "--output_path", out
    done = lmms(folder, "-m", "lmms_eval", "eval", *where, "--log_samples", *arguments)
    files = sorted(out.rglob("*_results.json")), sorted(out.rglob("*_samples_*.jsonl"))
    assert done.returncode == 0 and all(files), done.stdout[-4000:] + done.stderr[-4000:]
    return json.loads(files[0][0].read_text()), [
        json.loads(line) for line in files[1][0].read_text().splitlines()
    ]


def test_it_counts_as_many_right_as_luvc_eval(tmp_path, command):
    bundle = exported(tmp_path / "bundle", 1, 2)
    task = pocket_task.write(tmp_path / "task", QUESTIONS)
    model = "--model", "luvc", "--model_args", f"bundle={bundle},threads=1", "--batch_size", 16
    results, samples = evaluated(tmp_path, task, *model)
    limits = "--limit", QUESTIONS, "--max-new-tokens", pocket_task.LONGEST, "--threads", 1
    own = command(eval_tool, bundle, *limits, "--json")
    assert own.code == 0, own.err
    ours = json.loads(own.out)
    theirs = results["results"][pocket_task.NAME]["exact_match,none"]
    print(f"lmms-eval {theirs:.4f}, luvc-eval {ours['tasks']['overall']['accuracy']:.4f}")
    assert theirs == pytest.approx(ours["tasks"]["overall"]["accuracy"], abs=1e-9)
    assert 0.5 < theirs < 1
    samples.sort(key=lambda sample: sample["doc_id"])
    assert len(samples) == QUESTIONS
    predictions = [answer["prediction"].strip() for answer in ours["answers"]]
    assert [sample["filtered_resps"].strip() for sample in samples] == predictions
    visual = [answer["visual_tokens"] for answer in ours["answers"]]
    assert len(set(visual)) == 2  # one picture, and two
    throughput = results["throughput"]
    assert throughput["avg_visual_tokens"] == pytest.approx(sum(visual) / QUESTIONS)
    assert 0 < throughput["avg_visual_tokens_mean_of_layers"] < throughput["avg_visual_tokens"]
    counts = [sample["token_counts"][0] for sample in samples]
    assert all(c["input_tokens"] > v for c, v in zip(counts, visual, strict=True))
    assert sum(c["output_tokens"] for c in counts) == throughput["total_gen_tokens"]


def test_what_it_refuses(tmp_path):
    bundle = exported(tmp_path / "bundle", 1)
    task = pocket_task.write(tmp_path / "task", 1)
    picture = next((task / "pictures").iterdir())
    script = Path(__file__).with_name("refusals.py")
    code = f"import runpy, sys; sys.argv = ['x', {str(bundle)!r}, {str(picture)!r}]; "
    done = lmms(tmp_path, "-c", code + f"runpy.run_path({str(script)!r}, run_name='__main__')")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["listed"] is True
    wanted = {
        "device": "choose where it runs with backend=",
        "batch_size": "--batch_size auto is no number",
        "bundle": "there is no folder",
        "images": "pocketvqa, document 1: the prompt has 2 images, this bundle holds 1",
        "video": "pocketvqa, document 1: it holds a part of type 'video'",
        "beams": "pocketvqa, document 0: generation settings num_beams=3",
        "loglikelihood": "pocketvqa asks for loglikelihood",
        "generate_until_multi_round": "pocketvqa asks for generate_until_multi_round",
        "generate_visual_cot": "pocketvqa asks for generate_visual_cot",
        "closed": "closed",
    }
    for name, words in wanted.items():
        assert said[name].startswith("LuvcError: ") and words in said[name], said[name]
    assert len(set(said["drawn"])) > 1  # rows draw for themselves
