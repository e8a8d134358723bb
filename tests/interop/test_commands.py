"""What people do by commands, on processes that run: what they see, and what it leaves behind."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from relay.association import TCPAssociation, connect
from relay.dicom import negotiation
from relay.dicom.pdu import AAssociateAC
from relay.dicom.rejection import LOCAL_LIMIT_EXCEEDED
from relay.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN as IMPLICIT
from relay.dicom.uids import VERIFICATION
from relay.signalling.dial import websocket_dial
from relay.signalling.messages import Ping, encode
from relay.web.tls import client_tls
from tests.hospitals import ct_image, make
from tests.interop import peers
from tests.interop.peers import free_port
from tests.network import POLL, START_DEADLINE, Network, Site, network, write_configuration


async def refused_connections(bridge: Site) -> list[dict[str, Any]]:
    """The Security Alerts of connections for signalling in the Bridge's audit."""
    entries = await bridge.ask("audit", "list", "--kind", "alert")
    return [entry for entry in entries if entry["words"] == "a connection of a Router is refused"]


async def say_something_wrong(net: Network) -> None:
    """Connect as a Router does, and say what none says there."""
    url = f"https://127.0.0.1:{net.bridge.port}"
    dial = websocket_dial(url, ssl_context=client_tls(net.ca_file))
    async with trio.open_nursery() as nursery:
        socket = await dial(nursery)
        assert await socket.receive()
        await socket.send(encode(Ping(1)))
        assert await socket.receive() == b""
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def new_router(net: Network, folder: Path) -> AsyncIterator[Site]:
    """A Router that runs, and is not enrolled."""
    site = Site("Router", "router", folder, free_port())
    keys = {"ae_title": "RELAY_N", "listen": f"127.0.0.1:{site.port}", "data_dir": "data"}
    write_configuration(site, "router", keys | {"ca_file": str(net.ca_file)})
    await site.start()
    try:
        yield site
    finally:
        await site.stop()


async def test_a_doctor_is_no_intruder(tmp_path: Path) -> None:
    async with network(tmp_path, "A", tls=True) as net:
        for site in (net.routers["A"], net.bridge):
            assert "its WebSocket opens" in await site.relay("doctor", check=False)
        # Who says something wrong is one, and was the last to come.
        await say_something_wrong(net)
        with trio.fail_after(START_DEADLINE):
            while not (alerts := await refused_connections(net.bridge)):
                await trio.sleep(POLL)
        assert [alert["why"] for alert in alerts] == ["Ping came where Authenticate is due"]


async def test_an_invitation_that_is_taken_back_lets_nobody_in(tmp_path: Path) -> None:
    async with network(tmp_path, tls=True) as net:
        invitation = (await net.bridge.relay("invite", "North Hospital")).strip()
        await net.bridge.relay("invite", "South Hospital")
        said = await net.bridge.relay("invite", "north hospital", check=False)
        assert "`relay invitation revoke 'North Hospital'`" in said
        assert "taken back" in await net.bridge.relay("invitation", "revoke", "North Hospital")
        listed = await net.bridge.relay("invitation", "list")
        assert "South Hospital" in listed
        assert "North Hospital" not in listed
        async with new_router(net, tmp_path / "north") as site:
            said = await site.relay("enroll", invitation, check=False)
            assert "the invitation is unknown, expired or used: ask for a new one" in said
            again = (await net.bridge.relay("invite", "North Hospital")).strip()
            assert "as North Hospital" in await site.relay("enroll", again)


