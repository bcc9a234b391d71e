"""Published shapes on exported bundles: ONNX Runtime's CUDA provider, TensorRT-RTX or TensorRT.

Writes a random checkpoint, exports it in half precision at each ratio, builds engines where the backend has
them, and measures the bundles interleaved as luvc-bench does. A backend that is not installed is recorded as
such. Needs about 70 GB of disk for an 8B model at two ratios. Writes engines-BACKEND-MODEL.json.

    python -m benchmarks.gpu.engines --backend ort --model InternVL2_5-8B --visual 1024
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from luvc.errors import LuvcError
from luvc.tools.bench.machine import provenance

from ..files import write_json
from . import RESULTS

CAPACITY = 256
NEW_TOKENS = 16


def missing(backend: str) -> str | None:
    """None, or why the backend cannot run on a GPU here."""
    from luvc.engines.backends import backend as load_backend
    from luvc.engines.backends.trt.cuda import Cuda

    try:
        load_backend(backend)
        if backend != "ort":
            Cuda()
            return None
    except LuvcError as error:
        return str(error)
    return ort_problem()


def ort_problem() -> str | None:
    """None, or that ONNX Runtime would run on the CPU."""
    import onnxruntime

    from luvc.engines.backends.ort.device import working_device

    if working_device() == "cuda":
        return None
    version, providers = onnxruntime.__version__, onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" in providers:
        return f"the CUDA provider of onnxruntime {version} does not work here"
    return f"onnxruntime {version} has no CUDA provider: pip install onnxruntime-gpu"


def make_bundles(
    model: str,
    size: tuple[int, int],
    ratios: list[float],
    backend: str,
    batches: list[int],
    folder: Path,
) -> dict[str, Path]:
    """Checkpoint, bundles by ratio, engines; the checkpoint is gone afterwards."""
    from luvc.engines.backends import engine_builder
    from luvc.engines.backends.base import BuildOptions
    from luvc.exporter import ExportConfig, export

    checkpoint, bundles = folder / model, {}
    # in a process of its own, whose memory is given back
    command = [sys.executable, "-m", "benchmarks.export", "--part", "checkpoint"]
    subprocess.run([*command, "--model", model, "--folder", str(folder)], check=True)
    for ratio in ratios:
        path = folder / f"{ratio:g}x"
        config = ExportConfig.make(
            model=str(checkpoint),
            output=path,
            ratio=ratio,
            image_sizes=(size,),
            dtype="float16",
            text_capacity=CAPACITY,
            check=False,
        )
        bundle = export(config, lambda step: print(f"  {step}", flush=True))
        if backend != "ort":
            usual = batches[len(batches) // 2]
            options = BuildOptions(batch=(min(batches), usual, max(batches)))
            engine_builder(backend).build(bundle, options)
        bundles[f"{ratio:g}x"] = path
    shutil.rmtree(checkpoint)
    return bundles


def measure(
    bundles: dict[str, Path],
    backend: str,
    batches: list[int],
    rounds: int,
    new_tokens: int = NEW_TOKENS,
) -> dict[str, Any]:
    """The bundles interleaved, each in a process of its own."""
    from luvc.engines.bundle.folder import Bundle
    from luvc.tools.bench.cli import QUESTION, start
    from luvc.tools.bench.workers import measure as measure_systems

    layout = Bundle.load(next(iter(bundles.values()))).manifest.layouts[0].name
    shared = {"kind": "bundle", "question": QUESTION, "images": [], "threads": 4, "layout": layout}
    systems = []
    try:
        for name, path in bundles.items():
            request = shared | {"path": str(path), "backend": backend}
            systems.append(start(name, request, 4))
        cases = measure_systems(
            systems, batches, rounds, 1, new_tokens, lambda s: print(f"  {s}", flush=True)
        )
        about = [{"name": s.name} | s.about for s in systems]
    finally:
        for system in systems:
            system.close()
    return {"systems": about, "cases": cases, "rounds": rounds, "new_tokens": new_tokens}


def main(
    backend: Annotated[str, typer.Option(help="ort, tensorrt-rtx or tensorrt.")],
    model: Annotated[str, typer.Option(help="A published shape.")] = "InternVL2_5-8B",
    visual: Annotated[int, typer.Option(help="Visual tokens at ratio 1.")] = 1024,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8,32",
    ratio: Annotated[str, typer.Option(help="Ratios, 1 first.")] = "1,2",
    rounds: Annotated[int, typer.Option(help="Measured rounds of each batch size.")] = 5,
    folder: Annotated[Path | None, typer.Option(help="Where 70 GB may lie meanwhile.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the JSON file.")] = RESULTS,
) -> None:
    """Measure one model on one backend, or write down why that is not possible."""
    options = f"--backend {backend} --model {model} --visual {visual} --batch {batch}"
    report = provenance(f"python -m benchmarks.gpu.engines {options} --ratio {ratio}")
    report |= {"backend": backend, "model": model, "visual": visual, "dtype": "float16"}
    target = output / f"engines-{backend}-{model}.json"
    reason = missing(backend)
    if reason is None:
        from . import shapes

        batches, ratios = [int(n) for n in batch.split(",")], [float(n) for n in ratio.split(",")]
        size = shapes.SIZES[model][visual]
        with tempfile.TemporaryDirectory(dir=folder) as place:
            try:
                bundles = make_bundles(model, size, ratios, backend, batches, Path(place))
                report |= {"status": "measured"} | measure(bundles, backend, batches, rounds)
            except LuvcError as error:
                report |= {"status": "failed", "reason": str(error)}
    else:
        report |= {"status": "not available", "reason": reason}
    write_json(target, report)
    print(f"{backend}: {report['status']} {report.get('reason', '')}")


if __name__ == "__main__":
    typer.run(main)
