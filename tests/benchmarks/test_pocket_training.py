"""The pocket VLM: its checkpoint directory, its packed sequences, and exact resumption."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    InternVLForConditionalGeneration,
)

from benchmarks.training.checkpoint import (
    LAYERS,
    MAX_BYTES,
    VISUAL_TOKENS,
    build_config,
    build_model,
    load_checkpoint,
    save_checkpoint,
)
from benchmarks.training.evaluate import exact_match, prepare, text_only
from benchmarks.training.learner import Learner, plain_attention, right_answers, to_device, visible
from benchmarks.training.loader import BatchShape, Loader, allocate, fill
from benchmarks.training.muon import BatchedMuon
from benchmarks.training.optim import rate_factor
from benchmarks.training.packing import IGNORE, PADDING, Packer
from benchmarks.training.plots import plot_losses
from benchmarks.training.settings import TrainConfig
from benchmarks.training.tokenizer import IMAGE, build_tokenizer
from benchmarks.training.trainer import Trainer
from luvc.errors import LuvcError
from luvc.tools.pocket.dataset import example, record

CPU = torch.device("cpu")
SMALL = TrainConfig(
    steps=8,
    vision_first=0.1,
    singles=1,
    pairs=1,
    pair_every=1,
    workers=0,
    warmup=2,
    log_every=1,
    validation=0,
    validate_every=100,
    test=10,
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def packer(tokenizer):
    return Packer(tokenizer)


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_model(build_config(tokenizer)).eval()


@pytest.fixture(scope="module")
def folder(model, tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("pocket")
    assert save_checkpoint(model, tokenizer, path) <= MAX_BYTES
    return path


def prompt_ids(tokenizer, question: str, pictures: int) -> list[int]:
    """The prompt as users of the checkpoint build it, with InternVL's placeholders expanded."""
    content = [{"type": "image"}] * pictures + [{"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    text = text.replace(IMAGE, f"<img>{IMAGE * VISUAL_TOKENS}</img>")
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_tokenizer_is_small_and_keeps_digits_apart(tokenizer):
    assert len(tokenizer) <= 640
    assert len(tokenizer("1234", add_special_tokens=False)["input_ids"]) == 4
    assert len(tokenizer("ZQK", add_special_tokens=False)["input_ids"]) == 3
    for text in ("What colour is the star?", "Grüße, 東京 7!"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    again = build_tokenizer()
    assert again.get_vocab() == tokenizer.get_vocab()


def test_checkpoint_directory_loads(folder, model, tokenizer):
    config = AutoConfig.from_pretrained(folder)
    assert config.vision_config.hidden_size // config.vision_config.num_attention_heads == 64
    assert config.image_seq_length == VISUAL_TOKENS >= 144
    loaded_tokenizer = AutoTokenizer.from_pretrained(folder)
    assert prompt_ids(loaded_tokenizer, "Why?", 1) == prompt_ids(tokenizer, "Why?", 1)
    assert loaded_tokenizer.context_image_token_id == config.image_token_id
    assert loaded_tokenizer.eos_token == "<|im_end|>"
    picture = Image.fromarray(np.arange(192 * 192 * 3, dtype=np.uint8).reshape(192, 192, 3))
    pixels = AutoImageProcessor.from_pretrained(folder)(picture, return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 192, 192)
    loaded = InternVLForConditionalGeneration.from_pretrained(folder)
    assert loaded.dtype == torch.float16
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.half()), name


@pytest.mark.parametrize("index", [0, 8])
def test_training_sees_what_users_of_the_checkpoint_send(index, folder, model, tokenizer, packer):
    entry = example("validation", index)
    question, pictures = entry.questions[0], len(entry.scenes)
    packed = packer.pack(pictures, entry.questions, 384)
    ids = prompt_ids(tokenizer, question.text, pictures)
    assert packed.ids[: len(ids)].tolist() == ids
    answer = packed.targets[packed.targets != IGNORE]
    assert tokenizer.decode(answer.tolist()) == f"{question.answer}<|im_end|>"
    (_, group) = prepare("validation", index + 1, packer, 99)[-1]
    row = {name: array[-1:] for name, array in group.items()}
    pixels = AutoImageProcessor.from_pretrained(folder)(list(entry.pictures), return_tensors="pt")
    with torch.no_grad():
        ours, _ = Learner(model)(to_device(row, CPU))
        theirs = model(input_ids=torch.tensor([ids]), pixel_values=pixels.pixel_values).logits
    torch.testing.assert_close(ours[:, : len(ids)], theirs, atol=2e-4, rtol=1e-3)


def test_packed_questions_do_not_see_each_other(model, packer):
    entry = record(1, "relation")
    pair = packer.pack(1, entry.questions[:2], 256)
    alone = packer.pack(1, entry.questions[1:2], 256)
    second, only = pair.segments == 2, alone.segments == 1
    assert pair.ids[second].tolist() == alone.ids[only].tolist()
    group = {
        "pixels": np.stack([entry.pixels()] * 2),
        "labels": np.stack([entry.labels()] * 2),
    } | {
        name: np.stack([getattr(pair, name), getattr(alone, name)])
        for name in ("ids", "segments", "positions", "targets")
    }
    with torch.no_grad():
        logits, _ = Learner(model)(to_device(group, CPU))
    torch.testing.assert_close(logits[0, second], logits[1, only], atol=1e-4, rtol=1e-3)


def test_mask_is_causal_and_hides_padding():
    mask = visible(torch.tensor([[0, 1, 1, 2, PADDING]]))[0]
    assert mask.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize("masked", [False, True])
def test_plain_attention_is_attention(masked):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, 7, 64) for heads in (6, 2, 2))
    mask = visible(torch.tensor([[0, 0, 1, 1, 2, 2, PADDING]] * 2))[:, None] if masked else None
    ours, _ = plain_attention(torch.nn.Identity(), query, key, value, mask, scaling=0.125)
    theirs = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, enable_gqa=True
    )
    torch.testing.assert_close(ours, theirs.transpose(1, 2))


