"""What failure looks like to a device, row by row of the design's table, with real processes.

What the rows about the spool say comes with it. Others have tests of their own: far devices that
refuse and abort (tests/interop/test_two_hospitals.py), move destinations (test_moves.py there), an
object store that is down (tests/providers/test_s3.py).
"""

import signal
from pathlib import Path

import pytest
import trio

from relay.association import connect
from relay.dicom.negotiation import propose, request
from relay.dicom.pdu import AAssociateAC, AAssociateRJ, AReleaseRQ, Atom
from relay.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tests import images
from tests.hospitals import make
from tests.interop import peers
from tests.network import LOOPBACK, Network, network
from tests.tap import messages, pdus, tap

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

CT = "1.2.840.10008.5.1.4.1.1.2"
CALLER = "WS"

NOT_PUBLISHED = AAssociateRJ(1, 1, 7)
NOT_GRANTED = AAssociateRJ(1, 1, 3)
AWAY = AAssociateRJ(2, 3, 1)
LIMIT_REACHED = AAssociateRJ(2, 3, 2)
A_ABORT = 7


async def answer(target: peers.Address, *sop_classes: str) -> Atom:
    """What a device hears that asks for an association, which it then releases."""
    association = await connect(target.host, target.port)
    try:
        contexts = propose([(uid, [IMPLICIT_VR_LITTLE_ENDIAN]) for uid in sop_classes])
        await association.send(request(target.ae_title, CALLER, contexts))
        with trio.fail_after(40):
            heard = await association.receive()
            if isinstance(heard, AAssociateAC):
                await association.send(AReleaseRQ())
                await association.receive()
        return heard
    finally:
        await association.aclose()


async def test_what_a_device_hears(tmp_path: Path) -> None:
    async with (
        peers.storescp(tmp_path / "good", ae_title="GOOD") as good,
        peers.storescp(tmp_path / "frozen", ae_title="FROZEN") as frozen,
        network(tmp_path / "net", "A", "B") as net,
    ):
        await net.device("A", CALLER)
        await net.publish("B", "GOOD", good.port, "echo,store")
        await net.publish("B", "FROZEN", frozen.port, "echo", "--answer-wait", "20")
        await net.publish("B", "OFF", peers.free_port(), "echo")
        await net.publish("B", "SECRET", good.port, "echo")
        for title in ("GOOD", "FROZEN", "OFF"):
            await net.grant(owner="B", grantee="A", ae_title=title, services="echo")
        await net.seen("A", "SECRET")

        async def call(title: str, *sop_classes: str) -> Atom:
            return await answer(net.address("A", title), *(sop_classes or (VERIFICATION,)))

        # The called AE title is not published; or nothing of it is granted.
        assert await call("NOWHERE") == NOT_PUBLISHED
        assert await call("SECRET") == NOT_GRANTED
        # A part of it is: what is not granted is a user rejection of that context.
        both = await call("GOOD", VERIFICATION, CT)
        assert isinstance(both, AAssociateAC)
        assert [int(result.result) for result in both.contexts] == [0, 1]
        assert await call("GOOD", CT) == NOT_GRANTED

        # One device is off, one does not answer: the others do not notice.
        assert await call("OFF") == AWAY
        frozen.process.send_signal(signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            waiting: list[Atom] = []

            async def wait_for_frozen() -> None:
                waiting.append(await call("FROZEN"))

            nursery.start_soon(wait_for_frozen)
            for _ in range(5):
                assert isinstance(await call("GOOD"), AAssociateAC)
            assert not waiting
            frozen.process.send_signal(signal.SIGCONT)
        assert isinstance(waiting[0], AAssociateAC)

        await _limits(net, good)
        await _wrong_bytes(net)

        # The far Router is away.
        await net.routers["B"].stop()
        assert await call("GOOD") == AWAY
        # ... and the Bridge.
        await net.bridge.stop(signal.SIGKILL)
        await net.routers["B"].relay("status", check=False)
        assert await call("GOOD") == AWAY


async def _limits(net: Network, good: peers.Peer) -> None:
    """The device has its maximum of associations, and nobody waits for a place."""
    options = ("--maximum-associations", "1", "--place-wait", "0")
    await net.publish("B", "GOOD", good.port, "echo,store", *options)
    target = net.address("A", "GOOD")
    association = await connect(target.host, target.port)
    contexts = propose([(VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN])])
    await association.send(request(target.ae_title, CALLER, contexts))
    assert isinstance(await association.receive(), AAssociateAC)
    assert await answer(target, VERIFICATION) == LIMIT_REACHED
    await association.abort()
    await association.aclose()
    with trio.fail_after(10):
        while not isinstance(await answer(target, VERIFICATION), AAssociateAC):
            await trio.sleep(0.05)


WRONG = {
    "HTTP on the DICOM port": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS on a plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(507),
    "PDU type": b"\x2a\x00\x00\x00\x00\x04abcd",
    "length": b"\x01\x00\xff\xff\xff\xff" + bytes(64),
}


async def _wrong_bytes(net: Network) -> None:
    """What is no DICOM gets an A-ABORT or is closed, with one line that names the cause."""
    router = net.routers["A"]
    for cause, sent in WRONG.items():
        seen = len(router.output())
        stream = await trio.open_tcp_stream(LOOPBACK, router.port)
        async with stream:
            await stream.send_all(sent)
            with trio.fail_after(40):
                heard = b""
                while len(heard) < 10 and (data := await stream.receive_some(1000)):
                    heard += data
        assert [kind for kind, _ in pdus(heard)] in ([], [A_ABORT]), cause
        with trio.fail_after(5):
            while cause not in router.output()[seen:]:
                await trio.sleep(0.05)


async def test_a_tunnel_that_stays_lost_aborts_both_ends(tmp_path: Path) -> None:
    """Longer than the resume window; nothing that was half-delivered is reported stored."""
    images.make_series(make(tmp_path / "ct"), 40)
    async with (
        peers.storescp(tmp_path / "scp") as scp,
        tap(peers.Address(scp.port, scp.ae_title)) as far,
        network(tmp_path / "net", "A", "B") as net,
    ):
        window = ("--resume-window", "3")
        await net.device("A", "STORESCU", *window)
        await net.publish("B", "STORESCP", far.address.port, "store", *window)
        await net.grant(owner="B", grantee="A", ae_title="STORESCP", services="store")
        async with tap(net.address("A", "STORESCP")) as near, trio.open_nursery() as nursery:
            results = []

            async def send() -> None:
                results.append(await peers.storescu(near.address, tmp_path / "ct"))

            nursery.start_soon(send)
            with trio.fail_after(60):
                while len(scp.stored()) < 3:
                    await trio.sleep(0.01)
            await net.bridge.stop(signal.SIGKILL)
        assert results[0].status != 0
        for heard in (near.associations[0].answered, far.associations[0].requested):
            with trio.fail_after(10):
                while list(pdus(bytes(heard)))[-1] != (A_ABORT, bytes((0, 0, 2, 0))):
                    await trio.sleep(0.05)
        answers = list(messages(bytes(near.associations[0].answered)))
        confirmed = [message.text(0x1000) for message in answers if message.status == 0]
        there = {path.name.split(".", 1)[1] for path in scp.stored()}
        assert len(confirmed) == len(answers)
        assert all(uid in there for uid in confirmed)
