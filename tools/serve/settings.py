"""What an operator chooses of a server."""

from dataclasses import dataclass, field

from ..client_messages import Bounds


@dataclass(frozen=True)
class Settings:
    """What an operator chooses.

    Attributes:
        name: the model's, as clients ask for it.
        api_key: clients must send it; None lets everyone in.
        origins: web pages that may ask from a browser; ("*",) for all.
        bounds: of the pictures.
        image_hosts: hosts that pictures are fetched from.
        body_mib: largest body of a request.
        body_seconds: longest that a body may take to come.
    """

    name: str
    api_key: str | None = None
    origins: tuple[str, ...] = ()
    bounds: Bounds = field(default_factory=Bounds)
    image_hosts: tuple[str, ...] = ()
    body_mib: int = 64
    body_seconds: float = 60.0
