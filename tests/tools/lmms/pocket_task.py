"""PocketVQA as a task of lmms-eval that lies in a folder: no hub, no cache but the folder's own."""

import json
from pathlib import Path

import yaml

from luvc.tools.eval.items import pocket_items

NAME = "pocketvqa"
LONGEST = 16  # tokens of an answer, as luvc-eval has it
# lmms-eval imports it beside the YAML file
UTILS = """
from PIL import Image


def pictures(doc):
    return [Image.open(path).convert("RGB") for path in doc["images"]]
"""


def write(folder: Path, limit: int, **generation) -> Path:
    """The first test questions, with their pictures as files; `generation` adds settings."""
    (folder / "pictures").mkdir(parents=True)
    with (folder / "questions.jsonl").open("w") as f:
        for item in pocket_items("test", limit):
            paths = [folder / "pictures" / f"{item.id}-{n}.png" for n in range(len(item.images))]
            for path, picture in zip(paths, item.images, strict=True):
                picture.save(path)
            line = {"question": item.question, "answer": item.answers[0], "task": item.task}
            f.write(json.dumps(line | {"images": [str(path) for path in paths]}) + "\n")
    task = {
        "task": NAME,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "questions.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "question",
        "doc_to_target": "answer",
        "generation_kwargs": {"max_new_tokens": LONGEST, "do_sample": False} | generation,
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    text = yaml.safe_dump(task) + "doc_to_visual: !function utils.pictures\n"
    (folder / f"{NAME}.yaml").write_text(text)
    (folder / "utils.py").write_text(UTILS)
    return folder
