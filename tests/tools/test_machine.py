"""What a results file says of the machine."""

import pytest

from luvc.tools.bench import machine


@pytest.mark.parametrize(
    ("said", "code", "found"),
    [
        (
            "NVIDIA H200, 580.159.04, 9.0, 143771\nNVIDIA H200, 580.159.04, 9.0, 143771",
            0,
            {
                "name": "NVIDIA H200",
                "driver": "580.159.04",
                "capability": "9.0",
                "memory_gib": 140.4,
            },
        ),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver", 9, None),
        ("No devices were found", 0, None),
        ("", 0, None),
    ],
)
def test_the_gpu_is_named(tmp_path, monkeypatch, said, code, found):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{said}\nEND\nexit {code}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpu() == found
    assert machine.provenance("x")["machine"].get("gpu") == found


def test_without_its_tool_there_is_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpu() is None
    report = machine.provenance("make something")
    assert "gpu" not in report["machine"] and report["command"] == "make something"
    assert {"python", "torch", "luvc-export"} <= report["versions"].keys()
