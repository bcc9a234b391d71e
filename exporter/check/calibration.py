"""Codes of products that keep answers near: GPTQ on a user's questions, a layer after the other.

The bundle's own prefill graph takes all questions through a layer twice, at its own ratio: first to see
what the products are given, then with their rounded weights, whose outputs the next layer is rounded for.
Memory holds the questions' hidden states and what one layer's products were given. Letters: K inputs of a
product, S sequence, V visual tokens, D hidden size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from ...dtypes import DTYPES
from ...engines.bundle.folder import PROCESSOR, Bundle
from ...engines.bundle.layout import Layout
from ...engines.decoding import prompt_feed
from ...engines.prompt.processing import Processor
from ...engines.questions import Item
from ...errors import LuvcError
from ...plugins.tokens.reference import take_rows
from ..assemble import Progress, manifest_of, write_processor
from ..checkpoint.family import Family
from ..checkpoint.stored_as import rounding_of
from ..checkpoint.weights import load_model
from ..config import ExportConfig
from ..language.graphs import Underway
from ..language.spu import text_positions
from ..quantised.calibrated import Calibrated, read_codes, write_codes
from ..quantised.factors import GAINS
from ..quantised.given import Inputs
from ..quantised.gptq import calibrated
from ..quantised.products import HEAD, products
from ..quantised.rounding import Rounding
from .memory import free_memory
from .smoothed import KEPT, Read, Smoothing
from .streamed import is_streamed, stream, why_streamed
from .teacher_forcing import AnswerGraph
from .torch_runner import TorchRunner

SQUARES = 5
"""Matrices [K, K] of a product's inputs that are there at once: the sum, what is added, and their inverse."""
SHARE = 0.5
"""Of the free memory that hidden states may take."""
TOLD = 4
"""Parts of the layers that progress is told of."""


def calibrate(
    config: ExportConfig,
    family: Family,
    layouts: tuple[Layout, ...],
    questions: Sequence[Item],
    folder: Path,
    progress: Progress,
) -> Calibrated:
    """Codes of all products of a model, in files of a folder.

    Args:
        config: of the export, with weights to be quantised.
        family: of the model.
        layouts: planned; a question runs in the one that its pictures fit, at the first ratio.
        questions: with as many pictures as a layout takes; a right answer stands behind its question.
        folder: empty; to be there while the codes are read.
        progress: told each step.

    Raises:
        LuvcError: a question that the bundle would refuse, too many for the memory, numbers that are none,
            or the weights cannot be read.
    """
    model = load_model(family)  # to be rounded; the bundle's other weights are of another
    rounding = rounding_of(family, model, DTYPES[config.dtype].torch, config.quantisation)
    assert rounding is not None
    if why := why_streamed(model):
        progress(why)
        stream(model)
    write_processor(family, model, folder / PROCESSOR)
    manifest = manifest_of(config, family, layouts, model)
    processor = Processor(Bundle(folder, manifest))
    with TorchRunner(model, family, config.text_capacity) as runner:
        ways = _begun(runner, processor, questions, progress)
        read = Read.by(x.schedule for x in layouts)
        path = f"{family.traits.path}.layers"
        smoothing = Smoothing(model, path, family.decoder.head_dim, rounding, read)
        _Work(runner, rounding, ways, folder, progress, smoothing).run()
    files = {name: _file(folder, name) for name, _ in _weights(model, family)}
    assert config.quantisation is not None
    if rounding.how.kind == GAINS:
        progress(smoothing.told)
    how, dtype = config.quantisation, rounding.dtype
    return read_codes(files, how, dtype, len(questions), smoothing.factors)


@dataclass
class _Way:
    """A question on its way through its layout's graph."""

    graph: AnswerGraph
    at: Underway

    def through(self, i: int) -> torch.Tensor:
        """What a layer makes of it, [1, S, D]; it stays before the layer."""
        at, mask = self.at, self.at.masks[self.graph.traits.layer_types[i]]
        return self.graph.layer(i, at.tokens, at.rotations, mask, at.cache, at.shared)


def _begun(
    runner: TorchRunner, processor: Processor, questions: Sequence[Item], progress: Progress
) -> list[_Way]:
    """All questions before the first layer."""
    progress(f"reading {len(questions)} questions to calibrate on")
    ways: list[_Way] = []
    caches: dict[str, dict[str, torch.Tensor]] = {}
    widest = max(module.weight.shape[1] for _, module in _weights(runner.model, runner.family))
    room, held = SHARE * free_memory() - SQUARES * 4 * widest**2, 0
    for item in questions:
        try:
            ways.append(_begin(runner, processor, item, caches))
        except LuvcError as e:
            raise LuvcError(f"--calibrate, question {item.id}: {e}") from e
        tokens = ways[-1].at.tokens
        held += 2 * 4 * (tokens.hidden.numel() + sum(d.numel() for d in tokens.deepstack))
        if held > room:
            fits = len(ways) - 1
            raise LuvcError(
                f"--calibrate: free memory holds {fits} of the {len(questions)} questions: give "
                f"--calibrate-limit {max(1, fits)}, or free memory"
            )
    return ways


