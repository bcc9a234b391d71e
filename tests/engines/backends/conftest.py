"""What the tests of TensorRT-RTX share: engines, built once."""

import shutil
import warnings

import pytest

from luvc.engines import Bundle
from luvc.engines.backends.trt.backend import tensorrt_rtx

# Every pair of ratio, dtype and head size; the others differ from these in no operator.
CASES = [
    ("qwen2-fp16", 2.0),
    ("qwen2-defaults-fp16", 2.0),
    ("qwen2-int8-fp16", 2.0),
    ("qwen2-int4-fp16", 2.0),
    pytest.param("qwen2-bf16", 1.0, marks=pytest.mark.slow),
    pytest.param("qwen3-128-fp16", 1.0, marks=pytest.mark.slow),
    ("qwen3-128-bf16", 2.0),
]


@pytest.fixture(scope="session")  # all who ask for it are of one xdist group
def engines(workshop, tmp_path_factory):
    """A function: (case, ratio) -> a bundle with engines."""
    made = {}

    def make(case, ratio) -> Bundle:
        if (case, ratio) not in made:
            target = tmp_path_factory.mktemp("engines") / "bundle"
            shutil.copytree(workshop.bundle(case, ratio).path, target)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                made[case, ratio] = tensorrt_rtx.build(Bundle.load(target))[0]
            make.said += [str(w.message) for w in caught]
        return made[case, ratio]

    make.said = []
    return make


@pytest.fixture
def copy(engines, tmp_path):
    """A bundle with engines that a test may change."""
    return Bundle.load(shutil.copytree(engines(*CASES[0]).path, tmp_path / "bundle"))
