"""The commands that write, as tests/faults/kill.py kills them.

Where a command's work is long and only its end writes, its model is replaced; what writes is its own.
"""

import json
import shutil
import sys
from collections import Counter
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from .kill import Command

COMMANDS = ("export", "build", "triton", "report", "eval", "bench", "run", "batch")
MODULES = {
    "export": "luvc.exporter.cli",
    "triton": "luvc.tools.triton.cli",
    "report": "luvc.tools.report.cli",
    "eval": "luvc.tools.eval.cli",
    "bench": "luvc.tools.bench.cli",
    "run": "luvc.tools.run",
    "batch": "luvc.tools.batch.cli",
}
LATE = (  # what commands import when they are called
    "luvc.engines.backends.ort.runner",
    "luvc.exporter.write_bundle",
    "luvc.tools.report.page",
    "luvc.tools.token_map",
    "luvc.tools.triton.repository",
    "matplotlib.pyplot",
    "pyarrow.parquet",
    "transformers.models.auto.modeling_auto",
    "transformers.models.internvl.modeling_internvl",
    "transformers.models.qwen2.modeling_qwen2",
)
PICTURES = [f"{i}.png" for i in range(5)]


def imports() -> None:
    """Load what the commands load."""
    for name in (*MODULES.values(), *LATE):
        import_module(name)


def commands(given: dict[str, str]) -> dict[str, Command]:
    """Each command.

    Args:
        given: folders "bundle", a bundle that is read, and "checkpoint", which is exported.
    """
    bundle, checkpoint = given["bundle"], given["checkpoint"]

    def copy(folder: Path) -> None:
        shutil.copytree(bundle, folder / "bundle")

    def export(folder: Path) -> None:
        _main("export", "--model", checkpoint, "--output", folder / "bundle", *SHORT)

    def triton(folder: Path) -> None:
        _main("triton", bundle, "--output", folder / "repository")

    def served(folder: Path) -> None:
        from luvc.engines import Bundle
        from luvc.engines.serving import Limits
        from luvc.tools.client_messages import Bounds
        from luvc.tools.triton.repository import Options, write

        write(Bundle.load(bundle), folder / "repository", Options(Limits(), Bounds()))

    def report(folder: Path) -> None:
        _main("report", bundle, "--output", folder / "page.html", "--no-pictures")

    return {
        "export": Command(copy, export, _whole_bundle, rerun=1),
        "build": Command(copy, _build, _whole_bundle),
        "triton": Command(served, triton, _whole_repository),
        "report": Command(
            lambda folder: (folder / "page.html").write_text("</html>"), report, _html
        ),
        "eval": Command(_earlier, _eval, _json),
        "bench": Command(_earlier, _bench, _json),
        "run": Command(_earlier_picture, partial(_run, bundle), _picture, rerun=2),
        "batch": Command(_pictures, partial(_batch, bundle), _whole_answers),
    }


SHORT = ("--text-tokens", "8", "--text-capacity", "96", "--no-validate", "--ratio", "1")


def make(root: Path) -> dict[str, str]:
    """What `commands` start from."""
    from luvc.engines.bundle.schedule import Prune, Schedule
    from luvc.exporter import ExportConfig, export
    from luvc.tools.demo import random_checkpoint

    root.mkdir(parents=True, exist_ok=True)
    checkpoint, bundle = root / "checkpoint", root / "bundle"
    if not bundle.exists():
        random_checkpoint.write(checkpoint, layers=4, vision_layers=1, image=56)
        schedule = Schedule(language=(Prune(layer=1, keep=2), Prune(layer=3, keep=0)))
        options: dict[str, Any] = {"reference_text": 8, "text_capacity": 96, "check": False}
        export(
            ExportConfig.make(model=str(checkpoint), output=bundle, schedule=schedule, **options)
        )
    return {"bundle": str(bundle), "checkpoint": str(checkpoint)}


def _main(command: str, *arguments: Any) -> None:
    """A command as it is typed."""
    sys.argv = [f"luvc-{command}", *map(str, arguments)]
    import_module(MODULES[command]).main()


# ---- what they do, where that is not the whole command


