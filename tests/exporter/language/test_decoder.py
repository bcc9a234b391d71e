"""The decoder loop and the SPU cascade against Hugging Face's own forward and caches."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache, InternVLForConditionalGeneration

from luvc.engines.backends.base import StepFeed
from luvc.engines.bundle.schedule import ENERGY, Prune, Schedule
from luvc.errors import LuvcError
from luvc.exporter.check.torch_runner import TorchRunner
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.language.graphs import PrefillGraph
from luvc.exporter.language.spu import Tokens, text_positions
from luvc.exporter.language.traits import text_traits
from luvc.exporter.layouts.planned import image_geometry, plan_layout

from ..feeds import random_feed

V, TEXT = 36, 14
SCHEDULE = Schedule(
    ratio=2,
    score=ENERGY.having(cutoff=0.4),
    language=(Prune(layer=1, keep=20), Prune(layer=3, keep=7), Prune(layer=4, keep=0)),
)


def runner(workshop, text="qwen2", **shape):
    path = workshop.checkpoint(layers=5, vision_layers=2, image=168, text=text, **shape)
    model = InternVLForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()
    return TorchRunner(model, Family.load(str(path)), text_capacity=64)


def layout_with(runner, schedule):
    return plan_layout(runner.family, image_geometry(runner.family), 8, schedule).layout


def feed(batch=1, seed=0):
    return random_feed(V, TEXT, batch, seed)


def embeds(r, f):
    """Input embeddings with the visual tokens in place, by plain indexing."""
    table = r.model.get_input_embeddings().weight.detach()
    x = table[torch.from_numpy(f.input_ids)].clone()
    for row in range(len(x)):
        x[row, f.visual_index[row]] = torch.from_numpy(f.visual_embeds[row])
    return x


@pytest.mark.parametrize("text", ["qwen2", "qwen3", "llama"])
def test_empty_schedule_equals_hugging_face(workshop, text):
    r, f = runner(workshop, text), feed(batch=2)
    layout = layout_with(r, Schedule())
    caches = r.new_caches(layout, 2)
    ours = r.prefill(layout, f, caches)
    r.model.set_attn_implementation("eager")
    with torch.no_grad():
        out = r.model.model.language_model(inputs_embeds=embeds(r, f), use_cache=True)
        logits = r.model.lm_head(out.last_hidden_state[:, -1])
    r.model.set_attn_implementation("luvc")
    np.testing.assert_allclose(ours.logits, logits.numpy(), atol=2e-4)
    for i, layer in enumerate(out.past_key_values.layers):
        written = caches[f"cache_key_{i}"][:, :, : V + TEXT]
        np.testing.assert_allclose(written.numpy(), layer.keys.numpy(), atol=1e-4)


def scored(**options):
    """The schedule with other options of its score."""
    return SCHEDULE.model_copy(update={"score": SCHEDULE.score.having(**options)})


def prune_by_hand(r, f, band):
    """Hugging Face's layers one by one, dropping rows by numpy between them (batch 1).

    Returns logits, the cache, and the kept positions of each stage.
    """
    lm = r.model.model.language_model
    r.model.set_attn_implementation("eager")
    hidden = embeds(r, f)
    position = torch.arange(V + TEXT)[None]
    visual = list(f.visual_index[0])
    kept = []
    cache = DynamicCache()
    keeps = {p.layer: p.keep for p in SCHEDULE.language}
    alive = list(range(V + TEXT))
    with torch.no_grad():
        for i, layer in enumerate(lm.layers):
            if i in keeps:
                rows = [alive.index(p) for p in visual]
                x = layer.input_layernorm(hidden)[0, rows].double().numpy()
                spectrum = np.fft.fft(x, axis=0)
                n = len(rows)
                frequency = np.minimum(np.arange(n), n - np.arange(n))
                spectrum[(frequency > int(0.4 * n / 2)) == (band == "low")] = 0
                score = (np.fft.ifft(spectrum, axis=0).real ** 2).sum(1)
                best = np.sort(np.argsort(-score, kind="stable")[: keeps[i]])
                stay = [visual[n] for n in best]
                gone = set(visual) - set(stay)
                chosen = [n for n, p in enumerate(alive) if p not in gone]
                hidden, position = hidden[:, chosen], position[:, chosen]
                alive, visual = [alive[n] for n in chosen], stay
                kept.append(stay)
            S = hidden.shape[1]
            mask = torch.full((1, 1, S, S), float("-inf")).triu(1)
            hidden = layer(
                hidden,
                attention_mask=mask,
                position_embeddings=lm.rotary_emb(hidden, position),
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
            )
        logits = r.model.lm_head(lm.norm(hidden)[:, -1])
    return logits, cache, kept


@pytest.mark.parametrize(("text", "band"), [("qwen2", "low"), ("qwen3", "high"), ("llama", "low")])
def test_pruned_prefill_and_decoding_equal_hugging_face(workshop, text, band):
    """Pruning by hand with numpy FFT; decoding with a DynamicCache of unequal layer lengths."""
    r, f = runner(workshop, text), feed()
    wanted, cache, kept = prune_by_hand(r, f, band)
    layers: Any = cache.layers
    lengths = [layer.keys.shape[2] for layer in layers]
    assert lengths == [TEXT + v for v in (V, 20, 20, 7, 0)]
    layout = layout_with(r, scored(band=band))
    r.model.set_attn_implementation("luvc")
    caches = r.new_caches(layout, 1)
    ours = r.prefill(layout, f, caches)
    np.testing.assert_allclose(ours.logits, wanted.numpy(), atol=2e-4)
    assert f.visual_index is not None
    ordinals, stages = f.visual_index[0], list(ours.stages.values())
    for positions, stage in zip(kept, stages, strict=False):
        ordinals = ordinals[stage.kept[0]]
        assert ordinals.tolist() == positions
    logits = wanted
    for n in range(8):
        token, at = int(logits.argmax()), V + TEXT + n
        r.model.set_attn_implementation("sdpa")
        with torch.no_grad():
            logits = r.model(
                input_ids=torch.tensor([[token]]),
                past_key_values=cache,
                use_cache=True,
                position_ids=torch.tensor([[at]]),
            ).logits[:, -1]
        r.model.set_attn_implementation("luvc")
        step = StepFeed(np.array([[token]]), np.array([[at]]), np.array([TEXT + n]), np.array([0]))
        np.testing.assert_allclose(r.step(layout, step, caches), logits.numpy(), atol=3e-4)


def test_raw_signal_scores_the_hidden_states(workshop):
    r, f = runner(workshop), feed()
    schedule = scored(signal="raw")
    layout = layout_with(r, schedule)
    graph = PrefillGraph(r.model, r.family.traits, layout, r.family.language, 64)
    seen = {}
    graph.pruners["1"].register_forward_pre_hook(lambda m, a: seen.update(hidden=a[0].hidden))
    args = [torch.from_numpy(getattr(f, n)) for n in graph.inputs]
    with torch.no_grad():
        out = graph(*args, *r.new_caches(layout, 1).values())
    energies = dict(zip(graph.output_names(), out, strict=True))["energies_1"]
    assert f.visual_index is not None
    x = seen["hidden"][0, f.visual_index[0]].double().numpy()
    spectrum = np.fft.rfft(x, axis=0)
    spectrum[int(0.4 * V / 2) + 1 :] = 0
    wanted = (np.fft.irfft(spectrum, n=V, axis=0) ** 2).sum(1)
    np.testing.assert_allclose(energies[0].numpy(), wanted, rtol=1e-4)


def test_text_positions():
    index = torch.tensor([[1, 2, 5], [0, 3, 6]])
    tokens = Tokens(torch.zeros(2, 7, 1), torch.zeros(2, 7, 1), index, torch.tensor([6, 6]))
    assert text_positions(tokens).tolist() == [[0, 3, 4, 6], [1, 2, 4, 5]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, "mamba"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "longrope"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
    ],
)
def test_unsupported_text_models_are_refused(change, message):
    from types import SimpleNamespace

    config = SimpleNamespace(**({"model_type": "qwen2", "num_hidden_layers": 2} | change))
    with pytest.raises(LuvcError, match=message):
        text_traits(config)
