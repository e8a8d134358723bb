"""What people change is recorded, with who, what and how it ended; and no secret of it."""

import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from relay.audit.changes import audited
from relay.audit.codes import EventType, IDType, Kind, Outcome
from relay.audit.events import AuditEvent, Query
from relay.audit.telling import words
from relay.errors import Refused
from relay.web.answers import read_json
from relay.web.operations import Operation, rest_app
from tests.audit.samples import HOSTILE, RELAY


async def change(request: Request) -> Response:
    body = await read_json(request)
    if body.get("ae_title") == "TAKEN":
        raise Refused(409, "TAKEN is another's")
    return Response(json.dumps(body), body.get("status", 200))


async def look(request: Request) -> Response:
    return JSONResponse({})


PATHS = (
    "/v1/devices",
    "/v1/grants",
    "/v1/people/{name}/role",
    "/v1/queue/retry",
    "/v1/peers",
    "/v1/queue/patients",
    "/v1/devices/{ae_title:path}/test",
    "/v1/directory/{ae_title:path}/echo",
    "/v1/providers/try",
)


async def asked(
    method: str, path: str, body: Any = None, name: str | None = "anna"
) -> tuple[httpx.Response, list[AuditEvent]]:
    told: list[AuditEvent] = []
    rows = [Operation("POST", p, change, "Change it.") for p in PATHS]
    rows += [Operation("GET", p, look, "Look at it.") for p in PATHS]
    rows += [Operation("DELETE", "/v1/devices/{ae_title:path}", look, "Forget a device.")]
    app = rest_app(audited(rows, told.append, lambda: RELAY))

    async def as_who(scope: Scope, receive: Receive, send: Send) -> None:
        if name is not None:
            scope["relay.who"] = SimpleNamespace(name=name, is_program=False)
        await app(scope, receive, send)

    transport = httpx.ASGITransport(as_who, client=("10.0.0.7", 50_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://relay") as client:
        return await client.request(method, path, content=json.dumps(body)), told


async def test_a_change_tells_who_and_what() -> None:
    body = {"ae_title": "CT_1", "host": "10.0.0.5", "port": 104, "password": "s3cret"}
    response, (event,) = await asked("POST", "/v1/devices", body)
    assert response.json() == body
    assert (event.type, event.outcome) == (EventType.NETWORK_CONFIGURATION, Outcome.SUCCESS)
    reporter, person = event.participants
    assert reporter == RELAY
    assert (person.id, person.address, person.person) == ("anna", "10.0.0.7", True)
    assert (event.subjects[0].type, event.subjects[0].id) == (IDType.URI, "/v1/devices")
    assert words(event) == ("POST /v1/devices: Change it. ae_title=CT_1 host=10.0.0.5 port=104")


async def test_looking_is_no_change() -> None:
    _, told = await asked("GET", "/v1/devices")
    assert told == []


async def test_what_is_refused_says_why() -> None:
    response, (event,) = await asked("POST", "/v1/devices", {"ae_title": "TAKEN"})
    assert response.status_code == 409
    assert (event.outcome, event.why) == (Outcome.MINOR_FAILURE, "TAKEN is another's")
    _, (event,) = await asked("POST", "/v1/devices", {"status": 503})
    assert (event.outcome, event.why) == (Outcome.MINOR_FAILURE, "answered 503")


@pytest.mark.parametrize(
    ("path", "type_"),
    [
        ("/v1/grants", EventType.SECURITY_CONFIGURATION),
        ("/v1/people/bert/role", EventType.USER_SECURITY),
        ("/v1/queue/retry", EventType.RESTRICTED_FUNCTION),
        ("/v1/peers", EventType.SECURITY_CONFIGURATION),
    ],
)
async def test_the_type_is_that_of_the_area(path: str, type_: EventType) -> None:
    _, (event,) = await asked("POST", path, {})
    assert event.type is type_


async def test_the_console_is_told_as_such() -> None:
    _, (event,) = await asked("DELETE", "/v1/devices/CT/1", name=None)
    assert event.participants[1].id == "console"
    assert words(event) == "DELETE /v1/devices/CT/1: Forget a device."


async def test_of_the_queue_no_name_is_told() -> None:
    body = {"name": "DOE^JANE", "called": "PACS", "all": True, "reason": "DOE^JANE"}
    _, (event,) = await asked("POST", "/v1/queue/retry", body)
    assert "DOE" not in event.encode().decode()
    assert words(event).endswith("called=PACS all=True")


@pytest.mark.parametrize("body", [[1], "x", {"ae_title": HOSTILE, "services": ["a"] * 9999}])
async def test_whatever_is_said_makes_one_short_line(body: object) -> None:
    _, (event,) = await asked("POST", "/v1/devices", body)
    assert words(event).isprintable()
    assert len(event.encode()) < 4096


@pytest.mark.parametrize(
    "path", ["/v1/devices/CT_1/test", "/v1/directory/PACS/echo", "/v1/providers/try"]
)
async def test_what_only_tries_is_no_change(path: str) -> None:
    _, told = await asked("POST", path, {})
    assert told == []


async def test_a_search_by_patient_is_a_query_without_the_patient() -> None:
    _, (event,) = await asked("POST", "/v1/queue/patients", {"patient_id": "DOE-1", "studies": []})
    assert (event.kind, words(event)) == (Kind.QUERY, "anna asks RELAY_ST_ANNA")
    assert event.subjects[0].query == Query(b"patient_id=")
    assert "DOE-1" not in event.encode().decode()
    _, told = await asked("POST", "/v1/queue/patients", {"studies": ["1.2.3"], "patient_id": ""})
    assert told == []


def test_a_route_keeps_its_name() -> None:
    (row,) = audited([Operation("POST", "/v1/devices", change, "x")], print, lambda: RELAY)
    assert row.route.name == "change"
