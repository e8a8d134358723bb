"""The Bridge's pages: what there is, and in which order people find it."""

from collections.abc import Sequence
from typing import Final

from starlette.routing import BaseRoute

from relay.bridge.pages import (
    adding,
    invitations,
    network,
    overview,
    providers,
    routers,
    sessions,
)
from relay.pages.audit_pages import AuditPages
from relay.pages.site import Entry, Site

# Where their templates are.
PACKAGE: Final = "relay.bridge.pages"

NAVIGATION: Final = (
    Entry("Overview", "/"),
    Entry("Routers", "/routers"),
    Entry("Devices", "/devices"),
    Entry("Grants", "/grants"),
    Entry("Providers", "/providers"),
    Entry("Sessions", "/sessions"),
    Entry("Audit", "/audit"),
)


def routes(site: Site) -> Sequence[BaseRoute]:
    """The routes of all of them."""
    # What has a name of its own stands before what takes any name: /routers/invite.
    return [
        *overview.routes(site),
        *invitations.routes(site),
        *routers.routes(site),
        *network.routes(site),
        *adding.routes(site),
        *providers.routes(site),
        *sessions.routes(site),
        *AuditPages(site).routes(),
    ]
