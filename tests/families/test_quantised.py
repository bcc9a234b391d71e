"""Quantised weights of a family whose products are fused: found by module, not by name."""

import pytest
from safetensors import safe_open

from luvc.engines.bundle.folder import WEIGHTS
from luvc.exporter import export
from luvc.exporter.check.parity import reports

from .gallery import BRIEF, names, only_once
from .towers_and_texts import LAYERS

FUSED = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")


@pytest.mark.parametrize("name", [p for p in names() if p.values[0] == "internvl-phi3"])
def test_fused_projections_are_quantised(gallery, name, tmp_path):
    config = gallery.config(
        name, output=tmp_path / "bundle", schedule=BRIEF, weights="int4", group_size=64
    )
    bundle = export(config, only_once, family=gallery.family(name))
    written = next(r for r in reports(bundle) if not r.rounded)
    assert written.passed and max(s.relative_error for s in written.stages) <= 1e-4
    with safe_open(str(bundle.file(WEIGHTS)), "np") as file:
        coded = [n.removesuffix(".weight.codes") for n in file.keys() if n.endswith(".codes")]  # noqa: SIM118
    assert len(coded) == len(FUSED) * LAYERS + 1
    assert all(name == "lm_head" or name.endswith(FUSED) for name in coded)
