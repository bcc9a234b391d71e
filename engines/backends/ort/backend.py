"""ONNX Runtime as a backend: the embedded default, which runs every bundle of a dtype it knows."""

from ....errors import LuvcError
from ...bundle.folder import Bundle
from ..base import Backend
from .runner import OrtRunner

RUNS = ("float32", "float16")  # weights and computation


class OrtBackend(Backend):
    """ONNX Runtime, on the CPU or through its CUDA execution provider."""

    @property
    def NAME(self) -> str:
        """As --backend takes it."""
        return "ort"

    def available(self) -> str | None:
        """None, or why this backend cannot be used and how to mend it."""
        try:
            import onnxruntime  # noqa: F401
        except ImportError:
            return (
                "ONNX Runtime is not installed: pip install 'luvc-export[cpu]' "
                "(or [gpu] on a machine with an NVIDIA GPU)"
            )
        return None

    def usable(self, bundle: Bundle) -> str | None:
        """None, or why this bundle cannot be run here."""
        if bundle.manifest.dtype not in RUNS:
            return (
                f"{bundle.path} holds {bundle.manifest.dtype} weights, which ONNX Runtime does not run: "
                "use --backend tensorrt or tensorrt-rtx on a GPU, or export with --dtype fp16"
            )
        return self.available()

    def runner(self, bundle: Bundle, threads: int = 0) -> OrtRunner:
        """A runner for the bundle.

        Raises:
            LuvcError: its dtype is not one ONNX Runtime runs.
        """
        problem = self.usable(bundle)
        if problem is not None:
            raise LuvcError(problem)
        return OrtRunner(bundle, threads)


ort = OrtBackend()
