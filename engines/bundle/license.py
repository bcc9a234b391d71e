"""What a checkpoint's model card says of its license, carried along in the bundle."""

from typing import TYPE_CHECKING, Self

from ... import strict_json
from .bounded import Line
from .contents import REPORT
from .schedule import Frozen

if TYPE_CHECKING:
    from .folder import Bundle

FILE = f"{REPORT}/license.json"


class License(Frozen):
    """Under the names that the hub gives them.

    Attributes:
        license: its identifier, such as "apache-2.0", or "other".
        license_name: of another one.
        license_link: where that is written.
    """

    license: Line
    license_name: Line | None = None
    license_link: Line | None = None

    @classmethod
    def of(cls, bundle: "Bundle") -> Self | None:
        """As the bundle has it; None where the checkpoint said nothing.

        Raises:
            LuvcError: the file was changed.
        """
        if FILE not in bundle.manifest.files:
            return None
        return strict_json.read_as(cls, bundle.file(FILE), "luvc-export")
