"""A prompt of the reference length on a bundle's backend, ready to be timed."""

from collections.abc import Sequence
from time import perf_counter

import numpy as np

from ...engines.backends import backend as load_backend
from ...engines.backends.base import Runner
from ...engines.bundle.folder import Bundle
from ...engines.closing import Closing
from ...engines.decoding import Rows
from ...engines.generated_pictures import generated_prompt
from ...engines.prompt.processing import Processor


class TimedPrompt(Closing):
    """A bundle on its backend with one prompt of the reference length, ready to be timed; to be closed."""

    def __init__(
        self,
        runner: Runner,
        bundle: Bundle,
        ids: list[int],
        pixels: np.ndarray,
        embeds: np.ndarray,
        seconds: Sequence[float],
    ):
        self._runner, self._bundle = runner, bundle
        self._ids = ids
        self._pixels, self._embeds = pixels, embeds
        self._seconds = seconds

    @classmethod
    def of(cls, bundle: Bundle, text: int, backend: str = "auto") -> "TimedPrompt":
        """With `text` text tokens about generated pictures, at least those of the chat template."""
        layout = bundle.manifest.layouts[0]
        runner, processor = load_backend(backend, bundle).runner(bundle), Processor(bundle)
        try:
            prompt = generated_prompt(processor, layout)
            pixels = processor.pixels(prompt)
            embeds = runner.vision(layout, pixels)
        except BaseException:
            runner.close()
            raise
        missing = max(0, layout.visual_tokens + text - len(prompt.input_ids))
        ids = [*prompt.input_ids, *[prompt.input_ids[-1]] * missing]
        embeds = embeds.reshape(1, layout.visual_tokens, -1)
        return cls(runner, bundle, ids, pixels, embeds, prompt.seconds)

    @property
    def text(self) -> int:
        """Text tokens."""
        return len(self._ids) - self._bundle.manifest.layouts[0].visual_tokens

    def close(self) -> None:
        """Give the runner's memory back."""
        self._closed = True
        self._runner.close()

    def run(self) -> float:
        """ms of one prefill."""
        manifest = self._bundle.manifest
        rows = Rows(self._runner, manifest, manifest.layouts[0], 1)
        start = perf_counter()
        rows.prefill([self._ids], self._embeds, [self._seconds])
        return (perf_counter() - start) * 1e3

    def run_tower(self) -> float:
        """ms of the vision graph, for all pictures of the prompt."""
        start = perf_counter()
        self._runner.vision(self._bundle.manifest.layouts[0], self._pixels)
        return (perf_counter() - start) * 1e3

    def run_first_token(self) -> float:
        """ms of the vision graph and one prefill."""
        return self.run_tower() + self.run()
