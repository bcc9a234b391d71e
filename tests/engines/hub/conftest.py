"""The stand-in for the hub, and what the tests of it share."""

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from luvc.engines import Bundle
from luvc.engines.bundle.folder import MANIFEST

from .standin import TOKEN, Hub

TEMPLATE = "/{repo_id}/resolve/{revision}/{filename}"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub for huggingface_hub's own client in this process, which is logged in nowhere."""
    server = Hub()
    for name, value in {
        "ENDPOINT": server.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.address + TEMPLATE,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        "HF_STORED_TOKENS_PATH": str(tmp_path / "no-tokens"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.close()


@pytest.fixture
def logged_in(hub, monkeypatch):
    """The same, with its owner's token."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def files_of(folder: Path) -> dict[str, bytes]:
    """What lies in a folder."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def changed(files: dict[str, bytes], /, **values: object) -> dict[str, bytes]:
    """A bundle's files, with other values in its manifest."""
    manifest = json.loads(files[MANIFEST])
    return files | {MANIFEST: json.dumps(manifest | values).encode()}


@pytest.fixture
def plain(workshop) -> Bundle:
    """A bundle."""
    return workshop.bundle("qwen2")
