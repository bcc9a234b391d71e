"""The pocket VLM's training: exact resumption, growth, what a run leaves, its rate and its optimizer."""

import dataclasses
import json
import os
import signal
from typing import Any

import pytest
import torch
from transformers import InternVLForConditionalGeneration

from benchmarks.training.checkpoint import MAX_BYTES, build_config, build_model, save_checkpoint
from benchmarks.training.loader import BatchShape, allocate, fill
from benchmarks.training.muon import BatchedMuon
from benchmarks.training.optim import rate_factor
from benchmarks.training.plots import plot_losses
from benchmarks.training.settings import TrainConfig
from benchmarks.training.tokenizer import build_tokenizer
from benchmarks.training.trainer import Trainer
from luvc.errors import LuvcError

SMALL = TrainConfig(
    steps=8,
    vision_first=0.1,
    singles=1,
    pairs=1,
    pair_every=1,
    workers=0,
    warmup=2,
    log_every=1,
    validation=0,
    validate_every=100,
    test=10,
    half=False,
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_a_resumed_run_gives_identical_weights(tmp_path):
    whole = Trainer(SMALL, tmp_path / "whole", echo=lambda _: None)
    first = Trainer(SMALL, tmp_path / "parts", echo=lambda _: None)
    before = [p.detach().clone() for p in whole.learner.parameters()]
    for trainer, steps in ((whole, (0, 1)), (first, (0,))):
        for step in steps:
            trainer.train_step(batch(trainer, step))
    first.save_state()
    second = Trainer(SMALL, tmp_path / "parts", echo=lambda _: None)
    assert second.step == 1
    second.train_step(batch(second, 1))
    pairs = zip(whole.learner.parameters(), second.learner.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(map(torch.equal, whole.average.values, second.average.values))
    assert any(not torch.equal(a, b) for a, b in zip(before, whole.learner.parameters()))  # noqa: B905


def test_a_run_grows_half_way_and_is_resumed_grown(tmp_path):
    config = dataclasses.replace(SMALL, layers=4, steps=4, stop_after=1e-9)
    layers = []
    for _ in range(4):
        trainer = Trainer(config, tmp_path, echo=lambda _: None)
        trainer.run()
        layers.append(trainer.layers)
    assert layers == [4, 4, 8, 8] and trainer.step == 4
    silent = trainer.learner.model.model.language_model.layers[1].mlp.down_proj.weight
    assert silent.abs().max() > 0, "what was added is trained too"


def batch(trainer, number):
    shape = BatchShape(trainer.config.singles, trainer.config.pairs)
    return fill(allocate(shape), number, shape, trainer.packer)


def test_a_run_ends_with_checkpoint_results_and_log(tmp_path):
    config = dataclasses.replace(SMALL, steps=2, validation=10)
    trainer = Trainer(config, tmp_path, echo=lambda _: None)
    assert trainer.run()
    results = trainer.finish()
    assert results["steps"] == 2 and results["parameters"] <= MAX_BYTES // 2
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert set(results["chance"]) == set(results["text_only"])
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 2, 2] and "overall" in log[-1]["validation"]
    assert InternVLForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert plot_losses(tmp_path / "log.jsonl", tmp_path / "again.png")


def test_a_stopped_run_leaves_a_state_to_resume(tmp_path):
    trainer = Trainer(SMALL, tmp_path, echo=lambda _: None)
    trainer.echo = lambda _: os.kill(os.getpid(), signal.SIGTERM)
    assert not trainer.run()
    resumed = Trainer(SMALL, tmp_path, echo=lambda _: None)
    assert resumed.step == trainer.step < SMALL.steps


def test_the_rate_rises_stays_and_falls():
    assert rate_factor(0, 10, 0.0) == pytest.approx(0.1)
    assert rate_factor(50, 10, 0.3) == rate_factor(50, 10, 0.6) == 1
    assert rate_factor(50, 10, 0.9) < 0.5 and rate_factor(50, 10, 1.0) == 0


def test_batched_muon_is_torchs_muon():
    torch.manual_seed(0)
    shapes = ((16, 8), (16, 8), (8, 16), (12, 12))
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    options: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.05}
    a = BatchedMuon(ours, **options)
    b = torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **options)
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, atol=2e-3, rtol=2e-2)  # both iterate in bfloat16


def test_a_command_that_stops_early_is_taken_up_again(tmp_path):
    config = dataclasses.replace(SMALL, steps=3, stop_after=1e-9, validation=10, validate_every=1)
    steps = []
    for _ in range(3):
        trainer = Trainer(config, tmp_path, echo=lambda _: None)
        finished = trainer.run()
        steps.append(trainer.step)
        # what a killed run leaves to be used or started from
        assert InternVLForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert steps == [1, 2, 3] and finished


def test_a_new_run_may_start_from_a_checkpoint(tmp_path):
    tokenizer = build_tokenizer()
    model = build_model(build_config(tokenizer))
    save_checkpoint(model, tokenizer, tmp_path / "start")
    config = dataclasses.replace(SMALL, start=str(tmp_path / "start"))
    trainer = Trainer(config, tmp_path / "a", echo=lambda _: None)
    for ours, theirs in zip(trainer.learner.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs.half().float())
    with pytest.raises(LuvcError, match=r"holds no model\.safetensors"):
        Trainer(
            dataclasses.replace(SMALL, start=str(tmp_path)), tmp_path / "b", echo=lambda _: None
        )
