"""Routers: which hospitals there are, how each is doing, and shutting one out."""

from collections.abc import Sequence
from typing import Any, Final

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay.bridge.pages.rows import Row, may, state_of, with_names
from relay.errors import Refused
from relay.pages.filters import plural
from relay.pages.forms import form
from relay.pages.rest import Rest, path_of
from relay.pages.site import Site
from relay.people.roles import Role

LIVE: Final = "/live/routers"
# Seconds: Routers come and go by the minute.
EVERY: Final = 3.0


@attrs.frozen(slots=True)
class Routers:
    """The views."""

    site: Site

    async def show(self, request: Request) -> Response:
        rest = self.site.rest.of(request)
        return await self.site.page(
            request,
            "routers.html",
            live=LIVE,
            administrator=may(request, Role.ADMINISTRATOR),
            invitations=await _open_invitations(rest),
            routers=await _all(rest),
        )

    async def live(self, request: Request) -> Response:
        rest, site = self.site.rest.of(request), self.site
        administrator = may(request, Role.ADMINISTRATOR)

        async def routers() -> str:
            return site.fragment(
                "routers_table.html",
                administrator=administrator,
                invitations=await _open_invitations(rest),
                routers=await _all(rest),
            )

        async def invitations() -> str:
            return site.fragment(
                "invitations_table.html",
                who=request.scope.get("relay.who"),
                administrator=administrator,
                invitations=await _open_invitations(rest),
            )

        return site.live(request, {"routers": routers, "invitations": invitations}, every=EVERY)

    async def one(self, request: Request) -> Response:
        rest = self.site.rest.of(request)
        router, rows = await _find(rest, request.path_params["fingerprint"])
        fingerprint = router["fingerprint"]
        known = {row["fingerprint"]: row["name"] for row in rows}
        devices = [
            row for row in await rest.get("/v1/publications") if row["router"] == fingerprint
        ]
        grants = [
            row
            for row in with_names(await rest.get("/v1/grants"), known, "owner", "grantee")
            if fingerprint in (row["owner"], row["grantee"])
        ]
        sessions = [
            row
            for row in with_names(await rest.get("/v1/sessions"), known, "caller", "callee")
            if fingerprint in (row["caller"], row["callee"])
        ]
        return await self.site.page(
            request,
            "router.html",
            title=router["name"],
            router={**router, "state": state_of(router)},
            administrator=may(request, Role.ADMINISTRATOR),
            devices=devices,
            given=[row for row in grants if row["owner"] == fingerprint],
            received=[row for row in grants if row["grantee"] == fingerprint],
            sessions=sessions,
            consequence=_consequence(len(devices), len(grants), len(sessions)),
        )

    async def revoke(self, request: Request) -> Response:
        await form(request)  # nothing in it but its token
        rest, named = self.site.rest.of(request), request.path_params["fingerprint"]
        try:
            router, _ = await _find(rest, named)
            await rest.post(path_of("v1", "routers", router["fingerprint"], "revoke"))
        except Refused as error:
            return self.site.see_other(path_of("routers", named), failed=str(error))
        return self.site.see_other(
            "/routers",
            said=f"The Router of {router['name']} is revoked. Its sessions end within 5 seconds.",
        )


def _consequence(devices: int, grants: int, sessions: int) -> str:
    """What a person must know who shuts a Router out."""
    counted = ((devices, "device"), (grants, "grant"))
    gone = " and ".join(plural(number, what) for number, what in counted if number)
    words = [f"At once its {gone} leave the network."] if gone else []
    if sessions:
        ends = "ends" if sessions == 1 else "end"
        words.append(f"Its {plural(sessions, 'session')} {ends} within 5 seconds.")
    words.append("For good: to come back, it needs a new identity and a new invitation.")
    return " ".join(words)


async def _all(rest: Rest) -> list[dict[str, Any]]:
    """All Routers, those that were revoked last."""
    rows = sorted(await rest.get("/v1/routers"), key=lambda row: row["revoked"])
    return [{**row, "state": state_of(row)} for row in rows]


async def _open_invitations(rest: Rest) -> list[Row]:
    """Those that nobody has used; which have expired may be forgotten."""
    return [row for row in await rest.get("/v1/invitations") if row["state"] != "used"]


async def _find(rest: Rest, fingerprint: str) -> tuple[Row, list[Row]]:
    """That Router, and all there are. Raises Refused (404)."""
    rows = await rest.get("/v1/routers")
    for row in rows:
        if row["fingerprint"] == fingerprint:
            return row, rows
    raise Refused(404, "no such Router is enrolled: see the list of Routers")


def routes(site: Site) -> Sequence[BaseRoute]:
    """The list with its stream, and each Router."""
    views = Routers(site)
    return [
        Route("/routers", views.show),
        Route(LIVE, views.live),
        Route("/routers/{fingerprint}", views.one),
        Route("/routers/{fingerprint}/revoke", views.revoke, methods=["POST"]),
    ]
