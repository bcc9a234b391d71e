"""Cores that a process may use, told by made-up control groups."""

import os

import pytest

from luvc.cores import cores, pool_size
from luvc.engines.backends.ort.backend import ort


def version_1(quota: int) -> dict[str, str]:
    return {"cpu/cpu.cfs_quota_us": f"{quota}\n", "cpu/cpu.cfs_period_us": "50000\n"}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": ""}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu.max": "3200000 100000\n"}, 8),
        (version_1(-1), 8),
        (version_1(150_000), 3),
        ({"cpu/cpu.cfs_quota_us": "150000\n"}, 8),
    ],
)
def test_a_container_may_use_fewer_cores_than_the_machine_has(tmp_path, monkeypatch, files, found):
    """A process that is held to 8 cores of a machine with 64, and of one with 8."""
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert cores(tmp_path) == pool_size(0, tmp_path) == found
    assert pool_size(5, tmp_path) == 5, "what is asked for is given"
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert pool_size(0, tmp_path) == (0 if found == 8 else found), "0 leaves it to the library"


def test_onnx_runtime_makes_no_more_threads_than_it_may_run(workshop, monkeypatch):
    bundle = workshop.bundle("qwen2")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    for asked, made in ((0, 1), (3, 3)):
        session = ort.runner(bundle, asked).session(bundle.manifest.layouts[0].graphs.vision)
        assert session.get_session_options().intra_op_num_threads == made
