"""What all commands have in common."""

import json

import pytest

from luvc.exporter import cli
from luvc.exporter import cli_plan as plan
from luvc.tools import info
from luvc.tools import run as run_tool
from luvc.tools.bench import cli as bench

from .conftest import TINY


def test_version(command):
    from luvc import __version__

    assert command(cli, "--version").out == f"luvc-export {__version__}\n"


def test_bugs_keep_their_trace(command, workshop, monkeypatch):
    monkeypatch.setattr("luvc.exporter.checkpoint.family.Family.load", lambda source: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command(plan, "--model", "x")


def test_questions_without_a_picture(command, workshop, tmp_path):
    bundle = workshop.bundle("qwen2-text-fp16").path
    asked = command(run_tool, bundle, "Why?", "--max-new-tokens", 4, "--verbose")
    assert asked.code == 0 and asked.out.strip() and "layout text" in asked.err
    assert "visual tokens: 0 at ratio 1, 0 enter the language model\n" in asked.err
    drawn = command(run_tool, bundle, "Why?", "--show-tokens", tmp_path / "tokens.png")
    assert drawn.code == 2 and "there is none: give --image" in drawn.err
    shown = command(info, bundle)
    assert shown.code == 0 and "no image" in shown.out
    measured = command(bench, bundle, "--layout", "text", "--compare", "hf")
    assert measured.code == 2 and "is of questions without a picture" in measured.err
    model = "--model", workshop.checkpoint(**TINY)
    options = (*model, "--text-tokens", 8, "--images", 1, "--images", 0)
    several = command(plan, *options, "--ratio", 1.2, "--ratio", 2, "--json").out
    images = [p["layout"]["images"] for p in json.loads(several)["plans"]]
    assert images == [1, 0, 1], "without a picture it is alike at both"
    planned = command(plan, *options)
    assert "text: questions without a picture; no visual tokens" in planned.out
    plans = json.loads(command(plan, *options, "--json").out)["plans"]
    assert [p["layout"]["images"] for p in plans] == [1, 0]
    assert plans[1]["notes"] and plans[1]["stages"][0]["visual_tokens"] == 0
    only = command(cli, *model, "--images", 0, "--output", tmp_path / "b")
    assert only.code == 2 and "nothing to compress: give another number" in only.err