def test_a_chat_is_one_segment(packer, tokenizer):
    questions = record(1, "relation").questions[:2]
    packed = packer.pack(1, questions, 256, chat=True)
    text = tokenizer.decode(packed.ids[packed.segments == 1].tolist())
    a, b = questions
    turns = f"{a.text}<|im_end|>\n<|im_start|>assistant\n{a.answer}<|im_end|>"
    assert text.startswith(f"{turns}\n<|im_start|>user\n{b.text}<|im_end|>\n")
    used = packed.segments != PADDING
    assert packed.positions[used].tolist() == list(range(used.sum()))


def test_right_answers_needs_every_token():
    targets = torch.tensor([[IGNORE, 3, 1], [IGNORE, 3, 2]])
    logits = torch.nn.functional.one_hot(torch.tensor([[0, 3, 1], [0, 3, 1]]), 4).float()
    assert right_answers(logits, targets).tolist() == [True, False]


def test_batches_do_not_depend_on_the_workers(packer):
    shape = BatchShape(3, 1, pair_every=2)
    loader = Loader(shape, packer, workers=2, start=5)
    try:
        batches = [
            [{name: array.copy() for name, array in group.items()} for group in groups]
            for groups, _ in zip(loader, range(3), strict=False)
        ]
    finally:
        loader.close()
    for number, groups in enumerate(batches, 5):
        expected = fill(allocate(shape), number, shape, packer)
        assert len(expected) == (2 if number % 2 == 0 else 1)
        for group, other in zip(groups, expected, strict=True):
            assert all(np.array_equal(group[name], other[name]) for name in other)


def test_a_resumed_run_gives_identical_weights(tmp_path):
    whole = Trainer(SMALL, tmp_path / "whole", echo=lambda _: None)
    first = Trainer(SMALL, tmp_path / "parts", echo=lambda _: None)
    before = [p.detach().clone() for p in whole.learner.parameters()]
    for trainer, steps in ((whole, (0, 1)), (first, (0,))):
        for step in steps:
            trainer.train_step(batch(trainer, step))
    first.save_state()
    second = Trainer(SMALL, tmp_path / "parts", echo=lambda _: None)
    assert second.step == 1
    second.train_step(batch(second, 1))
    pairs = zip(whole.learner.parameters(), second.learner.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(map(torch.equal, whole.average.values, second.average.values))
    assert any(not torch.equal(a, b) for a, b in zip(before, whole.learner.parameters()))  # noqa: B905


def test_a_run_grows_half_way_and_is_resumed_grown(tmp_path):
    config = dataclasses.replace(SMALL, layers=4, steps=4, stop_after=1e-9)
    layers = []
    for _ in range(4):
        trainer = Trainer(config, tmp_path, echo=lambda _: None)
        trainer.run()
        layers.append(trainer.layers)
    assert layers == [4, 4, 8, 8] and trainer.step == 4
    silent = trainer.learner.model.model.language_model.layers[1].mlp.down_proj.weight
    assert silent.abs().max() > 0, "what was added is trained too"


def batch(trainer, number):
    shape = BatchShape(trainer.config.singles, trainer.config.pairs)
    return fill(allocate(shape), number, shape, trainer.packer)


def test_a_run_ends_with_checkpoint_results_and_log(tmp_path):
    config = dataclasses.replace(SMALL, steps=2, validation=10)
    trainer = Trainer(config, tmp_path, echo=lambda _: None)
    assert trainer.run()
    results = trainer.finish()
    assert results["steps"] == 2 and results["parameters"] <= MAX_BYTES // 2
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert set(results["chance"]) == set(results["text_only"])
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 2, 2] and "overall" in log[-1]["validation"]
    assert InternVLForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert plot_losses(tmp_path / "log.jsonl", tmp_path / "again.png")


