"""The tokenizer: a small byte-level BPE with InternVL's special tokens and chat form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luvc.tools.pocket.dataset import record
from luvc.tools.pocket.vocabulary import TASKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD = "<|endoftext|>"
START = "<|im_start|>"
END = "<|im_end|>"
IMAGE_START = "<img>"
IMAGE = "<IMG_CONTEXT>"
IMAGE_END = "</img>"
VIDEO = "<video>"
SPECIAL = (PAD, START, END, IMAGE_START, IMAGE_END, IMAGE, VIDEO)
VOCABULARY = 640
"""Rows of the embedding; the tokenizer may hold fewer entries."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\\n' }}"
    "{% elif content['type'] == 'video' %}{{ '<video>\\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def corpus(records: int = 2000) -> list[str]:
    """Questions and answers that the merges are learnt from; what OCR reads stays letter by letter.

    Args:
        records: how many training records to take.
    """
    lines = ["system", "user", "assistant"] * 100
    for seed in range(records):
        for question in record(seed, TASKS[seed % len(TASKS)]).questions:
            lines.append(question.text)
            if question.task not in ("ocr", "chart"):
                lines.append(question.answer)
    return lines


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Learn the tokenizer from generated questions; digits and capital words stay apart.

    Returns:
        A fast tokenizer with `<|im_end|>` as end of text and `<|endoftext|>` as padding.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        model_max_length=2048,
        chat_template=CHAT_TEMPLATE,
        extra_special_tokens={
            "start_image_token": IMAGE_START,
            "end_image_token": IMAGE_END,
            "context_image_token": IMAGE,
            "video_token": VIDEO,
        },
    )
