"""What of a bundle on a backend is held against PyTorch: what runs there, and its graphs as they are."""

from collections.abc import Callable, Iterator

from .backends.base import Backend, Runner
from .bundle.folder import Bundle
from .bundle.layout import Layout
from .prompt.processing import Processor
from .tolerance import ROUNDED, Tolerance
from .validate import Report, validate

AS_WRITTEN = "as written"
Form = tuple[str, Callable[[], Runner], Tolerance | None]


def compare(
    bundle: Bundle, processor: Processor, layout: Layout, reference: Runner, backend: Backend
) -> Iterator[Report]:
    """Run a layout on PyTorch and on a backend.

    ONNX Runtime's kernels for quantised weights round activations, too. So there the graphs are compared
    as they are written, within the limits of their dtype, and then what these kernels make of them, within
    limits of their own.

    Args:
        bundle: a loaded bundle.
        processor: of the bundle.
        layout: one of its layouts.
        reference: PyTorch in float32, with the weights that the bundle holds.
        backend: what runs the bundle.

    Yields:
        A report of each; memory holds one runner at a time.
    """
    for name, make, tolerance in _forms(bundle, backend):
        with make() as runner:
            found = validate(bundle.manifest, processor, layout, reference, runner, name, tolerance)
        yield found.model_copy(update={"rounded": tolerance is ROUNDED})


def _forms(bundle: Bundle, backend: Backend) -> Iterator[Form]:
    if backend.NAME == "ort":
        from .backends.ort.runner import OrtRunner

        if OrtRunner(bundle).rounds:
            yield f"{backend.NAME}, {AS_WRITTEN}", lambda: OrtRunner(bundle, as_written=True), None
            yield backend.NAME, lambda: backend.runner(bundle), ROUNDED
            return
    yield backend.NAME, lambda: backend.runner(bundle), None
