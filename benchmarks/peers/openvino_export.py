"""A checkpoint to OpenVINO IR in float32, in the peers' environment.

python -m benchmarks.peers.openvino_export MODEL OUTPUT
"""

# only the peers' environment has these
# pyright: reportMissingImports=false

import sys

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:  # built for CUDA beside a CPU PyTorch: only these names are missing
    sys.modules.pop("torchvision", None)
    names = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        names.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from optimum.exporters.openvino import main_export
from optimum.intel import OVConfig

main_export(
    sys.argv[1],
    sys.argv[2],
    task="image-text-to-text",
    convert_tokenizer=True,
    ov_config=OVConfig(dtype="fp32"),  # smaller precisions are the default for large models
)
