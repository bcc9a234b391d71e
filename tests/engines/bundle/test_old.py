"""Bundles of earlier versions load and answer as they did; those of later ones are refused.

`old` was made by luvc-export 0.1.0, whose own answers are `old_answers.json`: a random InternVL checkpoint
of two language layers, with OIM (8 columns to 6) and one SPU stage (12 tokens to 3).
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from luvc.engines import VLM, Bundle
from luvc.engines.bundle.folder import MANIFEST
from luvc.engines.bundle.manifest import OLDEST, SCHEMA_VERSION, Manifest
from luvc.errors import LuvcError

from ...conftest import ask

OLD = Path(__file__).parent / "old"


def checked_picture() -> np.ndarray:
    """Two ramps and a chequered board, [90, 120, 3]."""
    rows, columns = np.mgrid[:90, :120]
    board = (rows // 15 + columns // 20) % 2 * 255
    return np.stack([rows * 2, columns * 2, board], axis=-1).astype(np.uint8)


def test_an_old_bundle_answers_as_it_did():
    vlm = VLM.load(OLD, backend="ort", threads=1)
    for wanted in json.loads(OLD.with_name("old_answers.json").read_text()):
        messages = ask(wanted["question"], checked_picture())
        answer = vlm.generate(messages, max_new_tokens=24, temperature=0)
        assert list(answer.token_ids) == wanted["token_ids"]
        assert answer.prompt_tokens == wanted["prompt_tokens"]
        assert answer.visual_tokens == wanted["visual_tokens"] == 12
        assert {str(layer): n for layer, n in answer.stages.items()} == wanted["stages"]


def holds(now: Any, before: Any) -> bool:
    """Whether everything that was there is there still; fields may have been added."""
    if isinstance(before, dict):
        return all(key in now and holds(now[key], value) for key, value in before.items())
    if isinstance(before, list):
        return len(now) == len(before) and all(map(holds, now, before))
    return now == before


def test_an_old_manifest_says_the_same_when_it_is_written_today():
    old = Bundle.load(OLD, verify=True)
    written = old.manifest.model_dump_json(indent=1)
    assert Manifest.model_validate_json(written) == old.manifest
    before, now = json.loads((OLD / MANIFEST).read_text()), json.loads(written)
    for layout in before["layouts"]:  # the score's options stood beside the stages
        schedule = layout["schedule"]
        options = {name: schedule.pop(name) for name in ("cutoff", "signal")}
        schedule["score"] = {"name": "spectrum", "options": options | {"band": "low"}}
    assert before.pop("schema_version") == OLDEST and now["schema_version"] == SCHEMA_VERSION
    assert holds(now, before), "a field was lost or read as another"


@pytest.mark.parametrize(
    ("version", "mend"),
    [(SCHEMA_VERSION + 1, "upgrade luvc-export"), (OLDEST - 1, "export the bundle again")],
)
def test_another_schema_is_refused_with_the_mend(tmp_path, version, mend):
    copy = tmp_path / "bundle"
    shutil.copytree(OLD, copy)
    data = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps(data | {"schema_version": version}))
    with pytest.raises(LuvcError, match=f"manifest schema {version}, .*{mend}"):
        Bundle.load(copy)
