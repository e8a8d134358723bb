"""Devices: what this hospital has, where it is, and what others may use of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.errors import Refused
from relay.pages.forms import Form, form
from relay.pages.rest import Rest, path_of
from relay.pages.site import Site
from relay.router.pages import device_form
from relay.router.pages.explaining import link
from relay.router.pages.network import verified
from relay.router.pages.services import SERVICES


@attrs.frozen(slots=True)
class DevicePages:
    """List, one device, its form, its test. An AE title may hold a slash, so it is a query here."""

    site: Site

    def routes(self) -> Sequence[Route]:
        return [
            Route("/devices", self.index, methods=["GET"]),
            Route("/devices/device", self.show, methods=["GET"]),
            Route("/devices/new", self.new, methods=["GET"]),
            Route("/devices/new", self.add, methods=["POST"]),
            Route("/devices/edit", self.edit, methods=["GET"]),
            Route("/devices/edit", self.change, methods=["POST"]),
            Route("/devices/test", self.test, methods=["POST"]),
            Route("/devices/remove", self.remove, methods=["POST"]),
        ]

    async def index(self, request: Request) -> Response:
        rest = self.site.rest.of(request)
        grants = await rest.get("/v1/grants")
        granted = {grant["ae_title"] for grant in grants}
        status = await rest.get("/v1/status")
        return await self.site.page(
            request,
            "devices.html",
            devices=await rest.get("/v1/devices"),
            granted=granted,
            router=status,
            ports=_ports(status),
        )

    async def show(self, request: Request) -> Response:
        rest = self.site.rest.of(request)
        title = request.query_params.get("ae_title", "")
        return await self._shown(request, rest, await _device(rest, title))

    async def test(self, request: Request) -> Response:
        """What a C-ECHO and a probe have found, on the device's own page."""
        rest, title = self.site.rest.of(request), (await form(request)).text("ae_title")
        device = await _device(rest, title)
        report = await rest.post(path_of("v1", "devices", title, "test"))
        return await self._shown(request, rest, device, report)

    async def _shown(
        self,
        request: Request,
        rest: Rest,
        device: Mapping[str, Any],
        report: Mapping[str, Any] | None = None,
    ) -> Response:
        grants = await rest.get("/v1/grants")
        status = await rest.get("/v1/status")
        return await self.site.page(
            request,
            "device.html",
            title=device["ae_title"],
            device=device,
            report=report,
            grants=[grant for grant in grants if grant["ae_title"] == device["published_as"]],
            verified=await verified(rest),
            router=status,
            ports=_ports(status),
            # It was added a moment ago, and is the first.
            first=status["devices"] == 1 and "first" in request.query_params,
        )

    # --- changing ---------------------------------------------------------------------------------

    async def new(self, request: Request) -> Response:
        values = {**device_form.NEW, "ae_title": request.query_params.get("ae_title", "")}
        return await self._form(request, values, new=True)

    async def edit(self, request: Request) -> Response:
        title = request.query_params.get("ae_title", "")
        device = await _device(self.site.rest.of(request), title)
        return await self._form(request, device_form.of_device(device), new=False)

    async def add(self, request: Request) -> Response:
        typed, rest = await form(request), self.site.rest.of(request)
        try:
            title = typed.text("ae_title")
            if any(device["ae_title"] == title for device in await rest.get("/v1/devices")):
                raise Refused(409, f"{title} is a device already: open it in the list to change it")
            device = await rest.post("/v1/devices", device_form.entry(typed))
        except Refused as error:
            return await self._again(request, typed, error, new=True)
        called = device["services"] or device["federation"]
        return self._put(device, "was added. Test it now" if called else "was added", first="1")

    async def change(self, request: Request) -> Response:
        typed, rest = await form(request), self.site.rest.of(request)
        try:
            before = await _device(rest, typed.text("ae_title"))
            # What the form does not show stays as it is.
            kept = {name: before[name] for name in ("declares",)}
            device = await rest.post("/v1/devices", kept | device_form.entry(typed))
        except Refused as error:
            return await self._again(request, typed, error, new=False)
        return self._put(device, "was changed")

    async def remove(self, request: Request) -> Response:
        title = (await form(request)).text("ae_title")
        gone = await self.site.rest.of(request).delete(path_of("v1", "devices", title))
        grants = len(gone["grants_removed"])
        more = f", and {grants} grant{'s' if grants > 1 else ''} of it" if grants else ""
        return self.site.see_other("/devices", said=f"{title} was removed{more}.")

    def _put(self, device: Mapping[str, Any], what: str, **query: str) -> Response:
        said = f"{device['ae_title']} {what}."
        failed = ""
        if device["refusal"]:
            said, failed = "", f"{said} The network does not publish it: {device['refusal']}."
        where = link("/devices/device", ae_title=device["ae_title"], **query)
        return self.site.see_other(where, said=said, failed=failed)

    async def _again(self, request: Request, typed: Form, error: Refused, *, new: bool) -> Response:
        values = device_form.of_form(typed)
        return await self._form(request, values, new=new, refused=str(error), code=error.status)

    async def _form(
        self,
        request: Request,
        values: Mapping[str, Any],
        *,
        new: bool,
        refused: str = "",
        code: int = 200,
    ) -> Response:
        return await self.site.page(
            request,
            "device_form.html",
            code,
            title="Add a device" if new else f"Change {values['ae_title']}",
            device=values,
            new=new,
            refused=refused,
            services=SERVICES,
            archive=device_form.is_set(values, device_form.ARCHIVE),
            unusual=device_form.is_set(values, device_form.UNUSUAL),
        )


def _ports(status: Mapping[str, Any]) -> list[int]:
    """Where devices here call this Router."""
    return sorted({place["port"] for place in status["listening"]})


async def _device(rest: Rest, title: str) -> Mapping[str, Any]:
    """The device of this AE title. Raises Refused (404)."""
    for device in await rest.get("/v1/devices"):
        if device["ae_title"] == title:
            return dict(device)
    raise Refused(404, f"no device {title!r}: it may have been removed. The list has them all")
