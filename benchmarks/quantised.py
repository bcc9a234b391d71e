"""What quantised weights cost the pocket VLM: right answers on PocketVQA, question by question.

Every form of the weights becomes a bundle of all ratios (`luvc-export`), calibrated, where it is, on
questions of the training split, at the first ratio. `luvc-eval` then asks the test questions, and each form
is held against fp32 on the same ones. A run that was stopped goes on with what lies in its folder.
Writes benchmarks/results/quantised.json.

    python -m benchmarks.quantised --folder DIR
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .files import write_json, write_text

ROOT = Path(__file__).parents[1]
MODEL = "tools/pocket/model"
TARGET = ROOT / "benchmarks" / "results" / "quantised.json"
RATIOS = ("1x", "2x")
TEXT = 24
"""Text tokens that the ratio is computed at, as in `make demo`."""


@dataclass(frozen=True)
class Form:
    """How weights are stored.

    Attributes:
        options: of luvc-export.
        calibrated: whether on questions.
        goal: points of right answers that it may cost; None of fp32.
    """

    options: tuple[str, ...] = ()
    calibrated: bool = False
    goal: float | None = None


INT8, INT4 = ("--weights", "int8"), ("--weights", "int4", "--group-size", "32")
FORMS = {
    "fp32": Form(),
    "int8": Form(INT8, goal=0.5),
    "int8, calibrated": Form(INT8, True, 0.5),
    "int4, groups of 32, calibrated": Form(INT4, True, 1.0),
}
PLAIN = "fp32"


def command(module: str, *arguments: str) -> None:
    """A command of the product, in a process of its own."""
    subprocess.run([sys.executable, "-m", f"luvc.{module}", *arguments], cwd=ROOT, check=True)


def write_questions(folder: Path, count: int) -> Path:
    """Questions of the training split with their pictures and answers, as a JSONL file."""
    from luvc.tools.pocket.dataset import example

    lines = []
    folder.mkdir(exist_ok=True)
    for index in range(count):
        entry = example("train", index)
        names = [f"{index}-{n}.png" for n in range(len(entry.pictures))]
        for name, picture in zip(names, entry.pictures, strict=True):
            picture.save(folder / name)
        question = entry.questions[0]
        line = {"images": names, "question": question.text, "answer": question.answer}
        lines.append(json.dumps(line) + "\n")
    write_text(folder / "questions.jsonl", "".join(lines))
    return folder / "questions.jsonl"


def bundle(form: Form, folder: Path, questions: Path) -> Path:
    """A bundle of all ratios, for questions about one picture and two."""
    if not folder.is_dir():
        options = [x for ratio in RATIOS for x in ("--ratio", ratio)]
        options += ["--images", "1", "--images", "2", "--text-tokens", str(TEXT), *form.options]
        options += ["--calibrate", str(questions)] if form.calibrated else []
        command("exporter.cli", "--model", MODEL, "--output", str(folder), *options)
    return folder


def outcome(path: Path, ratio: str, split: str, limit: int, threads: int) -> dict[str, Any]:
    """What luvc-eval finds."""
    from luvc.tools.eval.outcome import read

    output = path.with_name(f"{path.name}-{ratio}-{split}-{limit}.json")
    if not output.is_file():
        asked = ["--split", split, "--limit", str(limit), "--ratio", ratio]
        told = ["--backend", "ort", "--threads", str(threads), "--output", str(output)]
        command("tools.eval.cli", str(path), *asked, *told)
    return read(output)


def row(found: dict[str, Any], plain: dict[str, Any], goal: float | None) -> dict[str, Any]:
    """Right answers, and how they stand to fp32's on the same questions; shares are 0 .. 1."""
    from luvc.tools.eval.outcome import OVERALL, compare

    both = compare(found, plain)
    judged = {} if goal is None else {"goal_points": goal, "verdict": verdict(both.gain, goal)}
    right = {
        name: found["tasks"][OVERALL][name]
        for name in ("questions", "right", "accuracy", "low", "high")
    }
    return right | {"same": asdict(both.same), "gain": asdict(both.gain)} | judged


def verdict(gain: Any, goal: float) -> str:
    """Whether so many points at most are lost, as far as the interval tells."""
    if 100 * gain.low >= -goal:
        return "reached"
    return "missed" if 100 * gain.high < -goal else "undecided"


def run(
    folder: Annotated[Path, typer.Option(help="For bundles and answers; kept.")],
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    limit: Annotated[int, typer.Option(help="First questions of the split.")] = 2000,
    seen: Annotated[int, typer.Option(help="Training questions to calibrate on.", max=128)] = 96,
    threads: Annotated[int, typer.Option(help="Of ONNX Runtime.")] = 1,
    output: Annotated[Path, typer.Option()] = TARGET,
) -> None:
    """Measure every form of the weights at every ratio."""
    from luvc.tools.bench.machine import provenance

    folder = folder.resolve()
    folder.mkdir(exist_ok=True)
    asked = f"--split {split} --limit {limit} --seen {seen} --threads {threads}"
    result = provenance(f"python -m benchmarks.quantised {asked}")
    result |= {"model": MODEL, "split": split, "seen": seen, "text_tokens": TEXT}
    result |= {"interval": "95 %; gain: paired bootstrap over questions", "ratios": {}}
    questions = write_questions(folder / "seen", seen)
    for ratio in RATIOS:
        rows = result["ratios"].setdefault(ratio, {})
        plain: dict[str, Any] = {}
        for name, form in FORMS.items():
            made = bundle(form, folder / name.replace(", ", "-").replace(" ", "-"), questions)
            found = outcome(made, ratio, split, limit, threads)
            plain = found if name == PLAIN else plain
            rows[name] = row(found, plain, form.goal)
            print(f"{ratio} {name}:", rows[name], flush=True)
    write_json(output, result)


if __name__ == "__main__":
    typer.run(run)
