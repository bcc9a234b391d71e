"""A method's vision and prefill graphs, traced alone, on ONNX Runtime and in PyTorch.

No step graph and no bundle: a few seconds a method.
"""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from luvc.dtypes import DTYPES
from luvc.engines.backends.base import PrefillFeed, PrefillResult
from luvc.engines.bundle.layout import Layout
from luvc.engines.bundle.tensors import cache_specs, stage_names, stage_results
from luvc.engines.tolerance import TOLERANCES
from luvc.engines.validate import KeptReport, _compare_kept
from luvc.errors import LuvcError
from luvc.exporter import ExportConfig, plan
from luvc.exporter.check.torch_runner import TorchRunner
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.checkpoint.weights import load_model
from luvc.exporter.layouts.planned import tower_signature
from luvc.exporter.onnx.export import save, trace
from luvc.exporter.onnx.inputs import prefill_request, vision_request
from luvc.exporter.onnx.weights_file import WeightsFile
from luvc.exporter.ops.attention import NAME
from luvc.exporter.planning.methods import METHODS

from .tensorrt_log import logger

CAPACITY, TEXT = 96, 12
GRAPHS = [name for name in METHODS if name != "downsample"]
"""Methods that are something in a graph; a smaller picture is none."""
FEW_LAYERS = {"transprune": {"ratio": 1.4, "stages": (0.25, 0.5), "keeps": (1.0, 0.6)}}
"""Options without which methods have no plan for four layers."""
ROWS = 2
LIMIT = 1e-4


def once(why: str) -> None:
    """Each graph is traced once: a second trace, with decompositions, takes twice as long."""
    raise AssertionError(f"traced again: {why}")


@dataclass
class Result:
    """How far ONNX Runtime is from PyTorch.

    Attributes:
        errors: largest error over the scale of each output; nothing of "vision" without a trace of it.
        kept: of each scored stage.
        layout: what was traced.
        embeds: of PyTorch, [ROWS, V, D and what rides behind].
    """

    errors: dict[str, float] = field(default_factory=dict)
    kept: tuple[KeptReport, ...] = ()
    layout: Any = None
    embeds: Any = None

    def check(self) -> None:
        """Every output within the limit, and the same tokens up to a tie."""
        worst = max(self.errors, key=lambda name: self.errors[name])
        assert self.errors[worst] < LIMIT, (worst, self.errors[worst])
        assert len(self.kept) == len(self.layout.schedule.scored)
        for kept in self.kept:
            assert kept.passed and kept.ties <= 1, kept


