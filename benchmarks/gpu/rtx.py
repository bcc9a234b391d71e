"""Does TensorRT-RTX run on this GPU? A yes, or the exact error and the step it came in.

Takes a bundle whose engines were built elsewhere (luvc-build --backend tensorrt-rtx needs no GPU): imports
the library, loads every plan, runs them through our own backend and compares with PyTorch. All that in a
process of its own, because the library may end it. Writes rtx.json, also where nothing is installed.

    python -m benchmarks.gpu.rtx BUNDLE [--model DIR]
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from luvc.tools.bench.machine import provenance

from ..files import write_json
from . import RESULTS
from .steps import Steps, watch

NAME, MODULE = "tensorrt-rtx", "tensorrt_rtx"
SECONDS = 240


def plans(bundle: Path) -> list[Path]:
    """The engines' files, read off the manifest without anything of ours."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    engines = [e for e in manifest["engines"] if e["backend"] == NAME]
    return [bundle / graph["file"] for engine in engines for graph in engine["graphs"]]


def deserialize(trt: Any, files: list[Path]) -> dict[str, int]:
    """Load every plan -> MiB of device memory that it wants.

    Raises:
        RuntimeError: one is refused; with all that the library logged.
    """

    class Log(trt.ILogger):
        def __init__(self):
            super().__init__()
            self.lines: list[str] = []

        def log(self, severity, text):
            if severity <= trt.ILogger.WARNING:
                self.lines.append(f"{severity.name}: {text}")

    if not files:
        raise RuntimeError(f"the bundle holds no {NAME} engines: luvc-build --backend {NAME}")
    log, found = Log(), {}
    runtime = trt.Runtime(log)
    if not runtime:
        raise RuntimeError(f"no Runtime: {' | '.join(log.lines)}")
    for path in files:
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise RuntimeError(f"{path.name} is refused: {' | '.join(log.lines)}")
        found[path.name] = int(engine.device_memory_size_v2) >> 20
    return found


def answer(bundle: Any) -> str:
    """Run every graph of every layout once with our backend -> what ran it."""
    from luvc.engines.backends.trt.backend import tensorrt_rtx

    runner = tensorrt_rtx.runner(bundle)
    for layout in bundle.manifest.layouts:
        runner.prepare(layout)
    return runner.description


def work(path: Path, model: str | None) -> None:
    """The process that may die."""
    import importlib

    step = Steps()
    trt = step("import", lambda: importlib.import_module(MODULE))

    def gpu() -> str:
        from luvc.engines.backends.trt.cuda import Cuda

        cuda = Cuda()
        return f"{cuda.name}, {cuda.arch}, {NAME} {trt.__version__}"

    step("load plans", lambda: deserialize(trt, plans(path)))
    step("GPU", gpu)

    def load() -> Any:
        from luvc.engines.bundle.folder import Bundle

        return Bundle.load(path)

    step("run", lambda: answer(load()))

    def compare() -> list[dict[str, Any]]:
        from . import parity

        bundle = load()
        return parity.compare(bundle, parity.RUNTIMES[NAME](bundle, model), NAME, model)

    step("compare", compare)


def main(
    bundle: Annotated[Path, typer.Argument(help="Bundle with TensorRT-RTX engines.")],
    model: Annotated[str | None, typer.Option(help="Checkpoint it was made from.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the JSON file.")] = RESULTS,
    child: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Try, and write down what happened."""
    if child:
        work(bundle, model)
        return
    given = ["--model", model] if model else []
    steps = watch(["-m", "benchmarks.gpu.rtx", str(bundle), "--child", *given], SECONDS, "compare")
    report = provenance(f"python -m benchmarks.gpu.rtx {bundle.resolve().name}")
    wrong = next((s for s in steps if "error" in s), None)
    report |= {"steps": steps, "runs": wrong is None or wrong["step"] == "compare"}
    compared = next((s["value"] for s in steps if s["step"] == "compare" and "value" in s), None)
    report["equal"] = None if compared is None else all(r["passed"] for r in compared)
    write_json(output / "rtx.json", report)
    for s in steps:
        print(f"{s['step']}: {s.get('error') or 'ok'}", flush=True)


if __name__ == "__main__":
    typer.run(main)
