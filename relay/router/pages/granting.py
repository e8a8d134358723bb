"""Grants: what this hospital lets others use, what they ask of it, and what it asks of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.errors import Refused
from relay.pages.forms import Form, form
from relay.pages.rest import path_of
from relay.pages.site import Site
from relay.router.pages import services
from relay.router.pages.network import TABS, if_joined, verified

GRANTS = "/network/grants"

# Hospitals whose identity nobody has compared that the form names: more stand on Hospitals.
MAXIMUM_UNVERIFIED = 8


@attrs.frozen(slots=True)
class GrantingPages:
    """Who may use what, and the forms that change it."""

    site: Site

    def routes(self) -> Sequence[Route]:
        return [
            Route(GRANTS, self.index, methods=["GET"]),
            Route(f"{GRANTS}/new", self.new, methods=["GET"]),
            Route(f"{GRANTS}/new", self.add, methods=["POST"]),
            Route(f"{GRANTS}/remove", self.remove, methods=["POST"]),
            Route(f"{GRANTS}/accept", self.accept, methods=["POST"]),
            Route(f"{GRANTS}/decline", self.decline, methods=["POST"]),
            Route("/network/ask", self.asking, methods=["GET"]),
            Route("/network/ask", self.ask, methods=["POST"]),
        ]

    async def index(self, request: Request) -> Response:
        rest = self.site.rest.of(request)
        return await self.site.page(
            request,
            "grants.html",
            title="Grants",
            tabs=TABS,
            grants=await rest.get("/v1/grants"),
            asks=await rest.get("/v1/asks"),
            verified=await verified(rest),
        )

    # --- what we give -----------------------------------------------------------------------------

    async def new(self, request: Request) -> Response:
        query = request.query_params
        values = _blank(query.get("ae_title", "")) | {"peer": query.get("peer", "")}
        return await self._grant_form(request, values)

    async def add(self, request: Request) -> Response:
        typed = await form(request)
        wanted = {
            "peer": typed.text("peer"),
            "ae_title": typed.text("ae_title"),
            "services": services.of_form(typed),
            "calling": _titles(typed),
            "user_identity": typed.flag("user_identity"),
        }
        try:
            grant = await self.site.rest.of(request).post("/v1/grants", wanted)
        except Refused as error:
            return await self._grant_form(request, _typed(typed), str(error), error.status)
        said = f"{grant['name']} may use {grant['ae_title']} now"
        replaced = ", in place of what it was granted before" if grant["replaced"] else ""
        return self.site.see_other(GRANTS, said=f"{said}{replaced}.")

    async def remove(self, request: Request) -> Response:
        number = (await form(request)).text("id")
        await self.site.rest.of(request).delete(path_of("v1", "grants", number))
        return self.site.see_other(
            GRANTS, said="The grant is taken back, and what rested on it has ended."
        )

    async def accept(self, request: Request) -> Response:
        number = (await form(request)).text("id")
        try:
            grant = await self.site.rest.of(request).post(path_of("v1", "asks", number, "accept"))
        except Refused as error:
            return self.site.see_other(GRANTS, failed=f"Not granted: {error}.")
        return self.site.see_other(GRANTS, said=f"{grant['name']} may use {grant['ae_title']} now.")

    async def decline(self, request: Request) -> Response:
        number = (await form(request)).text("id")
        await self.site.rest.of(request).delete(path_of("v1", "asks", number))
        return self.site.see_other(
            GRANTS, said="Declined. The other hospital is not told: telephone it if it should know."
        )

    async def _grant_form(
        self, request: Request, values: Mapping[str, Any], refused: str = "", code: int = 200
    ) -> Response:
        rest = self.site.rest.of(request)
        devices = await rest.get("/v1/devices")
        peers = await if_joined(rest, "/v1/peers") or []
        published = [device for device in devices if device["services"]]
        title = values["ae_title"]
        named = [row for row in published if title in (row["published_as"], row["ae_title"])]
        if len(published) == 1 and not title:
            named = published
        return await self.site.page(
            request,
            "grant_form.html",
            code,
            title="Grant services",
            peers=peers,
            unverified=[peer for peer in peers if not peer["verified"]][:MAXIMUM_UNVERIFIED],
            devices=published,
            device=named[0] if named else None,
            offered=services.in_words(named[0]["services"]) if named else [],
            grant=values,
            refused=refused,
        )

    # --- what we want -----------------------------------------------------------------------------

    async def asking(self, request: Request) -> Response:
        return await self._ask_form(request, request.query_params.get("ae_title", ""))

    async def ask(self, request: Request) -> Response:
        typed = await form(request)
        wanted = {
            "ae_title": typed.text("ae_title"),
            "services": services.of_form(typed),
            "calling": _titles(typed),
            "note": typed.text("note"),
        }
        try:
            if not wanted["services"]:
                raise Refused(400, "tick what you want to do with it")
            await self.site.rest.of(request).post("/v1/asks", wanted)
        except Refused as error:
            return await self._ask_form(request, typed.text("ae_title"), typed, error)
        return self.site.see_other(
            "/network",
            said=f"The hospital of {wanted['ae_title']} has your request."
            " What it grants shows here.",
        )

    async def _ask_form(
        self, request: Request, title: str, typed: Form | None = None, error: Refused | None = None
    ) -> Response:
        """The device first, and then what it publishes: all of it ticked until somebody has."""
        rows = await if_joined(self.site.rest.of(request), "/v1/directory") or []
        others = [row for row in rows if not row["own"]]
        named = [row for row in others if title in (row["ae_title"], row["local"])]
        device = named[0] if named else others[0] if len(others) == 1 and not title else None
        published = device["services"] if device is not None else []
        return await self.site.page(
            request,
            "ask_form.html",
            error.status if error is not None else 200,
            title="Ask for a grant",
            titles=others,
            device=device,
            offered=services.in_words(published),
            ask=_typed(typed) if typed is not None else _blank() | {"services": published},
            refused=str(error) if error is not None else "",
        )


def _titles(typed: Form) -> list[str]:
    """The calling AE titles: one a line, or between commas, since an AE title may hold a blank."""
    lines = typed.text("calling").replace(",", "\n").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _blank(title: str = "") -> dict[str, Any]:
    return {
        "peer": "",
        "ae_title": title,
        "services": [],
        "calling": "",
        "user_identity": False,
        "note": "",
    }


def _typed(typed: Form) -> dict[str, Any]:
    return {
        "peer": typed.text("peer"),
        "ae_title": typed.text("ae_title"),
        "services": typed.texts("services"),
        "calling": typed.text("calling"),
        "user_identity": typed.flag("user_identity"),
        "note": typed.text("note"),
    }
