"""`relay.listener`: what is thrown at a DICOM port, and limits.

Every hostile input of the field's record that concerns the DICOM port stands here
once: the server lives, the log names the cause, and the next good association works.
"""

import errno
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from structlog.testing import capture_logs

from relay import listener
from relay.association import TCPAssociation, connect
from relay.dicom import negotiation
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    UserItem,
    decode,
    encode,
)
from relay.listener import ServerLimits, serve
from relay.patience import Timeouts
from tests.association_pairs import REQUEST, accept_all, echo_back, pdv, serving

# Real time, but nothing sleeps through it: the server ends each silent connection after this.
HASTY = Timeouts(association_request=0.2, tls_handshake=0.2, artim=0.05)

Logs = list[MutableMapping[str, Any]]


async def good_association(port: int, context: ssl.SSLContext | None = None) -> None:
    """Request, one fragment there and back, release."""
    with trio.fail_after(10):
        association = await connect("127.0.0.1", port, ssl_context=context)
        await association.send(REQUEST)
        assert isinstance(await association.receive(), AAssociateAC)
        await association.send(pdv(b"ping"))
        received = await association.receive()
        assert isinstance(received, PDV)
        assert bytes(received.fragment) == b"ping"
        await association.send(AReleaseRQ())
        assert await association.receive() == AReleaseRP()
        await association.aclose()


async def throw(port: int, *pieces: bytes) -> bytes:
    """Send this, and read until the server closes."""
    received = bytearray()
    with trio.fail_after(10):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            try:
                for piece in pieces:
                    await stream.send_all(piece)
                async for data in stream:
                    received += data
            except trio.BrokenResourceError:
                pass  # closed with bytes of ours unread: a reset
    return bytes(received)


def causes(logs: Logs) -> str:
    return "\n".join(str(entry.get("why", "")) for entry in logs)


@asynccontextmanager
async def logged(**options: object) -> AsyncIterator[tuple[int, Logs]]:
    """A server on loopback, and what it logs."""
    with capture_logs() as logs:
        async with serving(timeouts=HASTY, **options) as port:  # type: ignore[arg-type]
            yield port, logs


# --- hostile input, before there is an association ----------------------------------------------


def header(pdu_type: int, length: int) -> bytes:
    return struct.pack(">BxI", pdu_type, length)


def item(item_type: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BxH", item_type, len(value) if length is None else length) + value


CONTEXT_NAME = item(0x10, b"1.2.840.10008.3.1.1.1")
ABSTRACT = item(0x30, b"1.2.840.10008.1.1")
TRANSFER = item(0x40, b"1.2.840.10008.1.2")
CONTEXT = item(0x20, b"\x01\0\0\0" + ABSTRACT + TRANSFER)
USER = item(0x50, item(0x51, b"\0\0\x40\0"))


def request(
    *items: bytes, called: bytes = b"PACS", calling: bytes = b"MODALITY", length: int | None = None
) -> bytes:
    """An A-ASSOCIATE-RQ put together by hand, so that it can be wrong."""
    body = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16), calling.ljust(16)) + b"".join(items)
    return header(1, len(body) if length is None else length) + body


