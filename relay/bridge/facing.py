"""Where people come to the Bridge: its pages, beside what Routers need, and on a port of their own.

What Routers use is looked at first, and stays as it was: blobs before anything else, then
signalling, enrolment and health. Only what none of them is comes to the pages' door.
"""

from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

import attrs
import trio
from starlette.types import ASGIApp, Receive, Scope, Send

from relay.bridge.pages.app import NAVIGATION, routes
from relay.pages.app import make_site
from relay.pages.hosts import Hosts
from relay.pages.serving import hosts_of, origin_of
from relay.pages.settings import PagesSettings
from relay.people.people import People
from relay.web.operations import Operation

# Where its templates are.
_PACKAGE = "relay.bridge.pages"


@attrs.frozen(slots=True, kw_only=True)
class Facing:
    """What the pages of a Bridge at `url` are made of.

    `tls`: its network port does the TLS itself, and not a proxy before it. `operations` is the
    REST for people, `plain` what anybody may ask.
    """

    url: str
    tls: bool
    fingerprint: str
    people: People
    settings: PagesSettings
    operations: Sequence[Operation]
    plain: Sequence[Operation]
    stopping: trio.Event

    def on_network_port(self) -> ASGIApp:
        """The app of the pages at `url`."""
        names = [urlsplit(self.url).hostname or "", *self.settings.hosts]
        return self._site(Hosts.of(names, tls=self.tls, loopback=False, forwarded=not self.tls), ())

    def on_own_port(self) -> ASGIApp:
        """The app of the pages where the settings say. Raises RelayError."""
        return self._site(hosts_of(self.settings), self.plain)

    def _site(self, hosts: Hosts, plain: Sequence[Operation]) -> ASGIApp:
        name = urlsplit(self.url).hostname or self.url
        return make_site(
            name=lambda: name,
            fingerprint=self.fingerprint,
            mode="Bridge",
            navigation=NAVIGATION,
            routes=routes,
            operations=self.operations,
            people=self.people,
            package=_PACKAGE,
            hosts=hosts,
            plain=plain,
            ended=self.stopping,
        )


def origin(url: str, settings: PagesSettings, bound: Sequence[tuple[str, int]]) -> str:
    """Where a browser finds the pages; empty where there are none. Raises RelayError."""
    return url if settings.on_network_port else origin_of(settings, bound)


def beside(network: ASGIApp, paths: Collection[str], pages: ASGIApp) -> ASGIApp:
    """`network` for WebSockets and these paths, and the pages for all others."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        is_network = scope["type"] != "http" or scope["path"] in paths
        await (network if is_network else pages)(scope, receive, send)

    return app
