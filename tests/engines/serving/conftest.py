"""What the serving tests share: schedulers that are closed, and steps that wait for a release."""

import threading
import time

import pytest

from luvc.engines.serving import Limits, Scheduler

ALL = 1000  # more steps than any test makes


@pytest.fixture
def vlm(workshop):
    return workshop.vlm("qwen2")


@pytest.fixture
def serve(vlm):
    """Make schedulers that are closed at the end; they share no prefixes unless that is asked for."""
    made = []

    def make(model=vlm, **limits) -> Scheduler:
        limits.setdefault("prefix_mib", 0)
        ahead = limits.pop("ahead", False)
        made.append(Scheduler(model, Limits(**limits), ahead=ahead))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()


@pytest.fixture
def gate(serve, vlm, monkeypatch):
    """Steps that `vlm` may make: each waits for a release. `serve` closes after all are released."""
    allowed, step = threading.Semaphore(0), vlm.runner.step
    monkeypatch.setattr(vlm.runner, "step", lambda *feed: allowed.acquire() and step(*feed))
    yield allowed
    allowed.release(ALL)


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come about"
        time.sleep(0.002)


def pictures(picture):
    return [picture, picture[:, ::-1].copy(), 255 - picture]
