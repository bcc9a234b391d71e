"""A small model, questions about pictures, and a lab of both."""

import json

import pytest
from PIL import Image

from luvc.engines.generated_pictures import generated_picture
from luvc.exporter.checkpoint.family import Family
from luvc.tools.eval.items import read_jsonl
from luvc.tools.journal import Journal
from luvc.tools.tune.lab import Asked, Lab
from luvc.tools.tune.split import split
from luvc.tools.workbench import Workbench

from ...conftest import TINY

COUNT = 12
RATIO = 1.5


@pytest.fixture(scope="module")
def model(workshop):
    return workshop.checkpoint(**TINY, text="qwen2")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Questions about pictures of their own; each has an answer."""
    folder, lines = tmp_path_factory.mktemp("questions"), []
    for number in range(COUNT):
        picture = generated_picture((120, 160), seed=number)
        Image.fromarray(picture).save(folder / f"{number}.png")
        lines.append(
            {"image": f"{number}.png", "question": "What is this?"[: 5 + number], "answer": "it"}
        )
    path = folder / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def lab_of(model, data, folder, ratio=RATIO) -> Lab:
    options = {"model": str(model), "images": (1,), "reference_text": 8, "check": False}
    bench = Workbench(Family.load(str(model)))
    parts, _ = split(read_jsonl(data, None))
    return Lab(bench, Asked(options, ratio, 3, 4), parts, Journal(folder / "a.jsonl", {}))
