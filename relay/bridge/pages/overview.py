"""Overview: is the network well, what moves, and what is to be done next."""

from collections.abc import Sequence
from typing import Any, Final

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay.bridge.pages.rows import Row, may, state_of
from relay.errors import Refused
from relay.pages.forms import form
from relay.pages.rest import Rest
from relay.pages.site import Site
from relay.people.roles import Role

LIVE: Final = "/live/overview"
# Seconds. As often as there is something new in the graph.
EVERY: Final = 2.0
# Warnings that are shown at once: with more of them, the Routers' page is where to look.
MAXIMUM_WARNINGS: Final = 8
# Hospitals that are shown, those first that are not connected.
MAXIMUM_HOSPITALS: Final = 20

# Where something can be done about a warning, and how loud it is.
_ABOUT: Final = {
    "stores_failing": ("/providers", "bad"),
    "store_failing": ("/providers", "warn"),
    "store_full": ("/providers", "warn"),
    "certificate": ("", "bad"),
    "restored": ("", "bad"),
    "audit_behind": ("", "warn"),
}


@attrs.frozen(slots=True)
class Overview:
    """The views."""

    site: Site

    async def show(self, request: Request) -> Response:
        rest = self.site.rest.of(request)
        return await self.site.page(
            request,
            "overview.html",
            live=LIVE,
            administrator=may(request, Role.ADMINISTRATOR),
            **await _steps(rest, administrator=may(request, Role.ADMINISTRATOR)),
            **await _warnings(rest),
            **await _figures(rest),
            **await _routers(rest),
        )

    async def live(self, request: Request) -> Response:
        rest, site = self.site.rest.of(request), self.site
        administrator = may(request, Role.ADMINISTRATOR)

        async def warnings() -> str:
            return site.fragment(
                "overview_warnings.html",
                who=site.who(request),
                administrator=administrator,
                **await _warnings(rest),
            )

        async def steps() -> str:
            found = await _steps(rest, administrator=administrator)
            return site.fragment("overview_steps.html", **found)

        async def figures() -> str:
            return site.fragment("overview_figures.html", **await _figures(rest))

        async def routers() -> str:
            return site.fragment("overview_routers.html", **await _routers(rest))

        blocks = {"warnings": warnings, "figures": figures, "routers": routers}
        # Once all is done it stays so, mostly: no reason to read all grants again and again.
        if (await _steps(rest, administrator=administrator))["steps"]:
            blocks["steps"] = steps
        return site.live(request, blocks, every=EVERY)

    async def confirm(self, request: Request) -> Response:
        """What a restored backup had undone is set right."""
        await form(request)  # nothing in it but its token
        try:
            await self.site.rest.of(request).delete("/v1/restoration")
        except Refused as error:
            return self.site.see_other("/", failed=str(error))
        return self.site.see_other("/", said="The restoration is confirmed.")


async def _figures(rest: Rest) -> dict[str, Any]:
    status, rates = await rest.get("/v1/status"), await rest.get("/v1/rates")
    interval = rates["interval"]
    moved = [size / interval for size in rates["bytes"]]
    messages = [count / interval for count in rates["messages"]]
    return {"bridge": status, "moved": moved, "messages": messages}


async def _warnings(rest: Rest) -> dict[str, Any]:
    found = [
        {**row, "href": href, "tone": tone}
        for row in await rest.get("/v1/warnings")
        for href, tone in [_ABOUT.get(row["warning"], (f"/routers/{row['key']}", "warn"))]
    ]
    return {
        "warnings": found[:MAXIMUM_WARNINGS],
        "more_warnings": max(0, len(found) - MAXIMUM_WARNINGS),
    }


async def _routers(rest: Rest) -> dict[str, Any]:
    rows = [row for row in await rest.get("/v1/routers") if not row["revoked"]]
    rows.sort(key=lambda row: row["connected"])
    return {
        "routers": [{**row, "state": state_of(row)} for row in rows[:MAXIMUM_HOSPITALS]],
        "more_routers": max(0, len(rows) - MAXIMUM_HOSPITALS),
    }


async def _steps(rest: Rest, *, administrator: bool) -> dict[str, Any]:
    """What is to be done until two hospitals can use each other; nothing where that is so."""
    routers = [row for row in await rest.get("/v1/routers") if not row["revoked"]]
    invited = [row for row in await rest.get("/v1/invitations") if row["state"] == "open"]
    publishing = sum(bool(row["ae_titles"]) for row in routers)
    granted = bool(await rest.get("/v1/grants"))
    if granted and len(routers) > 1:
        return {"steps": [], "now": None}
    hospitals = len(routers) + len(invited)
    invite = "/routers/invite" if administrator else ""
    return _numbered(
        [
            (
                "Invite the first hospital",
                hospitals > 0,
                invite,
                "An invitation is one string. Send it to the hospital's administrator by a way that"
                " only they can read.",
            ),
            (
                "Its Router joins",
                len(routers) > 0,
                "/routers",
                _waits_for(invited) + "There, somebody pastes the invitation into the Router's own"
                " page, or runs relay enroll.",
            ),
            (
                "Invite the second hospital",
                hospitals > 1,
                invite,
                "A network begins with two.",
            ),
            (
                "Both publish a device",
                publishing > 1,
                "/devices",
                "Each hospital adds its devices on its own Router's page, and says which services"
                " others may ask for.",
            ),
            (
                "One grants the other its use",
                granted,
                "/grants",
                "Nothing may be used until its owner grants it, on the owner's Router.",
            ),
        ]
    )


def _numbered(steps: Sequence[tuple[str, bool, str, str]]) -> dict[str, Any]:
    """All steps, each with its state, and the first that is not done."""
    at = next((n for n, (_, done, _, _) in enumerate(steps) if not done), len(steps))
    shown = [
        (title, href, "done" if done else "now" if number == at else "later")
        for number, (title, done, href, _) in enumerate(steps)
    ]
    now = None
    if at < len(steps):
        title, _, href, words = steps[at]
        now = {"title": title, "href": href, "words": words}
    return {"steps": shown, "now": now}


def _waits_for(invited: Sequence[Row]) -> str:
    if not invited:
        return ""
    return f"The invitation for {invited[0]['name']} is open. "


def routes(site: Site) -> Sequence[BaseRoute]:
    """Overview, and its stream."""
    views = Overview(site)
    return [
        Route("/", views.show),
        Route(LIVE, views.live),
        Route("/restoration/confirm", views.confirm, methods=["POST"]),
    ]
