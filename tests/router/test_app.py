"""Two Routers and a Bridge in one process, from the invitation to the released association."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from relay import association, listener, scu
from relay.association import TCPAssociation
from relay.bridge.app import run_bridge
from relay.dicom import uids
from relay.dicom.negotiation import accepted_contexts
from relay.dicom.pdu import AAbort, AAssociateAC, AAssociateRJ
from relay.errors import AssociationAborted, RelayError
from relay.invitation import Contact
from relay.router import app, device_tls, membership
from relay.router.app import CONTROL_SOCKET, DICOM_SOCKET, run_router
from relay.router.federation.federation import Federation
from relay.router.federation.opening import open_source
from relay.router.federation.settings import FederationSettings
from relay.router.federation.sources import Description
from relay.router.network import Outside
from relay.router.node import Node
from relay.router.peers import Trust
from relay.router.queue.settings import QueueSettings
from relay.scu import echo, negotiate, release, store
from relay.spool.spool import open_spool
from tests.certificates import Authority
from tests.interop.peers import free_port
from tests.router.fakes import CT, hospital, proposal, yes_to_all
from tests.router.federation.catalogues import Catalogue, study
from tests.router.federation.datasets import dataset, decoded, encoded


@attrs.define
class Site:
    """One Router, with its REST."""

    node: Node
    folder: Path
    stopping: trio.Event

    async def __call__(self, method: str, path: str, body: Any = None) -> Any:
        transport = httpx.AsyncHTTPTransport(uds=str(self.folder / CONTROL_SOCKET))
        async with httpx.AsyncClient(transport=transport, base_url="http://relay") as client:
            response = await client.request(method, f"/v1{path}", json=body, timeout=30)
        assert response.is_success, response.text
        return response.json()

    async def until(self, path: str, condition: Any) -> Any:
        while not condition(answer := await self("GET", path)):
            await trio.sleep(0.02)
        return answer


@asynccontextmanager
async def router(folder: Path, ae_title: str, **options: Any) -> AsyncIterator[Site]:
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        start = partial(
            run_router,
            data_dir=folder,
            ae_title=ae_title,
            listen=[("127.0.0.1", 0)],
            grace_period=1,
            stopping=stopping,
            **options,
        )
        node = await nursery.start(start)
        yield Site(node, folder, stopping)
        stopping.set()


@asynccontextmanager
async def network(tmp_path: Path) -> AsyncIterator[tuple[Site, Site]]:
    """A (with a workstation WS) may store and echo at PACS in B."""
    port = free_port()
    stopping = trio.Event()
    url = f"http://127.0.0.1:{port}"
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            bridge = await nursery.start(
                partial(
                    run_bridge,
                    data_dir=tmp_path / "bridge",
                    listen=[("127.0.0.1", port)],
                    url=url,
                    behind_proxy=True,
                    stopping=stopping,
                )
            )
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(listener.serve, listeners, yes_to_all)
            async with (
                router(tmp_path / "a", "RELAY_A") as a,
                router(tmp_path / "b", "RELAY_B") as b,
            ):
                transport = httpx.AsyncHTTPTransport(uds=str(bridge.control))
                async with httpx.AsyncClient(transport=transport, base_url="http://b") as people:
                    for name, site in (("North", a), ("South", b)):
                        made = await people.post("/v1/invitations", json={"name": name})
                        invitation = {"invitation": made.json()["invitation"]}
                        joined = await site("POST", "/enrolment", invitation)
                        assert joined["name"] == name
                        assert Contact.parse(joined["contact"]).name == name
                        await site("POST", "/enrolment", invitation)  # once more is no harm
                for site in (a, b):
                    await site.until("/status", lambda status: status["connected"])
                await a("POST", "/devices", {"ae_title": "WS", "host": "127.0.0.1"})
                pacs = {
                    "ae_title": "PACS",
                    "host": "127.0.0.1",
                    "port": listeners[0].socket.getsockname()[1],
                    "services": ["echo", "store"],
                }
                await b("POST", "/devices", pacs)
                (peer,) = await b.until("/peers", lambda peers: len(peers) == 1)
                await b(
                    "POST",
                    "/grants",
                    {
                        "peer": peer["fingerprint"],
                        "ae_title": "PACS",
                        "services": ["echo", "store"],
                    },
                )
                # It is listed before it is granted to A, whose own directory has it then.
                await a.until(
                    "/directory",
                    lambda rows: rows and rows[0]["connected"] and rows[0]["granted"],
                )
                yield a, b
            stopping.set()
            nursery.cancel_scope.cancel()


async def call(site: Site, calling: str = "WS") -> tuple[TCPAssociation, Any]:
    host, port = site.node.listening[0]
    device = await association.connect(host, port)
    rq = proposal(CT, uids.VERIFICATION, calling=calling)
    return device, accepted_contexts(rq, await negotiate(device, rq))


async def test_from_the_invitation_to_the_released_association(tmp_path: Path) -> None:
    async with network(tmp_path) as (a, b):
        device, contexts = await call(a)
        assert await echo(device, contexts[3]) == 0
        for number, size in enumerate((10, 100_000, 3_000_000), start=2):
            status = await store(
                device, contexts[1], CT, f"1.2.{number}", bytes(size), message_id=number
            )
            assert status == 0
        (entry,) = await b("GET", "/associations")
        assert (entry["side"], entry["calling"], entry["called"]) == ("callee", "WS", "PACS")
        await release(device)
        await device.aclose()
        await b.until("/associations", lambda rows: rows == [])


async def test_the_command_lines_socket(tmp_path: Path) -> None:
    async with network(tmp_path) as (a, _):
        device = await association.connect_unix(a.folder / DICOM_SOCKET)
        rq = proposal(uids.VERIFICATION, calling="RELAY_A")
        contexts = accepted_contexts(rq, await negotiate(device, rq))
        assert await echo(device, contexts[1]) == 0
        await release(device)
        await device.aclose()


async def test_a_grant_taken_back_ends_it_and_refuses_the_next(tmp_path: Path) -> None:
    async with network(tmp_path) as (a, b):
        device, _ = await call(a)
        (grant,) = await b("GET", "/grants")
        with trio.fail_after(5):
            await b("DELETE", f"/grants/{grant['id']}")
            assert isinstance(await device.receive(), AAbort)
        await device.aclose()
        host, port = a.node.listening[0]
        device = await association.connect(host, port)
        await device.send(proposal(CT))
        assert await device.receive() == AAssociateRJ(1, 1, 3)
        await device.aclose()


async def test_an_ask_arrives_and_becomes_a_grant(tmp_path: Path) -> None:
    async with network(tmp_path) as (a, b):
        await a("POST", "/asks", {"ae_title": "PACS", "services": ["store"], "note": "please"})
        (ask,) = await b.until("/asks", lambda rows: len(rows) == 1)
        assert (ask["note"], ask["services"]) == ("please", ["store"])
        # By the alias that it has at the asker's, too; there it is called as it is published.
        await a("POST", "/aliases", {"local": "NORTH_PACS", "published": "PACS"})
        await a("POST", "/asks", {"ae_title": "NORTH_PACS", "services": ["echo"]})
        both = await b.until("/asks", lambda rows: len(rows) == 2)
        assert [row["ae_title"] for row in both] == ["PACS", "PACS"]
        grant = await b("POST", f"/asks/{ask['id']}/accept")
        assert grant["ae_title"] == "PACS"


async def test_what_is_granted_is_shown_to_whom_it_is_granted(tmp_path: Path) -> None:
    async with network(tmp_path) as (a, b):
        await a.until("/directory", lambda rows: rows[0]["granted"] == ["echo", "store"])
        (grant,) = await b("GET", "/grants")
        await b("DELETE", f"/grants/{grant['id']}")
        await a.until("/directory", lambda rows: rows[0]["granted"] == [])


async def test_a_device_is_called_by_its_alias(tmp_path: Path) -> None:
    async with network(tmp_path) as (a, b):
        await a("POST", "/aliases", {"local": "FAR", "published": "PACS"})
        host, port = a.node.listening[0]
        device = await association.connect(host, port)
        rq = proposal(uids.VERIFICATION, called="FAR")
        contexts = accepted_contexts(rq, await negotiate(device, rq))
        (entry,) = await b("GET", "/associations")
        assert (entry["called"], entry["calling"]) == ("PACS", "WS")
        assert await echo(device, contexts[1]) == 0
        await release(device)
        await device.aclose()


async def nothing_is_taken(host: str, port: int) -> None:
    """Return once nobody listens there any more."""
    with trio.fail_after(10):
        while True:
            try:
                connection = await association.connect(host, port)
            except AssociationAborted:
                return
            await connection.aclose()


async def test_a_stopping_router_lets_an_association_end(tmp_path: Path) -> None:
    async with network(tmp_path) as (a, _):
        device, contexts = await call(a)
        a.stopping.set()
        await nothing_is_taken(*a.node.listening[0])
        assert await echo(device, contexts[3]) == 0
        await release(device)
        await device.aclose()


async def test_what_outlasts_the_grace_period_is_aborted(tmp_path: Path) -> None:
    async with network(tmp_path) as (a, b):
        device, _ = await call(a)
        with trio.fail_after(10):
            b.stopping.set()
            assert isinstance(await device.receive(), AAbort)
        await device.aclose()


async def test_unenrolled_it_serves_its_sockets_and_rejects_calls(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with router(tmp_path / "a", "RELAY_A") as a:
            status = await a("GET", "/status")
            assert status["enrolled"] is False
            assert not {"name", "contact"} & status.keys()  # they come with the enrolment
            await a("POST", "/devices", {"ae_title": "WS", "host": "127.0.0.1"})
            host, port = a.node.listening[0]
            for called, expected in (("PACS", AAssociateRJ), ("RELAY_A", AAssociateAC)):
                device = await association.connect(host, port)
                await device.send(proposal(uids.VERIFICATION, called=called))
                assert isinstance(await device.receive(), expected)
                await device.aclose()


async def test_a_second_router_on_the_same_folder_does_not_start(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with router(tmp_path / "a", "RELAY_A"):
            with pytest.raises(RelayError, match="running already"):
                await run_router(
                    data_dir=tmp_path / "a",
                    ae_title="SECOND",
                    listen=[("127.0.0.1", 0)],
                    stopping=trio.Event(),
                )


async def test_devices_over_tls_have_a_port_of_their_own(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    own = authority.issue()
    tls = device_tls.load(
        certificate=own.certificate, private_key=own.private_key, device_ca_file=authority.file
    )
    with trio.fail_after(30):
        async with router(
            tmp_path / "a", "RELAY_A", tls_listen=[("127.0.0.1", 0)], device_tls=tls
        ) as a:
            await a("POST", "/devices", {"ae_title": "WS", "host": "127.0.0.1"})
            for (host, port), context in zip(a.node.listening, (None, tls.calling), strict=True):
                device = await association.connect(host, port, ssl_context=context)
                await device.send(proposal(uids.VERIFICATION, called="RELAY_A"))
                assert isinstance(await device.receive(), AAssociateAC)
                await device.aclose()


async def test_a_tls_port_needs_a_certificate(tmp_path: Path) -> None:
    with pytest.raises(RelayError, match="tls_listen needs a certificate"):
        await run_router(
            data_dir=tmp_path / "a",
            ae_title="A",
            listen=[],
            tls_listen=[("127.0.0.1", 0)],
            stopping=trio.Event(),
        )


async def test_a_bad_ca_file_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "ca.pem"
    wrong.write_text("no certificate")
    with pytest.raises(RelayError, match=r"ca\.pem"):
        await run_router(
            data_dir=tmp_path / "a",
            ae_title="A",
            listen=[],
            ca_file=wrong,
            stopping=trio.Event(),
        )


async def test_warnings_have_the_hospitals_name_before_the_bridge_is_there(tmp_path: Path) -> None:
    posted: list[dict[str, Any]] = []
    async with hospital(tmp_path) as node, open_spool(tmp_path, space=1, reserve=0) as spool:
        joined = node.joined().membership
        node.network = None
        outside = Outside(
            ssl_context=ssl.create_default_context(),
            proxy=None,
            allowed_origins=(),
            trust=Trust.FIRST_USE,
        )
        settings = QueueSettings(webhook="https://alerts.example/")
        for saved, name in ((False, "RELAY"), (True, joined.name)):
            if saved:
                await membership.save(node.database, joined)
            queue = await app._queue(node, spool, settings, outside, await app._naming(node))
            queue.warnings._webhook.post = posted.append  # type: ignore[union-attr, method-assign]
            queue.warn_failed("PACS", 1)
            assert posted[-1]["router"] == name


async def grant_queries(a: Site, b: Site) -> None:
    """A may query PACS in B too, whose patients have an issuer."""
    [pacs] = await b("GET", "/devices")
    fields = {key: value for key, value in pacs.items() if key in ("ae_title", "host", "port")}
    services = ["echo", "store", "query"]
    described = {"issuer": "SOUTH", "character_set": "ISO_IR 100"}
    await b("POST", "/devices", fields | {"services": services} | described)
    [peer] = await b("GET", "/peers")
    granted = {"peer": peer["fingerprint"], "ae_title": "PACS", "services": services}
    await b("POST", "/grants", granted)
    await a.until("/directory", lambda rows: "query" in rows[0]["granted"])


async def test_the_federation_asks_what_other_hospitals_grant(tmp_path: Path) -> None:
    async with network(tmp_path) as (a, b):
        await grant_queries(a, b)
        [row] = await a("GET", "/directory")
        assert (row["federation"], row["state"]) == (True, "unknown")
        federation = Federation(a.node)
        caller = a.node.devices.get("WS")
        [source] = federation.sources.of(caller)
        assert (source.title, source.hospital, source.retrieves) == ("PACS", "South", False)
        assert await federation.sources.describe(source, caller) == Description(
            "SOUTH", "ISO_IR 100"
        )
        find = uids.STUDY_ROOT_FIND
        proposed = [(find, [uids.EXPLICIT_VR_LITTLE_ENDIAN])]
        async with open_source(federation, caller, source, proposed) as opened:
            [entry] = await b("GET", "/associations")
            assert (entry["side"], entry["calling"]) == ("callee", "WS")
            answers = [
                answer.status
                async for answer in scu.find(opened.association, opened.context(find), b"")
            ]
            assert answers == [0]
        assert federation.states.to_json("PACS")["last_seen"]
        await b.until("/associations", lambda rows: rows == [])
        await b("DELETE", "/devices/PACS")
        await a.until("/directory", lambda rows: rows == [])
        assert federation.sources.of(caller) == []


async def test_devices_call_it_by_its_title(tmp_path: Path) -> None:
    settings = FederationSettings(ae_title="ALL")
    async with router(tmp_path / "a", "RELAY_A", federation=settings) as a:
        await a("POST", "/devices", {"ae_title": "WS", "host": "127.0.0.1"})
        host, port = a.node.listening[0]
        device = await association.connect(host, port)
        rq = proposal(uids.VERIFICATION, called="ALL")
        contexts = accepted_contexts(rq, await negotiate(device, rq))
        assert await echo(device, contexts[1]) == 0
        await release(device)
        await device.aclose()
        with pytest.raises(AssertionError, match="federation is called by"):
            await a("POST", "/devices", {"ae_title": "ALL", "host": "127.0.0.1"})


@pytest.mark.parametrize("title", ["", "WS"])
async def test_without_a_title_of_its_own_there_is_none(tmp_path: Path, title: str) -> None:
    async with router(tmp_path / "a", "RELAY_A") as a:
        await a("POST", "/devices", {"ae_title": "WS", "host": "127.0.0.1"})
    settings = FederationSettings(ae_title=title)
    async with router(tmp_path / "a", "RELAY_A", federation=settings) as a:
        host, port = a.node.listening[0]
        device = await association.connect(host, port)
        await device.send(proposal(uids.VERIFICATION, called=title or "FEDERATION"))
        assert await device.receive() == AAssociateRJ(*((1, 1, 7) if title else (2, 3, 1)))
        await device.aclose()
        assert a.node.federation_title == ""


async def test_a_query_of_the_federation_is_answered_by_both_hospitals(tmp_path: Path) -> None:
    """Patient 7 of the same issuer, with a study in each and one in both; then B's PACS is off."""
    shared, of_a, of_b = (study(uid, PatientID="7") for uid in ("1.1", "1.2", "1.3"))
    ours, theirs = Catalogue([shared, of_a]), Catalogue([shared, of_b])
    async with network(tmp_path) as (a, b), trio.open_nursery() as nursery:
        await grant_queries(a, b)
        for site, title, catalogue, more in (
            (a, "VNA", ours, {"federation": True}),
            (b, "PACS", theirs, {"services": ["echo", "store", "query"], "issuer": "SOUTH"}),
        ):
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(listener.serve, listeners, catalogue.serve)
            port = listeners[0].socket.getsockname()[1]
            where = {"ae_title": title, "host": "127.0.0.1", "port": port}
            await site("POST", "/devices", where | more)
        assert await query(a) == (["1.1", "1.2", "1.3"], 0)
        assert ours.callings == theirs.callings == ["WS"]
        await b("POST", "/devices", where | more | {"port": free_port()})
        found, status = await query(a)
        assert (found, status >> 12) == (["1.1", "1.2"], 0xC)
        nursery.cancel_scope.cancel()


async def query(site: Site) -> tuple[list[str], int]:
    """The studies that WS finds at the federation, and the final status."""
    host, port = site.node.listening[0]
    device = await association.connect(host, port)
    rq = proposal(uids.STUDY_ROOT_FIND, called="FEDERATION")
    [context] = accepted_contexts(rq, await negotiate(device, rq)).values()
    keys = dataset(QueryRetrieveLevel="STUDY", StudyInstanceUID="", PatientID="7")
    found, status = [], -1
    async for answer in scu.find(device, context, encoded(keys, context.transfer_syntax)):
        if answer.identifier is not None:
            read = decoded(answer.identifier, context.transfer_syntax)
            found.append(str(read.StudyInstanceUID))
        status = answer.status
    await release(device)
    await device.aclose()
    return sorted(found), status
