"""A bundle copied whole into another folder, with a page that tells what it is."""

import os
import shutil
from pathlib import Path

from ..bundle.contents import MANIFEST
from ..bundle.folder import WEIGHTS, Bundle
from ..bundle.readme import README
from ..bundle.swap import check_space, check_target, replacing
from .card import card


def save(bundle: Bundle, target: str | os.PathLike[str]) -> Bundle:
    """Copy a bundle; see `VLM.save_pretrained`.

    Raises:
        LuvcError: the target cannot be written to or holds anything but a bundle, the disk is full, or
            the bundle was replaced meanwhile; what was at the target is as it was.
    """
    place = Path(target)
    check_target(place)
    check_space(place, sum(file.bytes for file in bundle.manifest.files.values()))
    # what is open stays what was loaded: this refuses another bundle that took its place
    with replacing(place, check_target) as folder, bundle.opening(WEIGHTS):
        for name in bundle.manifest.files:
            copy = folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.file(name), copy)
        (folder / MANIFEST).write_text(bundle.manifest.model_dump_json(indent=1))
        (folder / README).write_text(card(bundle, place.resolve().name))
        Bundle.load(folder)
    return Bundle.load(place)
