"""Pruned prompts and decoding of every family against Hugging Face's layers with rows dropped by hand."""

import numpy as np
import pytest

from luvc.engines.bundle.schedule import ENERGY, Prune, Schedule

from . import reference
from .gallery import QUESTION, names, pictures, question
from .pruned_by_hand import ByHand

CUTOFF = 0.4
TEXT = QUESTION + " Tell me about every part of it, one after the other."  # more than a window


@pytest.mark.cell("SPU")
@pytest.mark.parametrize("name", names())
def test_pruned_answers_are_hugging_faces_with_rows_dropped(gallery, name):
    family, (model, proc) = gallery.family(name), gallery.hugging_face(name)
    V = gallery.in_pytorch(name, ratio=1).manifest.layouts[0].visual_tokens
    keeps = {1: V // 2, 2: V // 5, 3: 0}
    prunes = tuple(Prune(layer=i, keep=k) for i, k in keeps.items())
    vlm = gallery.in_pytorch(
        name, schedule=Schedule(language=prunes, score=ENERGY.having(cutoff=CUTOFF))
    )
    (layout,) = vlm.manifest.layouts
    shown = pictures(layout.image_size, 1)
    hand = ByHand(model, reference.inputs(proc, TEXT, shown), keeps, CUTOFF)
    wanted = hand.logits().numpy()
    prompt = vlm.processor.prompt(question(shown, TEXT))
    assert prompt.input_ids == hand.ids
    _, result, _ = vlm.prefill([prompt])
    for layer, stage in result.stages.items():
        assert stage.kept[0].tolist() == hand.kept[layer]
    assert np.abs(result.logits[0] - wanted).max() <= 1e-4 * np.abs(wanted).max()
    answer = vlm.generate(question(shown, TEXT), max_new_tokens=12).token_ids
    assert answer == hand.generate(12, vlm.sampling.eos_token_id)
    window = family.language.window
    if window is not None and name != "internvl-phi3":
        words = len(prompt.input_ids) - V
        assert words > window, "a window longer than the text that is left tests less"
