"""The audit's part of both modes' REST."""

import math
from collections.abc import AsyncIterator
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from relay.audit.audit import Audit
from relay.audit.codes import Kind
from relay.audit.document import to_xml
from relay.audit.entries import PAGE, Filter
from relay.audit.sender import Sender
from relay.audit.telling import to_csv, to_json
from relay.errors import Refused
from relay.people.roles import Role
from relay.web.operations import COUNT, FLAG, TEXT, TEXT_OR_NULL, Operation, Schema, listed, record

# Entries of one answer, if no `limit` says less or more.
DEFAULT_LIMIT = 100
MAXIMUM_LIMIT = PAGE

_NUMBER: Schema = {"type": "number"}
_COUNT_OR_NULL: Schema = {"type": ["integer", "null"]}

PARTICIPANT = record(id=TEXT, name=TEXT, address=TEXT, role=TEXT_OR_NULL, person=FLAG)
STUDY = record(
    study=TEXT_OR_NULL,
    instances=listed(record(sop_class=TEXT, count=COUNT, uids=listed(TEXT))),
)
ENTRY = record(
    number=COUNT,
    at=_NUMBER,
    kind=TEXT,
    type=TEXT_OR_NULL,
    outcome=TEXT,
    words=TEXT,
    why=TEXT,
    requestor=TEXT_OR_NULL,
    source=TEXT_OR_NULL,
    destination=TEXT_OR_NULL,
    participants=listed(PARTICIPANT),
    objects=COUNT,
    association=TEXT_OR_NULL,
    request=TEXT_OR_NULL,
    studies=listed(STUDY),
    hash=TEXT,
)
# `before` is what the next page is asked with; null where this is the last.
PAGE_OF_ENTRIES = record(entries=listed(ENTRY), before=_COUNT_OR_NULL)
STATE = record(
    recorded=COUNT,
    waiting=COUNT,
    failures=COUNT,
    lost=COUNT,
    last=COUNT,
    collector={
        "anyOf": [
            {"type": "null"},
            record(
                address=TEXT,
                connected=FLAG,
                sent=COUNT,
                behind=COUNT,
                lag=_NUMBER,
                failures=COUNT,
                last_failure=TEXT,
            ),
        ]
    },
)
VERIFIED = record(first=COUNT, last=COUNT, head=TEXT, entries=COUNT, fault=TEXT)

_FILTERS = ("kind", "since", "until", "who", "ae_title")


@attrs.frozen(slots=True)
class _Routes:
    audit: Audit
    sender: Sender | None

    async def show(self, request: Request) -> Response:
        limit = _limit(request)
        found = await self.audit.latest(_filter(request, "before", "limit"), limit + 1)
        studies = _sees_studies(request)
        rows = await self.audit.told(
            found[:limit], lambda pairs: [to_json(*pair, studies=studies) for pair in pairs]
        )
        before = rows[-1]["number"] if len(found) > limit else None
        return JSONResponse({"entries": rows, "before": before})

    async def csv(self, request: Request) -> Response:
        which = _filter(request)
        headers = {"Content-Disposition": 'attachment; filename="relay-audit.csv"'}
        # Before the first line is sent: what is wrong with the filter is refused, not cut off.
        return StreamingResponse(self._lines(which), media_type="text/csv", headers=headers)

    async def _lines(self, which: Filter) -> AsyncIterator[str]:
        yield to_csv((), header=True)
        while page := await self.audit.latest(which, PAGE):
            yield await self.audit.told(page, lambda pairs: to_csv(pairs, header=False))
            which = attrs.evolve(which, before=page[-1].number)

    async def message(self, request: Request) -> Response:
        number = request.path_params["number"]
        entry = await self.audit.one(number)
        if entry is None:
            raise Refused(404, f"no entry {number} in the audit")
        document = to_xml(self.audit.event_of(entry), self.audit.source)
        return Response(document, media_type="application/xml")

    async def state(self, request: Request) -> Response:
        shown: dict[str, Any] = attrs.asdict(self.audit.statistics())
        shown["collector"] = None
        if self.sender is not None:
            sending = self.sender.statistics()
            shown["collector"] = {"address": str(self.sender.collector), **attrs.asdict(sending)}
        return JSONResponse(shown)

    async def verify(self, request: Request) -> Response:
        noted = _noted(request.query_params.get("noted"))
        _only(request, "noted")
        finding = await self.audit.verify(noted)
        return JSONResponse({**attrs.asdict(finding), "head": finding.head.hex()})


