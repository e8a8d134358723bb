"""Invitations: made for one hospital, shown once, and taken back while nobody has used them."""

from collections.abc import Sequence
from typing import Any, Final

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay.bridge.pages.rows import need
from relay.errors import Refused
from relay.pages.forms import form
from relay.pages.rest import path_of
from relay.pages.site import Site
from relay.people.roles import Role

_DAY: Final = 24 * 3600
# Seconds, and in words. As long as it needs: whoever finds it meanwhile can use it.
LIFETIMES: Final = (
    (str(_DAY), "1 day"),
    (str(3 * _DAY), "3 days"),
    (str(7 * _DAY), "1 week"),
    (str(30 * _DAY), "30 days"),
)
DEFAULT_LIFETIME: Final = str(3 * _DAY)


@attrs.frozen(slots=True)
class Invitations:
    """The views."""

    site: Site

    async def ask(self, request: Request) -> Response:
        need(request, Role.ADMINISTRATOR, "inviting a hospital")
        return await self._form(request, {})

    async def make(self, request: Request) -> Response:
        typed = await form(request)
        try:
            lifetime = typed.number("lifetime", int(DEFAULT_LIFETIME))
            body = {"name": typed.text("name"), "lifetime": lifetime}
            invitation = await self.site.rest.of(request).post("/v1/invitations", body)
        except Refused as error:
            return await self._form(request, typed.values(), error)
        # Not by way of another page: this answer alone holds it, and nobody keeps it.
        return await self.site.page(
            request, "invited.html", title="Invitation", invitation=invitation
        )

    async def withdraw(self, request: Request) -> Response:
        typed = await form(request)
        path = path_of("v1", "invitations", request.path_params["id"])
        try:
            await self.site.rest.of(request).delete(path)
        except Refused as error:
            return self.site.see_other("/routers", failed=str(error))
        name = typed.text("name")
        return self.site.see_other(
            "/routers", said=f"The invitation for {name} is taken back: it lets nobody in."
        )

    async def _form(
        self, request: Request, typed: dict[str, Any], refused: Refused | None = None
    ) -> Response:
        return await self.site.page(
            request,
            "invite.html",
            200 if refused is None else refused.status,
            title="Invite a hospital",
            typed=typed,
            lifetimes=LIFETIMES,
            lifetime=typed.get("lifetime", DEFAULT_LIFETIME),
            refused=str(refused or ""),
        )


def routes(site: Site) -> Sequence[BaseRoute]:
    """The form and what it makes, and taking back."""
    views = Invitations(site)
    return [
        Route("/routers/invite", views.ask, methods=["GET"]),
        Route("/routers/invite", views.make, methods=["POST"]),
        Route("/invitations/{id}/withdraw", views.withdraw, methods=["POST"]),
    ]
