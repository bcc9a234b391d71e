"""VLM: load a bundle, generate, stream, chat."""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast, overload

import numpy as np

from ..errors import LuvcError
from .answer import Answer, Pieces, Stream, Timing, drain, single
from .backends import backend as load_backend
from .backends.base import PrefillResult, Runner
from .bundle.folder import Bundle
from .bundle.layout import Layout
from .decoding import Rows, decode
from .hub.pretrained import Pretrained
from .prompt.messages import is_batch
from .prompt.processing import Messages, Processor, Prompt
from .prompt.wishes import RequestOptions, parted
from .reply import Reply
from .sampling import Sampling

if TYPE_CHECKING:
    from .chat import Chat

Vision = Callable[[Layout, np.ndarray], np.ndarray]
"""As `Runner.vision`: float32 [N, ...] -> visual embeddings [N, n, D]."""


class VLM(Pretrained):
    """A bundle, ready to answer; a `with` block gives its memory back at its end.

    Args:
        bundle: a loaded bundle.
        runner: a backend's runner for it, closed with the model.
        vision: what runs the vision graph in the runner's place.
    """

    def __init__(self, bundle: Bundle, runner: Runner, vision: Vision | None = None):
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.runner = runner
        self.vision = vision
        self.processor = Processor(bundle)
        self.sampling = Sampling.of(bundle)

    @classmethod
    def load(
        cls, path: str | os.PathLike, backend: str = "auto", threads: int = 0, verify: bool = False
    ) -> "VLM":
        """Load a bundle.

        Args:
            path: the bundle folder.
            backend: "ort", "tensorrt", "tensorrt-rtx", or "auto" for the best that can run it here.
            threads: threads inside one operator; 0 lets the backend choose.
            verify: compare all SHA-256 sums first.

        Raises:
            LuvcError: not a bundle, damaged, or no backend installed.
        """
        return cls.of(Bundle.load(path, verify=verify), backend, threads)

    @classmethod
    def of(cls, bundle: Bundle, backend: str = "auto", threads: int = 0) -> "VLM":
        """A loaded bundle on a backend; the arguments are those of `load`.

        Raises:
            LuvcError: no backend that runs it is installed.
        """
        vlm = cls(bundle, load_backend(backend, bundle).runner(bundle, threads=threads))
        try:
            vlm.runner.prepare(bundle.manifest.layouts[0])
            vlm.processor.prepare()
        except BaseException:
            vlm.close()
            raise
        return vlm

    def close(self) -> None:
        """Give sessions, weights, caches and device memory back at once; harmless when done twice.

        Whatever is asked for afterwards, also by its chats and streams, raises a LuvcError.
        """
        self._closed = True
        self.runner.close()

    @overload
    def generate(
        self,
        messages: Messages,
        *,
        stream: Literal[False] = False,
        **options: Unpack[RequestOptions],
    ) -> Answer: ...

    @overload
    def generate(
        self,
        messages: Messages,
        *,
        stream: Literal[True],
        **options: Unpack[RequestOptions],
    ) -> Stream: ...

    @overload
    def generate(
        self,
        messages: Sequence[Messages],
        *,
        stream: Literal[False] = False,
        **options: Unpack[RequestOptions],
    ) -> list[Answer]: ...

    @overload
    def generate(
        self,
        messages: Messages,
        *,
        stream: bool,
        **options: Unpack[RequestOptions],
    ) -> Answer | Stream: ...

    def generate(
        self,
        messages: Messages | Sequence[Messages],
        *,
        stream: bool = False,
        **options: Unpack[RequestOptions],
    ) -> Answer | Stream | list[Answer]:
        """Answer a conversation, or a list of conversations as one batch.

        Args:
            messages: a list of {"role", "content"}; content is a text or a list of parts
                {"type": "image", "image": path | data: URL | bytes | array | PIL} and {"type": "text",
                "text"}; {"type": "image_url", "image_url": {"url": path | data: URL}} is an image too.
                A list of such lists is a batch. Its rows may have unequal lengths and need unequal
                layouts: those of one layout are run together, one layout after the other.
            stream: return a `Stream` of text pieces instead of waiting (one conversation).
            options: `ratio`, the compression (the nearest that the bundle holds is taken, and
                `Answer.notes` says so), or `image_tokens`, the most visual tokens of a picture in a
                language layer, or `layout`, the name of one; default by the images' number and size, at the
                bundle's first ratio. And fields of `Sampling`; the rest comes from the generation config.

        Returns:
            An Answer, a list of them for a batch, in its order, or a Stream.

        Raises:
            LuvcError: bad messages, images or options; prompt longer than the text capacity.
        """
        self._check_open()
        wish, rest = parted(options)
        sampling = self.sampling.override(**rest)
        if is_batch(messages):
            if stream:
                raise LuvcError("a batch cannot be streamed; stream one conversation at a time")
            return self._batch([self.processor.prompt(m, wish) for m in messages], sampling)
        prompt = self.processor.prompt(cast(Messages, messages), wish)
        cancelled = threading.Event()
        result = Stream(single(self._answers([prompt], sampling, cancelled)), cancelled)
        return result if stream else result.answer

    def chat(self, **options: Unpack[RequestOptions]) -> "Chat":
        """A conversation that keeps its caches: the image is compressed once.

        Args:
            options: as of `generate`, for all its turns.
        """
        from .chat import Chat

        self._check_open()
        wish, rest = parted(options)
        return Chat(self, self.sampling.override(**rest), wish)

    # ---- the work
    def embed(
        self, prompts: Sequence[Prompt], pixels: Sequence[np.ndarray] | None = None
    ) -> tuple[np.ndarray | None, Timing]:
        """Visual embeddings [B, V, D] of prompts of one layout, None where it has no images.

        `pixels` when they are made already.
        """
        layout = prompts[0].layout
        if not layout.images:
            return None, Timing()
        start = perf_counter()
        pixels = pixels or [self.processor.pixels(p) for p in prompts]
        middle = perf_counter()
        vision = self.vision or self.runner.vision
        embeds = vision(layout, np.concatenate(pixels))
        embeds = embeds.reshape(len(prompts), -1, embeds.shape[-1])
        if embeds.shape[1] != layout.visual_tokens:
            raise RuntimeError(f"vision gave {embeds.shape[1]} tokens, not {layout.visual_tokens}")
        end = perf_counter()
        return embeds, Timing(pixels_ms=(middle - start) * 1e3, vision_ms=(end - middle) * 1e3)

    def prefill(
        self,
        prompts: Sequence[Prompt],
        embedded: tuple[np.ndarray | None, Timing] | None = None,
        caches: Any = None,
    ) -> tuple[Rows, PrefillResult, Timing]:
        """Images and prompts into caches.

        Args:
            prompts: of one layout.
            embedded: what `embed` gave for them, when it has run already.
            caches: of as many rows; default new ones.
        """
        layout = prompts[0].layout
        embeds, timing = embedded or self.embed(prompts)
        rows = Rows(self.runner, self.manifest, layout, len(prompts), caches)
        start = perf_counter()
        result = rows.prefill([p.input_ids for p in prompts], embeds, [p.seconds for p in prompts])
        return rows, result, replace(timing, prefill_ms=(perf_counter() - start) * 1e3)

    def _batch(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Answer]:
        """Answers of a batch in its order, made layout by layout."""
        groups: dict[str, list[int]] = {}
        for place, prompt in enumerate(prompts):
            groups.setdefault(prompt.layout.name, []).append(place)
        answers: dict[int, Answer] = {}
        for places in groups.values():
            made = drain(self._answers([prompts[p] for p in places], sampling, places=places))
            answers.update(zip(places, made, strict=True))
        return [answers[place] for place in range(len(prompts))]

    def _answers(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        cancelled: threading.Event | None = None,
        places: Sequence[int] = (0,),
    ) -> Pieces:
        """Yields a list of text pieces per step, returns the list of answers.

        Args:
            prompts: of one layout.
            sampling: of all of them.
            cancelled: ends them before the next step.
            places: of the prompts in the whole batch, which their draws depend on.
        """
        rows, result, timing = self.prefill(prompts)
        replies = [
            Reply(self.processor.tokenizer, sampling, p.input_ids, place)
            for p, place in zip(prompts, places, strict=True)
        ]
        per_token = yield from decode(rows, replies, result.logits, cancelled)
        timing = replace(timing, decode_ms_per_token=per_token)
        stages = self.stage_counts(rows.layout, result)
        return [
            self.answer(prompt, reply, stages, timing)
            for reply, prompt in zip(replies, prompts, strict=True)
        ]

    def stage_counts(self, layout: Layout, result: PrefillResult) -> dict[int, int]:
        """Visual tokens left from each pruned layer on, read off the graph's outputs."""
        scored = {layer: stage.kept.shape[1] for layer, stage in result.stages.items()}
        return {p.layer: scored.get(p.layer, 0) for p in layout.schedule.language}

    def answer(
        self,
        prompt: Prompt,
        reply: Reply,
        stages: dict[int, int],
        timing: Timing,
        reused: int = 0,
    ) -> Answer:
        """The Answer of a reply that has ended."""
        layout = prompt.layout
        return Answer(
            text=reply.text,
            token_ids=reply.ids,
            finish_reason=reply.finish_reason or "stop",
            prompt_tokens=len(prompt.input_ids) - layout.visual_tokens,
            visual_tokens=layout.visual_tokens,
            layout=layout.name,
            ratio=layout.ratio,
            stages=stages,
            reused_tokens=reused,
            timing=timing,
            notes=tuple(prompt.notes),
            logprobs=tuple(reply.logprobs),
        )
