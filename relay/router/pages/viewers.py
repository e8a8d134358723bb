"""DICOMweb: where viewers and programs find it, and the tokens by which they may use it."""

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

VIEWERS = "/settings/dicomweb"


@attrs.frozen(slots=True)
class ViewerPages:
    """The tokens. One is shown once, on the page that answers its making."""

    site: Site

    def routes(self) -> Sequence[Route]:
        return [
            Route(VIEWERS, self.index, methods=["GET"]),
            Route(VIEWERS, self.add, methods=["POST"]),
            Route(f"{VIEWERS}/remove", self.remove, methods=["POST"]),
        ]

    async def index(self, request: Request) -> Response:
        return await self._page(request)

    async def add(self, request: Request) -> Response:
        typed = await form(request)
        wanted = {"name": typed.text("name"), "device": typed.text("device")}
        try:
            made = await self.site.rest.of(request).post("/v1/tokens", wanted)
        except Refused as error:
            return await self._page(request, typed=wanted, error=error)
        return await self._page(request, made=made)

    async def remove(self, request: Request) -> Response:
        name = (await form(request)).text("name")
        await self.site.rest.of(request).delete(path_of("v1", "tokens", name))
        return self.site.see_other(VIEWERS, said=f"The token {name} opens nothing any more.")

    async def _page(
        self,
        request: Request,
        *,
        typed: Mapping[str, str] | None = None,
        made: Mapping[str, Any] | None = None,
        error: Refused | None = None,
    ) -> Response:
        rest = self.site.rest.of(request)
        return await self.site.page(
            request,
            "viewers.html",
            error.status if error is not None else 200,
            title="DICOMweb",
            web=(await rest.get("/v1/status"))["dicomweb"],
            tokens=await rest.get("/v1/tokens"),
            devices=await rest.get("/v1/devices"),
            typed=typed or {"name": "", "device": ""},
            made=made,
            refused=str(error) if error is not None else "",
        )
