"""Whom a request is for, and for whom it is made: what all of DICOMweb's resources share.

/aets/{ae_title}/rs/...    the federation's AE title, or that of one device that it may ask
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import attrs
from starlette.requests import Request

from relay.dicom.pdu import is_uid
from relay.errors import Refused
from relay.router.devices import Device
from relay.router.dicomweb.classes import KnownClasses
from relay.router.federation.federation import Federation
from relay.router.federation.found import Found
from relay.router.federation.sources import Description, Source, Sources
from relay.router.queue.state import Queue


class SomeSources(Sources):
    """Of all devices that there are, those of these titles."""

    def __init__(self, all_of_them: Sources, *titles: str) -> None:
        self._all = all_of_them
        self._titles = titles

    def of(self, caller: Device | None) -> list[Source]:
        """See `Sources.of`."""
        return [source for source in self._all.of(caller) if source.title in self._titles]

    def not_granted(self, caller: Device | None, source: Source) -> None:
        """See `Sources.not_granted`."""
        self._all.not_granted(caller, source)

    async def describe(self, source: Source, caller: Device | None) -> Description:
        """See `Sources.describe`."""
        return await self._all.describe(source, caller)


@attrs.define(slots=True, eq=False)
class Service:
    """What serves DICOMweb: the federation, and the queue that stored objects may go to."""

    federation: Federation
    queue: Queue | None = None
    known: KnownClasses = attrs.field(factory=KnownClasses)
    _views: dict[str, Federation] = attrs.field(factory=dict)

    def view(self, title: str, caller: Device | None) -> Federation:
        """The federation as who asks `title` alone sees it. Raises Refused (404).

        What a search of it finds is kept apart: that a device holds a study says nothing of others.
        """
        if title == self.federation.settings.ae_title:
            return self.federation
        if all(source.title != title for source in self.federation.sources.of(caller)):
            self._views.pop(title, None)
            raise Refused(
                404, f"no AE title {title!r} that this Router's federation may ask for this caller"
            )
        if title not in self._views:
            alone = SomeSources(self.federation.sources, title)
            self._views[title] = attrs.evolve(self.federation, sources=alone, found=Found())
        return self._views[title]


@attrs.frozen(slots=True)
class Asked:
    """One request: by `caller`, None being the Router itself, of what `federation` may ask.

    `base` is the URL up to /rs, and `path` what the URL names below that.
    """

    service: Service
    caller: Device | None
    federation: Federation
    title: str
    base: str
    path: Mapping[str, str]

    @property
    def studies(self) -> str:
        """The URL of all studies."""
        return f"{self.base}/studies"

    def among(self, titles: Iterable[str], study: str) -> Federation:
        """The federation as if there were only these, who hold the study: nobody else is asked."""
        found = Found()
        found.note(self.caller, study, titles, whole=True)
        some = SomeSources(self.federation.sources, *titles)
        return attrs.evolve(self.federation, sources=some, found=found)

    def warning(self, text: str) -> str:
        """`text` as a value of a Warning header: of the 299 that PS3.18 §10.6.3 has."""
        plain = text.encode("ascii", "replace").decode("ascii")
        line = "".join(character if character.isprintable() else " " for character in plain)
        quotable = line.replace('"', "'").replace("\\", "/")  # RFC 9110 §5.6.4
        return f'299 {self.base} "{quotable}"'


def asked(service: Service, request: Request, *, stores: bool = False) -> Asked:
    """What `request` is for. Raises Refused: 404 for an AE title, 400 for a UID that is none.

    `stores`: its AE title need not be of a device that can be asked.
    """
    caller: Device | None = request.state.caller
    path: dict[str, Any] = dict(request.path_params)
    title = path.pop("ae_title")
    for name in ("study", "series", "instance"):
        if name in path and not is_uid(path[name]):
            raise Refused(400, f"the {name} in the URL is no UID")
    federation = service.federation if stores else service.view(title, caller)
    return Asked(service, caller, federation, title, _base(request, title), path)


# What a URL does not name (RFC 9110 §4.2).
_DEFAULT_PORTS = {"http": 80, "https": 443}


def _base(request: Request, title: str) -> str:
    scheme, host = request.headers.get("x-forwarded-proto", ""), request.headers.get("host", "")
    if scheme not in _DEFAULT_PORTS:
        # No proxy that does the TLS. Some clients (dicomweb-client) leave the port out of Host.
        scheme, port = request.scope["scheme"], request.scope["server"][1]
        if not re.search(r":[0-9]+$", host) and port != _DEFAULT_PORTS[scheme]:
            host = f"{host}:{port}"
    return f"{scheme}://{host}/aets/{quote(title, safe='')}/rs"