class MethodGraphs:
    """One checkpoint; its weights are written and read once."""

    def __init__(self, checkpoint: Path, folder: Path, size: tuple[int, int] | None = None):
        self.model, self.size = checkpoint, size
        self.folder = folder
        self.towers: dict[tuple[str, str], Path] = {}  # most methods have the same
        self.family = Family.load(str(checkpoint))
        folder.mkdir(parents=True, exist_ok=True)

    @cache  # noqa: B019 one a module
    def pytorch(self) -> TorchRunner:
        return TorchRunner(load_model(self.family), self.family, CAPACITY)

    @cache  # noqa: B019
    def hugging_face(self) -> Any:
        """The unmodified model, which spells its attention out."""
        model = load_model(self.family).float().eval()
        model.set_attn_implementation("eager")
        return model

    @cache  # noqa: B019
    def weights(self, dtype: str) -> WeightsFile:
        model: Any = self.pytorch().model
        parameters = {n: p.detach() for n, p in model.named_parameters(remove_duplicate=False)}
        file = WeightsFile(self.folder / f"{dtype}.safetensors", parameters, DTYPES[dtype].torch)
        file.write()
        return file

    def layout(self, method: str, **options: Any) -> Layout:
        """As the method plans it."""
        sizes = {} if self.size is None else {"image_sizes": (self.size,)}
        usual: dict[str, Any] = {"reference_text": 8, "text_capacity": CAPACITY, "method": method}
        usual |= FEW_LAYERS.get(method, {})
        return plan(ExportConfig.make(model=str(self.model), **(usual | sizes | options)))[0]

    def first_layout(self, method: str, **options: Any) -> Layout:
        """At the first of some ratios that so few tokens allow."""
        for ratio in (1.5, 1.6, 1.4, 1.7, 1.3, 1.8, 1.2, 2.0):
            try:
                return self.layout(method, ratio=ratio, **options)
            except LuvcError as refusal:
                assert "token counts are too coarse" in str(refusal), refusal
        raise AssertionError(f"{method}: no ratio is feasible")

    def traced(self, kind: str, layout: Layout, dtype: str = "float32") -> Path:
        """The file of a graph."""
        model, to = self.pytorch().model, DTYPES[dtype].torch
        model.set_attn_implementation(NAME)
        if kind == "prefill":
            path = self.folder / f"prefill-{dtype}.onnx"
            request = prefill_request(model, self.family, layout, CAPACITY, to)
            save(trace(request, once), path, self.weights(dtype))
            return path
        tower = dtype, tower_signature(layout)
        if tower not in self.towers:
            path = self.folder / f"vision-{dtype}-{len(self.towers)}.onnx"
            request = vision_request(model, self.family, layout, to)
            save(trace(request, once), path, self.weights(dtype))
            self.towers[tower] = path
        return self.towers[tower]

    def compared(self, layout: Layout, seed: int = 0) -> Result:
        """Both graphs on random pictures and prompts; PyTorch goes on with what ONNX Runtime kept."""
        runner, random = self.pytorch(), np.random.default_rng(seed)
        pixels = random.normal(size=(layout.images * ROWS, *layout.pixel_shape)).astype(np.float32)
        pixels = pixels.reshape(-1, *layout.pixel_shape[1:])
        embeds = runner.vision(layout, pixels)
        (found,) = _run(self.traced("vision", layout), {"pixel_values": pixels})
        result = Result({"vision": _error(embeds, found)}, layout=layout)
        result.embeds = embeds.reshape(ROWS, layout.visual_tokens, -1)
        feed, caches = self.feed(layout, result.embeds, random), runner.new_caches(layout, ROWS)
        given = vars(feed) | {name: cache.numpy() for name, cache in caches.items()}
        outputs = _run(self.traced("prefill", layout), given)
        logits, *rest = outputs
        theirs = stage_results(layout.schedule.scored, rest[len(caches) :])
        chosen = {layer: stage.kept for layer, stage in theirs.items()}
        ours = runner.prefill(layout, feed, caches, kept=chosen)
        result.errors["logits"] = _error(ours.logits, logits[:, 0])
        for (name, filled), other in zip(caches.items(), rest, strict=False):
            result.errors[name] = _error(filled.numpy(), other)
        for layer, stage in ours.stages.items():
            result.errors[f"scores {layer}"] = _error(stage.energies, theirs[layer].energies)
        candidate = PrefillResult(logits[:, 0], theirs)
        result.kept = tuple(_compare_kept(ours, candidate, TOLERANCES["float32"]))
        return result

    def feed(self, layout: Layout, embeds: np.ndarray, random: np.random.Generator) -> PrefillFeed:
        """Prompts whose visual tokens stand apart; the second one is padded."""
        V = layout.visual_tokens
        S = V + TEXT
        places = [3 + np.sort(random.permutation(V + 4)[:V]) for _ in range(ROWS)]
        positions = np.tile(np.arange(S), (ROWS, 1))
        if self.family.traits.position_axes > 1:
            positions = np.stack([positions, positions // 2, positions // 3], -1)
        return PrefillFeed(
            input_ids=random.integers(10, 900, (ROWS, S)),
            visual_embeds=embeds,
            visual_index=np.stack(places),
            position_ids=positions,
            last_index=np.array([S - 1, S - 4]),
        )

    def cache_names(self, layout: Layout) -> list[str]:
        specs = cache_specs(self.family.language, layout, CAPACITY, "float32", ROWS)
        return [spec.name for spec in specs]

    def outputs(self, layout: Layout) -> list[str]:
        """Of the prefill graph."""
        caches = [f"{name}_out" for name in self.cache_names(layout)]
        return ["logits", *caches, *stage_names(layout.schedule.scored)]


def _run(path: Path, feeds: dict[str, Any]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    return [np.asarray(x) for x in session.run(None, {name: feeds[name] for name in names})]


def _error(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Largest error over the largest magnitude."""
    a, b = (np.asarray(x, np.float64) for x in (reference, candidate))
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))


def build_with_tensorrt_rtx(trt: Any, path: Path, layout: Layout) -> None:
    """Parse and build a graph; nothing runs, so it needs no GPU."""
    log = logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    parsed = parser.parse_from_file(str(path))
    assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    V = layout.visual_tokens
    dynamic = ((1, 1, 2), (V + 2, V + TEXT, V + CAPACITY))  # rows, and the length behind them
    for tensor in (network.get_input(i) for i in range(network.num_inputs)):
        ranges = [
            dynamic[axis] if n < 0 else (n, n, n) for axis, n in enumerate(list(tensor.shape))
        ]
        profile.set_shape(tensor.name, *(tuple(r[i] for r in ranges) for i in range(3)))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None


def forward_pass(graphs: MethodGraphs, layout: Layout):
    """A prompt through PyTorch's prefill graph -> what Hugging Face's takes, the stages, its model."""
    random, runner = np.random.default_rng(5), graphs.pytorch()
    hidden = graphs.family.decoder.hidden
    visual = random.normal(size=(ROWS, layout.visual_tokens, hidden)).astype(np.float32)
    feed = graphs.feed(layout, visual, random)
    result = runner.prefill(layout, feed, runner.new_caches(layout, ROWS))
    model = graphs.hugging_face()
    embeds = model.get_input_embeddings().weight.detach()[torch.from_numpy(feed.input_ids)].clone()
    given: Any = {"embeds": embeds, "places": feed.visual_index, "last": feed.last_index}
    for row in range(ROWS):
        embeds[row, given["places"][row]] = torch.from_numpy(visual[row])
    return given, result.stages, model
