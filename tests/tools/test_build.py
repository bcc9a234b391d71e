"""luvc-build as a command."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from luvc.errors import LuvcError
from luvc.tools.build import Bars, build, parse_batch


def run(*arguments) -> str:
    import typer

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(build)
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


@pytest.fixture
def bundle(workshop, tmp_path):
    return shutil.copytree(workshop.bundle("qwen2-fp16").path, tmp_path / "bundle")


def test_builds_then_finds_everything_up_to_date(bundle):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    pytest.importorskip("polygraphy", reason="Polygraphy is not installed")
    first = json.loads(run(bundle, "--backend", "tensorrt-rtx", "--batch", "2", "--json"))
    assert [e["seconds"] > 0 for e in first["engines"]] == [True] * 3
    assert first["note"].startswith("engines were built")
    again = run(bundle, "--backend", "tensorrt-rtx", "--batch", "2")
    assert again.count("up to date, not built again") == 3 and "engines were built" in again


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "ort"], "builds no engines: give tensorrt or tensorrt-rtx"),
        (["--backend", "tensorrt-rtx", "--plugin-form", "cuda"], "not one of aot, library, body"),
        (["--backend", "tensorrt-rtx", "--batch", "1,2"], "MIN,OPT,MAX"),
    ],
)
def test_refusals(tmp_path, arguments, message):
    with pytest.raises(LuvcError, match=message):
        run(tmp_path, *arguments)


def test_batch_and_bars(capsys):
    assert parse_batch("4") == (4, 4, 4) and parse_batch("1,2,8") == (1, 2, 8)
    with Bars() as bars:
        bars("onnx/step-168x168.onnx", "Building engine", 0.5)
    assert "step-168x168" in capsys.readouterr().err
