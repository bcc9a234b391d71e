"""A new bundle against PyTorch, whole or, where memory does not hold the model, its first layers."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from ... import strict_json
from ...dtypes import DTYPES
from ...engines.backends import backend as load_backend
from ...engines.bundle.folder import REPORT, WEIGHTS, Bundle
from ...engines.bundle.layout import Layout
from ...engines.bundle.manifest import Manifest
from ...engines.bundle.schedule import stages_of
from ...engines.compared import compare
from ...engines.prompt.processing import Processor
from ...engines.validate import Report
from ...errors import LuvcError, Mismatch
from ...files import whole
from ..assemble import Progress, assemble
from ..checkpoint.family import Family
from ..checkpoint.hub import checkpoint_of
from ..checkpoint.stored import check_stored
from ..checkpoint.stored_as import rounding_of
from ..checkpoint.weights import load_model
from ..config import CHECKED_ON, ExportConfig
from ..quantised import products
from ..quantised.calibrated import Calibrated, codes_of
from ..quantised.rounding import Rounding
from .memory import free_memory
from .torch_runner import TorchRunner, convert

SHARE = 0.7  # of the free memory that a validation may take


def check(
    config: ExportConfig, family: Family, model: Any, bundle: Bundle, progress: Progress
) -> int:
    """Compare each layout with PyTorch, keep the reports, refuse a bundle that does not pass.

    Args:
        config: of the export.
        family: of the model.
        model: in the checkpoint's dtype; converted to float32 here when it is checked whole.
        bundle: just written, still in its temporary place.
        progress: told each step.

    Returns:
        Language layers that were compared: all, or the first ones.

    Raises:
        Mismatch: an output differs.
        LuvcError: memory does not hold even the first SPU stage.
    """
    layers = bundle.manifest.language.layers
    depth = fitting_layers(family, bundle.manifest)
    if depth == layers:
        runner = TorchRunner(_as_stored(model, family, bundle), family, config.text_capacity)
        _compare(config, runner, bundle, bundle.path / REPORT, layers, progress)
        return layers
    if family.traits.input_width or family.traits.shared:
        raise LuvcError(
            f"this machine's free memory holds {depth} of the model's {layers} language layers for "
            "validation, and its layers share one table of inputs or each other's keys and values, so that "
            "it is compared whole: free memory, or use --no-validate and run luvc-validate on a larger "
            "machine"
        )
    least = first_stage(bundle.manifest.layouts)
    if depth < least:
        raise LuvcError(
            f"this machine's free memory holds {depth} of the model's {layers} language layers for "
            f"validation, the first SPU stage needs {least}: free memory, or use --no-validate and run "
            "luvc-validate on a larger machine"
        )
    progress(f"exporting the first {depth} of {layers} language layers for validation")
    shallow = family.truncated(depth)
    layouts = tuple(truncated(layout, depth) for layout in bundle.manifest.layouts)
    with tempfile.TemporaryDirectory(prefix="validation-", dir=bundle.path) as folder:
        part = load_model(shallow, part=True)
        codes = _calibrated(bundle, family)
        assemble(config, shallow, layouts, part, Path(folder), lambda step: None, codes)
        made = Bundle.load(folder)
        runner = TorchRunner(_as_stored(part, shallow, made), shallow, config.text_capacity)
        _compare(config, runner, made, bundle.path / REPORT, layers, progress)
    return depth


def _compare(config, reference: TorchRunner, bundle: Bundle, folder: Path, layers: int, progress):
    processor = Processor(bundle)
    failed = config.output.absolute().parent / f"{config.output.name}-failed-validation.json"
    folder.mkdir(exist_ok=True)
    backend = load_backend(CHECKED_ON)
    for layout in bundle.manifest.layouts:
        progress(f"validating {layout.name} against PyTorch")
        for found in compare(bundle, processor, layout, reference, backend):
            report = found.model_copy(update={"layers": layers})
            target = folder / f"validation-{layout.name}-{report.backend.replace(', ', '-')}.json"
            target.write_text(report.model_dump_json(indent=1))
            if report.passed:
                continue
            with whole(failed) as draft:
                shutil.copyfile(target, draft)
            raise Mismatch(
                f"layout {layout.name} does not match PyTorch, so no bundle was written "
                f"(report: {failed}): " + "; ".join(report.failures()) + _mend(report)
            )
    failed.unlink(missing_ok=True)  # of an earlier export


def _mend(report: Report) -> str:
    """What may help where the graphs agree and the kernels of this machine do not."""
    if not report.rounded:
        return ""
    return (
        ". The weights are right: these kernels round activations, which this model does not bear; use "
        "another kind of --weights, or --no-validate and measure the answers with luvc-eval"
    )


def fitting_layers(family: Family, manifest: Manifest) -> int:
    """Language layers whose float32 copy in PyTorch and ONNX Runtime sessions fit into free memory."""
    free = free_memory() * SHARE
    d = family.decoder
    layer = d.hidden * (2 * (d.heads + d.kv_heads) * d.head_dim + 3 * d.intermediate)
    rest = manifest.parameters - d.layers * layer  # vision, embeddings, head
    # PyTorch 4 bytes; ONNX Runtime holds the language weights for two graphs, half precision widened
    per_weight = 4 + 2 * 4
    return max(0, min(d.layers, int((free - per_weight * rest) / (per_weight * layer))))


def first_stage(layouts: tuple[Layout, ...]) -> int:
    """Layers up to and with the first after an SPU stage, in every layout."""
    return max(min((p.layer + 1 for p in x.schedule.language), default=1) for x in layouts)


def truncated(layout: Layout, depth: int) -> Layout:
    """The layout of the model's first `depth` language layers."""
    language = tuple(p for p in layout.schedule.language if p.layer < depth)
    schedule = layout.schedule.model_copy(update={"language": language})
    stages = stages_of(schedule.visual_per_layer(depth, layout.visual_tokens))
    return layout.model_copy(update={"schedule": schedule, "stages": stages})


