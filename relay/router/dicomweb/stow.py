"""STOW-RS: stores (PS3.18 §10.5), each object of a request a C-STORE to the device that is named.

    studies, studies/{study}      multipart/related, whose parts are DICOM files

Under the federation's AE title the device is that of `store_to` in the configuration. A data set
goes on as it comes in; of each only the beginning is held, to see of which study and series it is.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import attrs
import structlog
from starlette.requests import Request
from starlette.responses import Response

from relay.dicom import elements
from relay.dicom.dimse import Status
from relay.dicom.elements import STUDY_INSTANCE_UID, Element, Missing, encoding_of
from relay.dicom.pdu import Buffer, is_uid
from relay.dicom.status import is_warning
from relay.errors import Refused, SourceFailed
from relay.router.dicomweb import media, part10
from relay.router.dicomweb.asked import Asked, Service, asked
from relay.router.dicomweb.body import Body, Part
from relay.router.dicomweb.part10 import Meta
from relay.router.dicomweb.storing import NotTakenError, Storage, open_storage
from relay.router.federation.targets import (
    SERIES_INSTANCE_UID,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
)

log = structlog.get_logger()

# Of a data set, to find its Study and Series Instance UID in: they stand behind the patient's data,
# of which private elements may have some.
MAXIMUM_PREFIX: Final = 256 * 1024

# Objects in one answer: it is made whole, of some 500 bytes each.
MAXIMUM_OBJECTS: Final = 100_000

# Failure Reason (0008,1197), beside a C-STORE's own statuses (PS3.18 Table I.2-2).
_TRANSFER_SYNTAX_NOT_SUPPORTED: Final = 0xC122
_DATA_SET_DOES_NOT_MATCH: Final = 0xA900
_CANNOT_UNDERSTAND: Final = 0xC000

# Of type 2 in both places: without a value there is no such URL (PS3.18 Table I.1-1, PS3.5 §7.4.3).
_RETRIEVE_URL: Final = "00081190"


_NO_URL: Final = {"vr": "UR"}


@attrs.define(slots=True)
class _Stored:
    """What came of the objects of a request, as the answer's sequences have it (PS3.18 §I.1).

    `studies` is the URL of all studies; empty where nothing can be retrieved from what stores.
    """

    studies: str
    stored: list[dict[str, Any]] = attrs.field(factory=list, repr=False)
    failed: list[dict[str, Any]] = attrs.field(factory=list, repr=False)
    unread: list[dict[str, Any]] = attrs.field(factory=list)  # of which not even a UID is known
    warned: bool = False
    of: set[str] = attrs.field(factory=set, repr=False)  # the studies of what is stored

    @property
    def count(self) -> int:
        return len(self.stored) + len(self.failed) + len(self.unread)

    def fail(self, meta: Meta, status: int) -> None:
        """An object is not stored."""
        self.failed.append(_object(meta) | _reason(status))

    def note(self, meta: Meta, study: str, series: str, status: int) -> None:
        """What the device says of an object."""
        if status != Status.SUCCESS and not is_warning(status):
            self.fail(meta, status)
            return
        row = _object(meta) | {_RETRIEVE_URL: _NO_URL}
        if self.studies and is_uid(study) and is_uid(series):
            url = f"{self.studies}/{study}/series/{series}/instances/{meta.sop_instance}"
            row[_RETRIEVE_URL] = {"vr": "UR", "Value": [url]}
        if status != Status.SUCCESS:
            self.warned = True
            row["00081196"] = {"vr": "US", "Value": [status]}
        self.stored.append(row)
        self.of.add(study)

    def to_json(self) -> dict[str, Any]:
        answer: dict[str, Any] = {_RETRIEVE_URL: _NO_URL}
        if self.studies and len(self.of) == 1 and all(map(is_uid, self.of)):
            [study] = self.of
            answer[_RETRIEVE_URL] = {"vr": "UR", "Value": [f"{self.studies}/{study}"]}
        for key, rows in (
            ("00081198", self.failed),
            ("00081199", self.stored),
            ("0008119A", self.unread),
        ):
            if rows:
                answer[key] = {"vr": "SQ", "Value": rows}
        return answer


@attrs.frozen(slots=True)
class StoreRoutes:
    """The routes of the store transaction."""

    service: Service

    async def store(self, request: Request) -> Response:
        one = asked(self.service, request, stores=True)
        title = _destination(one)
        accepted = media.takes_json(media.accepted_by(request))
        if not accepted:
            raise Refused(406, f"stores are answered as {media.JSON}")
        body = Body(request)
        found = _Stored(one.studies if _retrieves(one, title) else "")
        async with open_storage(one, title) as storage:
            async for part in body:
                await _store(one, storage, part, found)
                if storage.away is not None and not found.stored:
                    await body.drain()
                    raise storage.away
        for study in found.of:
            one.federation.found.forget_for_all(study)  # there is a new owner of a part of it
        log.info(
            "DICOMweb store",
            called=title,
            stored=len(found.stored),
            failed=len(found.failed) + len(found.unread),
        )
        if not found.count:
            raise Refused(400, "the body has no parts")
        status = 200
        if found.failed or found.unread or found.warned:
            status = 202 if found.stored else 409
        return Response(json.dumps(found.to_json()), status, media_type=accepted)


def _destination(one: Asked) -> str:
    """Raises Refused (404) where there is none."""
    settings, node = one.federation.settings, one.federation.node
    title = settings.store_to if one.title == settings.ae_title else one.title
    if not title:
        raise Refused(404, "nothing is stored at the federation: there is no store_to")
    device = node.devices.get(title)
    if device is not None and not device.federation:
        raise Refused(
            404, f"{title!r} is not for DICOMweb: `relay device add {title}` with --federation"
        )
    known = device is not None
    if not known and node.network is not None:
        published = node.names.published(title)
        known = published is not None and node.network.directory.owner(published) is not None
    if not known:
        raise Refused(404, f"no AE title {title!r} here or in the network")
    return title


def _retrieves(one: Asked, title: str) -> bool:
    """Whether what is stored at `title` can be had by the URLs of this request's AE title."""
    sources = one.federation.sources.of(one.caller)
    return any(source.title == title and source.retrieves for source in sources)


