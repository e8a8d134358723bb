"""`relay.transport`: associations over real sockets, plain, Unix and TLS."""

import fcntl
import socket
import ssl
import struct
import termios
from pathlib import Path

import pytest
import trio
import trustme

from relay.association import TCPAssociation, connect, connect_unix
from relay.dicom.pdu import PDV, AAbort, AAssociateAC, AReleaseRP, AReleaseRQ, encode
from relay.dicom.upperlayer import Role
from relay.errors import AssociationAborted
from relay.listener import serve
from relay.tls import TLSStream
from tests.association_pairs import REQUEST, accept_all, echo_back, pdv, serving


async def test_connect_over_tcp_and_unix(tmp_path: Path) -> None:
    path = tmp_path / "dicom.sock"
    async with serving() as port, trio.open_nursery() as nursery:
        await nursery.start(_serve_unix, path)
        for association in (await connect("127.0.0.1", port), await connect_unix(path)):
            await association.send(REQUEST)
            assert isinstance(await association.receive(), AAssociateAC)
            await association.send(AReleaseRQ())
            assert await association.receive() == AReleaseRP()
            await association.aclose()
        nursery.cancel_scope.cancel()


async def _serve_unix(path: Path, task_status: trio.TaskStatus[None]) -> None:
    listening = trio.socket.socket(socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen()
    await serve([trio.SocketListener(listening)], echo_back, task_status=task_status)


async def test_connect_where_nobody_listens(tmp_path: Path) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(AssociationAborted, match="refused"):
        await connect("127.0.0.1", port)
    with pytest.raises(AssociationAborted, match="No such file"):
        await connect_unix(tmp_path / "nothing")


async def test_reset_connection_arrives_as_an_abort() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        association = await connect("127.0.0.1", listener.socket.getsockname()[1])
        device = await listener.accept()
        await association.send(REQUEST)
        await device.receive_some(100_000)
        await device.send_all(encode(accept_all(REQUEST)))
        assert isinstance(await association.receive(), AAssociateAC)
        no_lingering = struct.pack("ii", 1, 0)
        device.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_lingering)
        await device.aclose()
        assert isinstance(await association.receive(), AAbort)
        assert association.cause == "connection lost"
        with pytest.raises(AssociationAborted, match="connection lost"):
            await association.send(pdv(b"ping"))
        await association.aclose()


# --- TLS --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_association_over_tls(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async with serving(ssl_context=server_context) as port:
        association = await connect("127.0.0.1", port, ssl_context=client_context)
        await association.send(REQUEST)
        assert isinstance(await association.receive(), AAssociateAC)
        data = bytes(range(256)) * 4000
        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(association.send, pdv(data))
            while len(received) < len(data):
                atom = await association.receive()
                assert isinstance(atom, PDV)
                received += atom.fragment
        assert received == data
        await association.send(AReleaseRQ())
        assert await association.receive() == AReleaseRP()
        await association.aclose()


async def test_unknown_certificate_is_refused(server_context: ssl.SSLContext) -> None:
    async with serving(ssl_context=server_context) as port:
        with pytest.raises(AssociationAborted, match="certificate refused"):
            await connect("127.0.0.1", port, ssl_context=ssl.create_default_context())


async def test_tls_to_a_plain_port_is_named(client_context: ssl.SSLContext) -> None:
    async with serving() as port:
        with pytest.raises(AssociationAborted, match="TLS"):
            await connect("127.0.0.1", port, ssl_context=client_context)


@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "tls"])
async def test_what_is_read_is_acknowledged_at_once(over_tls: bool) -> None:
    """Else a peer with Nagle's algorithm on keeps back the end of each message for 40 ms."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    peer = await trio.open_tcp_stream(*listener.socket.getsockname())
    accepted = await listener.accept()
    await listener.aclose()
    stream: trio.abc.Stream = accepted
    writer: trio.abc.Stream = peer
    if over_tls:
        authority = trustme.CA()
        ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(ours)
        theirs = ssl.create_default_context()
        authority.configure_trust(theirs)
        stream = TLSStream(accepted, ours, None)
        writer = TLSStream(peer, theirs, "127.0.0.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.do_handshake)
            nursery.start_soon(writer.do_handshake)
    acceptor = TCPAssociation(stream, Role.ACCEPTOR)
    await writer.send_all(encode(REQUEST))
    await acceptor.receive()
    await acceptor.send(accept_all(REQUEST))
    await writer.receive_some(65536)
    unacknowledged = 0
    for _ in range(30):  # question and answer: what makes the kernel wait
        await writer.send_all(encode(pdv(b"question", command=True)))
        await acceptor.receive()
        unacknowledged += _unacknowledged(peer)
        await acceptor.send(pdv(b"answer", command=True))
        await writer.receive_some(65536)
    assert unacknowledged == 0
    await writer.aclose()
    await acceptor.aclose()


def _unacknowledged(stream: trio.SocketStream) -> int:
    """Bytes that were sent and that the other end has not acknowledged (tcp(7), SIOCOUTQ)."""
    answer = fcntl.ioctl(stream.socket.fileno(), termios.TIOCOUTQ, bytes(4))
    return int(struct.unpack("i", answer)[0])
