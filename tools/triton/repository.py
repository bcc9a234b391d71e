"""Writes a bundle as a model repository: everything a server needs, in one folder.

    luvc_vlm/config.pbtxt configs/cpu.pbtxt 1/model.py 1/bundle/...
    luvc_vision/config.pbtxt configs/cpu.pbtxt 1/model.plan or 1/model.py

`config.pbtxt` is for the machine the bundle's engines were built for; `--model-config-name=cpu` starts
the same repository anywhere, on ONNX Runtime.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ... import __version__
from ...engines.bundle.folder import MANIFEST, Bundle
from ...engines.bundle.manifest import Engine, EngineFile
from ...engines.bundle.swap import check_place, foreign_file, replacing
from ...engines.serving import Limits
from ...errors import LuvcError
from ...places import writing
from ..client_messages import Bounds
from . import config

_MODEL = rf"({config.VLM}|{config.VISION}(_\d+)?)"
FOLDERS = re.compile(rf"{_MODEL}(/configs|/1(/__pycache__)?)?")
WRITTEN = re.compile(
    rf"{_MODEL}/(config\.pbtxt|configs/cpu\.pbtxt|1/(model\.py|model_[a-z0-9+]+\.plan|__pycache__/model\..*))"
)


@dataclass(frozen=True)
class Options:
    """What is written into the configurations.

    Attributes:
        limits: of the scheduler.
        bounds: of the pictures.
        threads: threads inside one operator; 0 lets the backend choose.
        vision_inside: run the vision graph inside luvc_vlm instead of as a model of its own.
    """

    limits: Limits
    bounds: Bounds
    threads: int = 0
    vision_inside: bool = False


def write(bundle: Bundle, target: Path, options: Options) -> list[str]:
    """Write the repository beside its place and swap it in.

    Returns:
        Names of its models.

    Raises:
        LuvcError: the target is something else than a repository of ours, or the disk is full.
    """
    check_target(target)
    graphs = [] if options.vision_inside else config.vision_graphs(bundle, options.limits.prefill)
    names = {g.graph: config.VISION + (f"_{i}" if i else "") for i, g in enumerate(graphs)}
    with replacing(target, check_target) as root:
        for graph in graphs:
            _write_vision(bundle, root / names[graph.graph], graph, options)
        _write_vlm(bundle, root / config.VLM, names, options)
    return [config.VLM, *names.values()]


def check_target(target: Path) -> None:
    """Refuse to replace what is not a repository of ours, and nothing else.

    Raises:
        LuvcError: it cannot be swapped in there, or the folder holds something else.
    """
    check_place(target)
    if not target.is_dir():
        return
    with writing(target):
        foreign = next(_foreign(target), None)
    if foreign is not None:
        raise LuvcError(
            f"output {target} exists and is not a repository of luvc-triton alone: it holds {foreign}; give "
            "another name, or move that elsewhere"
        )


def _foreign(folder: Path, inside: str = "") -> Iterator[str]:
    """Names of what luvc-triton did not write in a repository, and Python did not beside it."""
    with os.scandir(folder / inside) as entries:
        for entry in entries:
            name = f"{inside}{entry.name}"
            if not entry.is_dir(follow_symlinks=False):
                if entry.is_symlink() or not WRITTEN.fullmatch(name):
                    yield name
            elif name == f"{config.VLM}/1/bundle":
                other = foreign_file(folder / name)
                if other is not None:
                    yield f"{name}/{other}"
            elif FOLDERS.fullmatch(name):
                yield from _foreign(folder, f"{name}/")
            else:
                yield name


def _write_vlm(bundle: Bundle, model: Path, names: dict[str, str], options: Options) -> None:
    parameters: dict[str, Any] = {
        "luvc_version": __version__,
        "vision": json.dumps(names),
        "threads": options.threads,
        **asdict(options.limits),
        **asdict(options.bounds),
    }
    if names:  # what is prepared at once is what the vision model can batch
        parameters["preparing"] = max(options.limits.preparing, options.limits.prefill)
    gpu = bool(bundle.manifest.engines)
    main = config.vlm_config(parameters | {"backend": "auto" if gpu else "ort"}, gpu)
    _write_configs(model, main, config.vlm_config(parameters | {"backend": "ort"}, False))
    _write_code(model, config.VLM)
    for name in (*bundle.manifest.files, MANIFEST):
        _place(bundle.file(name), model / "1" / "bundle" / name)


def _write_vision(bundle: Bundle, model: Path, graph: config.VisionGraph, options: Options) -> None:
    parameters = {
        "luvc_version": __version__,
        "bundle": f"{config.VLM}/1/bundle",
        "graph": graph.graph,
        "threads": options.threads,
    }
    cpu = config.vision_config(model.name, graph, parameters | {"backend": "ort"}, False)
    plans = plans_of(bundle, graph.graph, "tensorrt")
    if plans:
        files = {arch: f"model_{arch}.plan" for arch in plans}
        for arch, plan in plans.items():
            _place(bundle.file(plan.file), model / "1" / files[arch])
        main = config.plan_config(model.name, graph, plans, files)
    elif bundle.manifest.engines:
        engines = plans_of(bundle, graph.graph, "tensorrt-rtx").values()
        auto = parameters | {"backend": "auto"}
        main = config.vision_config(model.name, graph, auto, True, engines)
    else:
        main = cpu
    _write_configs(model, main, cpu)
    _write_code(model, config.VISION)


def plans_of(bundle: Bundle, graph: str, backend: str) -> dict[str, EngineFile]:
    """A graph's plan for each GPU architecture, of one backend; of several versions the newest."""

    def version(engine: Engine) -> list[int]:
        return [int(n) for n in engine.version.split(".") if n.isdigit()]

    engines = sorted((e for e in bundle.manifest.engines if e.backend == backend), key=version)
    return {e.arch: f for e in engines for f in e.graphs if f.graph == graph}


def _write_configs(model: Path, main: Any, cpu: Any) -> None:
    for path, message in ((model / "config.pbtxt", main), (model / "configs" / "cpu.pbtxt", cpu)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config.text(message))


def _write_code(model: Path, template: str) -> None:
    source = Path(__file__).parent / "templates" / f"{template}.py"
    (model / "1").mkdir(parents=True, exist_ok=True)
    (model / "1" / "model.py").write_text(source.read_text())


def _place(source: Path, target: Path) -> None:
    """The same file under a new name where the file system can, a copy elsewhere; overwrites nothing.

    Raises:
        FileExistsError: there is a file of that name.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except FileExistsError:
        raise
    except OSError:
        with source.open("rb") as old, target.open("xb") as new:
            shutil.copyfileobj(old, new)