def client_hello() -> bytes:
    """What a TLS client begins with."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="pacs")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


HOSTILE: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "length 0": (header(1, 0), "A-ASSOCIATE-RQ length 0"),
    "length 1": (header(1, 1) + b"\0", "A-ASSOCIATE-RQ length 1"),
    "length 80000000H": (header(1, 0x80000000), "A-ASSOCIATE-RQ length 2147483648"),
    "length FFFFFFFFH": (header(1, 0xFFFFFFFF), "A-ASSOCIATE-RQ length 4294967295"),
    "a request of 1 MiB": (header(1, 1 << 20) + bytes(1000), "A-ASSOCIATE-RQ length 1048576"),
    "one byte, then silence": (b"\x01", "silence: no A-ASSOCIATE-RQ within 0.2 s"),
    "half a request, then silence": (request(CONTEXT_NAME, CONTEXT)[:60], "silence"),
    "nothing at all": (b"", "silence: no A-ASSOCIATE-RQ within 0.2 s"),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", "HTTP on the DICOM port"),
    "TLS on the plain port": (client_hello, "TLS on a plain port"),
    "unknown PDU type": (header(0x42, 4) + bytes(4), "PDU type 42H is not known"),
    "noise": (bytes(range(200, 256)) * 100, "PDU type C8H is not known"),
    "P-DATA before the request": (encode(pdv(b"xx")), "unexpected P-DATA-TF in Sta2"),
    "P-DATA of 4 GiB before the request": (header(4, 0xFFFFFFFF), "P-DATA-TF length 4294967295"),
    "A-ABORT before the request": (encode(AAbort(0, 0)), "aborted by the peer"),
    "A-ASSOCIATE-AC from a requestor": (
        encode(accept_all(REQUEST)),
        "unexpected A-ASSOCIATE-AC in Sta2",
    ),
    "item longer than its parent": (
        request(CONTEXT_NAME, item(0x20, b"\x01\0\0\0", length=500)),
        "item 20H length 500",
    ),
    "sub-item longer than its parent": (
        request(CONTEXT_NAME, item(0x20, b"\x01\0\0\0" + item(0x30, b"1.2", length=400))),
        "item 30H length 400",
    ),
    "user information shorter than its sub-items": (
        request(CONTEXT_NAME, CONTEXT, item(0x50, item(0x52, b"1.2.3", length=60))),
        "item 52H length 60",
    ),
    "sub-item cut within its header": (
        request(CONTEXT_NAME, CONTEXT, item(0x50, b"\x51\0\0")),
        "3 bytes after its last item",
    ),
    "Maximum Length item of 2 bytes": (
        request(CONTEXT_NAME, CONTEXT, item(0x50, item(0x51, b"\0\0"))),
        "Maximum Length",
    ),
    "context ID 0": (
        request(CONTEXT_NAME, item(0x20, b"\0\0\0\0" + ABSTRACT + TRANSFER)),
        "presentation context ID 0: not odd",
    ),
    "even context ID": (
        request(CONTEXT_NAME, item(0x20, b"\x02\0\0\0" + ABSTRACT + TRANSFER)),
        "presentation context ID 2: not odd",
    ),
    "context ID twice": (
        request(CONTEXT_NAME, CONTEXT, CONTEXT, USER),
        "presentation context ID 1: twice",
    ),
    "no transfer syntax": (
        request(CONTEXT_NAME, item(0x20, b"\x01\0\0\0" + ABSTRACT)),
        "no transfer syntax",
    ),
    "empty transfer syntax": (
        request(CONTEXT_NAME, item(0x20, b"\x01\0\0\0" + ABSTRACT + item(0x40, b""))),
        "transfer syntax: empty UID",
    ),
    "UID with a path": (
        request(CONTEXT_NAME, item(0x20, b"\x01\0\0\0" + item(0x30, b"../../x") + TRANSFER)),
        "UID with other characters",
    ),
    "UID of 65 characters": (
        request(CONTEXT_NAME, item(0x20, b"\x01\0\0\0" + item(0x30, b"1" * 65) + TRANSFER)),
        "UID of 65 characters",
    ),
    "AE title with NUL": (
        request(CONTEXT_NAME, CONTEXT, USER, called=b"PA\0CS"),
        "called AE title: control",
    ),
    "AE title with a line feed": (
        request(CONTEXT_NAME, CONTEXT, USER, calling=b"A\\nroot: yes"),
        "calling AE title: control",
    ),
    "AE title with a backslash": (
        request(CONTEXT_NAME, CONTEXT, USER, called=b"..\\..\\x"),
        "called AE title: control, non-ASCII or backslash",
    ),
    "application context twice": (
        request(CONTEXT_NAME, CONTEXT_NAME, CONTEXT, USER),
        "application context item: twice",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_input_before_the_association(name: str) -> None:
    given, cause = HOSTILE[name]
    data = given if isinstance(given, bytes) else given()
    async with logged() as (port, logs):
        await throw(port, data)
        await good_association(port)
    refused = [entry for entry in logs if entry["event"] == "connection without association"]
    assert len(refused) == 1
    assert cause in refused[0]["why"]


async def test_hostile_input_byte_by_byte() -> None:
    """The same causes, however the network cuts what comes."""
    async with logged() as (port, logs):
        for name in ("length 80000000H", "HTTP", "context ID twice", "AE title with NUL"):
            given, cause = HOSTILE[name]
            assert isinstance(given, bytes)
            await throw(port, *(bytes((byte,)) for byte in given))
            assert cause in causes(logs)
        await good_association(port)


@pytest.mark.parametrize("title", ["%s%n", "';DROP TABLE x--", "../../etc/x", "$(reboot); cmd"])
async def test_ae_titles_are_data(title: str) -> None:
    received = []

    async def handler(association: TCPAssociation) -> None:
        received.append(await association.wait_indication())
        await echo_back(association)

    async with logged(handler=handler) as (port, _):
        association = await connect("127.0.0.1", port)
        await association.send(negotiation.request(title, title, REQUEST.contexts))
        assert isinstance(await association.receive(), AAssociateAC)
        await association.aclose()
    [rq] = received
    assert isinstance(rq, AAssociateRQ)
    assert (rq.called, rq.calling) == (title, title)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x01\x00\xff\xffx",  # longer than the item
        b"\x63\x00\x00\x01x\x00\x00",  # a type that is reserved
        b"\x01\x00\x00\x01x\x00\x00trailing",
    ],
)
async def test_user_identity_that_cannot_be_read(value: bytes) -> None:
    """It is carried verbatim; who reads it fails, and the listener survives that."""

    async def handler(association: TCPAssociation) -> None:
        rq = await association.receive()
        assert isinstance(rq, AAssociateRQ)
        negotiation.find(rq.user_items, negotiation.UserIdentityRQ)
        await association.send(accept_all(rq))

    async with logged(handler=handler) as (port, logs):
        association = await connect("127.0.0.1", port)
        await association.send(
            AAssociateRQ("PACS", "MODALITY", REQUEST.contexts, (UserItem(0x58, value),))
        )
        assert isinstance(await association.receive(), AAbort)
        await association.aclose()
    assert "User Identity" in causes(logs)


# --- hostile input, within an association -------------------------------------------------------

WITHIN: dict[str, tuple[bytes, str]] = {
    "PDV of 4 GiB": (header(4, 8) + struct.pack(">IBB2x", 0xFFFFFFFE, 1, 3), "PDV item length"),
    "PDV of 1 byte": (header(4, 5) + struct.pack(">IB", 1, 1), "PDV item"),
    "P-DATA-TF without a PDV": (header(4, 0), "without a PDV"),
    "P-DATA-TF longer than we take": (header(4, 1 << 30), "our maximum length"),
    "second A-ASSOCIATE in place of the data set": (encode(REQUEST), "unexpected A-ASSOCIATE-RQ"),
    "A-RELEASE-RP that nobody asked for": (encode(AReleaseRP()), "unexpected A-RELEASE-RP"),
    "A-ABORT of 1 GiB": (header(7, 1 << 30), "A-ABORT length"),
    "unknown PDU type": (header(0x99, 0), "PDU type 99H"),
    "half a PDU, then the end": (header(4, 100) + bytes(10), "closed by the peer"),
}


@pytest.mark.parametrize("name", WITHIN)
async def test_hostile_input_within_the_association(name: str) -> None:
    data, cause = WITHIN[name]
    async with logged() as (port, logs):
        with trio.fail_after(10):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                await stream.send_all(encode(REQUEST))
                answer = await stream.receive_some(100_000)
                assert isinstance(decode(answer), AAssociateAC)
                await stream.send_all(data)
                if name != "half a PDU, then the end":
                    reply = decode(await stream.receive_some(100_000))
                    assert isinstance(reply, AAbort)
                    assert reply.source == 2
        await good_association(port)
    ended = [entry for entry in logs if entry["event"] == "association ended"]
    assert cause in ended[0]["why"]
    assert ended[1]["why"] == "released"


# --- TLS port ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Server's and client's."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (encode(REQUEST), "plain DICOM on the TLS port"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no TLS on a TLS port"),
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP on the TLS port"),
        (b"", "silence: no TLS handshake within 0.2 s"),
        (b"\x16\x03\x01", "silence: no TLS handshake within 0.2 s"),
    ],
    ids=["plain DICOM", "something else", "HTTP", "silence", "half a record"],
)
async def test_other_things_than_tls_on_the_tls_port(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], data: bytes, cause: str
) -> None:
    server, client = contexts
    async with logged(ssl_context=server) as (port, logs):
        await throw(port, data)
        await good_association(port, client)
    assert cause in causes(logs)


async def test_frozen_handshake_does_not_hold_up_the_listener(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, client = contexts
    async with serving(ssl_context=server) as port:
        frozen = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(10)]
        await good_association(port, client)
        for stream in frozen:
            await stream.aclose()


# --- limits -----------------------------------------------------------------------------------


async def test_association_limit_is_answered_and_recovers() -> None:
    told: list[AAssociateRJ] = []
    limits = ServerLimits(associations=1)
    async with logged(limits=limits, on_rejected=told.append) as (port, logs):
        first = await connect("127.0.0.1", port)
        await first.send(REQUEST)
        assert isinstance(await first.receive(), AAssociateAC)
        second = await connect("127.0.0.1", port)
        await second.send(REQUEST)
        assert await second.receive() == AAssociateRJ(2, 3, 2)
        await second.aclose()
        await first.send(AReleaseRQ())
        await first.receive()
        await first.aclose()
        await good_association(port)
    assert "association limit reached" in [entry["event"] for entry in logs]
    assert told == [AAssociateRJ(2, 3, 2)]


async def test_flood_of_idle_clients_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "FIRST_WORD", 0.0)
    limits = ServerLimits(associations=2, waiting=8, waiting_per_address=4)
    with capture_logs() as logs:
        async with serving(limits=limits) as port, trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(throw, port, b"\x01")
            for _ in range(5):
                await good_association(port)
            nursery.cancel_scope.cancel()
    assert "pushed out: 4 connections from 127.0.0.1 without an association" in causes(logs)


async def test_a_device_may_open_many_connections_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More than may stand silent from one address: their requests are on the way."""
    monkeypatch.setattr(listener, "FIRST_WORD", 60.0)
    limits = ServerLimits(waiting_per_address=2)
    async with serving(limits=limits) as port, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(good_association, port)


