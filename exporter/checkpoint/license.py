"""What a checkpoint's own model card says of its license."""

import warnings
from pathlib import Path

from pydantic import ValidationError

from ...engines.bundle.license import License
from ...engines.bundle.readme import LONGEST, README
from ...errors import brief


def license_of(folder: Path) -> License | None:
    """The license in the front matter of a README.md; None where there is none.

    Args:
        folder: of the checkpoint.
    """
    from huggingface_hub.repocard import metadata_load

    page = folder / README
    if not page.is_file() or page.stat().st_size > LONGEST:
        return None
    try:
        data = metadata_load(page) or {}
        said = {name: data[name] for name in License.model_fields if data.get(name) is not None}
        return License.model_validate(said) if "license" in said else None
    except ValidationError:
        why = "is no single name"
    except Exception as e:  # of YAML that is none
        why = f"cannot be read: {brief(e)}"
    warnings.warn(f"the license in {page} {why}; the bundle names none", stacklevel=2)
    return None
