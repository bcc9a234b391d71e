"""One size and batch of one model: the ratios side by side, and ratio 1 beside Hugging Face."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from luvc.engines.bundle.layout import Layout
from luvc.engines.bundle.manifest import Manifest
from luvc.exporter.check.torch_runner import TorchRunner

from . import shapes
from .fused import Choice, any_fused, choose
from .pipeline import HuggingFace, Product, sdpa
from .timing import Captured, Clock, Work, rounds_for, side_by_side

BASE = "1"  # the ratio all others are compared with
PARTS = ("vision", "prefill", "decode")
DECODED = 8  # tokens of one sample
INPUT_SETS = 3


def _run(works: Sequence[Work]) -> None:
    for work in works:
        work()


class Case:
    """What is measured together.

    Args:
        runner: the model on its device.
        layouts: by ratio.
        batch: B.
        choices: attention kernels of "vision", "prefill" and "decode", and of Hugging Face's under
            "hf vision" and so on; those missing are chosen and added.
    """

    def __init__(
        self,
        runner: TorchRunner,
        layouts: dict[str, Layout],
        batch: int,
        choices: dict[str, Choice],
    ):
        self.runner = runner
        self.clock = Clock(runner.device)
        self.choices = choices
        self._cuda = runner.device.type == "cuda"
        base = layouts[BASE]
        self._pixels = [shapes.pixels(base, batch, runner.device, n) for n in range(INPUT_SETS)]
        self.pixels = self._pixels[0].clone()
        self.products = {
            ratio: Product(runner, layout, self.pixels, self._prompts(layout, batch))
            for ratio, layout in layouts.items()
        }

    def _prompts(self, layout: Layout, batch: int) -> list[shapes.Prompts]:
        family, device = self.runner.family, self.runner.device
        return [shapes.Prompts.make(family, layout, batch, device, n) for n in range(INPUT_SETS)]

    def load(self, product: Product, n: int) -> None:
        """Take input set n, where all that was recorded reads it."""
        product.load(n)
        self.pixels.copy_(self._pixels[n % INPUT_SETS])

    def choose(self, sides: Sequence[Any], prefix: str = "") -> None:
        """Choose the attention kernel of every part, in order: each reads the one before.

        It runs all sides: shapes change with the ratio, and a kernel may refuse those of one.
        """
        for part in PARTS:
            if prefix + part not in self.choices:
                works = [getattr(side, part) for side in sides]
                chosen = choose(partial(_run, works), self.clock) if self._cuda else Choice()
                self.choices[prefix + part] = chosen

    # ---- the ratios
    def measure(self, seconds: float) -> dict[str, Any]:
        """All ratios, interleaved, for about `seconds`."""
        self.choose(list(self.products.values()))
        pool = torch.cuda.graph_pool_handle() if self._cuda else None
        peaks = {ratio: self._peak(product) for ratio, product in self.products.items()}
        recorded = {ratio: self._record(product, pool) for ratio, product in self.products.items()}

        def measured(ratio: str):
            return lambda n: self._sample(ratio, recorded[ratio], n)

        systems = {ratio: measured(ratio) for ratio in self.products}
        warm = [[sum(system(n).values()) for system in systems.values()] for n in range(2)]
        found = side_by_side(systems, rounds_for(seconds, sum(warm[-1])))
        return {
            ratio: self._about(self.products[ratio], recorded[ratio])
            | {"peak_bytes": peaks[ratio]}
            | {f"{part}_ms": times for part, times in parts.items()}
            for ratio, parts in found.items()
        }

    def _peak(self, product: Product) -> int | None:
        """Peak bytes of device memory of an eager answer: weights, this ratio's caches, the rest."""
        before = torch.cuda.memory_allocated() if self._cuda else 0
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        for part in PARTS:
            self.choices[part].around(getattr(product, part))()
        if not self._cuda:
            return None
        weights = sum(p.nbytes for p in self.runner.model.parameters())
        extra = torch.cuda.max_memory_allocated() - before
        return weights + product.kv_bytes + self.pixels.nbytes + extra

    def _record(self, product: Product, pool: Any) -> dict[str, Captured]:
        recorded = {}
        for part in PARTS:
            work = self.choices[part].around(getattr(product, part))
            recorded[part] = Captured(work, self.clock.device, pool)
        if product.layout.schedule.language:
            recorded["spu"] = Captured(product.spu, self.clock.device, pool)
        return recorded

    def _sample(self, ratio: str, recorded: dict[str, Captured], n: int) -> dict[str, float]:
        """ms of each part with input set n."""
        self.load(self.products[ratio], n)
        vision, prefill, decode = (recorded[part] for part in PARTS)
        found = {"vision": self.clock(vision), "prefill": self.clock(prefill)}
        found["first_token"] = self.clock(lambda: (vision(), prefill()))
        found["decode"] = self.clock(lambda: [decode() for _ in range(DECODED)]) / DECODED
        if "spu" in recorded:
            found["spu"] = self.clock(recorded["spu"])
        return found

    def _about(self, product: Product, recorded: dict[str, Captured]) -> dict[str, Any]:
        """What a ratio is, and the bytes of its caches beside the planned ones."""
        layout, batch = product.layout, len(product.prompts.input_ids)
        plan = self._manifest(layout)
        return {
            "visual_tokens": [s.visual for s in layout.stages],
            "flops": layout.ratios.model_dump(),
            "schedule": layout.schedule.model_dump(),
            "run_as": {part: r.form for part, r in recorded.items()},
            "not_recorded": {part: r.refused for part, r in recorded.items() if r.refused},
            "kv_bytes": product.kv_bytes,
            "kv_plan_bytes": batch * plan.kv_bytes(layout),
            "kv_prompt_bytes": batch * plan.kv_bytes(layout, shapes.TEXT),
        }

    def _manifest(self, layout: Layout) -> Manifest:
        family, name = self.runner.family, str(self.runner.dtype).removeprefix("torch.")
        return Manifest(
            created="",
            model=family.source,
            family=family.config.model_type,
            dtype=name,  # type: ignore[arg-type]
            language=family.language,
            layouts=(layout,),
            parameters=0,
            text_capacity=self.runner.text_capacity,
            reference_text=shapes.TEXT,
        )

    # ---- beside Hugging Face
    def compare(self, seconds: float) -> dict[str, Any]:
        """Ratio 1 and Hugging Face, both eager, interleaved; and how far their logits are apart."""
        ours, model = self.products[BASE], self.runner.model
        self.load(ours, 0)
        self._eager(ours)
        theirs = HuggingFace(self.runner, ours.layout, self.pixels, ours.prompts, ours.embeds)
        logits = self.choices["prefill"].around(ours.prefill)().float()
        with sdpa(model):
            with any_fused(self.clock.device):  # leaves the cache that decoding reads
                wanted = theirs.first_token().float()
            self.choose([theirs], "hf ")
        error = float((logits - wanted).abs().max() / wanted.abs().max())

        def eager(side: Any, prefix: str = ""):
            def run(n: int) -> dict[str, float]:
                self.load(ours, n)  # both read the same prompts
                return self._eager(side, prefix)

            return run

        def eager_theirs(n: int) -> dict[str, float]:
            with sdpa(model):
                return eager(theirs, "hf ")(n)

        systems = {"luvc": eager(ours), "hf": eager_theirs}
        warm = sum(sum(system(0).values()) for system in systems.values())
        found = side_by_side(systems, rounds_for(seconds, warm, least=2, most=7))
        parts = {s: {f"{part}_ms": t for part, t in found[s].items()} for s in found}
        return {
            "eager": parts,
            "logits_error": error,
            "hf_kv_bytes": theirs.kv_bytes,
            "same_token": bool((logits.argmax(-1) == wanted.argmax(-1)).all()),
        }

    def _eager(self, side: Any, prefix: str = "") -> dict[str, float]:
        """ms of each part of a side, as it is."""
        return {
            part: self.clock(self.choices[prefix + part].around(getattr(side, part)))
            for part in PARTS
        }
