"""Quantised checkpoints by hand: the layouts of each format in numpy, from their specifications.

Every packer takes a weight [N, K] and gives the tensors that stand for it, and the numbers they stand for.
Scales are short fractions, so that a product with a code is a number of half precision, too.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch
from safetensors.torch import load_file, save_file

GROUP = 32
NF4 = (-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0)
NF4 += (0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0)
Made = tuple[dict[str, Any], np.ndarray]


def short(scale, kind: Any = np.float16):
    """Scales with six bits of fraction, rounded up so that every weight has a code."""
    part, power = np.frexp(scale)
    return np.ldexp(np.ceil(part * 64) / 64, power).astype(kind)


def grid(w, bits, symmetric, group=GROUP, kind: Any = np.float16):
    """Codes [N, K] from 0 on, scales and zeros [N, G]."""
    parts, top = w.reshape(len(w), -1, group), 2**bits - 1
    if symmetric:
        scale = short(np.abs(parts).max(-1) / (top // 2), kind)
        zero = np.full(scale.shape, (top + 1) // 2)
    else:
        low, high = np.minimum(parts.min(-1), 0), np.maximum(parts.max(-1), 0)
        scale = short((high - low) / (top - 1))
        zero = np.clip(np.round(-low / scale), 0, top).astype(int)
    codes = np.round(parts / scale[..., None].astype(np.float32)) + zero[..., None]
    return np.clip(codes, 0, top).astype(np.int64).reshape(w.shape), scale, zero


def numbers(codes, scale, zero):
    parts = codes.reshape(*scale.shape, -1) - zero[..., None]
    return (parts * scale[..., None].astype(np.float32)).astype(np.float32).reshape(codes.shape)


def words(codes, bits=4):
    """int32 [..., n bits / 32] of numbers [..., n], the first in the lowest bits."""
    each = 32 // bits
    parts = codes.reshape(*codes.shape[:-1], -1, each).astype(np.uint64)
    return (
        (parts << np.arange(0, 32, bits).astype(np.uint64)).sum(-1).astype(np.uint32).view(np.int32)
    )


def awq(w) -> Made:
    codes, scale, zero = grid(w, 4, False)

    def columns(a):
        return words(
            a.T.reshape(a.shape[1], -1, 8)[..., [0, 2, 4, 6, 1, 3, 5, 7]].reshape(a.T.shape)
        )

    parts = {"qweight": columns(codes), "qzeros": columns(zero), "scales": scale.T}
    return parts, numbers(codes, scale, zero)


def gptq(w, ordered=True, bits=4) -> Made:
    k = w.shape[1]
    groups = np.arange(k) // GROUP
    if not ordered:
        groups = np.random.default_rng(k).permutation(groups)
    order = np.argsort(groups, kind="stable")
    codes, scale, zero = grid(w[:, order], bits, True)
    found, placed = np.empty_like(w), np.empty_like(codes)
    found[:, order], placed[:, order] = numbers(codes, scale, zero), codes
    parts = {
        "qweight": words(placed, bits).T,
        "qzeros": words(zero.T - 1, bits),
        "scales": scale.T,
        "g_idx": groups.astype(np.int32),
    }
    return parts, found


def packed(w, symmetric=True) -> Made:
    codes, scale, zero = grid(w, 4, symmetric)
    parts = {
        "weight_packed": words(codes),
        "weight_scale": scale,
        "weight_shape": np.array(w.shape),
    }
    if not symmetric:
        parts["weight_zero_point"] = words(zero.T).T
    return parts, numbers(codes, scale, zero)


def int8(w) -> Made:
    codes, scale, zero = grid(w, 8, True, w.shape[1], np.float32)
    return {"weight": (codes - 128).astype(np.int8), "weight_scale": scale}, numbers(
        codes, scale, zero
    )


def fp8(w, block=(32, 32), part="weight_scale_inv") -> Made:
    rows, columns = np.arange(w.shape[0]) // block[0], np.arange(w.shape[1]) // block[1]
    scale = np.zeros((rows[-1] + 1, columns[-1] + 1), np.float32)
    np.maximum.at(scale, (rows[:, None], columns), np.abs(w) / 448)
    wide = scale[rows][:, columns]
    codes = (w / wide).astype(ml_dtypes.float8_e4m3fn)
    parts = {
        "weight": torch.from_numpy(codes.view(np.uint8)).view(torch.float8_e4m3fn),
        part: scale,
    }
    return parts, codes.astype(np.float32) * wide


def nf4(w) -> Made:
    parts = w.reshape(-1, 64)
    largest, table = np.abs(parts).max(1), np.array(NF4, np.float32)
    codes = np.abs(parts[..., None] / largest[:, None, None] - table).argmin(-1)
    both = codes.reshape(-1, 2)
    state = {"shape": list(w.shape), "blocksize": 64, "dtype": "float32", "quant_type": "nf4"}
    made = {
        "weight": (both[:, 0] << 4 | both[:, 1]).astype(np.uint8)[:, None],
        "weight.absmax": largest,
        "weight.quant_map": table,
        "weight.quant_state.bitsandbytes__nf4": np.frombuffer(json.dumps(state).encode(), np.uint8),
    }
    return made, (table[codes] * largest[:, None]).reshape(w.shape)


def eight(w) -> Made:
    largest = np.abs(w).max(1).astype(np.float32)
    codes = np.round(w * (127 / largest[:, None])).astype(np.int8)
    parts = {"weight": codes, "SCB": largest, "weight_format": np.array(0, np.uint8)}
    return parts, codes * largest[:, None] * np.float32(1 / 127)


def scheme(form: str, activations: bool = False, **weights) -> dict[str, Any]:
    """A quantization_config of compressed-tensors."""
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    if activations:
        group["input_activations"] = {"num_bits": 8, "dynamic": True, "strategy": "token"}
    method = {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
    }
    return method | {"config_groups": {"group_0": group}, "ignore": ["lm_head", "re:.*visual.*"]}


@dataclass(frozen=True)
class Kind:
    """A format: its packer, and what config.json says."""

    pack: Callable[[np.ndarray], Made]
    config: Mapping[str, Any] = field(default_factory=dict)


def _four(method: str, **more) -> dict[str, Any]:
    return {"quant_method": method, "bits": 4, "group_size": GROUP, **more}


_INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP}
_BNB = {"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": False}
KINDS = {
    "awq": Kind(awq, _four("awq", version="gemm", zero_point=True)),
    "gptq": Kind(gptq, _four("gptq", sym=True, desc_act=False)),
    "gptq-activation-order": Kind(
        lambda w: gptq(w, ordered=False), _four("gptq", sym=True, desc_act=True)
    ),
    "compressed-w4": Kind(packed, scheme("pack-quantized", symmetric=True, **_INT4)),
    "compressed-w4-asymmetric": Kind(
        lambda w: packed(w, symmetric=False), scheme("pack-quantized", symmetric=False, **_INT4)
    ),
    "compressed-int8": Kind(
        int8,
        scheme("int-quantized", True, num_bits=8, type="int", strategy="channel", symmetric=True),
    ),
    "compressed-fp8": Kind(
        lambda w: fp8(w, (1, w.shape[1]), "weight_scale"),
        scheme(
            "float-quantized", True, num_bits=8, type="float", strategy="channel", symmetric=True
        ),
    ),
    "fp8": Kind(
        fp8, {"quant_method": "fp8", "weight_block_size": [32, 32], "activation_scheme": "dynamic"}
    ),
    "fbgemm": Kind(
        lambda w: fp8(w, (1, w.shape[1]), "weight_scale"),
        {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0},
    ),
    "nf4": Kind(nf4, _BNB | {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
    "bitsandbytes-int8": Kind(eight, _BNB | {"load_in_8bit": True}),
}


def quantise(
    source: Path,
    folder: Path,
    kind: str,
    wanted: Callable[[str], bool],
    renamed: Callable[[str], str] = lambda name: name,
) -> tuple[Path, Path]:
    """A checkpoint quantised by hand, and one that holds the numbers that its weights stand for.

    Args:
        source: a checkpoint in one safetensors file.
        folder: made, with both in it.
        kind: one of `KINDS`.
        wanted: whether a weight of this name is quantised.
        renamed: names in the quantised one's file.
    """
    made, plain = folder / "quantised", folder / "plain"
    for place in (made, plain):
        shutil.copytree(source, place, ignore=shutil.ignore_patterns("*.safetensors"))
    here: dict[str, torch.Tensor] = {}
    there = load_file(source / "model.safetensors")
    for name, tensor in list(there.items()):
        if not wanted(name):
            here[renamed(name)] = tensor
            continue
        parts, found = KINDS[kind].pack(tensor.float().numpy())
        there[name] = torch.from_numpy(found)
        module = renamed(name).removesuffix(".weight")
        for part, value in parts.items():
            stored = value if isinstance(value, torch.Tensor) else torch.from_numpy(value.copy())
            here[f"{module}.{part}"] = stored.contiguous()
    save_file(here, made / "model.safetensors", {"format": "pt"})
    save_file(there, plain / "model.safetensors", {"format": "pt"})
    file = made / "config.json"
    config = json.loads(file.read_text()) | {"quantization_config": KINDS[kind].config}
    file.write_text(json.dumps(config))
    return made, plain
