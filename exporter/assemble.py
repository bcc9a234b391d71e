"""The files of a bundle: graphs, weights, processor, manifest."""

import datetime
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..dtypes import DTYPES
from ..engines.bundle.folder import FACTORS, MANIFEST, PROCESSOR, WEIGHTS, list_files
from ..engines.bundle.layout import Layout
from ..engines.bundle.license import FILE as LICENSE
from ..engines.bundle.manifest import Manifest, Quantisation
from ..engines.bundle.swap import check_space
from ..engines.bundle.tensors import cache_specs
from ..engines.stopping import end_tokens
from ..versions import versions
from .checkpoint.family import Family
from .checkpoint.hub import NOTICES
from .checkpoint.license import license_of
from .checkpoint.stored import check_stored
from .checkpoint.stored_as import rounding_of
from .config import ExportConfig
from .onnx.export import save, trace
from .onnx.inputs import prefill_request, step_request, vision_request
from .onnx.layer_copies import Unlike
from .onnx.slots import with_slots
from .onnx.weights_file import WeightsFile
from .ops.attention import NAME
from .quantised.calibrated import Calibrated
from .quantised.products import product_weights

Progress = Callable[[str], None]


def assemble(
    config: ExportConfig,
    family: Family,
    layouts: tuple[Layout, ...],
    model: Any,
    folder: Path,
    progress: Progress,
    codes: Calibrated | None = None,
) -> Manifest:
    """Write a bundle into an empty folder.

    Args:
        config: what is asked for.
        family: of the model.
        layouts: planned.
        model: in the checkpoint's own dtype; its parameters may be mapped files, and only one at a
            time is held in memory.
        folder: to write to.
        progress: told each step.
        codes: of the products, where they were calibrated.

    Raises:
        LuvcError: the disk is too small, or weights are not those of the checkpoint's files, or no numbers.
    """
    model.set_attn_implementation(NAME)
    if codes:
        codes.take_in(model)
    dtype = DTYPES[config.dtype].torch
    weights = weights_file(folder / WEIGHTS, model, family, dtype, codes or config.quantisation)
    check_space(folder, weights.bytes)
    with weights.in_background() as written:
        _write_graphs(model, family, config, layouts, folder, weights, progress)
        progress("writing the weights")
        files = {WEIGHTS: written.result()}
    check_stored(family, folder / WEIGHTS, weights.rounding)
    progress("writing the processor files")
    write_processor(family, model, folder / PROCESSOR)
    if terms := license_of(family.folder):
        (folder / LICENSE).parent.mkdir(exist_ok=True)
        (folder / LICENSE).write_text(terms.model_dump_json(exclude_none=True))
    if codes:
        codes.factors.write(folder / FACTORS, dict(model.named_modules()))
    manifest = manifest_of(config, family, layouts, model)
    found = {"files": files, "weights": weights.rounding.how if weights.rounding else None}
    found |= {"calibrated": codes.questions} if codes else {}
    return write_manifest(folder, manifest.model_copy(update=found))


def weights_file(
    path: Path,
    model: Any,
    family: Family,
    dtype: torch.dtype,
    how: Quantisation | Calibrated | None,
) -> WeightsFile:
    """The weights file of a bundle, planned; nothing is written yet.

    Args:
        path: the file.
        model: of the family; shapes alone are enough to plan.
        family: of the model.
        dtype: of the numbers.
        how: the language model's products are to be rounded, or their codes; None for what the checkpoint
            has.

    Raises:
        LuvcError: a weight does not fit the groups.
    """
    parameters = {n: p.detach() for n, p in model.named_parameters(remove_duplicate=False)}
    calibrated = isinstance(how, Calibrated)
    rounding = how if calibrated else rounding_of(family, model, dtype, how)
    if rounding is None:
        return WeightsFile(path, parameters, dtype)
    products = [n for n in product_weights(model, family.traits) if rounding.covers(n)]
    return WeightsFile(path, parameters, dtype, products, rounding)


def manifest_of(
    config: ExportConfig, family: Family, layouts: tuple[Layout, ...], model: Any
) -> Manifest:
    """What a bundle made now says of itself; its files are not known yet."""
    return Manifest(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=family.model,
        revision=family.commit,
        family=family.config.model_type,
        dtype=config.dtype,
        weights=config.quantisation,
        quantised_as=family.format.about if family.format else None,
        language=family.language,
        layouts=layouts,
        text_capacity=config.text_capacity,
        slots="free",
        reference_text=config.reference_text,
        solver=config.solved_for,
        parameters=sum(p.numel() for p in model.parameters()),
        versions=versions(),
    )


def _write_graphs(model, family, config, layouts, folder: Path, weights, progress) -> None:
    """The graphs of all layouts, each file once; there is one step graph, for caches of several sizes."""
    dtype, capacity = DTYPES[config.dtype].torch, config.text_capacity
    write = partial(_write_graph, folder, weights, progress)
    for layout in layouts:
        graphs, text = layout.graphs, (model, family, layout, capacity, dtype, layouts)
        if graphs.vision:
            write(graphs.vision, partial(vision_request, model, family, layout, dtype))
        write(graphs.prefill, partial(prefill_request, *text))
        step = layouts[0].graphs.step
        write(step, partial(step_request, *text))
        caches = cache_specs(family.language, layout, capacity, config.dtype, 1, layouts)
        with_slots(folder / step, folder / graphs.step, caches)


def _write_graph(folder: Path, weights, progress, name: str, request: Callable) -> None:
    """Trace a graph and save it, unless it is there: layouts share some."""
    if (folder / name).exists():
        return
    step = f"tracing {Path(name).stem}"
    decomposed = partial(_decomposed, progress, step)
    progress(step)
    try:
        graph = trace(request(), decomposed)
    except Unlike as e:
        progress(f"{step} again, every run of layers apart: {e}")
        graph = trace(request(alone=True), decomposed)
    save(graph, folder / name, weights)


def _decomposed(progress: Progress, step: str, why: str) -> None:
    progress(f"{step} again, with decompositions: {why}")


def write_processor(family: Family, model: Any, folder: Path) -> None:
    """Tokenizer, image processor, template, generation config as Hugging Face saves them; the terms."""
    family.tokenizer.save_pretrained(folder)
    family.image_processor.save_pretrained(folder)
    family.config.save_pretrained(folder)
    generation = getattr(model, "generation_config", None)
    data = generation.to_diff_dict() if generation is not None else {}
    data["eos_token_id"] = end_tokens(
        data.get("eos_token_id"),
        family.config.text_config.eos_token_id,
        family.tokenizer.eos_token_id,
    )
    folder.joinpath("generation_config.json").write_text(json.dumps(data, indent=2))
    for terms in (file for pattern in NOTICES for file in family.folder.glob(pattern)):
        if terms.is_file():
            shutil.copyfile(terms, folder / terms.name)


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest with all files of the folder -> that manifest."""
    manifest = manifest.model_copy(update={"files": list_files(folder, manifest.files)})
    folder.joinpath(MANIFEST).write_text(manifest.model_dump_json(indent=1))
    return manifest
