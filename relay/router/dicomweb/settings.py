"""What the configuration says of DICOMweb, as plain values: relay.toml's are in relay.config."""

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import attrs

# Each holds an operation at devices, and the head of an object at the most (scanning.MAXIMUM_HEAD).
DEFAULT_MAXIMUM_REQUESTS = 16


@attrs.frozen(slots=True, kw_only=True)
class DicomwebSettings:
    """Without `listen` there is no DICOMweb.

    `certificate` and `private_key`: for TLS, PEM; without them it is plain HTTP. `origins`: of
    pages whose scripts may use it in a browser. `open`: nobody needs a token; only on a loopback
    address. `maximum_requests`: answered at once.
    """

    listen: Sequence[tuple[str, int]] = ()
    certificate: Path | None = None
    private_key: Path | None = None
    origins: Sequence[str] = ()
    open: bool = False
    maximum_requests: int = DEFAULT_MAXIMUM_REQUESTS


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
