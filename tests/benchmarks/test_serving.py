"""What the load on servers is made of, and which answers count."""

import pytest
import torch
from transformers import InternVLForConditionalGeneration

from benchmarks import serving
from benchmarks.serving_clients import completion_tokens
from luvc.tools.demo import random_checkpoint


def test_kept_bundles_of_other_conversations_are_refused(workshop, tmp_path, monkeypatch):
    kept = {ratio: tmp_path / f"{ratio}x" for ratio in serving.RATIOS}
    for path in kept.values():
        path.symlink_to(workshop.bundle().path)
    with pytest.raises(SystemExit, match=r"1x holds .* of 96 text tokens, and 192 .*: delete it"):
        serving.find_bundles(tmp_path)
    monkeypatch.setattr(serving, "CAPACITY", 96)
    assert serving.find_bundles(tmp_path) == kept


@pytest.mark.parametrize(
    "last", [{"completion_tokens": 8}, {"choices": [], "usage": {"completion_tokens": 8}}]
)
def test_an_answer_of_fewer_tokens_is_a_failure(last):
    events = [{"text_output": "a"}, {"choices": [{"delta": {"content": "a"}}], "usage": None}, last]
    assert completion_tokens(events, 8) == 8
    with pytest.raises(RuntimeError, match="an answer of 8 tokens in place of 9"):
        completion_tokens(events, 9)
    with pytest.raises(RuntimeError, match="no whole answer"):
        completion_tokens(events[:2], 8)
    with pytest.raises(RuntimeError, match="full"):
        completion_tokens([*events, {"error": "full"}], 8)


def test_answers_of_a_load_do_not_end_early(tmp_path):
    random_checkpoint.write(tmp_path, layers=1, vision_layers=1, image=56, endless=True)
    model = InternVLForConditionalGeneration.from_pretrained(tmp_path)
    with torch.no_grad():
        logits = model(input_ids=torch.arange(20, 120)[None]).logits[0]
    assert (logits[:, model.generation_config.eos_token_id] == 0).all()
    assert (logits.amax(-1) > 0).all()
