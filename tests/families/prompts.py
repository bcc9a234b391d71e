"""Tokenizers of the families: the published special tokens, a tiny vocabulary."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from luvc.tools.demo.random_checkpoint import corpus

from .templates import (
    GEMMA,
    GEMMA4,
    GLM,
    GLM_OCR,
    IDEFICS,
    INTERNVL,
    LFM2,
    LIGHTON,
    LLAVA,
    LLAVA_MISTRAL,
    MISTRAL,
    ONEVISION,
    OVIS2,
    PADDLE,
    QWEN2,
    QWEN3,
)

TURNS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ROWS = [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
LFM_ROWS = [f"<|img_row_{r}_col_{c}|>" for r in range(1, 11) for c in range(1, 11)]
LOCATIONS = tuple(
    [f"<loc{i:04d}>" for i in range(1024)] + [f"<seg{i:03d}>" for i in range(128)]
)  # plain tokens of a PaliGemma vocabulary
VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
OVIS_MARKS = ["<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]


@dataclass(frozen=True)
class Words:
    """What a family's tokenizer holds beside ordinary text.

    Attributes:
        special: special tokens.
        visual: the token that stands once for each visual token.
        placeholder: what the chat template writes once an image.
        pad, eos, bos: by role; `starts` says that the tokenizer itself puts bos first.
        named: `extra_special_tokens`, attributes that the processor class reads.
        plain: further tokens that are not special.
    """

    special: tuple[str, ...]
    visual: str
    placeholder: str
    template: str | None
    pad: str
    eos: str
    bos: str | None = None
    starts: bool = False
    named: dict[str, str] = field(default_factory=dict)
    plain: tuple[str, ...] = ()


def chatml(visual: str, template: str, *more: str, placeholder: str = "", **kw) -> Words:
    """A tokenizer of the Qwen kind."""
    return Words((*TURNS, *more), visual, placeholder or visual, template, TURNS[0], TURNS[2], **kw)


QWEN_NAMED = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"} | {
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
LLAMA = {"pad": "<pad>", "eos": "</s>", "bos": "<s>", "starts": True}
GEMMA_MARKS = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
GEMMA_TURNS = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
GEMMA4_MARKS = {
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "image_token": "<|image|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "audio_token": "<|audio|>",
}
GEMMA4_TURNS = ("<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>", "<|video|>")
INTERN_MARKS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
IDEFICS_MARKS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>")
LIGHTON_MARKS = {
    "image_token": "<|image_pad|>",
    "image_break_token": "<|vision_pad|>",
    "image_end_token": "<|vision_end|>",
}
MISTRAL_TURNS = ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
MISTRAL_MARKS = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")
PADDLE_MARKS = ("<|IMAGE_START|>", "<|IMAGE_PLACEHOLDER|>", "<|IMAGE_END|>")
GLM_MARKS = [
    "<|endoftext|>",
    "[gMASK]",
    "<sop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<|video|>",
]

WORDS = {
    "internvl": chatml("<IMG_CONTEXT>", INTERNVL, *INTERN_MARKS.values(), named=INTERN_MARKS),
    "llava": Words(("<pad>", "</s>", "<s>", "<image>"), "<image>", "<image>", LLAVA, **LLAMA),
    "llava_next": Words(
        ("<pad>", "</s>", "<s>", "<image>"), "<image>", "<image>", LLAVA_MISTRAL, **LLAMA
    ),
    "llava_onevision": chatml("<image>", ONEVISION, "<image>", "<video>"),
    "qwen2_vl": chatml("<|image_pad|>", QWEN2, *VISION),
    "qwen2_5_vl": chatml("<|image_pad|>", QWEN2, *VISION),
    "qwen3_vl": chatml("<|image_pad|>", QWEN3, *VISION),
    "qwen3_5": chatml("<|image_pad|>", QWEN3, *VISION),
    "glm4v": Words(tuple(GLM_MARKS), "<|image|>", "<|image|>", GLM, "<|endoftext|>", "<|user|>"),
    "glm_ocr": Words(
        tuple(GLM_MARKS), "<|image|>", "<|image|>", GLM_OCR, "<|endoftext|>", "<|endoftext|>"
    ),
    "lighton_ocr": chatml("<|image_pad|>", LIGHTON, *LIGHTON_MARKS.values(), named=LIGHTON_MARKS),
    "mistral3": Words(
        ("<unk>", "<s>", "</s>", "<pad>", *MISTRAL_TURNS, *MISTRAL_MARKS),
        "[IMG]",
        "[IMG]",
        MISTRAL,
        **LLAMA,
    ),
    "paddleocr_vl": Words(
        ("<unk>", "<s>", "</s>", "<|begin_of_sentence|>", *PADDLE_MARKS),
        "<|IMAGE_PLACEHOLDER|>",
        "<|IMAGE_PLACEHOLDER|>",
        PADDLE,
        "<unk>",
        "</s>",
        "<s>",
        named={"image_token": "<|IMAGE_PLACEHOLDER|>"},
    ),
    "smolvlm": Words(
        ("<|im_end|>", "<|im_start|>", *IDEFICS_MARKS, "<global-img>", *ROWS),
        "<image>",
        "<image>",
        IDEFICS.replace("START", "{{- '<|im_start|>' -}}\n"),
        "<|im_end|>",
        "<end_of_utterance>",
        "<|im_start|>",
        named={
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "end_of_utterance_token": "<end_of_utterance>",
            "global_image_token": "<global-img>",
        },
    ),
    "idefics3": Words(  # which knows no <global-img>: it is plain text there
        ("<|finetune_right_pad_id|>", "<|begin_of_text|>", *IDEFICS_MARKS, *ROWS),
        "<image>",
        "<image>",
        IDEFICS.replace("START", "{{- '<|begin_of_text|>' -}}\n"),
        "<|finetune_right_pad_id|>",
        "<end_of_utterance>",
        "<|begin_of_text|>",
        starts=True,
    ),
    "paligemma": Words(
        ("<pad>", "<eos>", "<bos>", "<image>"),
        "<image>",
        "<image>",
        None,
        "<pad>",
        "<eos>",
        "<bos>",
        starts=True,
        plain=LOCATIONS,
    ),
    "gemma3": Words(
        (*GEMMA_TURNS, *GEMMA_MARKS.values()),
        "<image_soft_token>",
        "<start_of_image>",
        GEMMA,
        "<pad>",
        "<end_of_turn>",
        "<bos>",
        starts=True,
        named=GEMMA_MARKS,
    ),
    "gemma4": Words(
        (*GEMMA4_TURNS, *GEMMA4_MARKS.values()),
        "<|image|>",
        "<|image|>",
        GEMMA4,
        "<pad>",
        "<turn|>",
        "<bos>",
        starts=True,
        named=GEMMA4_MARKS,
    ),
    "ovis2": chatml(
        "<IMG_ATOM>", OVIS2, "<image>", "<IMG_ATOM>", *OVIS_MARKS, placeholder="<image>"
    ),
    "lfm2_vl": Words(
        (
            "<|pad|>",
            "<|startoftext|>",
            "<|im_start|>",
            "<|im_end|>",
            "<image>",
            "<|image_start|>",
            "<|image_end|>",
            "<|img_thumbnail|>",
            *LFM_ROWS,
        ),
        "<image>",
        "<image>",
        LFM2,
        "<|pad|>",
        "<|im_end|>",
        "<|startoftext|>",
        starts=True,
        named={
            "image_token": "<image>",
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
            "image_thumbnail_token": "<|img_thumbnail|>",
        },
    ),
}


@cache
def _bpe(special: tuple[str, ...], vocabulary: int) -> str:
    """A trained tokenizer as JSON."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    return bpe.to_str()


def tokenizer(family: str, vocabulary: int = 1024) -> Any:
    """The tokenizer of a family, with its chat template."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    words = WORDS[family]
    bpe = Tokenizer.from_str(_bpe(words.special, vocabulary))
    if words.starts:
        assert words.bos is not None, family
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{words.bos}:0 $A:0",
            pair=f"{words.bos}:0 $A:0 {words.bos}:1 $B:1",
            special_tokens=[(words.bos, bpe.token_to_id(words.bos))],
        )
    bpe.add_tokens(list(words.plain))
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=words.pad,
        eos_token=words.eos,
        bos_token=words.bos,
        extra_special_tokens=words.named,
        chat_template=words.template,
    )
