"""`luvc-validate` as people type it."""

import json
import shutil

import numpy as np

from luvc.engines.bundle.folder import sha256
from luvc.tools import validate as validate_tool


def test_validate(command, workshop, tmp_path):
    bundle = workshop.bundle("qwen2")
    result = command(validate_tool, bundle.path, "--json")
    assert result.code == 0, result.err
    (report,) = json.loads(result.out)
    assert report["passed"] and report["greedy_equal"] == 64
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    weights = copy / "onnx" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-4:] = np.float32(9).tobytes()
    weights.write_bytes(data)
    assert "SHA-256" in command(validate_tool, copy).err
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["onnx/weights.safetensors"]["sha256"] = sha256(weights)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    differs = command(validate_tool, copy)
    assert differs.code == 1 and "differs" in differs.err and "Traceback" not in differs.err
    other = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    wrong = command(validate_tool, bundle.path, "--model", other)
    assert wrong.code == 2 and "not the model this bundle was made from" in wrong.err


def test_graphs_and_kernels_of_quantised_weights_are_told_apart(command, workshop):
    result = command(validate_tool, workshop.bundle("qwen2-int8").path)
    assert result.code == 0, result.err
    text = " ".join(result.out.split())
    assert "ort, as written against PyTorch" in text and "kernels that round activations" in text
