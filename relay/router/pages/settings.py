"""Settings: who this Router is, and what relay.toml has it run with, key by key."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.pages.site import Site
from relay.router.pages import explaining

# How the keys stand together for people, by the table and the beginnings of their names.
GROUPS = (
    ("Devices and the DICOM port", "router", ("ae_title", "listen", "tls_", "certificate")),
    ("Devices and the DICOM port", "router", ("private_key", "device_", "maximum_associations")),
    ("The way out", "router", ("proxy", "ca_file", "allowed_origins", "trust")),
    ("The queue", "router", ("spool_", "bandwidth")),
    ("Warnings", "router", ("warn_after", "webhook")),
    ("Audit", "router", ("audit_",)),
    ("Federation", "router.federation", ("",)),
    ("DICOMweb", "router.dicomweb", ("",)),
    ("These pages", "router.pages", ("",)),
)
OTHERS = "The process"


@attrs.frozen(slots=True)
class SettingsPage:
    """What is set, shown; it is changed in the file."""

    site: Site

    def routes(self) -> Sequence[Route]:
        return [Route("/settings", self.show, methods=["GET"])]

    async def show(self, request: Request) -> Response:
        rest = self.site.rest.of(request)
        status = await rest.get("/v1/status")
        warnings = await rest.get("/v1/warnings")
        return await self.site.page(
            request,
            "settings.html",
            router=status,
            warnings=[(warning, explaining.of_warning(warning)) for warning in warnings],
            groups=_grouped(await rest.get("/v1/configuration")),
            remedy=explaining.of_connection(status),
        )


def _grouped(keys: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    found: dict[str, list[Mapping[str, Any]]] = {title: [] for title, _, _ in GROUPS}
    found[OTHERS] = []
    for key in keys:
        found[_group(key)].append(key)
    return [(title, rows) for title, rows in found.items() if rows]


def _group(key: Mapping[str, Any]) -> str:
    for title, table, beginnings in GROUPS:
        if key["table"] == table and str(key["key"]).startswith(beginnings):
            return title
    return OTHERS
