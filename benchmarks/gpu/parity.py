"""A bundle on every GPU runtime there is, against PyTorch in float32 on the CPU (engines/validate.py).

Per stage errors, kept tokens of every SPU stage, greedy tokens. PyTorch on CUDA runs the exporter's own
modules in the bundle's dtype with the SPU's CUDA kernels. Each runtime has a process of its own; one that
is missing or fails is recorded with its reason. Writes parity.json after every runtime.

    python -m benchmarks.gpu.parity BUNDLE... [--model DIR]
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from luvc.errors import LuvcError
from luvc.tools.bench.machine import provenance

from ..files import write_json
from . import RESULTS
from .steps import Steps, watch

SECONDS = 150


def torch_cuda(bundle: Any, model: str | None, device: str = "cuda") -> Any:
    """The exporter's modules on the GPU, in the bundle's dtype."""
    import torch

    from luvc.exporter.check.torch_runner import TorchRunner
    from luvc.exporter.checkpoint.family import Family
    from luvc.exporter.checkpoint.hub import checkpoint_of
    from luvc.exporter.checkpoint.weights import load_model

    if device == "cuda" and not torch.cuda.is_available():
        raise LuvcError(f"PyTorch {torch.__version__} sees no CUDA GPU")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    manifest = bundle.manifest
    family = Family.load(checkpoint_of(manifest, model))
    dtype = getattr(torch, manifest.dtype)
    return TorchRunner(load_model(family), family, manifest.text_capacity, device, dtype)


def ort_cuda(bundle: Any, model: str | None) -> Any:
    """ONNX Runtime with its CUDA provider; a session that fell back to the CPU is an error."""
    from luvc.engines.backends.ort.backend import ort

    from .engines import ort_problem

    problem = ort.available() or ort.usable(bundle) or ort_problem()
    if problem is not None:
        raise LuvcError(problem)
    runner = ort.runner(bundle)
    used = runner.session(bundle.manifest.layouts[0].graphs.vision).get_providers()
    if "CUDAExecutionProvider" not in used:
        raise RuntimeError(f"the CUDA provider did not load; sessions run on {', '.join(used)}")
    return runner


def engines(name: str) -> Callable[[Any, str | None], Any]:
    """TensorRT or TensorRT-RTX, with the engines that the bundle holds."""

    def load(bundle: Any, model: str | None) -> Any:
        from luvc.engines.backends import backend

        module = backend(name)
        problem = module.usable(bundle)
        if problem is not None:
            raise LuvcError(problem)
        return module.runner(bundle)

    return load


RUNTIMES: dict[str, Callable[[Any, str | None], Any]] = {
    "torch-cuda": torch_cuda,
    "ort-cuda": ort_cuda,
    "tensorrt-rtx": engines("tensorrt-rtx"),
    "tensorrt": engines("tensorrt"),
}


def compare(bundle: Any, runner: Any, name: str, model: str | None) -> list[dict[str, Any]]:
    """The reports of all layouts."""
    from luvc.engines.prompt.processing import Processor
    from luvc.engines.validate import validate
    from luvc.exporter.check.parity import reference_runner

    manifest, processor = bundle.manifest, Processor(bundle)
    reference = reference_runner(bundle, model)
    reports = [validate(manifest, processor, x, reference, runner, name) for x in manifest.layouts]
    return [r.model_dump() | {"failures": r.failures()} for r in reports]


def work(path: Path, name: str, model: str | None) -> None:
    """The process of one runtime."""
    from luvc.engines.bundle.folder import Bundle

    step = Steps()
    bundle = step("read the bundle", lambda: Bundle.load(path))
    runner = step("load", lambda: RUNTIMES[name](bundle, model))
    step("describe", lambda: runner.description)
    step("compare", lambda: compare(bundle, runner, name, model))


def outcome(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """What the steps of a runtime come to: compared, not available, or failed."""
    by_name = {s["step"]: s for s in steps}
    bad = next((s for s in steps if "error" in s), None)
    found: dict[str, Any] = {"description": by_name.get("describe", {}).get("value")}
    found["seconds"] = round(sum(s.get("seconds", 0) for s in steps), 1)
    if "exit" in steps[-1]:
        found["exit"] = steps[-1]["exit"]
    if bad is None:
        reports = by_name["compare"]["value"]
        passed = all(r["passed"] for r in reports)
        return found | {"status": "compared", "passed": passed, "reports": reports}
    missing = bad["step"] == "load" and bad.get("refused")
    status = "not available" if missing else "failed"
    return (
        found
        | {"status": status, "step": bad["step"], "reason": bad["error"]}
        | {k: bad[k] for k in ("log",) if k in bad}
    )


def main(
    bundles: Annotated[list[Path], typer.Argument(help="Bundle folders.")],
    model: Annotated[
        str | None, typer.Option(help="Checkpoint; default the one a bundle was made from.")
    ] = None,
    runtime: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(RUNTIMES)}; default all.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of the JSON file.")] = RESULTS,
    child: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Compare bundles on every runtime."""
    chosen = runtime or list(RUNTIMES)
    if child:
        work(bundles[0], chosen[0], model)
        return
    options = f" --model {Path(model).name}" if model else ""
    names = " ".join(b.resolve().name for b in bundles)
    report = provenance(f"python -m benchmarks.gpu.parity {names}{options}") | {"bundles": []}
    given = ["--model", model] if model else []
    for path in bundles:
        runtimes: dict[str, Any] = {}
        report["bundles"].append({"name": path.resolve().name, "runtimes": runtimes})
        for name in chosen:
            arguments = [
                "-m",
                "benchmarks.gpu.parity",
                str(path),
                "--runtime",
                name,
                "--child",
                *given,
            ]
            runtimes[name] = found = outcome(watch(arguments, SECONDS, "compare"))
            write_json(output / "parity.json", report)
            verdict = {True: "equal", False: "DIFFERS"}.get(found.get("passed"), found["status"])  # type: ignore[arg-type]
            print(f"{path.name} on {name}: {verdict} {found.get('reason', '')}", flush=True)


if __name__ == "__main__":
    typer.run(main)