async def test_a_restored_bridge_says_so_until_somebody_confirms(tmp_path: Path) -> None:
    async with network(tmp_path, "A", tls=True) as net:
        bridge, folder = net.bridge, tmp_path / "backup"
        (tmp_path / "key.pem").chmod(0o600)
        assert "nothing to confirm" in await bridge.relay("restore", "--confirm")
        await bridge.relay("backup", str(folder))
        await bridge.stop()
        shutil.rmtree(bridge.directory / "data")
        assert "relay restore --confirm" in await bridge.relay("restore", str(folder))
        await bridge.start()
        words = "Then say that it is set right, on the page or by `relay restore --confirm`."
        assert words in await bridge.relay("status")
        said = await bridge.relay("doctor", check=False)
        assert "FAIL warning: restored" in said
        assert words in said
        assert "confirmed" in await bridge.relay("restore", "--confirm")
        assert "warning" not in await bridge.relay("status")
        assert (await bridge.relay("doctor")).endswith("all is well\n")


async def test_a_call_that_was_refused_a_moment_ago_stands_in_the_status(tmp_path: Path) -> None:
    async with network(tmp_path, "A", "B") as net:
        here = net.routers["A"]
        assert "none that stands" in await here.relay("status")
        await net.publish("B", "PACS", 104, "echo")
        await net.seen("A", "PACS")
        await here.relay("echo", "PACS", check=False)
        (line,) = [
            line
            for line in (await here.relay("status")).splitlines()
            if line.startswith("refused call ")
        ]
        assert "RELAY_A called PACS: Hospital B has granted this Router nothing of PACS" in line


async def test_a_doctor_says_what_has_become_of_an_invitation(tmp_path: Path) -> None:
    async with network(tmp_path, "A", tls=True) as net:
        invitation = (await net.bridge.relay("invite", "North Hospital")).strip()
        async with new_router(net, tmp_path / "north") as site:
            for _ in range(2):
                said = await site.relay("doctor", invitation)
                assert "the invitation is open, for North Hospital, until " in said
                assert said.endswith("all is well\n")
            await net.bridge.relay("invitation", "revoke", "North Hospital")
            said = await site.relay("doctor", invitation, check=False)
            assert "FAIL the invitation\n" in said
            assert "unknown, expired or used: ask for a new one" in said
            assert "all is well" not in said


async def test_a_call_over_the_limit_is_counted(tmp_path: Path) -> None:
    async with network(tmp_path, "A", router={"maximum_associations": 1}) as net:
        site = net.routers["A"]
        await net.device("A", "MODALITY")
        request = negotiation.request(
            "RELAY_A", "MODALITY", negotiation.propose([(VERIFICATION, [IMPLICIT])])
        )
        async with call(site) as first, call(site) as second:
            await first.send(request)
            assert isinstance(await first.receive(), AAssociateAC)
            await second.send(request)
            assert await second.receive() == LOCAL_LIMIT_EXCEEDED
            async with site.rest() as asking:
                scrape = (await asking.get("/metrics")).text
        (line,) = [row for row in scrape.splitlines() if 'reason="local limit exceeded"' in row]
        assert line.startswith("relay_associations_total{")
        assert line.endswith(" 1.0")


@asynccontextmanager
async def call(site: Site) -> AsyncIterator[TCPAssociation]:
    """A connection to the Router's DICOM port."""
    association = await connect("127.0.0.1", site.port)
    try:
        yield association
    finally:
        await association.aclose()


async def test_a_device_that_was_just_stored_to_is_reachable(tmp_path: Path) -> None:
    image = ct_image()
    async with (
        network(tmp_path, "A", "B") as net,
        peers.storescp(make(tmp_path / "stored"), ae_title="PACS") as pacs,
    ):
        await net.publish("B", "PACS", pacs.port, "echo,store,query")
        await net.grant(owner="B", grantee="A", ae_title="PACS", services="echo,store,query")
        here, there = net.routers["A"], net.routers["B"]
        states = [(await site.ask("directory", "PACS"))["state"] for site in (here, there)]
        assert states == ["unknown", "unknown"]
        await here.relay("send", "PACS", str(image.path))
        states = [(await site.ask("directory", "PACS"))["state"] for site in (here, there)]
        assert states == ["reachable", "reachable"]
