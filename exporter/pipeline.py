"""One export from start to end: prepare, solve for time where that is asked, write."""

from ..engines.bundle.folder import Bundle
from .assemble import Progress
from .checkpoint.family import Family
from .config import MEASURED, ExportConfig
from .prepare import prepare
from .timing.latency import solve_for_latency
from .write_bundle import write


def export(
    config: ExportConfig,
    progress: Progress = lambda step: None,
    family: Family | None = None,
) -> Bundle:
    """Write a bundle; it gets its name only when everything has passed.

    Args:
        config: what is asked for.
        progress: called with the name of each step as it starts.
        family: of config.model, where it was already read.

    Raises:
        LuvcError: the request cannot be met, or validation failed; an earlier bundle stays. Engines
            that cannot be built leave the new bundle, which runs on ONNX Runtime.
    """
    progress("reading the config and solving the schedule")
    prepared = prepare(config, family)
    if config.ratio_of in MEASURED:
        prepared, _ = solve_for_latency(prepared, progress)
    return write(prepared, progress)
