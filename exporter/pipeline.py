"""One export from start to end: plan, load, trace, write, validate, swap in."""

import datetime
import json
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import __version__
from ..engines.backends import backend as load_backend
from ..engines.bundle import (
    MANIFEST,
    PROCESSOR,
    REPORT,
    WEIGHTS,
    Bundle,
    list_files,
)
from ..engines.manifest import LanguageModel, Layout, Manifest
from ..engines.processing import Processor
from ..engines.replace import check_space, check_target, replacing
from ..engines.validate import Report, validate
from ..errors import LuvcError
from .attention import NAME
from .checkpoint import load_model
from .config import ExportConfig
from .family import Family
from .latency import Timed, for_latency
from .onnx_export import Trace, save, trace
from .problem import check_schedule
from .requests import prefill_request, step_request, vision_request
from .schedule import solve
from .torch_runner import TorchRunner
from .weights import WeightsFile

Progress = Callable[[str], None]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CHECKED_ON = "ort"  # the backend that needs no GPU
LIBRARIES = ("torch", "transformers", "onnx", "onnxscript", "onnx_ir", "onnxruntime", "numpy")


def plan(config: ExportConfig, family: Family | None = None) -> tuple[Layout, ...]:
    """The layouts of an export: sizes, schedules, ratios. Reads configs, no weights.

    Raises:
        LuvcError: unsupported model, size or ratio.
    """
    family = family or Family.load(config.model)
    layouts = []
    for size in config.image_sizes or (None,):
        for images in config.images:
            problem = family.problem(family.geometry(size), images, config.reference_text)
            if config.schedule is None:
                schedule = solve(problem, config.ratio, config.options)
            else:
                schedule = check_schedule(problem, config.schedule)
            layouts.append(family.layout(size, images, config.reference_text, schedule))
    names = [layout.name for layout in layouts]
    if len(set(names)) < len(names):
        raise LuvcError(
            f"layouts are named twice: {', '.join(names)}; give each size and count once"
        )
    _check_positions(config, family, layouts)
    return tuple(layouts)


def export(
    config: ExportConfig,
    progress: Progress = lambda step: None,
    family: Family | None = None,
) -> Bundle:
    """Write a bundle; it gets its name only when everything has passed.

    Args:
        config: what is asked for.
        progress: called with the name of each step as it starts.
        family: of config.model, where it was already read.

    Raises:
        LuvcError: the request cannot be met, or validation failed; an earlier bundle stays. Engines
            that cannot be built leave the new bundle, which runs on ONNX Runtime.
    """
    check_target(config.output)
    config.check_backend()
    if config.validates:
        load_backend(CHECKED_ON)
        if config.match and config.dtype != "float32":
            raise LuvcError(
                "--oim-match picks the most similar neighbours, and half precision picks others where "
                "two are nearly as similar, so it cannot be validated: use --dtype fp32 or --no-validate"
            )
    if config.backend != CHECKED_ON:
        load_backend(config.backend).check_machine()
    progress("reading the config and solving the schedule")
    family = family or Family.load(config.model)
    if config.ratio_of == "latency":
        config, _ = solve_for_latency(config, family, progress)
    layouts = plan(config, family)
    progress("loading the weights")
    model = load_model(family, DTYPES[config.dtype])
    model.set_attn_implementation(NAME)
    parameters = {n: p.detach() for n, p in model.named_parameters(remove_duplicate=False)}
    with replacing(config.output) as folder:
        weights = WeightsFile(folder / WEIGHTS, parameters)
        check_space(config.output, weights.bytes)
        for layout in layouts:
            _write_graphs(model, family, config, layout, folder, weights, progress)
        progress("writing the weights")
        weights.write()
        progress("writing the processor files")
        _write_processor(family, model, folder / PROCESSOR)
        manifest = _manifest(config, family, layouts, sum(p.numel() for p in model.parameters()))
        manifest = _write_manifest(folder, manifest)
        if config.validates:
            _validate(Bundle.load(folder), family, model, config, progress)
            _write_manifest(folder, manifest.model_copy(update={"validated": True}))
    bundle = Bundle.load(config.output)
    if config.backend == CHECKED_ON:
        return bundle
    progress(f"building the {config.backend} engines")
    return load_backend(config.backend).build(bundle)[0]


def solve_for_latency(
    config: ExportConfig, family: Family, progress: Progress = lambda step: None
) -> tuple[ExportConfig, Timed]:
    """The same export with a schedule whose measured prefill has the ratio, and the measurement.

    Raises:
        LuvcError: see latency.for_latency.
    """
    check_target(config.output)
    config.check_backend()
    timed = for_latency(config, family, progress, export)
    return config.model_copy(update={"schedule": timed.schedule, "ratio_of": "flops"}), timed


