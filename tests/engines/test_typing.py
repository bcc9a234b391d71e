"""What a type checker tells a user of the public calls."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow  # test_packaging.py has the file checked among all others, as strictly
def test_calls_have_the_types_they_say(tmp_path):
    """typed_calls.py as a user's own file, with luvc beside it: the overloads, and what they refuse."""
    (tmp_path / "luvc").symlink_to(ROOT)
    file = shutil.copy(Path(__file__).with_name("typed_calls.py"), tmp_path)
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    run = subprocess.run(
        [*command, file], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    report = json.loads(run.stdout)
    assert report["summary"]["filesAnalyzed"] == 1
    assert not report["generalDiagnostics"], json.dumps(report["generalDiagnostics"], indent=1)
