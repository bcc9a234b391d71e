"""Makes fixtures/*.safetensors: small weights quantised by the formats' own libraries, and their numbers.

Each file holds what a checkpoint would (`linear.` and the part's name) and `numbers`, the library's own
dequantised weight; its metadata is the quantization_config and the library's version. To make them again,
in an environment of their own:

    pip install torch transformers autoawq compressed-tensors bitsandbytes gptqmodel
    python make_fixtures.py                                     # all but the one below
    pip install compressed-tensors==0.9.4 && python make_fixtures.py compressed-tensors-0.9
"""

# the libraries are not installed where types are checked
# pyright: reportMissingImports=false

import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent / "fixtures"
OUTPUTS, INPUTS = 32, 64
GROUP = 32
GROUPS = INPUTS // GROUP


def weight(seed=0, outputs=OUTPUTS, inputs=INPUTS):
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))


def save(name, library, config, parts, numbers):
    tensors = {f"linear.{part}": t.detach().contiguous().clone() for part, t in parts.items()}
    about = {"library": f"{library} {version(library)}", "quantization_config": json.dumps(config)}
    save_file(tensors | {"numbers": numbers.contiguous()}, HERE / f"{name}.safetensors", about)


def grid(w, bits, symmetric, rows=None):
    """Scales and zeros [N, G] of groups of a weight, zeros among 0 .. 2^bits - 1."""
    parts = w.view(len(w), -1, rows or GROUP)
    if symmetric:
        scale = parts.abs().amax(-1) / (2 ** (bits - 1) - 1)
        return scale.half(), torch.full_like(scale, 2 ** (bits - 1))
    low, high = parts.amin(-1).clamp(max=0), parts.amax(-1).clamp(min=0)
    scale = ((high - low) / (2**bits - 1)).half()
    return scale, (-low / scale.float()).round().clamp(0, 2**bits - 1)


def awq():
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import dequantize_gemm

    w = weight()
    scale, zero = grid(w, 4, False)
    linear = torch.nn.Linear(INPUTS, OUTPUTS, bias=False)
    linear.weight.data = w.half()
    made = WQLinear_GEMM.from_linear(
        linear, 4, GROUP, scales=scale.T.contiguous(), zeros=zero.T.contiguous()
    )
    parts = {"qweight": made.qweight, "qzeros": made.qzeros, "scales": made.scales}
    numbers = dequantize_gemm(made.qweight, made.qzeros, made.scales, 4, GROUP).T
    config = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": GROUP,
        "version": "gemm",
        "zero_point": True,
    }
    save("awq", "autoawq", config, parts, numbers)


def gptq(name, bits=4, symmetric=True, order=None, checkpoint="gptq", positive=False):
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    w = weight(1).abs() if positive else weight(1)
    if order is None:
        order = torch.arange(INPUTS) // GROUP
    sorted_w = w[:, torch.argsort(order, stable=True)]
    scale, zero = grid(sorted_w, bits, symmetric)
    made = TorchLinear(bits, GROUP, symmetric, False, INPUTS, OUTPUTS, register_buffers=True)
    linear = torch.nn.Linear(INPUTS, OUTPUTS, bias=False)
    linear.weight.data = w
    made.pack_original(linear, scale.float(), zero.float(), order.int())
    made.post_init()
    numbers = made.dequantize_weight().T
    if checkpoint == "gptq":
        config = SimpleNamespace(bits=bits, pack_dtype=torch.int32)
        convert_gptq_v2_to_v1_format_module(made, config)
    parts = {p: getattr(made, p) for p in ("qweight", "qzeros", "scales", "g_idx")}
    ordered = torch.equal(order, torch.arange(INPUTS) // GROUP)
    config = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": GROUP,
        "desc_act": not ordered,
        "sym": symmetric,
        "checkpoint_format": checkpoint,
    }
    save(name, "gptqmodel", config, parts, numbers)


def compressed(name, form, compressor, w, scale, zero=None, **args):
    from compressed_tensors import compressors
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    weights = QuantizationArgs(**args)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    state = {"weight": w.to(scale.dtype), "weight_scale": scale}
    if zero is not None:
        state["weight_zero_point"] = zero
    library = getattr(compressors, compressor)
    parts = library.compress(state, scheme)
    numbers = library.decompress(dict(parts), scheme)["weight"]
    group = {"targets": ["Linear"], "weights": weights.model_dump(mode="json")}
    config = {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": group},
    }
    save(name, "compressed-tensors", config, parts, numbers)


