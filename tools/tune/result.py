"""What a run leaves behind: the schedule, and all that was measured, as data."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...exporter.config import ExportConfig
from ...exporter.planning.methods import score_of
from ...exporter.planning.schedule_file import ModelIdentity, Tuned
from ...files import whole
from ..eval.intervals import Share
from ..eval.items import Item
from .candidates import Candidate
from .lab import Asked, Lab
from .outcome import CHOSEN, DEFAULT, Held, verdict
from .search import Round, Tried
from .shown import page

SCHEDULE = "schedule.json"


@dataclass(frozen=True)
class Found:
    """A search and what became of its choice.

    Attributes:
        rounds: of the search.
        tuned_on: questions that it looked at, in parts.
        held: the choice and others on the questions held out.
        refused: others that have no plan.
        right: share of right answers of the unmodified model there; None where the data has none.
    """

    rounds: Sequence[Round]
    tuned_on: Sequence[Sequence[Item]]
    held: Sequence[Held]
    refused: Sequence[str]
    right: Share | None

    @property
    def chosen(self) -> Candidate:
        """What the search ended with."""
        return self.rounds[-1].end


def tuned(lab: Lab, chosen: Candidate, identity: ModelIdentity) -> Tuned:
    """The choice as a schedule for each layout."""
    layouts = {p.layout.name: p.layout.schedule for p in lab.plans(chosen)}
    return Tuned(tuned_for=identity, method=chosen.name, layouts=layouts)


def as_data(found: Found, lab: Lab, schedules: Tuned, head: dict[str, Any], output: Path) -> dict:
    """All that tune.json holds.

    Args:
        found: by the run.
        lab: of the questions held out.
        schedules: what schedule.json holds.
        head: what the run was asked for.
        output: where the schedule is written.
    """
    counts = [sum(map(len, found.tuned_on[: n + 1])) for n in range(len(found.tuned_on))]
    chosen = found.chosen
    data = head | {
        "identity": schedules.tuned_for.model_dump(),
        "questions": {
            "tuned_on": [item.id for part in found.tuned_on for item in part],
            "held_out": [item.id for item in lab.items],
        },
        "chosen": {"name": chosen.name, "method": chosen.method, "options": asdict(chosen.options)},
        "schedules": schedules.model_dump(mode="json")["layouts"],
        "verdict": verdict(found.held),
        "held_out": [row.as_json() for row in found.held],
        "unmodified_right": found.right and asdict(found.right),
        "refused": list(found.refused),
        "notes": [
            *_notes(chosen, schedules),
            *_better(found.held),
            *_unsure(found.rounds[-1], counts),
        ],
        "rounds": [_round(made, counts) for made in found.rounds],
        "command": command(lab.asked, output),
    }
    data["chosen"]["options"]["score"] = chosen.options.score.model_dump(mode="json")
    return json.loads(json.dumps(data))


def _round(made: Round, counts: Sequence[int]) -> dict[str, Any]:
    refused = [{"name": c.name, "why": why} for c, why in made.refused]
    tried = [_tried(t, counts[t.parts - 1]) for t in made.tried]
    return {"start": made.start.name, "loss": made.loss, "tried": tried, "refused": refused}


def _tried(tried: Tried, questions: int) -> dict[str, Any]:
    return {
        "name": tried.candidate.name,
        "loss": tried.loss,
        "questions": questions,
        "gain": asdict(tried.gain),
        "taken": tried.taken,
    }


def _notes(chosen: Candidate, schedules: Tuned) -> list[str]:
    """What whoever exports with it should know."""
    score = score_of(chosen.options.score)
    scored = any(s.scored for s in schedules.layouts.values())
    found = []
    if scored and chosen.options.score.question:
        found.append(
            f"score {score.name} reads the question: a pruned picture is another for another question"
        )
    if scored and score.chained:
        found.append(
            f"score {score.name} chooses by near ties that half precision decides otherwise: export in fp32, "
            "or with --no-validate"
        )
    return found


def _better(rows: Sequence[Held]) -> list[str]:
    """What the choice is surely worse than; the verdict speaks of the default."""
    return [
        f"{row.name} is surely nearer to the unmodified model than {CHOSEN}: look at it with luvc-pareto"
        for row in rows
        if row.less.high < 0 and row.name not in (CHOSEN, DEFAULT)
    ]


def _unsure(last: Round, counts: Sequence[int]) -> list[str]:
    """What more questions might show."""
    left = [t for t in last.tried if t.parts == len(counts) and not t.taken and t.gain.value > 0]
    if not left or last.end is not last.start:
        return []
    best = max(left, key=lambda t: t.gain.value)
    low, high = f"{best.gain.low:+.3f}", f"{best.gain.high:+.3f}"
    return [
        f"on the {counts[-1]} questions that were tuned on, {best.candidate.name} was nearer by "
        f"{best.gain.value:.3f} [{low}, {high}], which is not sure: more questions would tell"
    ]


def command(asked: Asked, output: Path) -> str:
    """What exports with the schedule."""
    options, usual = asked.options, ExportConfig.model_fields["reference_text"].default
    words = ["luvc-export", "--model", options["model"], "--schedule", str(output / SCHEDULE)]
    words += [w for h, v in options["image_sizes"] for w in ("--image-size", f"{h}x{v}")]
    words += [w for n in options["images"] for w in ("--images", str(n))]
    if options["reference_text"] != usual:
        words += ["--text-tokens", str(options["reference_text"])]
    return shlex.join(words)


def write(output: Path, data: dict[str, Any], schedules: Tuned) -> None:
    """Schedule, data and page, each whole or not at all."""
    texts = {
        SCHEDULE: schedules.model_dump_json(indent=1) + "\n",
        "tune.json": json.dumps(data, indent=1) + "\n",
        "tune.html": page(data),
    }
    for name, text in texts.items():
        with whole(output / name) as draft:
            draft.write_text(text)
