"""What is done about other hospitals, and what the audit is told of it: by names, not numbers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import httpx

from relay.audit.events import AuditEvent
from relay.audit.telling import words
from relay.invitation import Contact, Invitation
from relay.router.api import make_app
from relay.router.asks import Ask
from relay.router.auditing import Auditing
from relay.router.devices import Device
from relay.router.node import Node
from relay.tunnel.ask import GrantRequest
from tests.router.fakes import hospital, listing, publication
from tests.router.queue.queues import still_queue

PACS = Device("PACS", "192.0.2.1", services=frozenset({"echo", "query"}))


async def enrol(invitation: Invitation) -> bool:
    raise AssertionError("nobody enrols here")


@attrs.frozen
class Place:
    """A Router, its REST, the other hospital, and what the audit was told."""

    node: Node
    south: Node
    http: httpx.AsyncClient
    told: list[AuditEvent]


@asynccontextmanager
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    told: list[AuditEvent] = []
    async with (
        hospital(tmp_path / "me") as node,
        hospital(tmp_path / "south", "SOUTH") as south,
        still_queue(node, tmp_path / "me") as queue,
    ):
        node.auditing = Auditing(ae_title="RELAY", record=told.append)
        await node.joined().directory.take(
            listing(south, publications=[publication(south, "PACS_S", "echo")])
        )
        transport = httpx.ASGITransport(make_app(node, enrol, queue))
        async with httpx.AsyncClient(transport=transport, base_url="http://relay") as client:
            yield Place(node, south, client, told)


async def test_the_audit_names_the_hospital_of_each_change(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        peer = here.south.identity.fingerprint
        contact = Contact(here.south.identity.public, "Hospital SOUTH").to_string()
        await here.node.put_device(PACS)
        request = GrantRequest("PACS", ("echo",), (), "")
        ask = Ask.from_request(here.south.identity.public, request)
        for number in (1, 2):
            await here.node.asks.keep(ask, bytes([number]), number)
        grant = {"peer": peer, "ae_title": "PACS", "services": ["query"], "calling": ["WS"]}
        asked = {"ae_title": "PACS_S", "services": ["echo"]}
        for method, path, body in (
            ("POST", f"/v1/peers/{peer}/verify", None),
            ("POST", "/v1/peers", {"contact": contact}),
            ("POST", "/v1/grants", grant),
            ("DELETE", "/v1/grants/1", None),
            ("POST", "/v1/asks/1/accept", None),
            ("DELETE", "/v1/asks/2", None),
            ("POST", "/v1/asks", asked),
            ("DELETE", "/v1/asked/PACS_S", None),
        ):
            answer = await here.http.request(method, path, json=body)
            assert answer.is_success, answer.text
        south = f"Hospital SOUTH ({peer})"
        assert list(map(words, here.told)) == [
            f"Verified Hospital SOUTH by the fingerprint {peer}",
            f"Verified {south} by its contact string",
            f"Granted query of PACS to {south}, for WS alone",
            f"Took back grant 1: query of PACS to {south}",
            f"Granted request 1: {south} may use echo of PACS",
            f"Declined request 2: {south} for echo of PACS",
            "Asked for echo of PACS_S",
            "Forgot what was asked of PACS_S",
        ]


async def test_what_is_not_there_is_refused_and_told(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for method, path, status in (
            ("DELETE", "/v1/asks/7", 404),
            ("POST", "/v1/asks/7/accept", 404),
            ("DELETE", "/v1/grants/7", 404),
            ("DELETE", "/v1/asked/PACS_S", 404),
            ("POST", f"/v1/peers/{here.south.identity.fingerprint[:19]}/verify", 400),
            ("POST", f"/v1/peers/{'a' * 31}1/verify", 400),
            ("POST", f"/v1/peers/{'a' * 32}/verify", 404),
        ):
            assert (await here.http.request(method, path)).status_code == status, path
        assert [words(event) for event in here.told][:3] == [
            "Tried to decline request 7",
            "Tried to grant request 7",
            "Tried to take back grant 7",
        ]
        assert "do not go on" in here.told[-1].why
        assert not any(peer.verified for peer in here.node.joined().peers)


async def test_the_audit_has_the_whole_fingerprint_where_its_beginning_was_said(
    tmp_path: Path,
) -> None:
    async with place(tmp_path) as here, hospital(tmp_path / "north", "NORTH") as north:
        taken = publication(north, "PACS_S", "echo", serial=9)
        await here.node.joined().directory.take(listing(here.south, north, publications=[taken]))
        await here.node.put_device(PACS)
        whole = north.identity.fingerprint
        grant = {"peer": whole[:19], "ae_title": "PACS", "services": ["echo"], "calling": []}
        for path, body in (
            (f"/v1/peers/{whole[:19]}/accept", None),
            ("/v1/grants", grant),
            (f"/v1/peers/{whole.upper().replace('-', '')}/verify", None),
        ):
            answer = await here.http.post(path, json=body)
            assert answer.is_success, answer.text
        assert list(map(words, here.told)) == [
            f"Accepted AE titles PACS_S as those of {whole}, Hospital NORTH",
            f"Granted echo of PACS to Hospital NORTH ({whole})",
            f"Verified Hospital NORTH by the fingerprint {whole}",
        ]
