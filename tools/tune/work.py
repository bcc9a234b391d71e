"""The search as it is watched: how long it takes is told before, where it is while it goes on."""

from collections.abc import Sequence

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from ... import console
from ...errors import LuvcError
from .candidates import Candidate, moves
from .effort import Effort, minutes
from .lab import Lab
from .search import Round, search


def choose(lab: Lab, first: Sequence[Candidate], rounds: int, held: int) -> list[Round]:
    """Search on a lab's questions.

    Args:
        lab: of the questions to tune on.
        first: what the first round tries; the first of them that has a plan is where it begins.
        rounds: at most.
        held: how many questions are held out, for people.

    Raises:
        LuvcError: nothing has a plan.
    """
    start = _start(lab, first)
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console.err) as bar:
        effort = _begin(lab, start, first, rounds, bar)
        if effort.known:
            told = minutes(effort.usual(start)), minutes(effort.most(start))
            console.err.print(
                f"tuning on {len(lab.items)} questions, {held} are held out: about {told[0]} here, at most "
                f"{told[1]}"
            )
        return _watched(lab, start, first, rounds, effort, bar)


def _start(lab: Lab, first: Sequence[Candidate]) -> Candidate:
    why: LuvcError | None = None
    for candidate in first:
        try:
            lab.plans(candidate)
            return candidate
        except LuvcError as error:
            why = why or error
    assert why is not None
    raise why


def _begin(
    lab: Lab, start: Candidate, first: Sequence[Candidate], rounds: int, bar: Progress
) -> Effort:
    """Have the target and what the start loses: it tells how long the others take."""
    task = bar.add_task("asking the unmodified model", total=len(lab.items))
    lab.told = lambda _, questions: bar.advance(bar.task_ids[-1], questions)
    lab.answers(None)
    bar.remove_task(task)
    task = bar.add_task(f"measuring {start.name}", total=len(lab.items))
    for part in range(lab.parts):
        lab.loss(start, part)
    bar.remove_task(task)
    return Effort(lab, first, rounds)


def _watched(
    lab: Lab,
    start: Candidate,
    first: Sequence[Candidate],
    rounds: int,
    effort: Effort,
    bar: Progress,
) -> list[Round]:
    task = bar.add_task("round 1", total=effort.usual(start) or None)
    found: list[Round] = []

    def told(candidate: Candidate | None, questions: int) -> None:
        if candidate is not None:
            words = f"round {len(found) + 1}, {candidate.name}"
            bar.update(task, description=words, advance=effort.of(candidate, questions))

    lab.told = told
    for made in search(lab, start, first, moves, rounds):
        found.append(made)
        lab.forget_towers()
        _correct(bar, task, effort.usual(made.end, len(found)))
        console.err.print(Text(f"  {_words(len(found), made)}"))
    bar.remove_task(task)
    return found


def _correct(bar: Progress, task: TaskID, left: float) -> None:
    done = next(t.completed for t in bar.tasks if t.id == task)
    bar.update(task, total=done + left)


def _words(number: int, made: Round) -> str:
    """One line about a round."""
    count = f"{len(made.tried)} plans"
    if made.refused:
        count += f", {len(made.refused)} more do not exist at this ratio"
    taken = next((t for t in made.tried if t.taken), None)
    if taken is None:
        return f"round {number}: nothing is surely better than {made.start.name} ({count})"
    return f"round {number}: {taken.candidate.name}, {made.loss:.3f} to {taken.loss:.3f} ({count})"
