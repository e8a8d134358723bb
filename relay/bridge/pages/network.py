"""Devices and Grants: what all hospitals publish, and who lets whom use it.

To be looked at only: both are the hospitals' own affair, and made on their Routers.
"""

from collections.abc import Sequence

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay.bridge.pages.rows import matching, searched, state_of, with_names
from relay.pages.site import Site


@attrs.frozen(slots=True)
class Network:
    """The views."""

    site: Site

    async def devices(self, request: Request) -> Response:
        rest, words = self.site.rest.of(request), searched(request)
        published = await rest.get("/v1/publications")
        states = {row["fingerprint"]: state_of(row) for row in await rest.get("/v1/routers")}
        rows = [{**row, "state": states[row["router"]]} for row in published]
        return await self.site.page(
            request,
            "devices.html",
            q=words,
            all=len(rows),
            devices=matching(rows, words, "ae_title", "name", "services"),
        )

    async def grants(self, request: Request) -> Response:
        rest, words = self.site.rest.of(request), searched(request)
        hospitals = await rest.get("/v1/routers")
        known = {row["fingerprint"]: row["name"] for row in hospitals}
        published = {
            (row["router"], row["ae_title"]): row["services"]
            for row in await rest.get("/v1/publications")
        }
        owner, grantee = searched(request, "owner"), searched(request, "grantee")
        rows = [
            {**row, "idle": _idle(row["services"], published.get((row["owner"], row["ae_title"])))}
            for row in with_names(await rest.get("/v1/grants"), known, "owner", "grantee")
        ]
        found = [
            row
            for row in matching(rows, words, "ae_title", "owner_name", "grantee_name", "services")
            if owner in ("", row["owner"]) and grantee in ("", row["grantee"])
        ]
        return await self.site.page(
            request,
            "grants.html",
            q=words,
            owner=owner,
            grantee=grantee,
            all=len(rows),
            grants=found,
            hospitals=[(row["fingerprint"], row["name"]) for row in hospitals],
        )


def _idle(granted: Sequence[str], published: Sequence[str] | None) -> str:
    """Why a grant does nothing now, or less than it says; empty where it does all of it."""
    if published is None:
        return "not published: the owner's device is not in the network now"
    missing = [service for service in granted if service not in published]
    return f"not published: {', '.join(missing)}" if missing else ""


def routes(site: Site) -> Sequence[BaseRoute]:
    """Both lists."""
    views = Network(site)
    return [Route("/devices", views.devices), Route("/grants", views.grants)]
