"""Factors of channels: what Hugging Face's own forward computes stays, and rounding loses less."""

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from luvc.engines.bundle.manifest import Quantisation
from luvc.exporter.check.smoothed import Read, Smoothing
from luvc.exporter.quantised.given import Inputs
from luvc.exporter.quantised.rounding import Rounding
from luvc.exporter.quantised.smoothing import Place, is_exact, places

from ..method_graphs import FEW_LAYERS, MethodGraphs

SHAPE = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "head_dim": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "max_position_embeddings": 64,
}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
MODELS = {  # with the places of two layers
    "llama": ({}, 8),
    "qwen2": ({}, 8),  # biases of queries, keys and values
    "qwen3": ({}, 8),  # norms of heads
    "gemma2": ({}, 8),  # norms that add one, and stand behind attention, too
    "phi3": ({"eos_token_id": 2, "bos_token_id": 1}, 4),  # fused projections
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, 7),
    "qwen3_5_text": (LINEAR, 7),
}
INT8 = Quantisation(kind="int8")
NOTHING = Read()


def model_of(name: str):
    torch.manual_seed(0)
    options, _ = MODELS[name]
    config = AutoConfig.for_model(name, **SHAPE | options)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for n, p in model.named_parameters():
        if p.ndim == 1:  # norms and biases as training leaves them, some channels far out
            p.data += torch.randn(p.shape) * 0.3
            p.data[::7] *= 12 if "norm" in n else 1
    return model


def smoothed(model, ids, read=NOTHING, path="model.layers", head_dim=16):
    """The model's places searched on token ids, layer after layer, and the weights with their factors."""
    rounding = Rounding(INT8, torch.float32)
    smoothing = Smoothing(model, path, head_dim, rounding, read)
    layers: Any = model.get_submodule(path)
    for i, layer in enumerate(layers):
        names = {n: m for n, m in layer.named_modules() if isinstance(m, nn.Linear)}
        modules: dict[str, Any] = {f"{path}.{i}.{n}.weight": m for n, m in names.items()}
        given, calls = Inputs(modules), []
        hook = layer.register_forward_pre_hook(
            lambda module, args, kwargs, calls=calls: calls.append((args, kwargs)),
            with_kwargs=True,
        )
        with torch.no_grad(), given.watched():
            model(ids, use_cache=False)
        hook.remove()
        ((args, kwargs),) = calls
        norm = getattr(layer, "operator_norm", None) or layer.input_layernorm
        with torch.no_grad():
            smoothing.search(i, given, norm, partial(first, layer, args, kwargs))
        for name, module in modules.items():
            nothing = torch.zeros(module.in_features, module.in_features)
            weight, _ = smoothing.smoothed(name, module.weight.detach(), nothing)
            module.weight = nn.Parameter(weight)
    return smoothing


def first(layer, args, kwargs):
    out = layer(*args, **kwargs)
    return out[0] if isinstance(out, tuple) else out


def logits(model, ids):
    with torch.no_grad():
        return model(ids, use_cache=False).logits


def rounded(model):
    """The error of 8-bit products, inputs of each token rounded, too."""
    how = Rounding(INT8, torch.float32)
    for module in model.model.layers.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(how.decoded(module.weight))
            module.register_forward_pre_hook(lambda module, args: (eight_bits(args[0]),))
    return model


def eight_bits(x):
    step = x.abs().amax(-1, keepdim=True) / 127
    return torch.round(x / step) * step


@pytest.mark.parametrize("name", MODELS)
def test_the_function_stays(name):
    model, ids = model_of(name), torch.randint(3, 96, (2, 24))
    before = logits(model, ids)
    smoothing = smoothed(model, ids)
    places = MODELS[name][1]
    assert smoothing.told.startswith(f"moved factors of channels at {places} of {places} places")
    changed = {n: p for n, p in model.named_parameters() if n in smoothing.factors.numbers}
    assert changed and all(p.ndim == 1 for p in changed.values())
    assert (logits(model, ids) - before).abs().max() <= 1e-5 * before.abs().max()


