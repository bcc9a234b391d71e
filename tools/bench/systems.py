"""The systems luvc-bench knows: a bundle on any backend, and the unmodified Hugging Face model.

Run as a worker: `python -m luvc.tools.bench.systems JSON`, the arguments of `bundle` or
`hugging_face` below as an object with their "kind".
"""

import atexit
import functools
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ...engines import VLM
from ...engines.backends.base import SharedRunner
from ...engines.bundle.folder import Bundle
from ...engines.bundle.layout import Layout
from ...engines.decoding import Rows
from ...engines.prompt.processing import Processor, Prompt
from ...errors import LuvcError
from .protocol import Figures, Stopwatch, figures, serve

Run = Callable[[int, int], Figures]


def conversations(layout: Layout, question: str, images: list[str], batch: int) -> list[list[dict]]:
    """`batch` conversations of equal length about given pictures, or about generated ones per row."""
    from ...engines.generated_pictures import generated_parts

    rows = []
    for row in range(batch):
        parts = [{"type": "image", "image": i} for i in images] or generated_parts(layout, row)
        content = [*parts, {"type": "text", "text": question}]
        rows.append([{"role": "user", "content": content}])
    return rows


def bundle(
    path: str, layout: str, question: str, images: list[str], backend: str, threads: int
) -> tuple[dict[str, Any], Run]:
    """A bundle on a backend."""
    memory = DeviceMemory()
    with memory:
        vlm = VLM.load(path, backend=backend, threads=threads)
        atexit.register(vlm.close)  # a worker holds its system to its end
        chosen = next(x for x in vlm.manifest.layouts if x.name == layout)
        vlm.runner.prepare(chosen)

    def run(batch: int, new_tokens: int) -> Figures:
        rows = conversations(chosen, question, images, batch)
        prompts = [vlm.processor.prompt(m, layout) for m in rows]
        with memory:
            found = answer(vlm, prompts, new_tokens)
        return found | {"device_bytes": memory.bytes}

    about = {
        "description": vlm.runner.description,
        "model": vlm.manifest.model,
        "dtype": vlm.manifest.dtype,
        "ratio": chosen.ratio,
        "flops": chosen.ratios.model_dump(),
    }
    return about, run


def answer(vlm: VLM, prompts: list[Prompt], new_tokens: int) -> Figures:
    """One answer to each prompt of a layout; tokenising was before, as in no system's time."""
    manifest = vlm.manifest
    layout = prompts[0].layout
    batch = len(prompts)
    watch = Stopwatch()
    state, result, timing = vlm.prefill(prompts)
    tokens = [result.logits.argmax(-1)]
    watch.mark()
    while len(tokens) < new_tokens:
        tokens.append(state.step([[int(t)] for t in tokens[-1]]).argmax(-1))
        watch.mark()
    text = len(prompts[0].input_ids) - layout.visual_tokens
    return figures(
        timing.pixels_ms,
        timing.vision_ms,
        watch.moments,
        kv_bytes=batch * manifest.kv_bytes(layout, text),
        kv_allocated_bytes=allocated_bytes(vlm, state),
        token_ids=np.stack(tokens, 1).tolist(),
        text_tokens=text,
        visual_tokens=layout.schedule.visual_per_layer(
            manifest.language.layers, layout.visual_tokens
        ),
    )


def allocated_bytes(vlm: VLM, rows: Rows) -> int:
    """Bytes of the caches of an answer: what they have grown to, or the full capacity."""
    if isinstance(vlm.runner, SharedRunner) and vlm.runner.mixes:
        return sum(cache.nbytes for cache in vlm.runner.read_caches(rows.caches).values())
    return len(rows.layouts) * vlm.manifest.kv_bytes(rows.layout)


