"""Costs measured earlier on this machine, kept in the user's cache."""

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, TypeVar

from ... import strict_json
from ...engines.backends import backend as load_backend
from ...errors import LuvcError
from ...files import user_cache, whole
from ..assemble import Progress
from ..config import ExportConfig
from ..planning.problem import Problem
from .measured_costs import StageCosts, TowerCosts

Costs = TypeVar("Costs", StageCosts, TowerCosts)


def known(
    kind: type[Costs],
    key: dict[str, Any],
    measure: Callable[[], tuple[Costs, Any]],
    progress: Progress,
) -> Costs:
    """Costs that are known from before, or measured now.

    Args:
        kind: what they are.
        key: what they depend on.
        measure: gives them, and what was measured.
        progress: told where they come from.
    """
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    file = user_cache() / f"latency-{name}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # none, or damaged ones
        found = kind(**strict_json.read(file)["costs"])
        progress(f"{kind.about} as measured before ({file})")
        return found
    costs, measured = measure()
    with contextlib.suppress(OSError, LuvcError):  # not kept, they are measured anew next time
        found = {"for": key, "costs": asdict(costs), "measured": measured}
        with whole(file) as draft:
            draft.write_text(json.dumps(found, indent=1))
    return costs


def stage_key(config: ExportConfig, problem: Problem) -> dict[str, Any]:
    """What the costs of a stage depend on."""
    return _machine(config) | {
        "form": 3,  # raised where the same options cost something else than before
        "weights": str(config.quantisation or "full"),  # probes have numbers where codes are kept
        "decoder": replace(problem.decoder, layers=0).__dict__,
        "text": problem.text_tokens,
        "visual": problem.visual_tokens(()),
        "score": str(config.solver.score),
        "scope": config.solver.scope,
        "capacity": config.text_capacity,
    }


def tower_key(config: ExportConfig, problem: Problem, towers: list[float]) -> dict[str, Any]:
    """What the costs of a tower depend on, among them the FLOPs of those that are measured."""
    return _machine(config) | {
        "form": "tower 1",
        "encoder": vars(problem.encoder),
        "grid": [problem.grid.h, problem.grid.w],
        "tiles": problem.tiles,
        "match": config.solver.match,
        "towers": towers,
    }


def _machine(config: ExportConfig) -> dict[str, Any]:
    return {
        "backend": load_backend(config.backend).NAME,
        "cpu": platform.processor() or platform.machine(),
        "node": platform.node(),
        "cores": os.cpu_count(),
        "dtype": config.dtype,
    }
