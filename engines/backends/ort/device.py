"""Where ONNX Runtime works, which the list of its providers does not tell."""

import contextlib
import sys
import warnings

import numpy as np


def working_device() -> str:
    """Where sessions run: "cuda" where that works, which the list of providers does not tell."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "cpu"
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it prints what it does not find
            onnxruntime.preload_dlls()
        onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", 0)
    except Exception as error:  # no GPU, no driver, no cuDNN: it has no class of its own
        warnings.warn(f"ONNX Runtime uses the CPU, as CUDA does not work: {error}", stacklevel=2)
        return "cpu"
    return "cuda"