def all_compressed():
    w = weight(2)
    packed, naive = "PackedQuantizationCompressor", "NaiveQuantizationCompressor"
    for bits, symmetric in ((4, True), (4, False), (8, True), (8, False)):
        scale, zero = grid(w, bits, symmetric)
        zero = (zero - 2 ** (bits - 1)).to(torch.int8)
        name = f"compressed-w{bits}{'' if symmetric else '-asymmetric'}"
        args = {"num_bits": bits, "type": "int", "symmetric": symmetric}
        how = {"strategy": "group", "group_size": GROUP}
        compressed(name, "pack-quantized", packed, w, scale.bfloat16(), zero, **args, **how)
    for strategy, inputs in (("channel", INPUTS), ("tensor", None)):
        parts = w if inputs else w.view(1, -1)
        for symmetric in (True, False):
            scale, zero = grid(parts, 8, symmetric, parts.shape[1])
            scale, zero = (t if inputs else t.view(1) for t in (scale.bfloat16(), zero))
            zero = (zero - 128).to(torch.int8)
            name = f"compressed-int8-{strategy}{'' if symmetric else '-asymmetric'}"
            args = {"num_bits": 8, "type": "int", "symmetric": symmetric, "strategy": strategy}
            compressed(name, "int-quantized", naive, w, scale, zero, **args)
    odd = weight(3, 20, 72)
    padded = torch.nn.functional.pad(odd, (0, 96 - 72, 0, 24 - 20))
    scales = {
        "tensor": odd.abs().amax().view(1) / 448,
        "channel": odd.abs().amax(1, keepdim=True) / 448,
        "block": padded.view(3, 8, 3, 32).abs().amax((1, 3)) / 448,
    }
    for strategy, scale in scales.items():
        args = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": strategy}
        how = {"block_structure": [8, 32]} if strategy == "block" else {}
        kind = torch.float32 if strategy == "channel" else torch.bfloat16
        form = "naive-quantized" if strategy == "tensor" else "float-quantized"
        name = f"compressed-fp8-{strategy}"
        compressed(name, form, naive, odd, scale.to(kind), **args, **how)


def older_compressed():
    """Groups in the order of activations, which newer versions do not write."""
    from compressed_tensors.compressors import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs

    order = torch.randperm(INPUTS, generator=torch.Generator().manual_seed(5)) % GROUPS
    w = weight(4)
    scale = grid(w[:, torch.argsort(order, stable=True)], 4, True)[0].bfloat16()
    weights = QuantizationArgs(
        num_bits=4, type="int", symmetric=True, strategy="group", group_size=GROUP, actorder="group"
    )
    library = PackedQuantizationCompressor()
    given = {"weight": w.bfloat16(), "scale": scale, "g_idx": order.int()}
    parts = dict(library.compress_weight(quantization_args=weights, **given))
    parts |= {"weight_scale": scale, "weight_g_idx": order.int()}
    group = {"targets": ["Linear"], "weights": weights.model_dump(mode="json")}
    config = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": group},
    }
    numbers = library.decompress_weight(dict(parts), weights)
    save("compressed-g-idx", "compressed-tensors", config, parts, numbers)


def fp8():
    from transformers import FineGrainedFP8Config
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize, Fp8Quantize

    for name, block, scale in (
        ("fp8-blocks", (8, 32), None),
        ("fp8-powers-of-two", (8, 32), "ue8m0"),
        ("fp8-tensor", None, None),
    ):
        config = FineGrainedFP8Config(**{"weight_block_size": block, "scale_fmt": scale})
        owner = SimpleNamespace(quantization_config=config)
        made = Fp8Quantize(owner)._quantize_one("linear.weight", weight(6))
        parts = {part.removeprefix("linear."): t for part, t in made.items()}
        both = parts["weight"], parts["weight_scale_inv"]
        numbers = Fp8Dequantize(owner)._dequantize_one(*both, output_dtype=torch.bfloat16)
        save(name, "transformers", config.to_dict(), parts, numbers)


def bitsandbytes():
    import bitsandbytes.functional as bnb

    w = weight(7, 24, 96).half()  # 36 blocks: 9 nested ones
    for kind, nested in (("nf4", False), ("nf4", True), ("fp4", False)):
        packed, state = bnb.quantize_4bit(
            w, blocksize=64, quant_type=kind, compress_statistics=nested
        )
        parts = {"weight": packed}
        parts |= {f"weight.{part}": t for part, t in state.as_dict(packed=True).items()}
        config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
        name = f"bitsandbytes-{kind}{'-nested' if nested else ''}"
        save(name, "bitsandbytes", config, parts, bnb.dequantize_4bit(packed, state))
    codes, largest, _ = bnb.int8_vectorwise_quant(w)
    parts = {"weight": codes, "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    config = {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}
    save(
        "bitsandbytes-int8",
        "bitsandbytes",
        config,
        parts,
        bnb.int8_vectorwise_dequant(codes, largest),
    )


def main():
    HERE.mkdir(exist_ok=True)
    if "compressed-tensors-0.9" in sys.argv:
        older_compressed()
        return
    awq()
    gptq("gptq-4")
    gptq("gptq-4-zeros-of-zero", symmetric=False, positive=True)
    gptq("gptq-v2", symmetric=False, checkpoint="gptq_v2")
    gptq(
        "gptq-activation-order",
        order=torch.randperm(INPUTS, generator=torch.Generator().manual_seed(5)) % 2,
    )
    gptq("gptq-8", bits=8, symmetric=False)
    all_compressed()
    fp8()
    bitsandbytes()


if __name__ == "__main__":
    main()
