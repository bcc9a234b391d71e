"""Quantised checkpoints that are not read, or are damaged: each is refused by name, with a mend."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from luvc.errors import LuvcError
from luvc.exporter.checkpoint.quantised.config import format_in
from luvc.exporter.checkpoint.quantised.formats import format_of
from luvc.exporter.checkpoint.quantised.weights import QuantisedWeights

FIXTURES = Path(__file__).parent / "fixtures"
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
WEIGHTS = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}


def compressed(weights=WEIGHTS, form="pack-quantized", **more):
    group = {"weights": weights, "targets": ["Linear"]}
    config = {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": group},
    }
    return config | more


@pytest.mark.parametrize(
    ("config", "message"),
    [
        *(
            (
                {"quant_method": method},
                rf"is quantised \('{method}'\), which is not read; what is: awq, bits",
            )
            for method in ("aqlm", "hqq", "quanto", "mxfp4", "nvfp4", "torchao", "gguf", "modelopt")
        ),
        ({"bits": 4}, "is quantised .None."),
        (
            AWQ | {"version": "gemv"},
            r"\(awq\) with version 'gemv' .*; gemm is read: give the checkpoint",
        ),
        (AWQ | {"bits": 3}, "with bits 3 in its quantization_config; 4 is read"),
        (AWQ | {"group_size": "128"}, "with group_size '128'"),
        (GPTQ | {"bits": 3}, "with bits 3 .*; 4, 8 is read"),
        (GPTQ | {"bits": True}, "with bits True"),
        (
            GPTQ | {"checkpoint_format": "marlin"},
            "with checkpoint_format 'marlin' .*gptq, gptq_v2 is read",
        ),
        (GPTQ | {"dynamic": {"-:.*": {}}}, "with dynamic .*none is read"),
        (GPTQ | {"group_size": 0}, "with group_size 0"),
        (compressed(form="marlin-24"), "with format 'marlin-24' .*; pack-quantized, int-quantized"),
        (compressed(form="nvfp4-pack-quantized"), "with format 'nvfp4-pack-quantized'"),
        (compressed(form="mixed-precision"), "with format 'mixed-precision'"),
        (
            compressed(WEIGHTS | {"num_bits": 3}),
            "with weights of num_bits 3 .*; 4, 8 is read for pack",
        ),
        (
            compressed(WEIGHTS | {"type": "float"}),
            "with weights of type 'float' .*int is read for pack",
        ),
        (
            compressed(WEIGHTS | {"strategy": "tensor_group"}),
            "with weights of strategy 'tensor_group'",
        ),
        (compressed(WEIGHTS | {"group_size": "x"}), "with groups of 'x'"),
        (compressed(sparsity_config={"format": "sparse-24-bitmask"}), "with sparsity_config"),
        (compressed(transform_config={"config_groups": {"u": {}}}), "with transform_config"),
        (compressed(config_groups={"W4A16": ["Linear"]}), "a scheme in full is read"),
        (
            compressed(
                config_groups={"a": {"weights": WEIGHTS}, "b": {"weights": {"num_bits": 8}}}
            ),
            "with 2 schemes in config_groups .*one for all weights is read",
        ),
        ({"quant_method": "fp8", "weight_block_size": [128]}, r"with weight_block_size \[128\]"),
        ({"quant_method": "fp8", "fmt": "e5m2"}, "with fmt 'e5m2'"),
        (
            NF4 | {"bnb_4bit_quant_type": "int4"},
            "with bnb_4bit_quant_type 'int4' .*nf4, fp4 is read",
        ),
        (NF4 | {"bnb_4bit_quant_storage": "bfloat16"}, "with bnb_4bit_quant_storage 'bfloat16'"),
        (NF4 | {"load_in_8bit": True}, "with load_in_4bit True and load_in_8bit True"),
    ],
)
def test_configs_that_are_not_read(config, message):
    with pytest.raises(LuvcError, match=message):
        format_of(config, "here")


def test_several_configs_or_none():
    assert (
        format_in({"text_config": {"hidden_size": 4}, "quantization_config": None}, "here") is None
    )
    both = {"quantization_config": AWQ, "text_config": {"quantization_config": GPTQ}}
    with pytest.raises(
        LuvcError, match=r"here has 2 quantization_configs .* that differ; one is read"
    ):
        format_in(both, "here")
    with pytest.raises(
        LuvcError, match=r"here: quantization_config is 'awq' in config.json: mend it"
    ):
        format_in({"quantization_config": "awq"}, "here")
    found = format_in({"text_config": {"quantization_config": AWQ}}, "here")
    assert found and found.about.startswith("AWQ, 4 bits")


def changed(tmp_path, name, change, **config):
    """The numbers of a fixture whose tensors or config were changed."""
    with safe_open(FIXTURES / f"{name}.safetensors", "pt") as made:
        tensors = {n: made.get_tensor(n) for n in made.keys() if n != "numbers"}  # noqa: SIM118
        said = json.loads(made.metadata()["quantization_config"])
    change(tensors)
    file = tmp_path / "model.safetensors"
    save_file({n: t.contiguous() for n, t in tensors.items()}, file)
    return QuantisedWeights(format_of(said | config, "here"), [file], torch.float16)


def drop(part):
    return lambda tensors: tensors.pop(f"linear.{part}")


def cut(part, *lengths):
    def change(tensors):
        slices = tuple(slice(0, length) for length in lengths)
        tensors[f"linear.{part}"] = tensors[f"linear.{part}"][slices]

    return change


def put(part, values):
    def change(tensors):
        tensors[f"linear.{part}"] = values

    return change


def same(tensors):
    pass


STATE = "weight.quant_state.bitsandbytes__nf4"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("awq", drop("qzeros"), "linear.weight is stored as qweight, scales, without its qzeros"),
        ("awq", drop("scales"), "without its scales: complete the checkpoint"),
        ("awq", drop("qweight"), "without its qweight"),
        (
            "awq",
            cut("qzeros", 1),
            r"linear.qzeros I32\[1, 4\] should be \[2, 4\]: the checkpoint is damaged",
        ),
        (
            "awq",
            cut("scales", 1),
            r"scales F16\[1, 32\] should have scales of 2 groups of 32 inputs",
        ),
        ("awq", cut("scales", 2, 24), r"linear.scales F16\[2, 24\] does not fit"),
        ("awq", cut("qweight", 40), "has 40 inputs, which groups of 32 do not divide"),
        ("awq", put("qweight", torch.zeros(64, 4)), r"linear.qweight F32\[64, 4\] is not I32"),
        (
            "awq",
            put("extra", torch.zeros(4, dtype=torch.int32)),
            r"linear.extra I32\[4\] is no part of AWQ",
        ),
        ("awq", put("weight", torch.zeros(32, 64)), "is stored as numbers, and quantised as"),
        ("gptq-activation-order", drop("g_idx"), "without its g_idx"),
        (
            "gptq-4",
            put("g_idx", torch.arange(64).int()),
            "names groups beyond the 2 that have scales",
        ),
        ("gptq-4", cut("g_idx", 60), r"g_idx I32\[60\] should be \[64\]"),
        (
            "compressed-w4",
            cut("weight_packed", 32, 7),
            "does not hold the 32 x 64 of its weight_shape",
        ),
        ("compressed-w4", drop("weight_scale"), "without its weight_scale"),
        (
            "compressed-w4",
            put("weight_zero_point", torch.ones(32, 2).char()),
            "config says .* symmetric",
        ),
        ("compressed-w4-asymmetric", drop("weight_zero_point"), "without its weight_zero_point"),
        ("compressed-int8-channel", cut("weight_scale", 30), "should be of 32 outputs"),
        ("compressed-int8-tensor", put("weight_scale", torch.ones(2)), "should be one scale"),
        (
            "compressed-fp8-block",
            cut("weight_scale", 3, 2),
            r"should be \[3, 3\], of blocks of 8 x 32",
        ),
        ("compressed-fp8-tensor", put("weight_scale", torch.ones(2)), r"should be \[1, 1\]"),
        ("fp8-blocks", drop("weight_scale_inv"), "without its weight_scale_inv"),
        (
            "fp8-blocks",
            put("weight", torch.zeros(32, 64).char()),
            r"weight I8\[32, 64\] is not F8_E4M3",
        ),
        ("bitsandbytes-nf4", drop("weight.absmax"), "without its weight.absmax"),
        ("bitsandbytes-nf4", drop(STATE), "without its weight.quant_state.bitsandbytes__nf4"),
        ("bitsandbytes-nf4", cut("weight", 1000), "does not hold the 24 x 96 values of its state"),
        (
            "bitsandbytes-nf4",
            put(STATE, torch.zeros(9).byte()),
            "does not say shape, blocksize and dtype",
        ),
        ("bitsandbytes-int8", drop("SCB"), "without its SCB"),
        ("bitsandbytes-int8", put("weight_format", torch.tensor(1).byte()), "is not 0, for rows"),
    ],
)
def test_damaged_tensors(tmp_path, name, change, message):
    def read():
        weights = changed(tmp_path, name, change)
        weights.shape("linear.weight")
        weights.numbers("linear.weight")

    with pytest.raises(LuvcError, match=message):
        read()


def test_no_weight_is_quantised(tmp_path):
    with pytest.raises(
        LuvcError, match=r"that the weights are AWQ.*, and none of them is: take quant"
    ):
        changed(
            tmp_path, "awq", lambda tensors: [tensors.clear(), put("x", torch.ones(1))(tensors)]
        )


def test_group_sizes_that_do_not_divide_or_fit(tmp_path):
    weights = changed(tmp_path, "awq", same, group_size=48)
    with pytest.raises(
        LuvcError, match=r"linear.weight has 64 inputs, which groups of 48 do not divide"
    ):
        weights.numbers("linear.weight")
    weights = changed(tmp_path, "awq", same, group_size=16)
    with pytest.raises(LuvcError, match=r"should have scales of 4 groups of 16 inputs"):
        weights.numbers("linear.weight")


def test_scales_of_activations_and_caches_are_told(tmp_path):
    def scales(tensors):
        put("input_scale", torch.ones(1))(tensors)
        put("k_scale", torch.ones(1))(tensors)

    weights = changed(tmp_path, "compressed-fp8-channel", scales, kv_cache_scheme={"num_bits": 8})
    assert len(weights.unread) == 2
    (caches, passed) = weights.lost
    assert (
        "caches are not rounded" in caches
        and "passing over 2 scales of activations or caches" in passed
    )