async def _store(one: Asked, storage: Storage, part: Part, found: _Stored) -> None:
    if found.count >= MAXIMUM_OBJECTS:
        raise Refused(413, f"more than {MAXIMUM_OBJECTS} objects in one request")
    kind, _ = media.parse_type(part.content_type)
    if kind != media.DICOM:
        found.unread.append(_reason(_CANNOT_UNDERSTAND))
        return
    prefix = bytearray()
    try:
        meta = await _meta(part, prefix)
    except Refused as error:
        log.info("DICOMweb object refused", why=str(error))
        found.unread.append(_reason(_CANNOT_UNDERSTAND))
        return
    del prefix[: meta.size]
    study, series = await _study(part, prefix, meta)
    wanted = one.path.get("study")
    if not prefix:
        prefix += await anext(part, b"")
    if not prefix:
        found.fail(meta, _CANNOT_UNDERSTAND)
        return
    if (wanted and study != wanted) or not _matches(meta, prefix):
        found.fail(meta, _DATA_SET_DOES_NOT_MATCH)
        return
    try:
        async with aclosing(_data_set(prefix, part)) as data_set:
            status = await storage.store(meta, data_set)
    except NotTakenError as error:
        log.info("DICOMweb object refused", why=str(error))
        found.fail(meta, _TRANSFER_SYNTAX_NOT_SUPPORTED)
    except SourceFailed as error:
        log.info("DICOMweb object not stored", why=str(error))
        found.fail(meta, Status.PROCESSING_FAILURE)
    else:
        found.note(meta, study, series, status)


async def _meta(part: Part, prefix: bytearray) -> Meta:
    """The part's meta information; what has come is left in `prefix`. Raises Refused (400)."""
    async for piece in part:
        prefix += piece
        if (meta := part10.read(prefix)) is not None:
            return meta
    meta = part10.read(prefix, whole=True)
    assert meta is not None, "what is whole is read or refused"
    return meta


async def _study(part: Part, prefix: bytearray, meta: Meta) -> tuple[str, str]:
    """The Study and Series Instance UID; empty where one is not found: it need not be known."""
    encoding = encoding_of(meta.transfer_syntax)
    if encoding is None:
        return "", ""
    uids: list[str] = []
    for tag in (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID):
        while (found := elements.find(prefix, tag, encoding)) is Missing.NEED_MORE:
            piece = b"" if len(prefix) > MAXIMUM_PREFIX else await anext(part, b"")
            if not piece:
                break
            prefix += piece
        uids.append(found.text(prefix) if isinstance(found, Element) else "")
    study, series = uids
    return study, series


def _matches(meta: Meta, prefix: bytearray) -> bool:
    """Whether the data set is the object that its file says, which it would be stored as."""
    encoding = encoding_of(meta.transfer_syntax)
    if encoding is None:
        return True
    for tag, said in ((SOP_CLASS_UID, meta.sop_class), (SOP_INSTANCE_UID, meta.sop_instance)):
        found = elements.find(prefix, tag, encoding)
        if isinstance(found, Element) and found.text(prefix) != said:
            return False
    return True


async def _data_set(prefix: bytearray, part: Part) -> AsyncGenerator[Buffer, None]:
    odd = len(prefix) % 2
    if prefix:
        yield bytes(prefix)
    async for piece in part:
        odd ^= len(piece) % 2
        yield piece
    if odd:
        yield b"\0"  # PS3.5 §A.5: a deflated stream of odd length is followed by one NULL byte


def _object(meta: Meta) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [meta.sop_class]},
        "00081155": {"vr": "UI", "Value": [meta.sop_instance]},
    }


def _reason(status: int) -> dict[str, Any]:
    return {"00081197": {"vr": "US", "Value": [status]}}