def _build(folder: Path) -> None:
    """luvc-build's end, twice: two plans are listed, then one of them is another."""
    from luvc.engines import Bundle
    from luvc.engines.bundle.engine_files import store, working_folder
    from luvc.engines.bundle.manifest import Engine, EngineFile

    bundle = Bundle.load(folder / "bundle", engines=False)
    engine = Engine(backend="tensorrt", arch="sm90", version="11.4", plugins="aot", graphs=())
    graphs = bundle.manifest.layouts[0].graphs.files[:2]
    files = [
        EngineFile(graph=g, file=f"{engine.folder}/{i}.plan", key="", profiles=({"B": (1, 1, 1)},))
        for i, g in enumerate(graphs)
    ]
    for text in ("first", "a second"):
        with working_folder(bundle) as work:
            for i in range(2 if text == "first" else 1):
                (work / f"{i}.plan").write_text(text)
            bundle = store(bundle, engine.model_copy(update={"graphs": tuple(files)}), work)


def _eval(folder: Path) -> None:
    from luvc.tools.eval import cli, outcome

    verdict = outcome.Verdict("a", "ocr", "Why?", ("so",), "so", True, 4)
    head = {"data": "a file", "answered_by": "a test", "match": "exact", "seconds": 1}
    found = outcome.to_json(head, [verdict], Counter())
    cli.show(found, None, folder / "found.json", folder / "plot.png", as_json=True)


def _bench(folder: Path) -> None:
    from luvc.tools.bench import cli

    cli.show({"settings": {}, "systems": [], "cases": []}, folder / "found.json", as_json=True)


def _run(bundle: str, folder: Path) -> None:
    asked = ("--image", folder / "photo.jpg", "Why?", "--max-new-tokens", 1, "--threads", 1)
    _main("run", bundle, *asked, "--show-tokens", folder / "plot.png")


def _batch(bundle: str, folder: Path) -> None:
    from luvc.tools.batch import cli
    from luvc.tools.batch.files import COLUMNS

    def answers(rows, *rest):
        for row in rows:
            yield [dict.fromkeys(COLUMNS) | {"id": row["id"], "text": "so"}]

    cli.answers, cli.start_ray = answers, lambda *about: None
    _main("batch", bundle, folder / "in", folder / "out", "--part", 2)
    assert sorted(_answered(folder)) == PICTURES


# ---- what was there before


def _earlier(folder: Path) -> None:
    (folder / "found.json").write_text('{"earlier": true}')
    _earlier_picture(folder)


def _earlier_picture(folder: Path) -> None:
    from PIL import Image

    for name in ("plot.png", "photo.jpg"):
        Image.new("RGB", (60, 60)).save(folder / name)


def _pictures(folder: Path) -> None:
    (folder / "in").mkdir()
    for name in PICTURES:
        (folder / "in" / name).write_text("")


# ---- what is whole


def _whole_bundle(folder: Path) -> None:
    from luvc.engines import Bundle

    Bundle.load(folder / "bundle", verify=True)


def _whole_repository(folder: Path) -> None:
    from google.protobuf import text_format

    from luvc.engines import Bundle

    # it makes its classes when it is imported
    pb: Any = import_module("tritonclient.grpc.model_config_pb2")
    models = folder / "repository"
    Bundle.load(models / "luvc_vlm" / "1" / "bundle", verify=True)
    for model in ("luvc_vlm", "luvc_vision"):
        text = (models / model / "config.pbtxt").read_text()
        assert text_format.Parse(text, pb.ModelConfig()).name == model
        assert (models / model / "1" / "model.py").read_text()


def _html(folder: Path) -> None:
    assert (folder / "page.html").read_text().rstrip().endswith("</html>")


def _json(folder: Path) -> None:
    assert json.loads((folder / "found.json").read_text())
    _picture(folder)


def _picture(folder: Path) -> None:
    from PIL import Image

    with Image.open(folder / "plot.png") as picture:
        picture.load()


def _whole_answers(folder: Path) -> None:
    """Every picture in one row at most."""
    if not (folder / "out").exists():
        return
    if (folder / "out" / "_run.json").exists():
        json.loads((folder / "out" / "_run.json").read_text())
    names = _answered(folder)
    assert len(set(names)) == len(names) and set(names) <= set(PICTURES)


def _answered(folder: Path) -> list[str]:
    import pyarrow.parquet as parquet

    parts = (folder / "out").glob("part-*.parquet")
    return [row["id"] for part in parts for row in parquet.read_table(part).to_pylist()]
