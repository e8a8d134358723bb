"""Names and queue: local AE titles for others' devices, and which of them are sent to queued."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.errors import Refused
from relay.pages.forms import form
from relay.pages.rest import path_of
from relay.pages.site import Site
from relay.router.pages.network import TABS, if_joined

NAMES = "/network/names"

_NO_DESTINATION: Mapping[str, str] = {
    "called": "",
    "calling": "",
    "mode": "queued",
    "mixed": "refuse",
    "priority": "normal",
}


@attrs.frozen(slots=True)
class NamingPages:
    """Aliases and destinations."""

    site: Site

    def routes(self) -> Sequence[Route]:
        return [
            Route(NAMES, self.index, methods=["GET"]),
            Route(f"{NAMES}/alias", self.put_alias, methods=["POST"]),
            Route(f"{NAMES}/alias/remove", self.remove_alias, methods=["POST"]),
            Route(f"{NAMES}/destination", self.put_destination, methods=["POST"]),
            Route(f"{NAMES}/destination/remove", self.remove_destination, methods=["POST"]),
        ]

    async def index(self, request: Request) -> Response:
        query = request.query_params
        return await self._page(
            request,
            alias={"local": "", "published": query.get("published", "")},
            destination={**_NO_DESTINATION, "called": query.get("called", "")},
        )

    async def put_alias(self, request: Request) -> Response:
        typed = await form(request)
        alias = {"local": typed.text("local"), "published": typed.text("published")}
        try:
            await self.site.rest.of(request).post("/v1/aliases", alias)
        except Refused as error:
            return await self._page(request, error, alias=alias)
        return self.site.see_other(
            NAMES, said=f"Devices here call {alias['published']} as {alias['local']} now."
        )

    async def remove_alias(self, request: Request) -> Response:
        local = (await form(request)).text("local")
        await self.site.rest.of(request).delete(path_of("v1", "aliases", local))
        return self.site.see_other(NAMES, said=f"The local name {local} is gone.")

    async def put_destination(self, request: Request) -> Response:
        typed = await form(request)
        wanted = {name: typed.text(name) for name in _NO_DESTINATION}
        try:
            row = await self.site.rest.of(request).post("/v1/destinations", wanted)
        except Refused as error:
            return await self._page(request, error, destination=wanted)
        how = "is queued" if row["mode"] == "queued" else "goes through confirmed"
        return self.site.see_other(NAMES, said=f"What is sent to {row['local']} {how} now.")

    async def remove_destination(self, request: Request) -> Response:
        typed = await form(request)
        called, calling = typed.text("called"), typed.text("calling")
        row = await self.site.rest.of(request).delete(
            path_of("v1", "destinations", called), calling=calling or None
        )
        return self.site.see_other(
            NAMES,
            said=f"What is sent to {row['local']} is confirmed by the far device again."
            " What waits is delivered.",
        )

    async def _page(
        self,
        request: Request,
        error: Refused | None = None,
        *,
        alias: Mapping[str, Any] | None = None,
        destination: Mapping[str, Any] | None = None,
    ) -> Response:
        rest = self.site.rest.of(request)
        rows = await if_joined(rest, "/v1/directory") or []
        return await self.site.page(
            request,
            "names.html",
            error.status if error is not None else 200,
            title="Names and queue",
            tabs=TABS,
            aliases=await rest.get("/v1/aliases"),
            destinations=await rest.get("/v1/destinations"),
            devices=await rest.get("/v1/devices"),
            titles=[row for row in rows if not row["own"]],
            alias=alias or {"local": "", "published": ""},
            destination=destination or _NO_DESTINATION,
            refused=str(error) if error is not None else "",
        )
