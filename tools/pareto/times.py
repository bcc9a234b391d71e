"""Milliseconds of every plan's prefill on this machine: each is exported, and all are timed side by side."""

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ...exporter.checkpoint.family import Family
from ...exporter.config import ExportConfig
from ...exporter.prepare import prepare
from ...exporter.timing.interleaved import until_certain
from ...exporter.timing.prompt import TimedPrompt
from ...exporter.write_bundle import write


def milliseconds(configs: Sequence[ExportConfig], progress: Callable[[str], None]) -> list[float]:
    """ms of one prefill of each, at the reference prompt on ONNX Runtime.

    Args:
        configs: plans that exist; the first is what the others are timed beside.
        progress: told each step.
    """
    with tempfile.TemporaryDirectory(prefix="luvc-pareto-") as work, contextlib.ExitStack() as made:
        family, runs = Family.load(configs[0].checkpoint), []
        for number, config in enumerate(configs):
            progress(f"exporting {config.method} at {config.ratio:g}x")
            own = config.model_copy(update={"output": Path(work) / str(number)})
            bundle = write(prepare(own, family))
            prompt = TimedPrompt.of(bundle, own.reference_text, own.backend)
            made.callback(prompt.close)
            runs.append(prompt.run)
        progress("timing all of them, in turns")
        return until_certain(runs)
