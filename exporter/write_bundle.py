"""From a prepared export to a bundle: load, assemble, compare with PyTorch, swap in, build engines."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..engines.backends import engine_builder
from ..engines.bundle.folder import Bundle
from ..engines.bundle.graph_file import read_graph
from ..engines.bundle.swap import beside, check_target, replacing
from .assemble import Progress, assemble, write_manifest
from .check.calibration import calibrate
from .check.parity import check
from .checkpoint.identity import weights_digest
from .checkpoint.weights import fetch_weights, load_model
from .config import CHECKED_ON
from .planning.schedule_file import Tuned
from .prepare import Prepared
from .quantised.calibrated import Calibrated


def write(prepared: Prepared, progress: Progress = lambda step: None) -> Bundle:
    """Write the bundle; it gets its name only when everything has passed.

    Args:
        prepared: the export, with a schedule for every layout.
        progress: called with the name of each step as it starts.

    Raises:
        LuvcError: the weights cannot be read, or are not those that the schedule was tuned for, the disk is
            full, or validation failed; an earlier bundle stays. Engines that cannot be built leave the new
            bundle, which runs on ONNX Runtime.
    """
    config, family = prepared.config, prepared.family
    fetch_weights(family, progress)
    if isinstance(config.schedule, Tuned):
        config.schedule.check(family.source, weights=weights_digest(family))
    model = load_model(family, progress)
    with _codes(prepared, progress) as codes, replacing(config.output, check_target) as folder:
        manifest = assemble(config, family, prepared.layouts, model, folder, progress, codes)
        made = Bundle.load(folder)
        for name in {file for layout in manifest.layouts for file in layout.graphs.files}:
            read_graph(made, name)  # what would be refused when it is loaded is refused here
        if config.validates:
            depth = check(config, family, model, made, progress)
            found = {"validated": depth == manifest.language.layers, "validated_layers": depth}
            write_manifest(folder, manifest.model_copy(update=found))
    bundle = Bundle.load(config.output)
    if config.backend == CHECKED_ON:
        return bundle
    progress(f"building the {config.backend} engines")
    return engine_builder(config.backend).build(bundle)[0]


@contextmanager
def _codes(prepared: Prepared, progress: Progress) -> Iterator[Calibrated | None]:
    """Calibrated codes, in files that are removed at the end; None where nobody asked for them."""
    config = prepared.config
    if config.calibrate is None:
        yield None
        return
    with beside(config.output) as folder:
        yield calibrate(
            config, prepared.family, prepared.layouts, prepared.questions, folder, progress
        )
