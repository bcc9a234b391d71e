"""What huggingface_hub raises, as one line with its mend."""

from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import LuvcError, brief

LOGIN = "log in with `hf auth login`, set HF_TOKEN or give token="


@contextmanager
def told(what: str) -> Iterator[None]:
    """Give errors of the hub's client the form of ours.

    Args:
        what: is tried: "someone/bundle cannot be downloaded".

    Raises:
        LuvcError: says why, and what to do.
    """
    try:
        yield
    except LuvcError:
        raise
    except Exception as e:  # whatever the client and its HTTP library raise
        raise LuvcError(f"{what}: {reason(e)}") from e


def reason(error: Exception) -> str:
    """Why the hub's client failed, and what mends it.

    Source: huggingface_hub/errors.py.
    """
    from huggingface_hub import errors

    said = brief(error)
    kinds = {
        errors.GatedRepoError: f"it is gated; ask for access on its page, then {LOGIN}",
        errors.RepositoryNotFoundError: "the hub has no such repository, or it is private; check the name, "
        f"or {LOGIN}",
        errors.RevisionNotFoundError: "it has no such branch, tag or commit; check revision=",
        errors.LocalEntryNotFoundError: "the cache does not hold it, and nothing comes from the hub "
        f"({said}); check the network, HF_HUB_OFFLINE and local_files_only",
        errors.OfflineModeIsEnabled: "HF_HUB_OFFLINE is set; unset it",
        errors.HFValidationError: f"it is no hub id, which is NAME or OWNER/NAME ({said})",
    }
    known = next((text for kind, text in kinds.items() if isinstance(error, kind)), None)
    if known is not None:
        return known
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    if status in (401, 403):
        return f"the hub refuses it ({said}); {LOGIN}, of one who may"
    if status in (409, 412):
        return f"somebody changed it meanwhile ({said}); try again"
    return said