def reference_runner(bundle: Bundle, model: str | None = None) -> TorchRunner:
    """PyTorch for a bundle: its checkpoint in float32, weights rounded to the bundle's dtype.

    Calibrated codes are read from the bundle, and a sample of them held against the checkpoint.

    Args:
        bundle: a loaded bundle.
        model: checkpoint directory or hub id; default the one named in the manifest.

    Raises:
        LuvcError: the checkpoint cannot be read, or is another architecture or other weights.
    """
    manifest = bundle.manifest
    family = Family.load(checkpoint_of(manifest, model))
    d, lm = family.decoder, manifest.language
    found = d.layers, d.kv_heads, d.head_dim, d.vocab
    bundled = lm.layers, lm.kv_heads, lm.head_dim, lm.vocab_size
    quantised_as = family.format.about if family.format else None
    if manifest.weights and quantised_as != manifest.quantised_as:
        raise LuvcError(
            f"this bundle has the codes of a checkpoint that is {manifest.quantised_as or 'not quantised'}, "
            f"{family.source} is {quantised_as or 'not quantised'}; give --model"
        )
    if found != bundled:
        raise LuvcError(f"{family.source} is not the model this bundle was made from; give --model")
    loaded = load_model(family)
    if codes := _calibrated(bundle, family):
        check_stored(family, bundle.file(WEIGHTS), codes)
    return TorchRunner(_as_stored(loaded, family, bundle), family, manifest.text_capacity)


def _as_stored(model: Any, family: Family, bundle: Bundle) -> Any:
    """The model with the weights that a bundle holds: of its dtype, and rounded where it holds codes."""
    manifest = bundle.manifest
    dtype = DTYPES[manifest.dtype].torch
    if manifest.weights is not None:
        rounding = _rounding(model, family, bundle, dtype)
        if rounding is None or rounding.how != manifest.weights:
            raise LuvcError(
                f"{family.source} is not the checkpoint this bundle was made from, whose weights are "
                f"{manifest.weights}; give --model"
            )
        products.round_weights(model, family.traits, rounding)
        if isinstance(rounding, Calibrated):
            rounding.take_in(model)
    return convert(model, torch.device("cpu"), dtype)


def _rounding(model: Any, family: Family, bundle: Bundle, dtype: torch.dtype) -> Rounding | None:
    """What gives the model a bundle's numbers; calibrated codes are the bundle's own."""
    if codes := _calibrated(bundle, family):
        return codes
    how = None if family.format else bundle.manifest.weights
    return rounding_of(family, model, dtype, how)


def _calibrated(bundle: Bundle, family: Family) -> Calibrated | None:
    """The codes in a bundle, where they were calibrated."""
    m = bundle.manifest
    if not m.calibrated or not m.weights:
        return None
    return codes_of(bundle, DTYPES[m.dtype].torch, f"{family.traits.path}.layers")


def reports(bundle: Bundle) -> list[Report]:
    """The validation reports inside a bundle.

    Raises:
        LuvcError: one of them was changed.
    """
    folder = bundle.path / REPORT
    return [
        strict_json.read_as(Report, path, "luvc-validate")
        for path in sorted(folder.glob("validation-*.json"))
    ]
