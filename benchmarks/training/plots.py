"""The loss curve of a training run."""

from __future__ import annotations

import json
from pathlib import Path


def read_log(path: Path) -> tuple[list[dict], list[dict]]:
    """Read a training log.

    Returns:
        The entries with losses and the entries with validation scores.
    """
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return (
        [entry for entry in entries if "answer_loss" in entry],
        [entry for entry in entries if "validation" in entry],
    )


def plot_losses(log: Path, output: Path) -> bool:
    """Draw losses and validation exact match over the records seen.

    Args:
        log: log.jsonl of a run.
        output: picture file to write.

    Returns:
        False if matplotlib is not installed, and nothing was drawn.
    """
    try:
        import matplotlib
    except ModuleNotFoundError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    losses, scores = read_log(log)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    steps = [entry["step"] for entry in losses]
    left.plot(steps, [entry["answer_loss"] for entry in losses], label="answers")
    left.plot(steps, [entry["patch_loss"] for entry in losses], label="patch labels")
    left.set(xlabel="step", ylabel="loss", yscale="log", title="Training loss")
    left.legend()
    tasks = sorted({task for entry in scores for task in entry["validation"] if ":" not in task})
    for task in tasks:
        right.plot(
            [entry["step"] for entry in scores],
            [entry["validation"].get(task) for entry in scores],
            label=task,
            linewidth=2.5 if task == "overall" else 1,
        )
    right.set(xlabel="step", ylabel="exact match", ylim=(0, 1), title="Validation")
    if tasks:
        right.legend(fontsize="small", ncols=2)
    figure.savefig(output, dpi=110)
    pyplot.close(figure)
    return True
