"""Where the time of our bundles goes: ONNX Runtime's own profile of a prompt and of steps, by kind."""

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from .systems import QUESTION, RATIOS, SIZE, Systems, our_bundle

KINDS = {
    "products": ("MatMul", "FusedMatMul", "Gemm", "MatMulIntegerToFloat", "MatMulNBits"),
    "rounding of activations": ("Abs", "ReduceMax", "Div", "QuantizeLinear"),
    "attention": ("Attention", "MultiHeadAttention"),
}
HOLD_OTHERS = ("If",)
"""Operators whose time is that of the graph inside them, which is listed, too."""
STEPS = 8
RUNS = 2  # of a prompt; the first one warms up


def profiles(systems: Systems) -> dict[str, dict[str, dict[str, float]]]:
    """ms of each kind in a prefill and in a step of the bundles at ratio 1, by weights."""
    from luvc.errors import LuvcError, brief

    found = {}
    for weights in systems.weights:
        try:
            found[weights] = profiled(
                our_bundle(systems.model, RATIOS[0], weights), systems.threads
            )
        except LuvcError as e:
            systems.failed[f"profile of {weights}"] = brief(e)
    return found


def profiled(bundle: Any, threads: int) -> dict[str, dict[str, float]]:
    """ms of each kind of operator in a prefill and in a step."""
    from luvc.engines import VLM
    from luvc.tools.bench.systems import conversations

    with tempfile.TemporaryDirectory() as folder:
        runner = profiling_runner(bundle, threads, Path(folder))
        with VLM(bundle, runner) as vlm:
            layout = vlm.manifest.layouts[0]
            (messages,) = conversations(layout, QUESTION, [], 1)
            prompt = vlm.processor.prompt(messages, f"{SIZE[0]}x{SIZE[1]}")
            for _ in range(RUNS):
                rows, result, _ = vlm.prefill([prompt])
            for _ in range(STEPS):
                rows.step([[int(result.logits.argmax())]])
            files = runner.end_profiling()
        graphs = layout.graphs
        return {
            "prefill": of_kinds(json.loads(files[graphs.prefill].read_text()), RUNS),
            "step": of_kinds(json.loads(files[graphs.step].read_text()), STEPS),
        }


def profiling_runner(bundle: Any, threads: int, folder: Path) -> Any:
    """A runner whose sessions write profiles."""
    from luvc.engines.backends.ort.runner import OrtRunner

    class Profiling(OrtRunner):
        def _options(self) -> Any:
            options = super()._options()
            options.enable_profiling = True
            options.profile_file_prefix = str(folder / "graph")
            return options

        def end_profiling(self) -> dict[str, Path]:
            return {g: Path(s.end_profiling()) for (g, _), s in self._sessions.items()}

    return Profiling(bundle, threads)


def of_kinds(events: list[dict[str, Any]], runs: int) -> dict[str, float]:
    """ms of each kind in the last of a number of equal runs (of steps: their mean but the first)."""
    last = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            operator = event["args"]["op_name"]
            if operator in HOLD_OTHERS:
                continue
            kind = next((k for k, ops in KINDS.items() if operator in ops), "all else")
            last[kind].append(event["dur"] / 1e3)
    return {
        kind: round(sum(times[len(times) // runs :]) / (runs - 1), 3)
        for kind, times in sorted(last.items())
    }
