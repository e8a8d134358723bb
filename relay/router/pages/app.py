"""The Router's pages: what there is, and where."""

from collections.abc import Sequence

from starlette.routing import BaseRoute

from relay.pages.audit_pages import AuditPages
from relay.pages.site import Entry, Site
from relay.router.pages.devices import DevicePages
from relay.router.pages.first_steps import FirstSteps
from relay.router.pages.granting import GrantingPages
from relay.router.pages.naming import NamingPages
from relay.router.pages.network import NetworkPages
from relay.router.pages.objects import ITEMS, ObjectPages
from relay.router.pages.overview import OverviewPage
from relay.router.pages.settings import SettingsPage
from relay.router.pages.transfers import TransferPages
from relay.router.pages.viewers import ViewerPages

NAVIGATION = (
    Entry("Overview", "/"),
    Entry("Devices", "/devices"),
    Entry("Network", "/network"),
    Entry("Transfers", "/transfers"),
    Entry("Audit", "/audit"),
    Entry("Settings", "/settings"),
)

# Where the templates are.
PACKAGE = "relay.router.pages"


def routes(site: Site) -> Sequence[BaseRoute]:
    """All pages of a Router's own."""
    steps = FirstSteps(site)
    return [
        *OverviewPage(site, steps).routes(),
        *steps.routes(),
        *DevicePages(site).routes(),
        *NetworkPages(site).routes(),
        *GrantingPages(site).routes(),
        *NamingPages(site).routes(),
        *TransferPages(site).routes(),
        *ObjectPages(site).routes(),
        *AuditPages(site, ITEMS).routes(),
        *SettingsPage(site).routes(),
        *ViewerPages(site).routes(),
    ]
