"""The audit's REST: pages of entries, CSV, messages, and what is refused."""

import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import trio
from starlette.types import Receive, Scope, Send

from relay.audit import entries
from relay.audit.audit import Audit, open_audit
from relay.audit.operations import audit_operations
from relay.audit.sender import Collector, Sender
from relay.people.roles import Role
from relay.web.operations import rest_app
from relay.web.tls import client_tls
from tests.audit.rnc import faults
from tests.audit.samples import SOURCE, STUDY, kinds, recorded


@pytest.fixture
async def audit(tmp_path: Path) -> AsyncIterator[Audit]:
    async with open_audit(tmp_path, lambda: SOURCE) as audit:
        await recorded(audit, *kinds())
        yield audit


def client(audit: Audit, role: Role | None = None, sender: Sender | None = None):
    app = rest_app(audit_operations(audit, sender))

    async def as_who(scope: Scope, receive: Receive, send: Send) -> None:
        if role is not None:
            scope["relay.who"] = SimpleNamespace(name="anna", role=role)
        await app(scope, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(as_who), base_url="http://relay")


async def get(audit: Audit, path: str, role: Role | None = None) -> Any:
    async with client(audit, role) as asking:
        response = await asking.get(path)
        assert response.status_code == 200, response.text
        return response.json()


async def test_entries_come_page_by_page(audit: Audit) -> None:
    numbers: list[int] = []
    path = "/v1/audit?limit=4"
    while True:
        page = await get(audit, path)
        numbers += [entry["number"] for entry in page["entries"]]
        if page["before"] is None:
            break
        path = f"/v1/audit?limit=4&before={page['before']}"
    assert numbers == [*range(len(kinds()), 0, -1)]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("kind=transfer", [6, 5]),
        ("who=anna", [14, 13, 12, 11]),
        ("ae_title=PACS_NORD&kind=begin", [4, 3]),
        ("ae_title=NOBODY", []),
        ("since=20000000000", []),
        ("until=1", []),
        ("kind=&who=&before=2", [1]),
    ],
)
async def test_entries_are_filtered(audit: Audit, query: str, numbers: list[int]) -> None:
    page = await get(audit, f"/v1/audit?{query}")
    assert [entry["number"] for entry in page["entries"]] == numbers
    assert page["before"] is None


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/audit?kind=x", "kind: 'x' is none of application, begin"),
        ("/v1/audit?since=yesterday", "since: expected Unix seconds"),
        ("/v1/audit?until=nan", "until: expected Unix seconds"),
        ("/v1/audit?before=-1", "before: expected a number"),
        ("/v1/audit?before=99999999999999999999", "before: expected a number"),
        ("/v1/audit?before=" + 5000 * "9", "before: expected a number"),
        ("/v1/audit?limit=0", "limit: expected 1 to 500"),
        ("/v1/audit?limit=501", "limit: expected 1 to 500"),
        ("/v1/audit?patient=x", "patient: is none of kind, since"),
        ("/v1/audit.csv?kind=x", "kind: 'x' is none of"),
        ("/v1/audit.csv?limit=1", "limit: is none of"),
        ("/v1/audit/verify?noted=3", "noted: expected NUMBER:HASH"),
        ("/v1/audit/verify?noted=x:y", "noted: expected NUMBER:HASH"),
        ("/v1/audit/verify?noted=-1:" + "00" * 32, "noted: expected NUMBER:HASH"),
    ],
)
async def test_what_cannot_be_asked_is_refused(audit: Audit, path: str, words: str) -> None:
    async with client(audit) as asking:
        response = await asking.get(path)
    assert response.status_code == 400
    assert words in response.json()["error"]


async def test_studies_are_for_operators(audit: Audit) -> None:
    for role, shown in ((Role.VIEWER, False), (Role.OPERATOR, True), (None, True)):
        page = await get(audit, "/v1/audit", role)
        assert (STUDY in str(page)) is shown
    needed = {o.path: o.needs for o in audit_operations(audit)}
    assert needed["/v1/audit"] is Role.VIEWER
    assert needed["/v1/audit.csv"] is needed["/v1/audit/{number:whole}.xml"] is Role.OPERATOR


async def test_csv_is_all_of_it(audit: Audit) -> None:
    await recorded(audit, *(kinds()[4] for _ in range(1200)))
    async with client(audit) as asking:
        response = await asking.get("/v1/audit.csv")
    assert response.headers["content-type"].startswith("text/csv")
    lines = response.text.splitlines()
    assert len(lines) == 1 + len(kinds()) + 1200
    assert lines[1].startswith("1214,")


async def test_an_entry_is_a_message_of_the_standard(audit: Audit) -> None:
    async with client(audit) as asking:
        for number in range(1, len(kinds()) + 1):
            response = await asking.get(f"/v1/audit/{number}.xml")
            assert response.headers["content-type"] == "application/xml"
            assert faults(response.content) == []
        for number in (99, 10**30, 5000 * "9"):
            assert (await asking.get(f"/v1/audit/{number}.xml")).status_code == 404


async def test_the_state_is_told(audit: Audit, tmp_path: Path) -> None:
    state = await get(audit, "/v1/audit/state")
    assert state["last"] == len(kinds())
    assert state["collector"] is None
    sender = Sender(audit, Collector("collector.example", 6514, client_tls()))
    async with client(audit, sender=sender) as asking:
        state = (await asking.get("/v1/audit/state")).json()
    assert state["collector"]["address"] == "collector.example:6514"
    assert state["collector"]["behind"] == len(kinds())


async def test_the_chain_is_verified(audit: Audit) -> None:
    found = await get(audit, "/v1/audit/verify")
    assert (found["fault"], found["last"]) == ("", len(kinds()))
    noted = f"{found['last']}:{found['head']}"
    assert (await get(audit, f"/v1/audit/verify?noted={noted}"))["fault"] == ""
    wrong = await get(audit, f"/v1/audit/verify?noted=3:{'00' * 32}")
    assert wrong["fault"] == "entry 3 has another hash than was noted"


async def test_the_chain_is_gone_through_once_at_a_time(
    audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify, going, enough = entries.verify, threading.Event(), threading.Event()

    def slow(*given: Any) -> entries.Finding:
        going.set()
        assert enough.wait(10)
        return verify(*given)

    monkeypatch.setattr(entries, "verify", slow)
    statuses: list[int] = []
    async with client(audit) as asking, trio.open_nursery() as nursery:

        async def ask() -> None:
            statuses.append((await asking.get("/v1/audit/verify")).status_code)

        nursery.start_soon(ask)
        await trio.to_thread.run_sync(going.wait, 10)
        await ask()
        enough.set()
    assert statuses == [503, 200]
    assert (await get(audit, "/v1/audit/verify"))["fault"] == ""