async def test_total_limit_pushes_out_the_oldest() -> None:
    limits = ServerLimits(waiting=2, waiting_per_address=100)
    with capture_logs() as logs:
        async with serving(limits=limits) as port:
            oldest = await trio.open_tcp_stream("127.0.0.1", port)
            others = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
            with trio.fail_after(10):
                assert await oldest.receive_some(10) == b""
            await good_association(port)
            for stream in (oldest, *others):
                await stream.aclose()
    assert "pushed out: 2 connections without an association" in causes(logs)


async def test_peers_that_never_close_take_no_places() -> None:
    """After a release the place is free, however long the peer keeps its connection."""
    async with serving(limits=ServerLimits(associations=1)) as port:
        lingering = []
        for _ in range(5):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(encode(REQUEST))
            assert isinstance(decode(await stream.receive_some(100_000)), AAssociateAC)
            await stream.send_all(encode(AReleaseRQ()))
            assert await stream.receive_some(100) == encode(AReleaseRP())
            await trio.testing.wait_all_tasks_blocked()
            lingering.append(stream)
        await good_association(port)
        for stream in lingering:
            await stream.aclose()


async def test_thousand_connections_leave_nothing_behind() -> None:
    before = _descriptors()
    async with serving(timeouts=HASTY) as port:
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(throw, port, header(1, 0xFFFFFFFF))
        await good_association(port)
    assert _descriptors() <= before


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- failures around it -----------------------------------------------------------------------


