"""The training loop: steps, log, validation, and a state that a run resumes from exactly."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

import torch
from torch import Tensor

from luvc.errors import LuvcError
from luvc.files import whole
from luvc.tools.pocket.dataset import chance_levels

from .checkpoint import (
    LAYERS,
    build_config,
    build_model,
    load_checkpoint,
    load_tokenizer,
    save_checkpoint,
)
from .evaluate import exact_match, prepare, text_only
from .initial import finer, grown
from .learner import PLAIN_ATTENTION, Learner, Student, answer_loss, compile_layers, to_device
from .loader import BatchShape, Group, Loader
from .optim import Average, optimizers, rate_factor
from .packing import IGNORE, Packer
from .plots import plot_losses
from .settings import TrainConfig

STATE = "state.pt"
LOG = "log.jsonl"
FINER = 2
"""How much larger a student's pictures are than its teacher's."""


class Trainer:
    """One run in one directory.

    Args:
        config: the run's settings.
        directory: where the log, the state and the checkpoint go; a state found there is resumed.
        echo: prints a line of progress.
    """

    def __init__(self, config: TrainConfig, directory: Path, echo: Callable[[str], None] = print):
        self.config = config
        self.directory = directory
        self.echo = echo
        directory.mkdir(parents=True, exist_ok=True)
        self.device = torch.device(config.device)
        self.batch = 32 if self.device.type == "cpu" else 250
        state = self._read_state()
        # A run that goes on keeps its token ids, whatever another version would learn.
        earlier = [directory / "model"] if state else []
        earlier += [Path(folder) for folder in (config.start, config.teacher) if folder]
        known = (folder for folder in earlier if (folder / "tokenizer.json").is_file())
        self.tokenizer = load_tokenizer(next(known, None))
        self.packer = Packer(self.tokenizer)
        self.step, self.spent = (state["step"], state["spent"]) if state else (0, 0.0)
        # Workers are forked here, before the device is first used: a CUDA context does not fork.
        self.scale = FINER if config.teacher else 1
        shape = BatchShape(config.singles, config.pairs, config.pair_every, scale=self.scale)
        self.loader = Loader(shape, self.packer, config.workers, self.step)
        self._begin(self._first_model(state["layers"] if state else config.layers))
        self.sums: list[Tensor] = []
        self.stopped = False
        if state:
            self._resume(state)
        self.waited = 0.0

    def _first_model(self, layers: int):
        if self.config.start:
            return load_checkpoint(Path(self.config.start))
        if self.config.teacher:
            return finer(load_checkpoint(Path(self.config.teacher)), FINER)
        return build_model(build_config(self.tokenizer, layers), self.config.seed)

    def _begin(self, model, heads: dict[str, Tensor] | None = None) -> None:
        """Set up all that trains a model; label heads are drawn unless given."""
        config = self.config
        if self.device.type == "cpu" and config.half:
            model.set_attn_implementation(PLAIN_ATTENTION)
        torch.manual_seed(config.seed)
        self.learner = self._student(model) if config.teacher else Learner(model)
        self.learner.load_state_dict(heads or {}, strict=False)
        self.learner.to(self.device)
        self.optimizers = optimizers(self.learner, config.rate, config.decay, config.muon)
        self.average, self.begun = Average(self.learner, config.average), self.step
        if config.compile:
            compile_layers(self.learner)

    def _student(self, model) -> Student:
        teacher: Any = load_checkpoint(Path(self.config.teacher or ""))
        return Student(model, teacher.to(self.device))

    @property
    def layers(self) -> int:
        """Layers of each stack at present."""
        return len(self.learner.model.model.language_model.layers)

    def _grow(self) -> None:
        """Give both stacks all their layers; the optimisers and the average begin anew."""
        self.echo(f"{self.layers} layers become {LAYERS} at step {self.step}")
        weights = self.learner.state_dict()
        heads = {name: w for name, w in weights.items() if not name.startswith("model.")}
        self._begin(grown(self.learner.model), heads)

    def progress(self) -> float:
        """Part of the run that is over, 0 .. 1."""
        of_time = self.spent / (60 * self.config.minutes) if self.config.minutes else 0
        return max(self.step / self.config.steps, of_time)

    def looks_only(self) -> bool:
        """Whether the run is in its first part, which learns patch labels alone."""
        return self.progress() < self.config.vision_first

    def run(self) -> bool:
        """Train to the end of the schedule, logging and validating on the way.

        Returns:
            False if a signal to stop came first; the state is saved and can be resumed.
        """
        config = self.config
        handlers = {kind: signal.signal(kind, self._stop) for kind in (SIGTERM, SIGINT)}
        validation = prepare("validation", config.validation, self.packer, self.batch, self.scale)
        begun = since = asked = time.monotonic()
        try:
            for groups in self.loader:
                self.waited += time.monotonic() - asked
                if self.layers < LAYERS and self.progress() >= config.grow:
                    self._grow()
                self.train_step(groups)
                now = time.monotonic()
                self.spent, since = self.spent + now - since, now
                over = self.progress() >= 1
                if self.step % config.log_every == 0 or over:
                    self._log_losses()
                due = self.step % config.validate_every == 0 and not self.looks_only()
                if (due or over) and validation:
                    self._validate(validation)
                if config.stop_after and now - begun >= 60 * config.stop_after and not over:
                    self.stopped = True
                if self.step % config.save_every == 0 or over or self.stopped:
                    self.save_state()
                if over or self.stopped:
                    break
                asked = time.monotonic()
        finally:
            self.loader.close()
            for kind, handler in handlers.items():
                signal.signal(kind, handler)
        return not self.stopped

    def _stop(self, *_: object) -> None:
        """Note a signal; the step under way is finished, so that the saved state is exact."""
        self.stopped = True

    def train_step(self, groups: list[Group]) -> None:
        """Take one optimiser step on a batch."""
        config = self.config
        factor = rate_factor(self.step, config.warmup, self.progress())
        patch_weight = config.patch_weight * max(0.0, 1 - self.progress())
        pictures = sum(group["pixels"].shape[0] * group["pixels"].shape[1] for group in groups)
        answers = sum(int((group["targets"] != IGNORE).sum()) for group in groups)
        sums = torch.zeros(3, device=self.device)
        for arrays in groups:
            group = to_device(arrays, self.device)
            share = group["pixels"].shape[0] * group["pixels"].shape[1] / pictures
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.half):
                if self.looks_only():
                    patch_loss = self.learner.look(group)[1]
                    loss = torch.zeros_like(patch_loss)
                else:
                    logits, patch_loss = self.learner(group)
                    loss = answer_loss(logits, arrays["targets"]) / answers
            (loss + share * patch_weight * patch_loss).backward()
            sums[0] += loss.detach()
            sums[1] += share * patch_loss.detach()
        sums[2] = torch.nn.utils.clip_grad_norm_(self.learner.parameters(), config.clip)
        for optimizer in self.optimizers:
            for options in optimizer.param_groups:
                options["lr"] = config.rate * factor
            optimizer.step()
            optimizer.zero_grad()
        self.average.update(self.step - self.begun)
        self.sums.append(sums)
        self.step += 1

    def _log_losses(self) -> None:
        answers, patches, norm = torch.stack(self.sums).mean(0).tolist()
        self.sums = []
        if not math.isfinite(answers):
            raise LuvcError(
                f"The loss is {answers} at step {self.step}; resume with a lower --rate than "
                f"{self.config.rate}."
            )
        config = self.config
        records = self.step * config.singles + self.step // config.pair_every * config.pairs
        waited, self.waited = self.waited, 0.0
        self._log(
            step=self.step,
            minutes=round(self.spent / 60, 3),
            records=records,
            answer_loss=round(answers, 4),
            patch_loss=round(patches, 4),
            gradient_norm=round(norm, 3),
            waited=round(waited, 2),
            rate=self.optimizers[0].param_groups[0]["lr"],
        )
        self.echo(
            f"{self.spent / 60:7.1f} min  step {self.step}  records {records}  "
            f"answers {answers:.3f}  patches {patches:.3f}  {records / self.spent:.1f} records/s  "
            f"waited {waited:.1f} s for pictures"
        )

    def _validate(self, batches: list) -> None:
        self.average.swap()
        scores = exact_match(self.learner, batches, self.device, self.config.half)
        # A run that is killed leaves the last validated weights to use or to start from.
        save_checkpoint(self.learner.model, self.tokenizer, self.directory / "model")
        self.average.swap()
        self._log(step=self.step, minutes=round(self.spent / 60, 3), validation=scores)
        line = "  ".join(f"{task} {score:.2f}" for task, score in scores.items() if ":" not in task)
        self.echo(f"validation at step {self.step}: {line}")

    def _log(self, **entry: object) -> None:
        with (self.directory / LOG).open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def save_state(self) -> None:
        """Write what a resumed run needs to continue exactly."""
        state = {
            "learner": self.learner.state_dict(),
            "average": self.average.values,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "layers": self.layers,
            "begun": self.begun,
            "step": self.step,
            "spent": self.spent,
        }
        with whole(self.directory / STATE) as draft:
            torch.save(state, draft)

    def _read_state(self) -> dict | None:
        path = self.directory / STATE
        return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None

    def _resume(self, state: dict) -> None:
        self.learner.load_state_dict(state["learner"])
        self.average.values = [value.to(self.device) for value in state["average"]]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.begun = state["begun"]
        self.echo(f"resumed at step {self.step}")

    def finish(self) -> dict[str, Any]:
        """Save the averaged weights as a checkpoint, and score it on the test set.

        Returns:
            What results.json holds.
        """
        self.average.swap()
        size = save_checkpoint(self.learner.model, self.tokenizer, self.directory / "model")
        test = prepare("test", self.config.test, self.packer, self.batch, self.scale)
        records = [entry for part, _ in test for entry in part]
        results: dict[str, Any] = {
            "config": asdict(self.config),
            "steps": self.step,
            "minutes": round(self.spent / 60, 1),
            "parameters": sum(p.numel() for p in self.learner.model.parameters()),
            "checkpoint_bytes": size,
            "questions": len(records),
            "exact_match": exact_match(self.learner, test, self.device, half=False),
            "chance": chance_levels(records),
            "text_only": text_only(records),
        }
        self.average.swap()
        for folder in (self.directory, self.directory / "model"):
            (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        plot_losses(self.directory / LOG, self.directory / "loss.png")
        return results
