"""QIDO-RS: searches (PS3.18 §10.6), each a query of the federation or of one device.

    studies                                         and below, at each level, by the UIDs above it
    studies/{study}/series, studies/{study}/instances
    studies/{study}/series/{series}/instances
    series, instances                               with the StudyInstanceUID as a parameter

An answer says first how it went, and so is made whole before it is sent: of MAXIMUM_RESULTS results
at the most, some KiB each. Devices that did not answer in full are named in a Warning, with status
200: a viewer that was told of a failure would throw away what the others have.
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlencode

import attrs
import structlog
from starlette.requests import Request
from starlette.responses import Response

from relay.dicom.pdu import is_uid
from relay.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from relay.errors import Outcome, Refused
from relay.router.dicomweb import keys, media
from relay.router.dicomweb.answering import Unhurried
from relay.router.dicomweb.asked import Asked, Service, asked
from relay.router.dicomweb.json_model import Model as JSONModel
from relay.router.dicomweb.json_model import model
from relay.router.dicomweb.keys import INSTANCE_UID, SERIES_UID, STUDY_UID, Search
from relay.router.federation.identifiers import Level, Model, parse
from relay.router.federation.outcomes import told_of
from relay.router.federation.searching import Said, search
from relay.router.federation.searching import Search as FederatedSearch
from relay.router.federation.settings import Merging

log = structlog.get_logger()

# Of a study whose instances are asked for: more series than any viewer shows.
MAXIMUM_SERIES = 512

_LEVEL_KEY = "00080052"
_RETRIEVE_AE_TITLE = "00080054"
_RETRIEVE_URL = "00081190"


@attrs.frozen(slots=True)
class _Row:
    """One result, as it is sent, and where it stands among the others."""

    order: tuple[Any, ...] = attrs.field(repr=False)
    text: bytes = attrs.field(repr=False)


@attrs.define(slots=True)
class _Results:
    """What searches have found; `more`: results that were left out."""

    order: Callable[[JSONModel], tuple[Any, ...]]
    rows: list[_Row] = attrs.field(factory=list, repr=False)
    said: list[Said] = attrs.field(factory=list)
    incomplete: list[Said] = attrs.field(factory=list)
    more: int = 0

    def take(self, row: JSONModel) -> None:
        """One more."""
        if len(self.rows) == keys.MAXIMUM_RESULTS:
            self.more += 1
            return
        row = dict(sorted(row.items()))
        text = json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        self.rows.append(_Row(self.order(row), text.encode("utf-8", "replace")))

    def heard(self, found: FederatedSearch) -> None:
        """How one search went."""
        self.said += found.said
        self.incomplete += [said for said in found.incomplete if said not in self.incomplete]


@attrs.frozen(slots=True)
class QueryRoutes:
    """The routes of the search transaction."""

    service: Service

    async def studies(self, request: Request) -> Response:
        return self._answer(request, Level.STUDY, {})

    async def series(self, request: Request) -> Response:
        study = request.path_params.get("study") or _needed(request, STUDY_UID)
        return self._answer(request, Level.SERIES, {STUDY_UID: study})

    async def instances(self, request: Request) -> Response:
        path, query = request.path_params, request.url.query
        study = path.get("study") or _needed(request, STUDY_UID)
        series = path.get("series") or keys.value_of(query, SERIES_UID)
        fixed = {STUDY_UID: study} | ({SERIES_UID: series} if series else {})
        return self._answer(request, Level.IMAGE, fixed)

    def _answer(self, request: Request, level: Level, fixed: dict[int, str]) -> Response:
        one = asked(self.service, request)
        kind = media.takes_json(media.accepted_by(request))
        if not kind:
            raise Refused(406, f"searches are answered as {media.JSON}")
        wanted = keys.parse(level, fixed, request.url.query)

        async def search_all() -> Response:
            found = _Results(_ORDER[level])
            if level is Level.IMAGE and SERIES_UID not in fixed:
                await _of_study(one, request.url.query, fixed[STUDY_UID], found)
            else:
                await _find(one, wanted, fixed, found, found.take)
            _check_answered(found)
            return _response(one, wanted, found, kind)

        return Unhurried(search_all)


def _response(one: Asked, wanted: Search, found: _Results, kind: str) -> Response:
    rows = sorted(found.rows, key=lambda row: row.order)[wanted.offset :]
    more = max(0, len(rows) - wanted.limit) + found.more
    warnings = [one.warning(text) for text in _warnings(wanted, more, found.incomplete)]
    headers = {"warning": ", ".join(warnings)} if warnings else {}
    rows = rows[: wanted.limit]
    if not rows:
        return Response(status_code=204, headers=headers)
    text = b"[" + b",".join(row.text for row in rows) + b"]"
    return Response(text, 200, headers, media_type=kind)


async def _find(
    one: Asked,
    wanted: Search,
    fixed: dict[int, str],
    results: _Results,
    take: Callable[[JSONModel], None],
) -> None:
    """Give all that matches to `take`. Raises QueryRefused."""
    query = parse(Model.STUDY_ROOT, wanted.identifier, EXPLICIT_VR_LITTLE_ENDIAN)
    # Never streamed: whoever waits for the whole of it may as well have it merged.
    async with search(one.federation, one.caller, query, merging=Merging.MERGED) as found:
        async for answer in found:
            try:
                row = model(answer.encoded, EXPLICIT_VR_LITTLE_ENDIAN)
            except ValueError as error:
                log.info("answer left out", why=str(error))
                continue
            take(_completed(one, wanted.level, row, fixed))
        results.heard(found)


async def _of_study(one: Asked, query: str, study: str, results: _Results) -> None:
    """The instances of all series of a study: a query by a Series UID each (PS3.4 §C.4.1.2.1).

    They have their series' attributes, too (PS3.18 §10.6.3.3.2).
    """
    fixed = {STUDY_UID: study}
    series: list[JSONModel] = []
    await _find(one, keys.parse(Level.SERIES, fixed, ""), fixed, results, series.append)
    if len(series) > MAXIMUM_SERIES:
        raise Refused(413, f"the study has more than {MAXIMUM_SERIES} series: name one of them")
    left = urlencode(keys.without(query, STUDY_UID, SERIES_UID))
    for row in series:
        within = fixed | {SERIES_UID: _text(row, SERIES_UID)}
        wanted = keys.parse(Level.IMAGE, within, left)
        beside = partial(_take_beside, row, results)
        await _find(one, wanted, within, results, beside)


def _take_beside(series: JSONModel, results: _Results, instance: JSONModel) -> None:
    results.take(series | instance)


def _needed(request: Request, tag: int) -> str:
    uid = keys.value_of(request.url.query, tag)
    if not is_uid(uid):
        raise Refused(400, "below all studies a search needs one StudyInstanceUID")
    return uid


def _completed(one: Asked, level: Level, row: JSONModel, fixed: dict[int, str]) -> JSONModel:
    """`row` with what is not a device's to say (PS3.18 §10.6.3.3)."""
    row.pop(_LEVEL_KEY, None)
    row[_RETRIEVE_AE_TITLE] = {"vr": "AE", "Value": [one.title]}
    for tag, uid in fixed.items():
        row.setdefault(f"{tag:08X}", {"vr": "UI", "Value": [uid]})
    url = f"{one.studies}/{_text(row, STUDY_UID)}"
    if level is not Level.STUDY:
        url += f"/series/{_text(row, SERIES_UID)}"
    if level is Level.IMAGE:
        url += f"/instances/{_text(row, INSTANCE_UID)}"
    row[_RETRIEVE_URL] = {"vr": "UR", "Value": [url]}
    return row