def test_exact_match_reports_every_task(model, packer):
    scores = exact_match(Learner(model), prepare("validation", 10, packer, 8), CPU, half=False)
    assert {task for task in scores if ":" not in task} == {"overall", *text_only_tasks()}


def text_only_tasks():
    scores = text_only((example("test", index) for index in range(10)), examples=50)
    assert all(0 <= score <= 1 for score in scores.values())
    return scores


def test_a_stopped_run_leaves_a_state_to_resume(tmp_path):
    trainer = Trainer(SMALL, tmp_path, echo=lambda _: None)
    trainer.echo = lambda _: os.kill(os.getpid(), signal.SIGTERM)
    assert not trainer.run()
    resumed = Trainer(SMALL, tmp_path, echo=lambda _: None)
    assert resumed.step == trainer.step < SMALL.steps


def test_the_rate_rises_stays_and_falls():
    assert rate_factor(0, 10, 0.0) == pytest.approx(0.1)
    assert rate_factor(50, 10, 0.3) == rate_factor(50, 10, 0.6) == 1
    assert rate_factor(50, 10, 0.9) < 0.5 and rate_factor(50, 10, 1.0) == 0


def test_batched_muon_is_torchs_muon():
    torch.manual_seed(0)
    shapes = ((16, 8), (16, 8), (8, 16), (12, 12))
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    options = {"lr": 1e-2, "weight_decay": 0.05}
    a = BatchedMuon(ours, **options)
    b = torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **options)
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, atol=2e-3, rtol=2e-2)  # both iterate in bfloat16


def test_a_command_that_stops_early_is_taken_up_again(tmp_path):
    config = dataclasses.replace(SMALL, steps=3, stop_after=1e-9, validation=10, validate_every=1)
    steps = []
    for _ in range(3):
        trainer = Trainer(config, tmp_path, echo=lambda _: None)
        finished = trainer.run()
        steps.append(trainer.step)
        # what a killed run leaves to be used or started from
        assert InternVLForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert steps == [1, 2, 3] and finished


def test_a_new_run_may_start_from_a_checkpoint(folder, model, tmp_path):
    config = dataclasses.replace(SMALL, start=str(folder))
    trainer = Trainer(config, tmp_path, echo=lambda _: None)
    for ours, theirs in zip(trainer.learner.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs.half().float())
    with pytest.raises(LuvcError, match=r"holds no model\.safetensors"):
        Trainer(
            dataclasses.replace(SMALL, start=str(tmp_path)), tmp_path / "b", echo=lambda _: None
        )


@pytest.mark.parametrize("layers", [2, 4])
def test_a_grown_model_computes_the_same(layers, tokenizer, packer, tmp_path):
    save_checkpoint(build_model(build_config(tokenizer, layers)), tokenizer, tmp_path)
    small = InternVLForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    large = load_checkpoint(tmp_path)
    text, vision = large.config.text_config, large.config.vision_config
    assert text.num_hidden_layers == vision.num_hidden_layers == LAYERS
    assert len(text.layer_types) == LAYERS
    (_, group) = prepare("validation", 2, packer, 2)[0]
    with torch.no_grad():
        before, after = (Learner(model)(to_device(group, CPU))[0] for model in (small, large))
    torch.testing.assert_close(after, before)


def test_the_shapes_suit_decoding_kernels(folder):
    text = AutoConfig.from_pretrained(folder).text_config
    assert text.num_attention_heads == 4 and text.hidden_size // text.num_attention_heads == 64
