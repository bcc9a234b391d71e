"""The pocket VLM's checkpoint directory, and its sequences as training packs, masks and scores them."""

from typing import Any

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
from benchmarks.training.packing import IGNORE, PADDING, Packer
from benchmarks.training.tokenizer import IMAGE, build_tokenizer
from luvc.tools.pocket.dataset import example, record

CPU = torch.device("cpu")


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


def test_exact_match_reports_every_task(model, packer):
    scores = exact_match(Learner(model), prepare("validation", 10, packer, 8), CPU, half=False)
    assert {task for task in scores if ":" not in task} == {"overall", *text_only_tasks()}


def text_only_tasks():
    scores = text_only((example("test", index) for index in range(10)), examples=50)
    assert all(0 <= score <= 1 for score in scores.values())
    return scores


@pytest.mark.parametrize("layers", [2, 4])
def test_a_grown_model_computes_the_same(layers, tokenizer, packer, tmp_path):
    save_checkpoint(build_model(build_config(tokenizer, layers)), tokenizer, tmp_path)
    small = InternVLForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    large = load_checkpoint(tmp_path)
    config: Any = large.config
    text, vision = config.text_config, config.vision_config
    assert text.num_hidden_layers == vision.num_hidden_layers == LAYERS
    assert len(text.layer_types) == LAYERS
    (_, group) = prepare("validation", 2, packer, 2)[0]
    with torch.no_grad():
        before, after = (Learner(model)(to_device(group, CPU))[0] for model in (small, large))
    torch.testing.assert_close(after, before)


def test_the_shapes_suit_decoding_kernels(folder):
    text = AutoConfig.from_pretrained(folder).text_config
    assert text.num_attention_heads == 4 and text.hidden_size // text.num_attention_heads == 64