def _check_positions(config: ExportConfig, family: Family, layouts: list[Layout]) -> None:
    """Rotary positions must not run past what the text model was made for."""
    limit = family.config.text_config.max_position_embeddings
    for layout in layouts:
        longest = layout.visual_tokens + config.text_capacity
        if longest > limit:
            raise LuvcError(
                f"layout {layout.name} has {layout.visual_tokens} visual tokens and a text capacity of "
                f"{config.text_capacity}: together more than the model's {limit} positions; lower "
                "--text-capacity or use a smaller image"
            )


def _write_graphs(model, family, config, layout, folder, weights, progress: Progress) -> None:
    requests: dict[str, Callable[[], Trace]] = {
        layout.graphs.vision: lambda: vision_request(model, family, layout),
        layout.graphs.prefill: lambda: prefill_request(model, family, layout, config.text_capacity),
        layout.graphs.step: lambda: step_request(model, family, layout, config.text_capacity),
    }
    for name, request in requests.items():
        progress(f"tracing {Path(name).stem}")
        save(trace(request()), folder / name, weights)


def _write_processor(family: Family, model: Any, folder: Path) -> None:
    """Tokenizer, image processor, chat template and generation config, as Hugging Face saves them."""
    family.tokenizer.save_pretrained(folder)
    family.image_processor.save_pretrained(folder)
    family.config.save_pretrained(folder)
    generation = getattr(model, "generation_config", None)
    data = generation.to_diff_dict() if generation is not None else {}
    if data.get("eos_token_id") is None:  # as transformers does: what ends a text ends an answer
        text = family.config.text_config.eos_token_id
        data["eos_token_id"] = family.tokenizer.eos_token_id if text is None else text
    folder.joinpath("generation_config.json").write_text(json.dumps(data, indent=2))


def _manifest(
    config: ExportConfig, family: Family, layouts: tuple[Layout, ...], parameters: int
) -> Manifest:
    d, token = family.decoder, family.adapter.image_token(family.tokenizer)
    return Manifest(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=str(Path(config.model).resolve()) if Path(config.model).is_dir() else config.model,
        family=family.config.model_type,
        dtype=config.dtype,
        language=LanguageModel(
            model_type=family.config.text_config.model_type,
            layers=d.layers,
            kv_heads=d.kv_heads,
            head_dim=d.head_dim,
            vocab_size=d.vocab,
            image_token=token,
            image_token_id=family.tokenizer.convert_tokens_to_ids(token),
            max_positions=family.config.text_config.max_position_embeddings,
        ),
        layouts=layouts,
        text_capacity=config.text_capacity,
        reference_text=config.reference_text,
        parameters=parameters,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Versions of everything that shapes a bundle."""
    found = {"luvc-export": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest with all files of the folder -> that manifest."""
    manifest = manifest.model_copy(update={"files": list_files(folder, manifest.files)})
    folder.joinpath(MANIFEST).write_text(manifest.model_dump_json(indent=1))
    return manifest


def _validate(
    bundle: Bundle, family: Family, model: nn.Module, config: ExportConfig, progress: Progress
) -> None:
    """Compare each layout with PyTorch, keep the reports, refuse a bundle that does not pass."""
    runner, processor = load_backend(CHECKED_ON).runner(bundle), Processor(bundle)
    reference = TorchRunner(model, family, config.text_capacity)
    folder = bundle.path / REPORT
    folder.mkdir()
    for layout in bundle.manifest.layouts:
        progress(f"validating {layout.name} against PyTorch")
        report = validate(bundle.manifest, processor, layout, reference, runner, CHECKED_ON)
        target = folder / f"validation-{layout.name}-{CHECKED_ON}.json"
        target.write_text(report.model_dump_json(indent=1))
        if not report.passed:
            kept = config.output.absolute().parent / f"{config.output.name}-failed-validation.json"
            shutil.copy(target, kept)
            raise LuvcError(
                f"layout {layout.name} does not match PyTorch, so no bundle was written "
                f"(report: {kept}): " + "; ".join(report.failures())
            )


def reference_runner(manifest: Manifest, model: str | None = None) -> TorchRunner:
    """PyTorch for a bundle: its checkpoint in float32, weights rounded to the bundle's dtype.

    Args:
        manifest: of the bundle.
        model: checkpoint directory or hub id; default the one named in the manifest.

    Raises:
        LuvcError: the checkpoint cannot be read, or is another architecture.
    """
    family = Family.load(model or manifest.model)
    d, lm = family.decoder, manifest.language
    if (d.layers, d.kv_heads, d.head_dim, d.vocab) != (
        lm.layers, lm.kv_heads, lm.head_dim, lm.vocab_size,
    ):  # fmt: skip
        raise LuvcError(f"{family.source} is not the model this bundle was made from; give --model")
    return TorchRunner(load_model(family, DTYPES[manifest.dtype]), family, manifest.text_capacity)


def reports(bundle: Bundle) -> list[Report]:
    """The validation reports inside a bundle."""
    folder = bundle.path / REPORT
    return [
        Report.model_validate_json(path.read_text())
        for path in sorted(folder.glob("validation-*.json"))
    ]