def _check_answered(found: _Results) -> None:
    """Raise Refused where nobody has answered, so that nothing is no answer."""
    if found.rows or not found.said or len(found.incomplete) < len(found.said):
        return
    away = any(said.outcome in (Outcome.UNREACHABLE, Outcome.SLOW) for said in found.incomplete)
    raise Refused(503 if away else 502, f"no device has answered: {_named(found.incomplete)}")


def _warnings(wanted: Search, more: int, incomplete: Sequence[Said]) -> list[str]:
    """As PS3.18 §10.6.3 has them, and one that names who has not answered in full."""
    texts = []
    if more:
        texts.append(f"There are {more} additional results that can be requested")
    texts += [
        f"The {name} parameter is not supported. Only literal matching has been performed."
        for name in wanted.unheeded
    ]
    if incomplete:
        texts.append(f"The results are incomplete: {_named(incomplete)}")
    return texts


def _named(incomplete: Sequence[Said]) -> str:
    return "; ".join(told_of(said.source.title, said.words) for said in incomplete)


def _value(row: JSONModel, tag: int) -> Any:
    values = row.get(f"{tag:08X}", {}).get("Value", [None])
    return values[0]


def _text(row: JSONModel, tag: int) -> str:
    value = _value(row, tag)
    return "" if value is None else str(value)


def _newest_first(row: JSONModel) -> tuple[Any, ...]:
    # Old archives have 2020.01.31 and 10:30 too (PS3.5 §6.2, VR DA and TM).
    date, time = (re.sub(r"[^0-9]", "", _text(row, tag)) for tag in (0x0008_0020, 0x0008_0030))
    return -int(date[:8].ljust(8, "0") + time[:6].ljust(6, "0")), _text(row, STUDY_UID)


def _by_number(number: int, uid: int) -> Any:
    def order(row: JSONModel) -> tuple[Any, ...]:
        value = _value(row, number)
        return (value if isinstance(value, int) else 2**31), _text(row, uid)

    return order


# The same in each answer, so that one page follows on another.
_ORDER = {
    Level.STUDY: _newest_first,
    Level.SERIES: _by_number(0x0020_0011, SERIES_UID),
    Level.IMAGE: _by_number(0x0020_0013, INSTANCE_UID),
}
