"""Pocket-hd: the same pictures drawn finer, its start, and learning to see like a model of coarser ones."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, InternVLForConditionalGeneration

from benchmarks.training.checkpoint import build_config, load_checkpoint, scale_of
from benchmarks.training.initial import finer
from benchmarks.training.learner import Student, project, to_device
from benchmarks.training.settings import TrainConfig
from benchmarks.training.tokenizer import build_tokenizer
from benchmarks.training.trainer import Trainer
from luvc.tools.pocket.dataset import TASKS, example, record

POCKET = Path("tools/pocket/model")
RUN = TrainConfig(
    teacher=str(POCKET),
    steps=3,
    vision_first=0.5,
    singles=1,
    pairs=0,
    workers=0,
    warmup=1,
    rate=3e-4,
    log_every=1,
    validation=0,
    validate_every=100,
    test=1,
    half=False,
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("task", [*TASKS, "page"])
def test_a_finer_picture_shows_the_same(task):
    coarse = record(4, task)
    fine = dataclasses.replace(coarse, scale=2)
    p, q = coarse.pixels().astype(float), fine.pixels().astype(float)
    assert q.shape[1:] == (384, 384, 3)
    joined = q.reshape(len(q), 192, 2, 192, 2, 3).mean((2, 4))
    assert np.corrcoef(p.ravel(), joined.ravel())[0, 1] > 0.9
    assert (coarse.labels() == fine.labels()).mean() > 0.85
    assert np.abs(q[:, 1::2] - q[:, ::2]).max() > 0, "it is drawn anew, not enlarged"


def test_it_begins_as_the_pocket_with_finer_patches():
    teacher = load_checkpoint(POCKET)
    model = finer(teacher)
    wanted = build_config(build_tokenizer(), scale=2).to_dict()
    found = model.config.to_dict()
    assert scale_of(model) == 2 and found["downsample_ratio"] == 0.5
    for part in ("vision_config", "text_config"):
        kept = wanted[part].keys() - {"dtype"}
        assert {k: found[part][k] for k in kept} == {k: wanted[part][k] for k in kept}
    pixels = torch.from_numpy(dataclasses.replace(example("validation", 3), scale=2).pixels())
    with torch.no_grad():
        student = Student(model, teacher)
        ours = project(model, student.encode(model, pixels[None]))
        whole = (pixels.permute(0, 3, 1, 2) / 255 - student.mean) / student.std
        found: Any = model.get_image_features(pixel_values=whole)
        theirs = found.pooler_output
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), atol=1e-5, rtol=1e-5)


def test_a_run_learns_from_its_teacher(tmp_path):
    trainer = Trainer(RUN, tmp_path, echo=lambda _: None)
    names = [name for name, _ in trainer.learner.named_parameters()]
    assert all(name.startswith("model.") for name in names), "the teacher is not trained"
    learner: Any = trainer.learner
    (teacher,) = learner.teacher
    before = [p.clone() for p in teacher.parameters()]
    group = next(iter(trainer.loader))
    arrays = [{name: array.copy() for name, array in part.items()} for part in group]
    far = [distance(trainer, arrays)]
    for _ in range(3):
        trainer.train_step(arrays)
        far.append(distance(trainer, arrays))
    assert far[-1] < 0.95 * far[0] < 0.2, "it is near its teacher at once, and comes nearer"
    assert all(map(torch.equal, before, teacher.parameters()))


def distance(trainer: Trainer, arrays: list) -> float:
    """Of visual tokens from the teacher's, as a part of their variance."""
    with torch.no_grad():
        return float(trainer.learner.look(to_device(arrays[0], trainer.device))[1])


def test_a_run_leaves_a_checkpoint_of_larger_pictures_and_is_resumed(tmp_path):
    trainer = Trainer(RUN, tmp_path, echo=lambda _: None)
    assert trainer.run()
    trainer.finish()
    loaded = InternVLForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert scale_of(loaded) == 2
    processor = AutoImageProcessor.from_pretrained(tmp_path / "model")
    shape = processor(example("test", 0).pictures[0], return_tensors="pt").pixel_values.shape
    assert shape == (1, 3, 384, 384)
    again = Trainer(dataclasses.replace(RUN, steps=4), tmp_path, echo=lambda _: None)
    assert again.step == 3 and again.run() and again.step == 4
