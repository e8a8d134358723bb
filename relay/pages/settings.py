"""What the configuration says of the pages, as plain values: relay.toml's are in relay.config."""

from collections.abc import Sequence
from pathlib import Path

import attrs


@attrs.frozen(slots=True, kw_only=True)
class PagesSettings:
    """Without `listen` there is no port of the pages' own.

    `certificate` and `private_key`: for TLS, PEM; without them it is plain HTTP, which only this
    machine reaches. `hosts`: further names by which they are asked for. `on_network_port`: a Bridge
    also serves them where Routers come.
    """

    listen: Sequence[tuple[str, int]] = ()
    certificate: Path | None = None
    private_key: Path | None = None
    hosts: Sequence[str] = ()
    on_network_port: bool = False
