"""Which checkpoint this is, by what its files hold."""

import hashlib

from ...engines.bundle.folder import sha256
from ..planning.schedule_file import ModelIdentity
from .family import Family
from .weights import files_of_weights


def config_digest(family: Family) -> str:
    """SHA-256 of config.json."""
    return sha256(family.folder / "config.json")


def weights_digest(family: Family) -> str:
    """SHA-256 over those of the weight files, in their order; they are there."""
    found = hashlib.sha256()
    for file in files_of_weights(family):
        found.update(sha256(file).encode())
    return found.hexdigest()


def identity_of(family: Family) -> ModelIdentity:
    """The checkpoint; its weights are there."""
    config, weights = config_digest(family), weights_digest(family)
    return ModelIdentity(model=family.model, config=config, weights=weights)
