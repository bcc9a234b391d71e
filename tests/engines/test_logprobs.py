"""Log-probabilities of an answer against Hugging Face's own logits."""

import numpy as np
import pytest
import torch

from luvc.errors import LuvcError
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.checkpoint.weights import load_model
from luvc.tools.hugging_face import model_inputs, unmerged

from ..conftest import ask


@torch.inference_mode()
def test_log_probabilities_are_those_of_hugging_face(workshop, picture):
    bundle = workshop.bundle("qwen2", 1.0)
    answer = workshop.vlm("qwen2", 1.0).generate(
        ask("Why?", picture), max_new_tokens=8, temperature=0, repetition_penalty=1.3, logprobs=4
    )
    assert 0 < len(answer.logprobs) <= 8
    family = Family.load(bundle.manifest.model)
    processor = unmerged(bundle, family)
    prompt = processor.prompt(ask("Why?", picture))
    model = load_model(family).float()
    inputs = model_inputs(model, family, processor, [prompt])
    out = model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=8,
        repetition_penalty=1.3,
        output_logits=True,
        return_dict_in_generate=True,
    )
    wanted = torch.log_softmax(torch.stack(out.logits)[:, 0].double(), -1).numpy()
    for told, row in zip(answer.logprobs, wanted, strict=False):
        assert told.logprob == pytest.approx(row[told.token_id], abs=1e-4)
        ids, values = zip(*told.likeliest, strict=True)
        assert list(ids) == np.argsort(-row, kind="stable")[:4].tolist()
        assert values == pytest.approx(row[list(ids)], abs=1e-4)


def test_none_without_asking_and_the_token_alone_at_zero(workshop, picture):
    vlm = workshop.vlm("qwen2")
    assert vlm.generate(ask("Why?", picture), max_new_tokens=3).logprobs == ()
    told = vlm.generate(ask("Why?", picture), max_new_tokens=3, logprobs=0).logprobs
    assert told and not any(t.likeliest for t in told)
    with pytest.raises(LuvcError, match="logprobs: Input should be less than or equal to 20"):
        vlm.generate(ask("Why?", picture), logprobs=21)
