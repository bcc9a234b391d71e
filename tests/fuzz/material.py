"""What is right, for surfaces to spoil: a small checkpoint, a bundle of it, a picture."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from luvc.engines import VLM
from luvc.engines.bundle.folder import MANIFEST, Bundle

SHAPE = {"layers": 4, "vision_layers": 2, "image": 168, "text": "qwen2"}


@dataclass(frozen=True)
class Material:
    """Files of one process, which may spoil its own copies.

    Attributes:
        source: what `make` wrote; only read.
        scratch: an own, empty folder.
    """

    source: Path
    scratch: Path

    @classmethod
    def make(cls, source: Path) -> None:
        """Write what is spoilt later, once."""
        from luvc.exporter import ExportConfig, export
        from luvc.exporter.planning.defaults import PAPER
        from luvc.tools.demo import random_checkpoint

        if source.exists():
            return
        draft = source.with_name(f"{source.name}.{os.getpid()}")
        random_checkpoint.write(draft / "checkpoint", **SHAPE)
        sizes: dict[str, Any] = {"reference_text": 8, "text_capacity": 96, "images": (1, 0)}
        export(
            ExportConfig.make(
                model=str(draft / "checkpoint"), output=draft / "bundle", **sizes, **vars(PAPER)
            )
        )
        draft.rename(source)

    @cached_property
    def checkpoint(self) -> Path:
        """A copy of the checkpoint."""
        return shutil.copytree(self.source / "checkpoint", self.scratch / "checkpoint")

    @cached_property
    def bundle(self) -> Path:
        """A copy of the bundle."""
        return shutil.copytree(self.source / "bundle", self.scratch / "bundle")

    @cached_property
    def vlm(self) -> VLM:
        """The bundle as it was made, loaded."""
        return VLM.load(self.source / "bundle", threads=1)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The bundle's manifest."""
        return json.loads((self.source / "bundle" / MANIFEST).read_text())

    @property
    def loaded(self) -> Bundle:
        """The bundle as it was made."""
        return Bundle.load(self.source / "bundle")

    @contextmanager
    def spoilt(self, name: str, data: bytes) -> Iterator[Path]:
        """The bundle with other bytes in a file, and a manifest that lists just those."""
        manifest = json.loads((self.source / "bundle" / MANIFEST).read_text())
        manifest["files"][name] = {
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        right = {file: (self.bundle / file).read_bytes() for file in (name, MANIFEST)}
        (self.bundle / name).write_bytes(data)
        (self.bundle / MANIFEST).write_text(json.dumps(manifest))
        try:
            yield self.bundle
        finally:
            for file, bytes_ in right.items():
                (self.bundle / file).write_bytes(bytes_)


@contextmanager
def replaced(file: Path, data: bytes) -> Iterator[None]:
    """A file with other bytes, for a while."""
    right = file.read_bytes()
    file.write_bytes(data)
    try:
        yield
    finally:
        file.write_bytes(right)
