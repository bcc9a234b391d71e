"""LFM2-VL, whose image processor needs torchvision: the same tests, in a process that has it.

The product itself never imports torchvision.
"""

import re

import pytest

from .with_torchvision import ROOT, python, torchvision_or_skip

FILES = (
    "ratio_one",
    "oim",
    "pruned",
    "plan",
    "bundles",
    "text_only",
    "prefix",
    "tensorrt_rtx",
    "video",
)


@pytest.mark.parametrize(
    "chosen", ["not slow", pytest.param("slow", marks=pytest.mark.slow)], ids=["quick", "slow"]
)
def test_lfm2_vl(gallery, monkeypatch, chosen):
    torchvision_or_skip()
    monkeypatch.setenv("LUVC_GALLERY", str(gallery.root))
    files = [f"tests/families/test_{name}.py" for name in FILES]
    options = "-k", "lfm2_vl or LFM2", "-m", chosen, "-p", "no:cacheprovider"
    done = python("-m", "pytest", *files, *options)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) >= (10 if chosen == "not slow" else 4) and "failed" not in done.stdout


def test_the_product_does_not_import_torchvision():
    rooms = (ROOT / name for name in ("exporter", "engines", "plugins", "tools"))
    sources = [path.read_text() for room in rooms for path in room.rglob("*.py")]
    assert len(sources) > 50 and not [
        s for s in sources if re.search(r"(import|from) torchvision", s)
    ]
