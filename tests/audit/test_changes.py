"""What people change is recorded, with who, what and how it ended; and no secret of it."""

import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from relay.audit.changes import audited, tell
from relay.audit.codes import EventType, IDType, Kind, Outcome
from relay.audit.entries import Entry
from relay.audit.events import AuditEvent, Query
from relay.audit.happenings import REQUEST
from relay.audit.telling import detail, to_json, words
from relay.errors import Refused
from relay.people.roles import Role
from relay.people.who import Who
from relay.web.answers import read_json
from relay.web.operations import COUNT, TEXT, Operation, guarded_app, listed, options, rest_app
from tests.audit.samples import HOSTILE, RELAY


async def change(request: Request) -> Response:
    body = await read_json(request)
    tell(request, replaced=body.get("ae_title") == "KNOWN")
    if body.get("ae_title") == "TAKEN":
        raise Refused(409, "TAKEN is another's")
    if body.get("ae_title") == "BROKEN":
        raise RuntimeError("a mistake of ours")
    return Response(json.dumps(body), body.get("status", 200))


async def look(request: Request) -> Response:
    return JSONResponse({})


BODY = options(ae_title=TEXT, host=TEXT, port=COUNT, services=listed(TEXT), called=TEXT)
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
    method: str,
    path: str,
    body: Any = None,
    name: str | None = "anna",
    address: str | None = None,
) -> tuple[httpx.Response, list[AuditEvent]]:
    told: list[AuditEvent] = []
    rows = [Operation("POST", p, change, "Change it.", body=BODY) for p in PATHS]
    rows += [Operation("GET", p, look, "Look at it.") for p in PATHS]
    rows += [Operation("DELETE", "/v1/devices/{ae_title:path}", look, "Forget a device.")]
    app = rest_app(audited(rows, told.append, lambda: RELAY))

    async def as_who(scope: Scope, receive: Receive, send: Send) -> None:
        if name is not None:
            scope["relay.who"] = SimpleNamespace(name=name, is_program=name == "cron")
        if address is not None:
            scope["relay.address"] = address
        await app(scope, receive, send)

    transport = httpx.ASGITransport(as_who, raise_app_exceptions=False, client=("10.0.0.7", 50_000))
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
    assert words(event) == "Added the device CT_1 at 10.0.0.5 port 104"
    request = "POST /v1/devices ae_title=CT_1 host=10.0.0.5 port=104"
    assert detail(event, REQUEST) == request
    assert to_json(Entry(1, b"", b""), event, studies=False)["request"] == request


async def test_what_an_operation_tells_of_itself_is_in_its_words() -> None:
    _, (event,) = await asked("POST", "/v1/devices", {"ae_title": "KNOWN"})
    assert words(event) == "Changed the device KNOWN"


async def test_whose_a_grant_is_only_the_operation_says() -> None:
    body = {"ae_title": "PACS", "services": ["echo"], "hospital": "Another Hospital"}
    _, (event,) = await asked("POST", "/v1/grants", body)
    assert words(event) == "Granted echo of PACS"


async def test_what_has_no_words_is_told_by_its_summary() -> None:
    told: list[AuditEvent] = []
    (row,) = audited([Operation("POST", "/v1/new", look, "Do it.")], told.append, lambda: RELAY)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(rest_app([row])), base_url="http://relay"
    ) as client:
        await client.post("/v1/new")
    assert [words(event) for event in told] == ["Do it."]


async def test_what_has_no_words_and_fails_is_not_told_as_forbidden() -> None:
    told: list[AuditEvent] = []
    (row,) = audited([Operation("POST", "/v1/new", change, "Do it.")], told.append, lambda: RELAY)
    transport = httpx.ASGITransport(rest_app([row]), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://relay") as client:
        for title, status in (("TAKEN", 409), ("BROKEN", 500)):
            answer = await client.post("/v1/new", json={"ae_title": title})
            assert answer.status_code == status
    assert [words(event) for event in told] == ["Failed: Do it."] * 2


async def test_looking_is_no_change() -> None:
    _, told = await asked("GET", "/v1/devices")
    assert told == []


async def test_what_is_refused_says_why() -> None:
    response, (event,) = await asked("POST", "/v1/devices", {"ae_title": "TAKEN"})
    assert response.status_code == 409
    assert (event.outcome, event.why) == (Outcome.MINOR_FAILURE, "TAKEN is another's")
    assert words(event) == "Tried to add the device TAKEN"
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
    assert words(event) == "Removed the device CT/1"
    assert detail(event, REQUEST) == "DELETE /v1/devices/CT/1"


async def test_of_the_queue_no_name_is_told() -> None:
    body = {"name": "DOE^JANE", "called": "PACS", "all": True, "reason": "DOE^JANE"}
    _, (event,) = await asked("POST", "/v1/queue/retry", body)
    assert "DOE" not in event.encode().decode()
    assert words(event) == "Retried objects in the queue for PACS"
    assert detail(event, REQUEST).endswith("called=PACS all=True")


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


async def test_who_asks_by_a_page_is_told_with_their_own_address() -> None:
    _, (event,) = await asked("POST", "/v1/grants", {}, address="10.9.9.9")
    assert event.participants[1].address == "10.9.9.9"


async def test_a_program_is_told_from_a_person_of_its_name() -> None:
    assert [
        (await asked("POST", "/v1/grants", {}, name))[1][0].participants[1].name
        for name in ("cron", "anna")
    ] == ["API token", ""]


async def test_what_a_name_has_of_a_url_does_not_cut_it() -> None:
    _, (event,) = await asked("DELETE", "/v1/devices/CT%3F1%23")
    assert event.subjects[0].id == "/v1/devices/CT?1#"


async def test_what_fails_on_the_way_is_told() -> None:
    response, (event,) = await asked("POST", "/v1/devices", {"ae_title": "BROKEN"})
    assert response.status_code == 500
    assert (event.outcome, event.why[:9]) == (Outcome.MINOR_FAILURE, "it failed")


async def test_who_has_too_little_of_a_role_is_told() -> None:
    told: list[AuditEvent] = []
    rows = [
        Operation("POST", "/v1/devices", change, "Change it."),
        Operation("GET", "/v1/people", look, "Look.", role=Role.ADMINISTRATOR),
        Operation("GET", "/v1/devices", look, "Look."),
    ]
    app = guarded_app(audited(rows, told.append, lambda: RELAY))

    async def as_anna(scope: Scope, receive: Receive, send: Send) -> None:
        scope["relay.who"] = Who("anna", Role.VIEWER, "token")
        await app(scope, receive, send)

    transport = httpx.ASGITransport(as_anna)
    async with httpx.AsyncClient(transport=transport, base_url="http://relay") as client:
        assert (await client.post("/v1/devices")).status_code == 403
        assert (await client.get("/v1/people")).status_code == 403
        assert (await client.get("/v1/devices")).status_code == 200
    assert [(e.type, e.outcome, e.participants[1].id, e.subjects[0].id) for e in told] == [
        (EventType.RESTRICTED_FUNCTION, Outcome.MINOR_FAILURE, "anna", "/v1/devices"),
        (EventType.RESTRICTED_FUNCTION, Outcome.MINOR_FAILURE, "anna", "/v1/people"),
    ]
    assert list(map(words, told)) == ["Tried to add a device", "Not permitted: Look."]
