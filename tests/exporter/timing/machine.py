"""A made-up machine: prompts and towers take the time that a formula says."""

from types import SimpleNamespace
from typing import Any

from luvc.engines.bundle.schedule import Schedule
from luvc.exporter import ExportConfig
from luvc.exporter.layouts.planned import image_geometry, problem_of
from luvc.exporter.prepare import prepare
from luvc.exporter.timing import latency
from luvc.exporter.timing.measured_costs import StageCosts

TRUE = StageCosts(fixed=2.0, scoring=0.3, a=0.4, b=0.01, c=2e-6)
FIRST: dict[str, Any] = {"ratio_of": "first-token-latency"}


def vision_ms(problem, schedule):
    """Of a made-up machine: in proportion to FLOPs, and 0.1 ms more where OIM merges."""
    return 6 * problem.vision_flops(schedule) / problem.vision_flops(Schedule()) + 0.1 * bool(
        schedule.vision
    )


class Machine:
    """Stands for a backend: prompts take what `costs` say, `bias` slows compressed ones down."""

    def __init__(self, monkeypatch, tmp_path, family, workshop, bias=1.0):
        self.workshop = workshop
        self.bias = bias
        self.runs = []
        self.open = 0
        self.planned = set()
        self.visual = problem_of(family, image_geometry(family), 64)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(latency.TimedPrompt, "of", self.prompt)
        monkeypatch.setattr(latency, "write_probe", self.probe)
        monkeypatch.setattr(latency, "write", self.write)

    def probe(self, family, layers, folder, tower=False):
        deep = family.encoder.layers if tower else 1
        folder.symlink_to(self.workshop.checkpoint(layers=layers, vision_layers=deep, image=336))

    def write(self, prepared, progress=None):
        self.runs.append(prepared.config)
        self.planned.add(tuple(layout.name for layout in prepared.layouts))
        return SimpleNamespace(config=prepared.config)

    def prompt(self, bundle, text, backend="auto"):
        config, problem = bundle.config, self.visual
        name = config.output.name
        layers = int(name.split("-")[1]) if name.startswith("probe") else problem.decoder.layers
        V = problem.visual_tokens(config.schedule.vision)
        tokens = [v + text for v in config.schedule.visual_per_layer(layers, V)]
        ms = TRUE.prefill(tokens, sum(p.keep > 0 for p in config.schedule.language))
        slow = self.bias if name == "try" else 1.0
        tower = vision_ms(problem, config.schedule)
        runs = {"run": ms * slow, "run_tower": tower, "run_first_token": (ms + tower) * slow}
        self.open += 1
        timed = {name: lambda ms=ms: ms for name, ms in runs.items()}
        return SimpleNamespace(text=text, close=self.close, **timed)

    def close(self):
        self.open -= 1


def config(tmp_path, family, ratio=1.5, ratio_of="latency", **options):
    return ExportConfig.make(
        model=family.source,
        output=tmp_path / "new" / "b",
        ratio=ratio,
        ratio_of=ratio_of,
        **options,
    )


def solve_for_latency(tmp_path, family, **options):
    prepared = prepare(config(tmp_path, family, **options), family)
    return latency.solve_for_latency(prepared, lambda step: None)[1]