# Of a number: what SQLite's integers all have room for.
_DIGITS = 18


def audit_operations(audit: Audit, sender: Sender | None = None) -> list[Operation]:
    """The operations on `audit`, which `sender` sends to a collector, if there is one."""
    do = _Routes(audit, sender)
    return [
        Operation(
            "GET",
            "/v1/audit",
            do.show,
            "What has happened, the latest first: `?kind=&since=&until=&who=&ae_title=&before="
            "&limit=`. A viewer is shown no studies.",
            PAGE_OF_ENTRIES,
            refusals=(400,),
        ),
        Operation(
            "GET",
            "/v1/audit.csv",
            do.csv,
            "All of that as CSV.",
            TEXT,
            media="text/csv",
            role=Role.OPERATOR,
            refusals=(400,),
        ),
        Operation(
            "GET",
            "/v1/audit/{number:whole}.xml",
            do.message,
            "One entry as a DICOM Audit Message (PS3.15 A.5).",
            TEXT,
            media="application/xml",
            role=Role.OPERATOR,
            refusals=(404,),
        ),
        Operation(
            "GET", "/v1/audit/state", do.state, "How the audit and its collector fare.", STATE
        ),
        Operation(
            "GET",
            "/v1/audit/verify",
            do.verify,
            "Whether the chain of entries is whole; `?noted=NUMBER:HASH` is one noted elsewhere.",
            VERIFIED,
            refusals=(400, 503),
        ),
    ]


def _sees_studies(request: Request) -> bool:
    """Whoever opens the Unix socket administers the process; there is no other without a name."""
    who = request.scope.get("relay.who")
    return who is None or bool(who.role.covers(Role.OPERATOR))


def _filter(request: Request, *others: str) -> Filter:
    """Raises Refused (400)."""
    _only(request, *_FILTERS, *others)
    given = request.query_params
    try:
        kind = Kind.of(given["kind"]) if given.get("kind") else None
    except ValueError as error:
        raise Refused(400, f"kind: {error}") from None
    return Filter(
        kind=kind,
        since=_seconds(request, "since"),
        until=_seconds(request, "until"),
        parties=[given[name] for name in ("who", "ae_title") if given.get(name)],
        before=_whole(request, "before"),
    )


def _only(request: Request, *names: str) -> None:
    """Raises Refused (400) for a parameter that is none of these: it would be as if not given."""
    for name in request.query_params:
        if name not in names:
            raise Refused(400, f"{name[:32]}: is none of {', '.join(names)}")


def _seconds(request: Request, name: str) -> float | None:
    given = request.query_params.get(name)
    if not given:
        return None
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Refused(400, f"{name}: expected Unix seconds")
    return value


def _whole(request: Request, name: str) -> int | None:
    given = request.query_params.get(name)
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= _DIGITS):
        raise Refused(400, f"{name}: expected a number")
    return int(given)


def _limit(request: Request) -> int:
    limit = _whole(request, "limit")
    limit = DEFAULT_LIMIT if limit is None else limit
    if not 0 < limit <= MAXIMUM_LIMIT:
        raise Refused(400, f"limit: expected 1 to {MAXIMUM_LIMIT}")
    return limit


def _noted(given: str | None) -> tuple[int, bytes] | None:
    """Raises Refused (400)."""
    if not given:
        return None
    number, _, digest = given.partition(":")
    try:
        noted = int(number[: _DIGITS + 1]), bytes.fromhex(digest)
    except ValueError:
        noted = 0, b""
    if len(noted[1]) != 32 or not 0 < noted[0] < 10**_DIGITS:
        raise Refused(400, "noted: expected NUMBER:HASH, as `relay audit verify` has printed it")
    return noted