async def test_failing_handler_ends_its_own_association_only() -> None:
    calls = []

    async def handler(association: TCPAssociation) -> None:
        calls.append(association)
        if len(calls) == 1:
            await association.receive()
            raise ValueError("a bug")
        await echo_back(association)

    async with logged(handler=handler) as (port, logs):
        association = await connect("127.0.0.1", port)
        await association.send(REQUEST)
        assert await association.receive() == AAbort(0, 0)
        await association.aclose()
        await good_association(port)
    assert "association handler failed" in [entry["event"] for entry in logs]


async def test_a_bug_before_the_handler_ends_its_own_connection_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(association: TCPAssociation) -> None:
        raise IndexError("a bug in a decoder")

    async with logged() as (port, logs):
        with monkeypatch.context() as patch:
            patch.setattr(TCPAssociation, "wait_indication", broken)
            assert await throw(port, request(CONTEXT_NAME, CONTEXT, USER)) == b""
        await good_association(port)
    assert "association handler failed" in [entry["event"] for entry in logs]


class ShortOfDescriptors(trio.abc.Listener[trio.SocketStream]):
    """A listener whose machine has no descriptor left, twice."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self.listener = listener
        self.failures = [errno.EMFILE, errno.ENFILE]

    async def accept(self) -> trio.SocketStream:
        if self.failures:
            raise OSError(self.failures.pop(), "Too many open files")
        return await self.listener.accept()

    async def aclose(self) -> None:
        await self.listener.aclose()


async def test_shortage_of_descriptors_passes() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    short = ShortOfDescriptors(listener)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, [short], echo_back)
            await good_association(port)
            nursery.cancel_scope.cancel()
    assert [entry["event"] for entry in logs].count("cannot accept connections") == 1


# --- stopping ---------------------------------------------------------------------------------


async def test_stopping_lets_associations_end() -> None:
    stopping = trio.Event()
    finished = trio.Event()
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]

    async def run() -> None:
        await serve([listener], echo_back, stopping=stopping)
        finished.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            idle = await trio.open_tcp_stream("127.0.0.1", port)
            association = await connect("127.0.0.1", port)
            await association.send(REQUEST)
            await association.receive()
            stopping.set()
            assert await idle.receive_some(1) == b""
            await idle.aclose()
            with pytest.raises(OSError, match="failed"):
                await trio.open_tcp_stream("127.0.0.1", port)
            await association.send(pdv(b"ping"))
            assert isinstance(await association.receive(), PDV)
            assert not finished.is_set()
            await association.send(AReleaseRQ())
            assert await association.receive() == AReleaseRP()
            await association.aclose()
        assert finished.is_set()


async def test_stopping_aborts_what_outlives_its_grace() -> None:
    stopping = trio.Event()
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            limits = ServerLimits(grace=0)
            nursery.start_soon(
                lambda: serve([listener], echo_back, limits=limits, stopping=stopping)
            )
            association = await connect("127.0.0.1", port)
            await association.send(REQUEST)
            await association.receive()
            stopping.set()
            assert await association.receive() == AAbort(0, 0)
            await association.aclose()


async def test_dual_stack_listener_names_ipv4_peers_as_people_do() -> None:
    seen = []

    async def handler(association: TCPAssociation) -> None:
        seen.append(association.host)
        await echo_back(association)

    try:
        listening = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    port = listening.getsockname()[1]
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, [listener], handler)
        await good_association(port)
        nursery.cancel_scope.cancel()
    assert seen == ["127.0.0.1"]
