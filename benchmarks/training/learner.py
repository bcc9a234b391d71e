"""The forward pass of training: answers from packed sequences, and what every patch shows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, InternVLForConditionalGeneration

from luvc.tools.pocket.drawing import CELL
from luvc.tools.pocket.vocabulary import CONTENTS, SHAPES, TINTS

from .checkpoint import MEAN, PATCH, STD, VISUAL_TOKENS, scale_of
from .loader import Group
from .packing import IGNORE, PADDING, PREFIX

PLAIN_ATTENTION = "pocket_plain"
"""Name of `plain_attention` in transformers."""
_BEFORE_PICTURE = 4
"""Tokens of the prompt before the first picture: `<|im_start|>user\\n<img>`."""
_BETWEEN = 3
"""Tokens between two pictures: `</img>\\n<img>`."""
_NOTHING_WEIGHT = 0.1
"""Weight of cells that show nothing: they are nine in ten."""
_TEXT_WEIGHT = 12.0
"""Weight of visual tokens that hold a character, where a teacher's are learnt."""


def to_device(group: Group, device: torch.device) -> dict[str, Tensor]:
    """Copy a group of records to a device, without waiting for what the device still does."""
    tensors = {name: torch.from_numpy(array) for name, array in group.items()}
    if device.type == "cpu":
        return {name: tensor.clone() for name, tensor in tensors.items()}
    return {
        name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in tensors.items()
    }


def plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float = 1.0,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention by two matrix products: on a CPU in bfloat16 twice as fast as the fused one.

    Args:
        module: the attention layer (unused; transformers passes it).
        query: [n, heads, s, 64].
        key: [n, heads or fewer, s, 64].
        value: like the key.
        attention_mask: bool [n, 1, s, s], True where a query sees a key; None: everywhere.
        scaling: factor of the scores.

    Returns:
        [n, s, heads, 64], and None in place of the weights.
    """
    groups = query.shape[1] // key.shape[1]
    # All queries of a group share their key: fold them into its rows instead of copying the key.
    query = (query * scaling).unflatten(1, (-1, groups)).flatten(2, 3)
    scores = query @ key.transpose(-1, -2)
    if attention_mask is not None:
        bias = torch.zeros_like(attention_mask, dtype=scores.dtype)
        bias.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
        scores = scores.unflatten(2, (groups, -1)) + bias[:, :, None]
        scores = scores.flatten(2, 3)
    out = scores.softmax(-1) @ value
    return out.unflatten(2, (groups, -1)).flatten(1, 2).transpose(1, 2), None


AttentionInterface.register(PLAIN_ATTENTION, plain_attention)


class Learner(nn.Module):
    """The pocket VLM with two linear heads that training alone uses.

    The heads say which shape or character and which colour covers each of a patch's cells, four or (at
    scale 2) one. They give the vision layers 576 labels a picture, long before answers teach them anything.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: InternVLForConditionalGeneration):
        super().__init__()
        self.model = model
        width = model.model.vision_tower.embeddings.cls_token.shape[-1]
        self.cells = PATCH // (CELL * scale_of(model))  # labelled, along an edge of a patch
        self.content = nn.Linear(width, self.cells**2 * len(CONTENTS))
        self.tint = nn.Linear(width, self.cells**2 * len(TINTS))
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def look(self, group: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Encode the pictures: patches [n * p, h * w, c] and the loss of their labels, a scalar."""
        patches = self.encode(self.model, group["pixels"])
        return patches, self._patch_loss(patches, group["labels"])

    def encode(self, model: InternVLForConditionalGeneration, pixels: Tensor) -> Tensor:
        """Patches [n * p, h * w, c] of pictures, uint8 [n, p, height, width, 3]."""
        pixels = pixels.flatten(0, 1).permute(0, 3, 1, 2)
        pixels = (pixels / 255 - self.mean) / self.std
        return model.model.vision_tower(pixel_values=pixels).last_hidden_state[:, 1:]

    def forward(self, group: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Score every token and label every patch.

        Args:
            group: records of one group, on the model's device.

        Returns:
            Logits [n, s, vocabulary] and the patch loss, a scalar.
        """
        base = self.model.model
        patches, patch_loss = self.look(group)
        ids = group["ids"].long()
        visual = project(self.model, patches).unflatten(0, (len(ids), -1))
        embeds = self._insert(base.get_input_embeddings()(ids), visual)
        hidden = base.language_model(
            inputs_embeds=embeds,
            attention_mask=visible(group["segments"])[:, None],
            position_ids=group["positions"].long(),
            use_cache=False,
        ).last_hidden_state
        return self.model.lm_head(hidden), patch_loss

    @staticmethod
    def _insert(embeds: Tensor, visual: Tensor) -> Tensor:
        """Put visual tokens [n, p, v, d] at their fixed places in embeddings [n, s, d]."""
        parts, at = [], 0
        for picture in range(visual.shape[1]):
            start = _BEFORE_PICTURE + picture * (VISUAL_TOKENS + _BETWEEN)
            parts += [embeds[:, at:start], visual[:, picture].to(embeds.dtype)]
            at = start + VISUAL_TOKENS
        return torch.cat([*parts, embeds[:, at:]], 1)

    def _patch_loss(self, patches: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of patches [m, h * w, c] against cells, uint8 [n, p, 2, rows, columns]."""
        cells = self.cells
        labels = labels.flatten(0, 1).unflatten(3, (-1, cells)).unflatten(2, (-1, cells))
        labels = labels.transpose(3, 4).flatten(4).flatten(2, 3).long()  # [m, 2, h * w, cells]
        loss = patches.new_zeros(())
        for head, target in ((self.content, labels[:, 0]), (self.tint, labels[:, 1])):
            scores = head(patches).float().unflatten(2, (cells**2, -1))
            weight = torch.ones(scores.shape[-1], device=patches.device)
            weight[0] = _NOTHING_WEIGHT
            loss = loss + F.cross_entropy(scores.flatten(0, 2), target.flatten(), weight=weight)
        return loss


class Student(Learner):
    """A model of finer pictures that learns what a model of the same pictures, drawn coarser, sees.

    Its loss in place of the patches' labels is the distance of its visual tokens from the teacher's.
    """

    def __init__(
        self,
        model: InternVLForConditionalGeneration,
        teacher: InternVLForConditionalGeneration,
    ):
        super().__init__(model)
        del self.content, self.tint
        self.teacher = (
            teacher.requires_grad_(False).eval(),
        )  # in a tuple: nothing of it is trained

    def look(self, group: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Encode the pictures: patches, and the squared distance as a part of the variance, a scalar.

        Tokens that hold a character count _TEXT_WEIGHT times: one misread letter is a wrong answer.
        """
        patches = self.encode(self.model, group["pixels"])
        if "coarse" not in group:  # nothing is learnt from questions that only test
            return patches, patches.new_zeros(())
        (teacher,) = self.teacher
        with torch.no_grad():
            wanted = project(teacher, self.encode(teacher, group["coarse"])).float()
        distance = (project(self.model, patches).float() - wanted).square().mean(-1)
        weight = 1 + (_TEXT_WEIGHT - 1) * holds_text(group["labels"]).flatten(1).to(distance)
        return patches, (distance * weight).sum() / weight.sum() / wanted.var()


def holds_text(labels: Tensor) -> Tensor:
    """Which visual tokens hold a part of a character, bool [n * p, h, w], from labels of cells.

    Args:
        labels: uint8 [n, p, 2, rows, columns].
    """
    content = labels[:, :, 0].flatten(0, 1)
    text = (content > CONTENTS.index(SHAPES[-1]))[:, None].float()
    cells = content.shape[-1] // int(VISUAL_TOKENS**0.5)
    return F.max_pool2d(text, cells)[:, 0] > 0


def project(model: InternVLForConditionalGeneration, patches: Tensor) -> Tensor:
    """Patches [n, h * w, c] -> visual tokens [n, v, d], as the model itself does."""
    base, side = model.model, int(patches.shape[1] ** 0.5)
    grid = patches.unflatten(1, (side, side))
    joined = base.pixel_shuffle(grid, scale_factor=model.config.downsample_ratio)
    return base.multi_modal_projector(joined.flatten(1, 2))


def visible(segments: Tensor) -> Tensor:
    """Which positions each position attends to, bool [n, s, s].

    Args:
        segments: [n, s]; PREFIX is seen by all later tokens, other segments by themselves.
    """
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    keys, queries = segments[:, None, :], segments[:, :, None]
    return causal & ((keys == PREFIX) | ((keys == queries) & (keys != PADDING)))


def answer_loss(logits: Tensor, targets: np.ndarray) -> Tensor:
    """Summed cross-entropy over answer tokens, a scalar.

    Args:
        logits: [n, s, vocabulary].
        targets: int [n, s] on the host, IGNORE where nothing is learnt.
    """
    # Nine tokens in ten are no answers. Picking the others on the host saves the wide softmax for
    # the rest, and the device need not be asked how many there are.
    flat = targets.ravel()
    picked = np.flatnonzero(flat != IGNORE)
    group = to_device({"rows": picked, "wanted": flat[picked].astype(np.int64)}, logits.device)
    scores = logits.flatten(0, 1).index_select(0, group["rows"]).float()
    return F.cross_entropy(scores, group["wanted"], reduction="sum")


def right_answers(logits: Tensor, targets: Tensor) -> Tensor:
    """Whether greedy decoding would give exactly the answer of each one-question record, bool [n].

    Greedy decoding is right if and only if every answer token is the best one after the right
    tokens before it, so one pass decides it.
    """
    targets = targets.long()
    return ((logits.argmax(-1) == targets) | (targets == IGNORE)).all(1)


def compile_layers(learner: Learner) -> None:
    """Compile every layer in place; layers of a kind share one compilation.

    What does not compile runs as it is.
    """
    import torch._dynamo

    torch._dynamo.config.suppress_errors = True
    base = learner.model.model
    for layer in (*base.vision_tower.encoder.layer, *base.language_model.layers):
        layer.compile(dynamic=False)