@torch.inference_mode()
def _begin(runner: TorchRunner, processor: Processor, item: Item, caches: dict) -> _Way:
    """A question with its answer behind it; `caches` are never read, and shared by all of a layout."""
    prompt = processor.prompt(item.messages)
    layout, embeds = prompt.layout, None
    if layout.images:
        pixels = processor.pixels(prompt)
        embeds = runner.vision(layout, pixels).reshape(1, layout.visual_tokens, -1)
    ids = [*prompt.input_ids, *_answer(runner, processor, item, layout, len(prompt.input_ids))]
    language = runner.family.language
    feed, _ = prompt_feed(language, layout, [ids], embeds, [prompt.seconds])
    graph: AnswerGraph = runner.graph(AnswerGraph, layout)
    buffers = caches.setdefault(layout.name, runner.new_caches(layout, 1))
    input_ids, nothing = torch.from_numpy(feed.input_ids), torch.zeros(1, 0, dtype=torch.long)
    at = graph.begin(
        input_ids,
        nothing if embeds is None else torch.from_numpy(embeds),
        nothing if feed.visual_index is None else torch.from_numpy(feed.visual_index),
        torch.from_numpy(feed.position_ids),
        torch.tensor([len(prompt.input_ids) - 1]),
        buffers,
    )
    return _Way(graph, at)


def _answer(
    runner: TorchRunner, processor: Processor, item: Item, layout: Layout, before: int
) -> list[int]:
    """Tokens of the right answer that the caches hold behind the prompt; no picture's among them."""
    if not item.answers:
        return []
    found = processor.tokenizer(item.answers[0], add_special_tokens=False)["input_ids"]
    lm = runner.family.language
    tokens = [t for t in found if t != lm.image_token_id and t < lm.vocab_size]
    return tokens[: runner.text_capacity + layout.visual_tokens - before]


class _Work:
    """The layers, one after the other, and the head.

    Args:
        runner: PyTorch.
        rounding: of the products.
        ways: all questions.
        folder: for the codes.
        progress: told each part.
        smoothing: what each layer's factors are searched by.
    """

    def __init__(
        self,
        runner: TorchRunner,
        rounding: Rounding,
        ways: list[_Way],
        folder: Path,
        progress: Progress,
        smoothing: Smoothing,
    ):
        self.runner, self.rounding = runner, rounding
        self.smoothing = smoothing
        self.ways, self.folder = ways, folder
        self.progress = progress
        self.modules = dict(_weights(runner.model, runner.family))

    def run(self) -> None:
        """Write the codes of every product."""
        layers = self.runner.family.language.layers
        self.progress(self._seen)
        tell = {layers * part // TOLD for part in range(1, TOLD)} - {0}
        for i in range(layers):
            if i in tell:
                self.progress(f"calibrating from layer {i} on")
            self._layer(i)
        self.progress("calibrating the head")
        self._head()

    @property
    def _tokens(self) -> int:
        return sum(way.at.tokens.hidden.shape[1] for way in self.ways)

    @property
    def _seen(self) -> str:
        tokens = self._tokens
        widest = max(module.in_features for module in self.modules.values())
        few = f", fewer than the {widest} inputs of the widest product: more questions tell more"
        told = f"calibrating on {tokens} tokens of {len(self.ways)} questions"
        return told + (few if tokens < widest else "")

    def _layer(self, i: int) -> None:
        place = f"{self.runner.family.traits.path}.layers.{i}."
        modules = {n: m for n, m in self.modules.items() if n.startswith(place)}
        with torch.inference_mode():
            for way in self.ways:
                way.graph.prune(way.at, i)
            given = Inputs(modules, max(1, self._tokens // KEPT))
            with given.watched():
                for way in self.ways:
                    given.next()
                    way.through(i)
            way = self.ways[0]
            if self.rounding.how.kind == GAINS:
                norm = way.graph.input_norm(i)
                self.smoothing.search(i, given, norm, partial(way.through, i))
        for name, module in modules.items():
            self._round(name, module, given.of(name))
        with torch.inference_mode():
            for way in self.ways:
                way.graph.advance(way.at, i)
                way.at.cache.written.clear()  # nobody reads what a layer keeps for later tokens

    def _head(self) -> None:
        """The head is given what is left of the text, where answers come from."""
        ((name, head),) = ((n, m) for n, m in self.modules.items() if n.startswith(HEAD))
        given = Inputs({name: head})
        with torch.inference_mode():
            for way in self.ways:
                given.next()
                tokens = way.at.tokens
                text = take_rows(tokens.hidden, text_positions(tokens))
                given.add(name, way.graph.last_norm(text))
        self._round(name, head, given.of(name))

    @torch.inference_mode()
    def _coded(self, name: str, weight: torch.Tensor, given: torch.Tensor) -> None:
        codes, scales = calibrated(weight.float(), given, self.rounding, name)
        write_codes(_file(self.folder, name), name, codes, scales, self.rounding)

    def _round(self, name: str, module: Any, given: torch.Tensor) -> None:
        """Write a product's codes, and give it the numbers that they stand for."""
        weight, given = self.smoothing.smoothed(name, module.weight.detach(), given)
        self._coded(name, weight, given)
        how, file = self.rounding, _file(self.folder, name)
        told = len(self.ways), self.smoothing.factors
        codes = read_codes({name: file}, how.how, how.dtype, *told)
        if not is_streamed(self.runner.model):
            numbers = codes.decoded(module.weight, name).float()
            module.weight = nn.Parameter(numbers, requires_grad=False)
            return
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
        parametrize.register_parametrization(module, "weight", _Decoded(codes, name), unsafe=True)


class _Decoded(nn.Module):
    """The numbers of a product that was rounded, made whenever they are asked for."""

    def __init__(self, codes: Calibrated, name: str):
        super().__init__()
        self.codes, self.name = codes, name

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """float32 [N, K], of the shape of the weight as it was."""
        return self.codes.decoded(weight, self.name).float()


def _weights(model: Any, family: Family) -> Iterator[tuple[str, Any]]:
    """The products by the names of their weights."""
    return ((f"{name}.weight", module) for name, module in products(model, family.traits))


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"
