"""Files that commands read: questions of luvc-eval, rows of luvc-batch, reports of other commands."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from hypothesis import strategies as st

from luvc.engines.bundle.manifest import Quantisation
from luvc.exporter.quantised.factors import Factors, read_factors
from luvc.exporter.quantised.rounding import CODES, Rounding
from luvc.tools.batch import files
from luvc.tools.bench.tables import ROWS
from luvc.tools.eval import items, outcome
from luvc.tools.report import facts

from .bundle_surfaces import safetensors
from .material import Material
from .mutations import json_bytes, spoilt
from .surfaces import Surface, surface


def _read(material: Material, name: str, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    file = material.scratch / name

    def check(data: bytes) -> None:
        file.write_bytes(data)
        read(file)

    return check


def _lines(*rows: dict) -> st.SearchStrategy[bytes]:
    one = st.one_of([json_bytes(row) for row in rows])
    text = b"\n".join(json.dumps(row).encode() for row in rows)
    return st.one_of(st.lists(one, max_size=3).map(b"\n".join), spoilt(text))


@surface
def eval_questions(material: Material) -> Surface:
    """A JSONL file of luvc-eval."""
    rows = (
        {
            "question": "Which colour?",
            "answer": ["red", "a red one"],
            "images": [],
            "task": "colour",
        },
        {"question": "How many?", "answer": "3", "image": "photo.png", "id": 7},
    )
    return Surface(_lines(*rows), _read(material, "q.jsonl", lambda f: items.read_jsonl(f, None)))


@surface
def batch_rows(material: Material) -> Surface:
    """A JSONL file of luvc-batch."""
    rows = (
        {"id": "a", "image": "photo.png", "question": "Which colour?"},
        {"id": "b", "image": "data:image/png;base64,iVBORw0KGgo="},
        {"id": 3, "image": {"path": "photo.png", "bytes": None}},
    )
    return Surface(_lines(*rows), _read(material, "rows.jsonl", files.read_input))


@surface
def eval_report(material: Material) -> Surface:
    """What luvc-eval wrote, read by luvc-eval and luvc-report."""
    verdicts = [
        outcome.Verdict(str(n), task, "Which?", ("red",), "red", n > 0, 9)
        for n, task in enumerate(("colour", "count"))
    ]
    head = {"model": "m", "ratio": 2.0, "data": "d", "rule": "exact"}
    right = outcome.to_json(head, verdicts, Counter())

    def read(file: Path) -> None:
        data = outcome.read(file)
        outcome.table(data, data)
        outcome.compare(data, data)
        facts.read_accuracy([file])

    return Surface(json_bytes(right), _read(material, "eval.json", read))


@surface
def bench_report(material: Material) -> Surface:
    """What luvc-bench wrote, read by luvc-report."""
    manifest = material.loaded.manifest
    times = {key: {"median": 1.0, "p95": 2.0} for _, key in ROWS}
    right = {
        "cases": [{"system": "s", "batch": 1, **times}],
        "systems": [{"name": "s", "model": manifest.model, "ratio": 2.0}],
        "settings": {"batches": [1]},
        "machine": {"cpu": "c", "cores": 2},
    }

    def read(file: Path) -> None:
        found = facts.read_bench(file, manifest)
        assert found is not None
        facts.latency(found)

    return Surface(json_bytes(right), _read(material, "bench.json", read))


@surface
def factors(material: Material) -> Surface:
    """What a calibrated bundle says that its norms and products were divided by."""
    layers, d = "model.layers", 4
    attention, norm = f"{layers}.0.self_attn", f"{layers}.0.input_layernorm"
    widths = {"q_proj": (16, 8), "k_proj": (8, 8), "v_proj": (8, 8), "o_proj": (8, 16)}  # [N, K]
    products = {f"{attention}.{leaf}": shape for leaf, shape in widths.items()}
    shapes: dict[str, tuple[int, ...]] = {
        f"{norm}.weight": (8,),
        f"{attention}.v_proj.bias": (8,),
    }
    shapes |= {f"{name}.weight{CODES}": shape[::-1] for name, shape in products.items()}
    right, file = Factors(d), material.scratch / "right.safetensors"
    right.add(norm, [f"{attention}.{leaf}_proj" for leaf in "qkv"], torch.full((8,), 2.0))
    right.add(f"{attention}.v_proj", [f"{attention}.o_proj"], torch.full((8,), 0.5))
    right.write(file, right.sources)
    how = Rounding(Quantisation(kind="int8"), torch.float32)

    def read(file: Path) -> None:
        found = read_factors(file, shapes, how, layers, d)
        for name, shape in products.items():
            scaled = found.scaled(f"{name}.weight", torch.ones(shape))
            assert scaled.shape == shape

    return Surface(safetensors(file.read_bytes()), _read(material, "factors.safetensors", read))
