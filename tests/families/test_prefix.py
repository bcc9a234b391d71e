"""What comes up to the last picture, run once for several questions: the same answers in every family."""

from dataclasses import replace

import numpy as np
import pytest

from luvc.engines import VLM
from luvc.engines.decoding import Rows
from luvc.engines.prompt.prefix import marks_of, prefix_length, unshared
from luvc.engines.serving import Limits, Scheduler

from ..exporter.method_graphs import FEW_LAYERS, GRAPHS
from .checkpoints import family_of
from .gallery import QUESTION, exported, names, pictures, question

ASKED = (QUESTION, "Why?", f"{QUESTION} And what is beside it?")
LOOKS_AHEAD = "paligemma"  # its pictures see the question


@pytest.mark.parametrize("name", exported())
def test_a_hit_answers_as_a_miss_and_as_a_prompt_of_its_own(gallery, name):
    bundle = gallery.bundle(name, "compressed")
    (layout,) = bundle.manifest.layouts
    vlm = VLM.load(bundle.path, threads=1)
    shown = pictures(layout.image_size, 1)
    wanted = [vlm.generate(question(shown, text), max_new_tokens=8) for text in ASKED]
    shared = family_of(name) != LOOKS_AHEAD
    with Scheduler(vlm, Limits(rows=2, prefill=2)) as scheduler:
        crowd = [scheduler.submit(question(shown, t), max_new_tokens=8) for t in ASKED]
        again = [scheduler.submit(question(shown, t), max_new_tokens=8) for t in ASKED]
        for ticket, own in zip([*crowd, *again], wanted * 2, strict=True):
            assert ticket.answer.token_ids == own.token_ids
            assert ticket.answer.stages == own.stages
        prefixes = scheduler.prefixes
        assert (prefixes.misses, prefixes.hits) == (1, 5)
        refused = prefixes.refusals()
        reused = {ticket.answer.reused_tokens for ticket in again}
        turns = [question(shown), [{"role": "user", "content": "Why?"}]]
        options = {"conversation": "s", "max_new_tokens": 4}
        told = [scheduler.submit(turn, **options).answer for turn in turns]
    chat = vlm.chat(max_new_tokens=4)
    assert [a.token_ids for a in told] == [
        chat.ask(QUESTION, shown).token_ids,
        chat.ask("Why?").token_ids,
    ]
    if shared:
        (length,) = reused
        assert length > layout.visual_tokens and not refused
        assert told[1].reused_tokens >= told[0].reused_tokens == length, "afresh is on it too"
    else:
        assert reused == {0} and "look at the question" in refused[layout.name]


@pytest.mark.parametrize("name", [n for n in names() if family_of(n.values[0]) != LOOKS_AHEAD])
def test_the_rest_on_top_of_it_is_the_whole_prompt(gallery, name):
    """Logits and positions, of every text model; the text between two pictures is part of it."""
    vlm = gallery.in_pytorch(name, ratio=1.5, images=(2,))
    (layout,) = vlm.manifest.layouts
    language = vlm.manifest.language
    shown = pictures(layout.image_size, 2)
    parts = [{"type": "image", "image": image} for image in shown]
    between = [p for image in parts for p in (image, {"type": "text", "text": QUESTION})]
    prompt = vlm.processor.prompt([{"role": "user", "content": between}])
    whole, wanted, _ = vlm.prefill([prompt])
    marks = marks_of(vlm.processor.tokenizer, language, layout)
    length = prefix_length(prompt, language.image_token_id, marks)
    ids = prompt.input_ids
    assert language.image_token_id not in ids[length:] and length > layout.visual_tokens
    embeds, _ = vlm.embed([prompt])
    rows = Rows(vlm.runner, vlm.manifest, layout, 1)
    first = rows.prefill([ids[:length]], embeds)
    found = rows.run_rest(ids)
    assert np.abs(found - wanted.logits).max() <= 1e-4 * np.abs(wanted.logits).max()
    assert (rows.text_len, rows.reached.position) == (whole.text_len, whole.reached.position)
    assert first.stages.keys() == wanted.stages.keys()
    for layer, stage in first.stages.items():
        assert np.array_equal(stage.kept, wanted.stages[layer].kept)


@pytest.mark.parametrize("method", GRAPHS)
def test_a_method_that_reads_the_question_is_found_out(gallery, method):
    """What each stage scores is the same behind any question and behind none, or nothing is shared."""
    options = {"ratio": 1.58, "method": method} | FEW_LAYERS.get(method, {})
    vlm = gallery.in_pytorch("internvl", **options)
    (layout,), language = vlm.manifest.layouts, vlm.manifest.language
    (shown,) = pictures(layout.image_size, 1)
    prompts = [vlm.processor.prompt(question([shown], text)) for text in ASKED]
    length = prefix_length(prompts[0], language.image_token_id, set())
    cut = replace(prompts[0], input_ids=prompts[0].input_ids[:length])
    found = [vlm.prefill([prompt])[1].stages for prompt in (*prompts, cut)]
    layers = found[0].keys()
    same = all(
        np.allclose(other[i].energies, found[0][i].energies, rtol=1e-3, atol=1e-6)
        and np.array_equal(other[i].kept, found[0][i].kept)
        for other in found
        for i in layers
    )
    assert same == (unshared(language, layout) is None) == (method != "fastv")


def test_a_video_that_lasts_longer_than_its_sides(gallery):
    """Its last step stands behind the question in time: what is answered goes on behind both."""
    vlm = gallery.in_pytorch("qwen2_5_vl", ratio=1, frames=(4,))
    (layout,), language = vlm.manifest.layouts, vlm.manifest.language
    frames = pictures(layout.image_size, 4)
    texts = ("Why?", f"{QUESTION} {QUESTION}")
    for text, fps in ((text, fps) for text in texts for fps in (2.0, 0.05)):
        video = {"type": "video", "video": frames, "fps": fps}
        content = [video, {"type": "text", "text": text}]
        prompt = vlm.processor.prompt([{"role": "user", "content": content}])
        whole, wanted, _ = vlm.prefill([prompt])
        length = prefix_length(prompt, language.image_token_id, set())
        embeds, _ = vlm.embed([prompt])
        rows = Rows(vlm.runner, vlm.manifest, layout, 1)
        rows.prefill([prompt.input_ids[:length]], embeds, [prompt.seconds])
        found = rows.run_rest(prompt.input_ids, prompt.seconds)
        assert np.abs(found - wanted.logits).max() <= 1e-4 * np.abs(wanted.logits).max()
        assert rows.reached.position == whole.reached.position
        late = whole.reached.position[0] > len(prompt.input_ids)
        assert late == (fps < 1)
        token = [[int(wanted.logits[0].argmax())]]
        assert np.allclose(rows.step(token), whole.step(token), rtol=1e-3, atol=1e-4)
