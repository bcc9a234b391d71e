"""The language model of an OpenVINO export as whole numbers, in the peers' environment.

python -m benchmarks.peers.openvino_compress EXPORT OUTPUT int8|int4

The weights of its products, the head among them, symmetric and rounded to nearest, as our own: int8 with
a scale for each output, int4 for each group of 128 inputs. All else is copied. Optimum's own option for this
has written float32 without a word, so the size of what is written is checked.
"""

# only the peers' environment has these
# pyright: reportMissingImports=false

import shutil
import sys
from pathlib import Path

import nncf
import openvino

MODES = {
    "int8": {"mode": nncf.CompressWeightsMode.INT8_SYM},
    "int4": {
        "mode": nncf.CompressWeightsMode.INT4_SYM,
        "group_size": 128,
        "ratio": 1.0,
        "all_layers": True,
    },
}
MOST = {"int8": 0.3, "int4": 0.2}  # of float32's bytes
LANGUAGE = "openvino_language_model.xml"

source, target = Path(sys.argv[1]), Path(sys.argv[2])
kind = sys.argv[3]
shutil.copytree(source, target, ignore=shutil.ignore_patterns("openvino_language_model.*"))
model = openvino.Core().read_model(source / LANGUAGE)
openvino.save_model(
    nncf.compress_weights(model, **MODES[kind]), target / LANGUAGE, compress_to_fp16=False
)
before, after = (
    (folder / LANGUAGE).with_suffix(".bin").stat().st_size for folder in (source, target)
)
if after > MOST[kind] * before:
    sys.exit(f"{kind} weights take {after} of float32's {before} bytes: nncf did not compress them")
