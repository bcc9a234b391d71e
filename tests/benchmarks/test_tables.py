"""What the tables' captions say of a result, beside its figures."""

import json

import pytest

from benchmarks import tables

PEERS = json.loads((tables.RESULTS / "peers-internvl-small.json").read_text())


@pytest.mark.parametrize(
    ("recorded", "printed"),
    [
        ("python benchmarks/peers/run.py --rounds 3", "python -m benchmarks.peers.run --rounds 3"),
        ("python -m benchmarks.cpu --batch 1", "python -m benchmarks.cpu --batch 1"),
    ],
)
def test_the_command_printed_is_one_that_works(recorded, printed):
    assert f"`{printed}`" in tables.bench(PEERS | {"command": recorded})


def test_a_reason_is_said_once_and_in_words():
    caption = tables.bench(PEERS).splitlines()[-1]
    assert caption.count("did not run") == 1 and "Error" not in caption
    assert "openvino and openvino 51 % did not run: OpenVINO's export does not know" in caption


def test_other_reasons_stay_as_they_are():
    caption = tables.bench(PEERS | {"did_not_run": {"a": "no disk", "b": "no model"}})
    assert "a did not run: no disk. b did not run: no model. `" in caption
