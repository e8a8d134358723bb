"""Providers: the object stores that are set up, their order, a check of each, and removing one."""

from collections.abc import Sequence
from typing import Any, Final

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay.bridge.pages.rows import Row, may, store_state
from relay.errors import Refused
from relay.pages.forms import Form, form
from relay.pages.rest import Rest, path_of
from relay.pages.site import Site
from relay.people.roles import Role

LIST: Final = "/providers"
CHANGED: Final = "the order was changed meanwhile: nothing is done. Look at it again"


@attrs.frozen(slots=True)
class Providers:
    """The views."""

    site: Site

    async def show(self, request: Request) -> Response:
        return await self._list(request)

    async def check(self, request: Request) -> Response:
        await form(request)  # nothing in it but its token
        name = request.path_params["name"]
        rest = self.site.rest.of(request)
        try:
            answer = await rest.post(path_of("v1", "providers", name, "check"))
            store = next(row for row in await rest.get("/v1/providers") if row["name"] == name)
        except (Refused, StopIteration) as error:
            words = str(error) or f"no object store {name} is set up any more"
            return self.site.see_other(LIST, failed=words)
        return await self.site.page(
            request,
            "provider_checked.html",
            title=f"Check of {name}",
            store=store,
            administrator=may(request, Role.ADMINISTRATOR),
            **verdict(answer["findings"]),
        )

    async def order(self, request: Request) -> Response:
        """Put one store elsewhere in the order of those in use, into it or out of it."""
        typed = await form(request)
        rest, name = self.site.rest.of(request), typed.text("name")
        try:
            in_use = _in_use(await rest.get("/v1/providers"))
            wanted = _moved(in_use, name, typed)
            await rest.post("/v1/providers/use", {"names": wanted})
        except Refused as error:
            return self.site.see_other(LIST, failed=str(error))
        first, *others = wanted
        then = f"; if it fails, {', then '.join(others)}" if others else ""
        return self.site.see_other(LIST, said=f"New sessions use {first}{then}.")

    async def remove(self, request: Request) -> Response:
        await form(request)  # nothing in it but its token
        name = request.path_params["name"]
        try:
            answer = await self.site.rest.of(request).delete(path_of("v1", "providers", name))
        except Refused as error:
            return self.site.see_other(LIST, failed=str(error))
        said = f"Object store {name} is removed."
        if resting := answer["sessions"]:
            last = "session that rests on it is over"
            if resting > 1:
                last = f"last of {resting} sessions that rest on it is over"
            said = f"{name} is used for no new session, and goes when the {last} and swept."
        return self.site.see_other(LIST, said=said)

    async def _list(self, request: Request) -> Response:
        rest = self.site.rest.of(request)
        stores = [{**row, "state": store_state(row)} for row in await rest.get("/v1/providers")]
        in_use = _in_use(stores)
        return await self.site.page(
            request,
            "providers.html",
            status=200,
            stores=stores,
            in_use=in_use,
            seen=" ".join(in_use),
            bridge=await rest.get("/v1/status"),
            operator=may(request, Role.OPERATOR),
            administrator=may(request, Role.ADMINISTRATOR),
        )


def verdict(findings: Sequence[Row]) -> dict[str, Any]:
    """What a page shows of a check."""
    return {"findings": findings, "fine": all(finding["ok"] for finding in findings)}


def _in_use(stores: Sequence[Row]) -> list[str]:
    """The names of those in use, in their order."""
    return [row["name"] for row in stores if row["in_use"]]


def _moved(in_use: Sequence[str], name: str, typed: Form) -> list[str]:
    """The order that is asked for. Raises Refused: 409 where it is not the one that was seen."""
    if typed.text("seen").split() != list(in_use):
        raise Refused(409, CHANGED)
    names = [other for other in in_use if other != name]
    place = in_use.index(name) if name in in_use else len(in_use)
    match typed.text("move"):
        case "up":
            names.insert(max(0, place - 1), name)
        case "down" | "use":
            names.insert(place + 1, name)
        case "stop":
            if not names:
                raise Refused(
                    409, f"{name} is the only object store in use: put another in use first"
                )
        case other:
            raise Refused(400, f"move: {other[:20]!r} is not up, down, use or stop")
    return names


def routes(site: Site) -> Sequence[BaseRoute]:
    """The list, and what is done with one store."""
    views = Providers(site)
    return [
        Route(LIST, views.show, methods=["GET"]),
        Route("/providers/order", views.order, methods=["POST"]),
        Route("/providers/{name}/check", views.check, methods=["POST"]),
        Route("/providers/{name}/remove", views.remove, methods=["POST"]),
    ]


async def kinds(rest: Rest) -> list[Row]:
    """The kinds of store that can be set up once more: there is one disk."""
    there = {row["kind"] for row in await rest.get("/v1/providers")}
    return [
        row
        for row in await rest.get("/v1/providers/kinds")
        if row["kind"] != "disk" or "disk" not in there
    ]
