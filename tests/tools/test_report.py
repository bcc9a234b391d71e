"""luvc-report: the page in a real browser, and cells and kept tokens against plain arithmetic."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from luvc.engines import VLM
from luvc.exporter import ExportConfig, cli, write_bundle
from luvc.exporter.planning.defaults import SolverOptions
from luvc.exporter.prepare import Prepared
from luvc.tools.eval import outcome
from luvc.tools.eval.outcome import Verdict
from luvc.tools.report import cli as report
from luvc.tools.report import facts
from luvc.tools.report.facts import export_command
from luvc.tools.report.overlay import samples

from ..conftest import ask

on_page = pytest.mark.xdist_group("report")  # one process makes the page
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["luvc-report", *map(str, arguments)])
    try:
        report.main()
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.fixture(scope="module")
def page(workshop, tmp_path_factory):
    target = tmp_path_factory.mktemp("report") / "page.html"
    photo = target.with_name("my <photo>.png")
    Image.fromarray(np.full((90, 60, 3), (200, 40, 40), np.uint8)).save(photo)
    with pytest.MonkeyPatch.context() as patch:
        bundle = workshop.bundle("qwen2-text").path
        assert run(patch, bundle, "--output", target, "--image", photo, "--backend", "ort") == 0
    return target


def browse(page, tmp_path, *options):
    """Open a page in a browser -> (console lines, standard output)."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        text = "NO BROWSER: luvc-report's page was not opened; apt-get install chromium"
        warnings.warn(text, stacklevel=2)
        pytest.skip(text)
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    result = subprocess.run(
        [browser, *FLAGS, profile, *options, page.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [x for x in result.stderr.splitlines() if ":CONSOLE" in x], result.stdout


def background(shot) -> Any:
    return Image.open(shot).convert("RGB").getpixel((3, 3))


@on_page
def test_a_browser_draws_it_without_a_word(page, tmp_path):
    light, dark = tmp_path / "light.png", tmp_path / "dark.png"
    lines, dom = browse(page, tmp_path, "--dump-dom")
    assert not lines
    assert "Where the tokens go" in dom and "validated against PyTorch" in dom
    for shot, scheme in ((light, "1"), (dark, "0")):
        theme = f"--blink-settings=preferredColorScheme={scheme}"
        lines, _ = browse(page, tmp_path, "--window-size=1160,2600", f"--screenshot={shot}", theme)
        assert not lines
    assert min(background(light)) > 240 and max(background(dark)) < 40
    counted: Any = Image.open(light).convert("RGB").getcolors(1 << 24)
    colours = {colour for _, colour in counted}
    assert (15, 159, 143) in colours and (51, 102, 224) in colours, "both charts have their bars"
    assert any(r > 190 and g < 60 and b < 60 for r, g, b in colours), "the picture is there"


def test_console_errors_would_be_seen(tmp_path):
    page = tmp_path / "broken.html"
    page.write_text(
        "<link rel=icon href='data:,'><script>nonsense()</script><img src='http://x.y/z'>"
    )
    lines, _ = browse(page, tmp_path, "--dump-dom")
    assert any("nonsense is not defined" in x for x in lines)


@on_page
def test_prints(page, tmp_path):
    target = tmp_path / "page.pdf"
    browse(page, tmp_path, f"--print-to-pdf={target}")
    assert target.read_bytes().startswith(b"%PDF")


@on_page
def test_questions_without_a_picture_are_told_of(page):
    text = page.read_text()
    assert text.count("Questions without a picture have a layout of their own") == 1
    assert text.count("Two prompts of unequal length about generated pictures;") == 1
    assert text.count("Two prompts of unequal length; PyTorch") == 1


@on_page
def test_what_the_ratio_was_asked_of_is_told(page):
    assert page.read_text().count("The ratio asked for is of FLOPs of the prefill.") == 1
    of = get_args(ExportConfig.model_fields["ratio_of"].annotation)
    assert set(of) == set(facts.ASKED), "each has its words"


@on_page
def test_nothing_is_loaded_from_elsewhere(page):
    text = page.read_text()
    targets = re.findall(r"""(?:src|href)=["']([^"']+)|url\(([^)]+)\)""", text)
    assert targets and all(a.startswith(("data:", "#")) for a, _ in targets)
    assert "<script" not in text and "@import" not in text
    assert "my &lt;photo&gt;.png" in text and "my <photo>" not in text


def test_veiled_cells_are_the_tokens_that_went(workshop, picture):
    """The marks of every stage against ordinals followed by hand, on a grid that OIM left even."""
    vlm = VLM.load(workshop.bundle("qwen2").path, threads=1)
    layout = vlm.manifest.layouts[0]
    height, width = layout.image_size
    square = Image.fromarray(picture).resize((width, height))
    (sample,) = samples(vlm, layout, [("x", square)])
    assert len(sample.cells) == layout.visual_tokens
    area = sum(w * h for _, _, w, h in sample.cells)
    assert area == pytest.approx(sample.width * sample.height)
    prompt = vlm.processor.prompt(ask("Describe the picture.", square))
    _, result, _ = vlm.prefill([prompt])
    alive = list(range(layout.visual_tokens))
    for look, (layer, stage) in zip(sample.looks, result.stages.items(), strict=True):
        alive = [alive[i] for i in stage.kept[0].tolist()]
        gone = [c for i, c in enumerate(sample.cells) if i not in alive]
        assert (look.layer, look.kept) == (layer, len(alive))
        assert list(look.gone) == gone and len(gone) == layout.visual_tokens - len(alive)


@pytest.mark.parametrize(
    "case", ["qwen2-defaults", "qwen3-int4", "qwen2-two-images", "qwen2-text-fp16"]
)
def test_the_export_command_asks_for_the_same_bundle(
    workshop, command, monkeypatch, tmp_path, case
):
    bundle = workshop.bundle(case)
    line, what = facts.commands(replace(bundle, path=tmp_path / "my b"), "luvc-report")[0]
    assert what == "makes the bundle" and line.endswith("--output 'my b'")
    arguments = [*shlex.split(line)[1:-1], str(tmp_path / "my b")]
    made: list[Prepared] = []
    monkeypatch.setattr(write_bundle, "write", lambda prepared, _: made.append(prepared) or bundle)
    done = command(cli, *arguments)
    assert done.code == 0, done.err
    (prepared,) = made
    assert prepared.layouts == tuple(bundle.manifest.layouts)
    assert prepared.config.solver == SolverOptions.of(
        bundle.manifest.solver, prepared.layouts[0].schedule.score
    )
    for name in ("dtype", "text_capacity", "reference_text"):
        assert getattr(prepared.config, name) == getattr(bundle.manifest, name), name
    assert prepared.config.quantisation == bundle.manifest.weights


def test_the_export_command_of_a_schedule_names_a_file(workshop):
    bundle = workshop.bundle("qwen2-defaults")
    changed = {"solver": None, "dtype": "bfloat16", "model": "my models/a"}
    own = replace(bundle, manifest=bundle.manifest.model_copy(update=changed))
    line, what = facts.commands(own, "luvc-report")[0]
    assert "--model 'my models/a' --schedule schedule.json" in line and "--method" not in line
    assert "--backend tensorrt" in line and "schedule.json" in what
    manifest = workshop.bundle("qwen2-two-images").manifest
    film = manifest.layouts[0].model_copy(update={"frames": 4})
    filmed = manifest.model_copy(update={"layouts": (film,)})
    assert "--frames 4" in export_command(filmed, "b")


def evaluation(path, ratio, right, data="PocketVQA test"):
    """A file as luvc-eval writes it: `right` of four questions."""
    verdicts = [
        Verdict(str(n), "colour" if n < 2 else "count", "?", ("a",), "a", n < right, 9)
        for n in range(4)
    ]
    head = {"answered_by": "ONNX Runtime", "data": data, "ratio": ratio}
    path.write_text(json.dumps(outcome.to_json(head, verdicts, Counter())))
    return path


def test_accuracies_of_several_ratios_become_curves(workshop, monkeypatch, tmp_path):
    two = evaluation(tmp_path / "two.json", 2.0, 3)
    one = evaluation(tmp_path / "one.json", 1.0, 4)
    target, bundle = tmp_path / "page.html", workshop.bundle("qwen2").path
    options = ("--no-pictures", "--output", target, "--accuracy")
    assert run(monkeypatch, bundle, *options, two) == 0
    text = target.read_text()
    assert "accuracy over ratio" not in text and "50.0 % <span" in text
    assert run(monkeypatch, bundle, *options, two, "--accuracy", one) == 0
    text = target.read_text()
    assert text.index("1x, ONNX Runtime") < text.index("2x, ONNX Runtime")
    assert "accuracy over ratio" in text and "<title>2x: 75.0%</title>" in text
    other = evaluation(tmp_path / "other.json", 1.0, 4, "mine.jsonl")
    assert run(monkeypatch, bundle, *options, two, "--accuracy", other) == 2


def test_what_cannot_be_written_is_refused(workshop, monkeypatch, capsys, tmp_path):
    bundle = workshop.bundle("qwen2").path
    (tmp_path / "x.json").write_text("{}")
    cases = [
        (("--output", bundle / "report" / "x.html"), "lies in the bundle"),
        (("--output", tmp_path), "is a folder"),
        (("--bench", tmp_path / "x.json"), "not a file of luvc-bench --output"),
        (("--accuracy", tmp_path / "x.json"), "not a file of luvc-eval --output"),
        (("--layout", "9x9", "--output", tmp_path / "p.html"), "no layout '9x9'"),
    ]
    for options, message in cases:
        assert run(monkeypatch, bundle, *options) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
