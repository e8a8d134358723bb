"""Sessions: who speaks with whom now, and ending a conversation."""

from collections.abc import Sequence
from typing import Any, Final

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay.bridge.pages.rows import may, names, with_names
from relay.errors import Refused
from relay.pages.forms import form
from relay.pages.rest import Rest, path_of
from relay.pages.site import Site
from relay.people.roles import Role

LIVE: Final = "/live/sessions"
# Seconds: many last for less, and who looks for one wants to see it come.
EVERY: Final = 1.0
# Sessions that are shown, the oldest first: those that go on for longest are what one looks for.
MAXIMUM_SHOWN: Final = 200


@attrs.frozen(slots=True)
class Sessions:
    """The views."""

    site: Site

    async def show(self, request: Request) -> Response:
        return await self.site.page(
            request,
            "sessions.html",
            live=LIVE,
            operator=may(request, Role.OPERATOR),
            **await _open(self.site.rest.of(request)),
        )

    async def live(self, request: Request) -> Response:
        rest, operator = self.site.rest.of(request), may(request, Role.OPERATOR)

        async def sessions() -> str:
            return self.site.fragment(
                "sessions_table.html",
                who=request.scope.get("relay.who"),
                operator=operator,
                **await _open(rest),
            )

        return self.site.live(request, {"sessions": sessions}, every=EVERY)

    async def end(self, request: Request) -> Response:
        await form(request)  # nothing in it but its token
        path = path_of("v1", "sessions", request.path_params["session"])
        try:
            await self.site.rest.of(request).delete(path)
        except Refused as error:
            return self.site.see_other("/sessions", failed=str(error))
        return self.site.see_other("/sessions", said="The session is ended at both hospitals.")


async def _open(rest: Rest) -> dict[str, Any]:
    rows = with_names(await rest.get("/v1/sessions"), await names(rest), "caller", "callee")
    return {
        "sessions": rows[:MAXIMUM_SHOWN],
        "more": max(0, len(rows) - MAXIMUM_SHOWN),
    }


def routes(site: Site) -> Sequence[BaseRoute]:
    """The list with its stream, and ending one."""
    views = Sessions(site)
    return [
        Route("/sessions", views.show),
        Route(LIVE, views.live),
        Route("/sessions/{session}/end", views.end, methods=["POST"]),
    ]