def test_rounding_loses_less():
    model, ids = model_of("llama"), torch.randint(3, 96, (2, 24))
    exact = logits(model, ids)
    plain = logits(rounded(model_of("llama")), ids)
    smoothed(model, ids)
    lost = (logits(rounded(model), ids) - exact).norm() / (plain - exact).norm()
    assert lost < 0.8, lost


def test_what_a_score_reads_stays():
    model, ids = model_of("llama"), torch.randint(3, 96, (2, 24))
    norms = [layer.input_layernorm.weight.clone() for layer in model.model.layers]
    smoothing = smoothed(model, ids, Read(ahead=frozenset({1})))
    assert smoothing.told == ("moved factors of channels at 7 of 8 places; 1 cannot take them in")
    same = [
        torch.equal(a, layer.input_layernorm.weight)
        for a, layer in zip(norms, model.model.layers, strict=True)
    ]
    assert same == [False, True]


@pytest.fixture(scope="module")
def graphs(workshop, tmp_path_factory):
    """A vision-language model whose language layers have channels far out."""
    plain = workshop.checkpoint(layers=4, vision_layers=2, image=168, text="qwen2")
    graphs = MethodGraphs(plain, tmp_path_factory.mktemp("graphs"))
    for name, p in graphs.hugging_face().model.language_model.named_parameters():
        if name.endswith("norm.weight"):
            p.data = p * torch.where(torch.arange(len(p)) % 7 == 0, 12, 1)
    return graphs


READING = ("luvc", "fastv", "k-norm", "transprune")
"""Methods that between them read all that is to be read between language layers."""


def energies(graphs, layout, model):
    """Of each stage, with the parameters of a model."""
    runner, random = graphs.pytorch(), np.random.default_rng(5)
    ours = dict(runner.model.named_parameters())
    for name, p in model.named_parameters():
        ours[name].data = p.data
    shape = 2, layout.visual_tokens, graphs.family.decoder.hidden
    feed = graphs.feed(layout, random.normal(size=shape).astype(np.float32), random)
    result = runner.prefill(layout, feed, runner.new_caches(layout, 2))
    return {i: stage.energies for i, stage in result.stages.items()}


@pytest.mark.parametrize("method", READING)
def test_scores_stay_as_they_are(graphs, method):
    """Whatever a method reads, factors leave what it chooses by."""
    layout = (graphs.layout if method in FEW_LAYERS else graphs.first_layout)(method)
    before = energies(graphs, layout, graphs.hugging_face())
    model, ids = copy.deepcopy(graphs.hugging_face()), torch.randint(10, 900, (2, 24))
    path, d = "model.language_model.layers", graphs.family.decoder.head_dim
    smoothing = smoothed(model, ids, Read.by([layout.schedule]), path, d)
    after = energies(graphs, layout, model)
    assert before.keys() == after.keys() == set(layout.schedule.scored)
    assert len(smoothing.factors.sources) > 8
    for i, found in before.items():
        np.testing.assert_allclose(after[i], found, rtol=1e-3, atol=1e-4 * np.abs(found).max())


class Beside(nn.Module):
    """A layer whose norm is read by a product and by nobody that could undo factors."""

    def __init__(self):
        super().__init__()
        self.norm, self.inner = nn.RMSNorm(8), nn.Linear(8, 8)

    def forward(self, x):
        """[..., 8] -> [..., 8]"""
        normed = self.norm(x)
        return normed + self.inner(normed)


def test_a_norm_that_others_read_takes_nothing_in():
    layer, x = Beside(), torch.randn(4, 8)
    (place,) = places(layer, 8, lambda: layer(x))
    assert place == Place("norm", ("inner",))
    assert not is_exact(layer, place, lambda: layer(x))
    assert is_exact(layer, place, lambda: layer.inner(layer.norm(x)))
