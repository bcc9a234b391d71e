"""Half-precision bundles of every family: validated on ONNX Runtime, built by TensorRT-RTX.

Nothing runs on a GPU here; which kernels a plan holds is read from its bytes.
"""

import re
from collections import Counter

import pytest
import torch

from luvc.exporter.check.parity import reports

from . import by_hand
from .checkpoints import family_of
from .gallery import SHARP, exported

SEVERAL, SINGLE = "_gemm_mha_v2", "_gemv_mha_v1"  # fused attention: several queries, one query
SOFT_CAPPED = ("paligemma-gemma2", "internvl-gemma2")  # no fused kernel knows the cap

QUICK = ("internvl", "qwen2_5_vl")  # plain, and with windows in the tower
ALL = exported(*QUICK)
VALIDATED = [p for p in ALL if family_of(p.values[0]) not in SHARP]


@pytest.mark.cell("ORT fp16")
@pytest.mark.parametrize("name", VALIDATED)
def test_half_precision_is_within_its_limits(gallery, name):
    (report,) = reports(gallery.bundle(name, "half"))
    assert report.passed, report.failures()
    assert report.dtype == "float16" and report.greedy_equal > 0


@pytest.mark.cell("RTX")
@pytest.mark.parametrize("name", ALL)
def test_tensorrt_rtx_builds_with_fused_attention(gallery, name):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    bundle = gallery.bundle(name, "half")
    (layout,), (engine,) = bundle.manifest.layouts, bundle.manifest.engines
    kernels = {}
    for plan in engine.graphs:
        found = re.findall(rb"function=\{ name=(\S+)", bundle.file(plan.file).read_bytes())
        kernels[plan.graph] = Counter(n.decode() for n in found if b"mha" in n)
    attention = sum(kind not in ("conv", "linear") for kind in bundle.manifest.language.layer_types)
    fused = 0 if name in SOFT_CAPPED else attention
    assert kernels[layout.graphs.vision] == Counter(
        {SEVERAL: vision_attentions(gallery, name, layout)}
    )
    shared = bundle.manifest.language.shared  # layers that run a prompt's last token alone
    assert kernels[layout.graphs.prefill] == +Counter({SEVERAL: fused - shared, SINGLE: shared})
    assert kernels[layout.graphs.step] == +Counter({SINGLE: fused, SEVERAL: fused})


def vision_attentions(gallery, name, layout):
    """One a layer; where layers have windows, one for each size of window."""
    family = gallery.family(name)
    vision, layers = family.config.vision_config, family.encoder.layers
    if not hasattr(vision, "window_size"):
        return layers
    side, (h, w) = vision.window_size // vision.patch_size, layout.grid
    places = [[torch.tensor([float(y), float(x)]) for x in range(w)] for y in range(h)]
    count = 0
    for layer in range(layers):
        for step in (m for m in layout.schedule.vision if m.layer == layer):
            places = by_hand.merge(places, step.axis, step.group, vision.spatial_merge_size)
        windows = Counter(tuple((p // side).tolist()) for row in places for p in row)
        full = layer in vision.fullatt_block_indexes
        count += 1 if full else len(set(windows.values()))
    return count
