"""`lmms_eval --model luvc`: a bundle behind lmms-eval's interface of chat models.

Source of the interface: lmms-eval 0.7, lmms_eval/api/model.py and lmms_eval/models/chat.
"""

import os
from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from typing import Any, NoReturn

import numpy as np
from lmms_eval.api.instance import (  # pyright: ignore[reportMissingImports]
    GenerationResult,
    Instance,
    TokenCounts,
)
from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]
from lmms_eval.models.model_utils.gen_metrics import (  # pyright: ignore[reportMissingImports]
    eval_logger,
    log_metrics,
)
from rich.progress import Progress

from ... import console
from ...engines import VLM
from ...engines.answer import Answer
from ...engines.prompt.positions import limit_passed
from ...errors import LuvcError, shown
from .requests import batches, conversation, left_out, sampling_options


class Luvc(lmms):
    """A bundle; the arguments are those of `--model_args`.

    Args:
        bundle: its folder or hub id.
        revision: of a hub id.
        backend: as of `VLM.load`, as threads and verify are.
        max_new_tokens: longest answer of tasks that name none; default the bundle's.
        batch_size: questions at a time (`--batch_size`).
        device: must stay None, as max_batch_size: the backend says where it runs.

    Raises:
        LuvcError: the bundle cannot be loaded, or an argument means nothing here.
    """

    is_simple = False

    def __init__(
        self,
        bundle: str,
        revision: str | None = None,
        backend: str = "auto",
        threads: int = 0,
        verify: bool = False,
        max_new_tokens: int | None = None,
        batch_size: int | str = 1,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = _check(batch_size, device, max_batch_size)
        self.longest = max_new_tokens
        self.vlm = VLM.from_pretrained(
            str(bundle), revision=revision, backend=backend, threads=threads, verify=verify
        )
        self._said: set[str] = set()
        eval_logger.info(f"{bundle} on {self.vlm.runner.description}")

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answers in the order of the requests, with their numbers of tokens.

        Raises:
            LuvcError: a request cannot be met; names its task and document.
        """
        settings = [request.args[2] for request in requests]
        results: dict[int, GenerationResult] = {}
        answers: list[Answer] = []
        start = perf_counter()
        with Progress(console=console.err) as bar:
            task = bar.add_task("asking", total=len(requests))
            for places in batches(settings, self.batch_size):
                batch = [requests[place] for place in places]
                made = self._answer(batch, settings[places[0]])
                for place, answer in zip(places, made, strict=True):
                    results[place] = _result(answer)
                    partial = (requests[place].args[0], settings[place])
                    self.cache_hook.add_partial("generate_until", partial, answer.text)
                answers += made
                bar.update(task, advance=len(made))
        self._report(answers, perf_counter() - start)
        return [results[place] for place in range(len(requests))]

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        """Refused.

        Raises:
            LuvcError: always.
        """
        _refuse("loglikelihood", requests)

    def generate_until_multi_round(self, requests: list[Instance]) -> NoReturn:
        """Refused.

        Raises:
            LuvcError: always.
        """
        _refuse("generate_until_multi_round", requests)

    def generate_visual_cot(self, requests: list[Instance]) -> NoReturn:
        """Refused.

        Raises:
            LuvcError: always.
        """
        _refuse("generate_visual_cot", requests)

    def clean(self) -> None:
        """Give the bundle's memory back."""
        self.vlm.close()
        super().clean()

    def _answer(self, batch: Sequence[Instance], settings: dict[str, Any]) -> list[Answer]:
        for name, value in left_out(settings).items():
            self._say(
                f"generation setting {name}={shown(value)} means nothing to a bundle: left out"
            )
        asked: list[list[dict[str, Any]]] = []
        try:
            options = sampling_options(settings, self.vlm.sampling.stop, self.longest)
            if options.get("do_sample") and options.get("seed") is None:
                options["seed"] = int(
                    np.random.randint(1 << 31)
                )  # lmms-eval has seeded it (--seed)
            for request in batch:
                asked.append(conversation(self._messages(request)))
            return self.vlm.generate(asked, **options)
        except LuvcError as e:
            place = len(asked) if len(asked) < len(batch) else self._refused(asked)
            raise LuvcError(f"{_name(batch[place])}: {e}") from e

    def _messages(self, request: Instance) -> list[dict[str, Any]]:
        _, doc_to_messages, _, doc_id, task, split = request.args
        return doc_to_messages(self.task_dict[task][split][doc_id])

    def _refused(self, asked: Sequence[list[dict[str, Any]]]) -> int:
        """Which conversation of a batch is refused; the first, where it is none alone."""
        for place, messages in enumerate(asked):
            try:
                self.vlm.processor.prompt(messages)
            except LuvcError:
                return place
        return 0

    def _say(self, text: str) -> None:
        """Warn of something once."""
        if text not in self._said:
            self._said.add(text)
            eval_logger.warning(text)

    def _report(self, answers: Sequence[Answer], seconds: float) -> None:
        """What lmms-eval keeps under "throughput", and what was not as the task has it."""
        if not answers:
            return
        made = sum(len(answer.token_ids) for answer in answers)
        layers = self.vlm.manifest.language.layers
        layouts = {layout.name: layout for layout in self.vlm.manifest.layouts}
        entered = [answer.visual_tokens for answer in answers]
        means = [
            np.mean(layouts[a.layout].schedule.visual_per_layer(layers, a.visual_tokens))
            for a in answers
        ]
        log_metrics(
            total_elapsed_time=seconds,
            total_gen_tokens=made,
            avg_speed=made / seconds,
            additional_metrics={
                "visual_tokens": float(np.mean(entered)),
                "visual_tokens_mean_of_layers": float(np.mean(means)),
            },
        )
        cut = [a.prompt_tokens + len(a.token_ids) for a in answers if a.finish_reason == "capacity"]
        limits = Counter(limit_passed(self.vlm.manifest, tokens) for tokens in cut)
        for limit, count in limits.items():
            eval_logger.warning(f"{count} of {len(answers)} answers were cut off: {limit}")
        for note in sorted({note for answer in answers for note in answer.notes}):
            self._say(note)


def _check(batch_size: int | str, device: str | None, max_batch_size: int | None) -> int:
    """The batch size, where nothing else is asked for."""
    if not isinstance(batch_size, int) and not str(batch_size).isdecimal():
        raise LuvcError(f"--batch_size {batch_size} is no number; give one, such as 16")
    if device is not None or max_batch_size is not None:
        raise LuvcError(
            "--device and --max_batch_size mean nothing to a bundle: leave them out, and choose where it "
            "runs with backend=... in --model_args"
        )
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1":
        raise LuvcError(
            f"WORLD_SIZE is {world}, and a bundle is run by one process, which takes all cores: start "
            "lmms_eval without a launcher"
        )
    return max(int(batch_size), 1)


def _result(answer: Answer) -> GenerationResult:
    entered = answer.prompt_tokens + answer.visual_tokens
    return GenerationResult(answer.text, TokenCounts(entered, len(answer.token_ids)))


def _name(request: Instance) -> str:
    return f"{request.args[4]}, document {request.args[3]}"


def _refuse(kind: str, requests: Sequence[Instance]) -> NoReturn:
    tasks = ", ".join(sorted({str(request.task_name) for request in requests}))
    raise LuvcError(
        f"{tasks} asks for {kind}, and a bundle answers generate_until alone: leave the task out, or take "
        "its form that generates"
    )
