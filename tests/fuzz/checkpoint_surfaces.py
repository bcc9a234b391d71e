"""Checkpoints that a stranger published: config, processor files, tensors; and a schedule of one's own."""

import json
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from luvc.engines.bundle.layout import Layout
from luvc.exporter import ExportConfig, export, plan
from luvc.exporter.planning.schedule_file import read_schedule

from .bundle_surfaces import safetensors
from .material import Material, replaced
from .mutations import json_bytes
from .surfaces import Surface, surface


def _planned(material: Material, **options: object) -> tuple[Layout, ...]:
    model = str(material.checkpoint)
    return plan(ExportConfig.make(model=model, reference_text=8, text_capacity=96, **options))


def _config(material: Material, *names: str) -> Surface:
    files = [material.checkpoint / name for name in names]
    right = [json.loads(file.read_text()) for file in files]

    def spoiled(number: int) -> SearchStrategy[bytes]:
        return json_bytes(right[number]).map(lambda data: bytes([number]) + data)

    def check(data: bytes) -> None:
        with replaced(files[data[0] % len(files)], data[1:]):
            _planned(material)

    return Surface(st.integers(0, len(files) - 1).flatmap(spoiled), check)


@surface
def checkpoint_config(material: Material) -> Surface:
    """config.json: every size of the model."""
    return _config(material, "config.json")


@surface
def checkpoint_processor(material: Material) -> Surface:
    """The files that say what becomes of text and pictures; the first byte says which."""
    names = "preprocessor_config.json", "tokenizer_config.json", "generation_config.json"
    return _config(material, *names)


@surface
def checkpoint_tensors(material: Material) -> Surface:
    """model.safetensors, exported as it is."""
    file = material.checkpoint / "model.safetensors"

    def check(data: bytes) -> None:
        target = material.scratch / "exported"
        with replaced(file, data):
            export(
                ExportConfig.make(
                    model=str(material.checkpoint),
                    output=target,
                    reference_text=8,
                    text_capacity=96,
                    check=False,
                )
            )

    return Surface(safetensors(file.read_bytes()), check)


@surface
def schedule(material: Material) -> Surface:
    """A schedule file."""
    right = {
        "vision": [{"layer": 0, "h": 2, "w": 2}],
        "language": [{"layer": 1, "keep": 3}],
        "cutoff": 0.5,
        "signal": "normed",
        "scope": "prompt",
        "match": False,
    }
    file = material.scratch / "schedule.json"

    def check(data: bytes) -> None:
        Path(file).write_bytes(data)
        _planned(material, schedule=read_schedule(file))

    return Surface(json_bytes(right), check)
