"""What people are shown of DICOMweb: whether it is on, where, and who may use it."""

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

import attrs

from relay.router.dicomweb.settings import DicomwebSettings
from relay.router.dicomweb.tokens import TokenTable

# In a URL, where no AE title is the federation's: there is one for each device.
ANY_TITLE = "AE_TITLE"


@attrs.frozen(slots=True)
class Overview:
    """DICOMweb as it is served now. `listening` are its addresses and ports; none: it is off.

    `title` is the federation's AE title; empty: there is none.
    """

    settings: DicomwebSettings
    tokens: TokenTable
    listening: Sequence[tuple[str, int]]
    title: str = ""

    def to_json(self) -> dict[str, Any] | None:
        """What GET /v1/status says of it; None: it is off.

        `urls` are what viewers are given, unless a proxy stands in front.
        """
        if not self.listening:
            return None
        settings = self.settings
        scheme = "http" if settings.certificate is None else "https"
        title = self.title or ANY_TITLE
        return {
            "urls": [
                f"{scheme}://{_host(host)}:{port}/aets/{title}/rs" for host, port in self.listening
            ],
            "tokens": len(list(self.tokens)),
            "open": settings.open,
            "origins": list(settings.origins),
        }


def _host(host: str) -> str:
    """As a URL has it; of all addresses of this machine its name stands for each."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return socket.gethostname()
    return f"[{host}]" if address.version == 6 else host