def hugging_face(
    path: str, model: str, layout: str, question: str, images: list[str], threads: int
) -> tuple[dict[str, Any], Run]:
    """The checkpoint in PyTorch through its own `generate`, on the pictures of a bundle's layout."""
    import torch

    from ...dtypes import DTYPES
    from ...exporter.checkpoint.family import Family
    from ...exporter.checkpoint.weights import load_model
    from ..hugging_face import unmerged

    if threads:
        torch.set_num_threads(threads)
    source = Bundle.load(path)
    family = Family.load(model)
    chosen = next(x for x in source.manifest.layouts if x.name == layout)
    processor = unmerged(source, family)
    processor.prepare()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    memory = DeviceMemory()
    with memory:
        network = load_model(family).to(device, DTYPES[source.manifest.dtype].torch)
    network.generation_config.eos_token_id = None

    def run(batch: int, new_tokens: int) -> Figures:
        rows = conversations(chosen, question, images, batch)
        prompts = [processor.prompt(m, layout) for m in rows]
        with memory:
            found = generate(network, family, processor, prompts, new_tokens)
        return found | {"device_bytes": memory.bytes}

    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    attention = network.config._attn_implementation
    about = {"description": f"PyTorch {torch.__version__} on {where}, {attention} attention"}
    return about | {"model": family.model, "ratio": 1.0, "dtype": source.manifest.dtype}, run


def generate(
    network: Any, family: Any, processor: Processor, prompts: list, new_tokens: int
) -> Figures:
    """One `generate` of Hugging Face, timed from outside: the model's code is not changed."""
    import torch

    from ..hugging_face import model_inputs

    device = network.device
    watch = Stopwatch(torch.cuda.synchronize if device.type == "cuda" else lambda: None)
    inputs = model_inputs(network, family, processor, prompts)
    inputs = {name: value.to(device) for name, value in inputs.items()}
    inputs["pixel_values"] = inputs["pixel_values"].to(network.dtype)
    pixels_ms = watch.mark()
    watch.moments.clear()
    with torch.inference_mode(), timed_vision(network.model, watch) as vision:
        output = network.generate(
            **inputs,
            max_new_tokens=new_tokens,
            do_sample=False,
            return_dict_in_generate=True,
            logits_processor=[lambda ids, scores: (watch.mark(), scores)[1]],
        )
    length = inputs["input_ids"].shape[1]
    visual = prompts[0].layout.visual_tokens
    kv = cache_bytes(output.past_key_values, length)
    return figures(
        pixels_ms,
        sum(vision),
        watch.moments,
        kv_bytes=kv,
        kv_allocated_bytes=kv,
        token_ids=output.sequences[:, length:].tolist(),
        text_tokens=length - visual,
        visual_tokens=[visual] * processor.manifest.language.layers,
    )


class DeviceMemory:
    """Bytes of device memory that blocks of this process took; other systems wait meanwhile.

    Without a GPU it counts nothing and `bytes` stays None.
    """

    def __init__(self):
        from ...engines.backends.trt.cuda import Cuda

        try:
            self._memory, self.bytes = Cuda().memory, 0
        except LuvcError:
            self._memory, self.bytes = None, None
        self._free = 0

    def __enter__(self) -> None:
        self._free = self._memory()[0] if self._memory else 0

    def __exit__(self, *_: object) -> None:
        if self._memory and self.bytes is not None:
            self.bytes += self._free - self._memory()[0]


class timed_vision:
    """Milliseconds of every `get_image_features` call inside the block."""

    def __init__(self, model: Any, watch: Stopwatch):
        self._model, self._watch = model, watch
        self.times: list[float] = []

    def __enter__(self) -> list[float]:
        plain, watch = self._model.get_image_features, self._watch

        @functools.wraps(plain)  # generate() reads its signature
        def timed(*args: Any, **options: Any) -> Any:
            start = watch.mark()
            features = plain(*args, **options)
            self.times.append(watch.mark() - start)
            del watch.moments[-2:]
            return features

        self._model.get_image_features = timed
        return self.times

    def __exit__(self, *_: object) -> None:
        del self._model.get_image_features


def cache_bytes(cache: Any, length: int) -> int:
    """Bytes that a Hugging Face cache keeps of `length` tokens: keys and values, states of any."""
    found = 0
    for layer in cache.layers:
        states = (getattr(layer, name, {}) for name in ("conv_states", "recurrent_states"))
        found += sum(t.nbytes for of in states for t in of.values() if t is not None)
        pair = (getattr(layer, name, None) for name in ("keys", "values"))
        found += sum(t.nbytes // t.shape[2] * length for t in pair if t is not None)
    return found


KINDS: dict[str, Callable[..., tuple[dict[str, Any], Run]]] = {
    "bundle": bundle,
    "hf": hugging_face,
}

if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    serve(lambda: KINDS[arguments.pop("kind")](**arguments))
