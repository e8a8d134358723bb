"""DICOM over TLS at its edges: every mismatch has words on both ends, and an end is an end.

The other end is OpenSSL's own `s_client` and `s_server`, whose output shows what a device's log
would have, or a socket that the test holds itself.
"""

import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import attrs
import pytest
import trio
from structlog.testing import capture_logs

from relay import listener
from relay.association import TCPAssociation, connect
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    decode,
    encode,
)
from relay.errors import AssociationAborted
from relay.listener import ServerLimits, serve
from relay.patience import Timeouts
from relay.tls import TLSStream, explains, start_tls
from tests.association_pairs import REQUEST, accept_all, echo_back, pdv, serving
from tests.certificates import Authority, Identity
from tests.interop.peers import free_port
from tests.test_listener import HASTY, Logs, causes, good_association, throw

# TLS 1.1 is off by default, and its hashes are below OpenSSL's usual security level.
ANCIENT = ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
CBC = ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256")


@attrs.frozen(slots=True)
class Site:
    """An authority, the listener's contexts, and two certificates of devices."""

    authority: Authority
    own: Identity
    strangers: Identity
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder / "hospital")
    own = authority.issue()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    server.load_cert_chain(own.certificate, own.private_key)
    # What relay.router.device_tls sets: AEAD only, TLS 1.2 at least.
    server.minimum_version = ssl.TLSVersion.TLSv1_2
    server.set_ciphers("ECDHE+AESGCM:@SECLEVEL=2")
    server.num_tickets = 0
    client = ssl.create_default_context(cafile=authority.file)
    client.minimum_version = ssl.TLSVersion.TLSv1_2  # Debian's Python leaves it to the ciphers
    client.set_ciphers("ECDHE+AESGCM:@SECLEVEL=2")
    return Site(authority, own, Authority(folder / "stranger").issue(), server, client)


@asynccontextmanager
async def logged(context: ssl.SSLContext | None) -> AsyncIterator[tuple[int, Logs]]:
    """A server that has patience with a handshake and none for what comes after it."""
    timeouts = attrs.evolve(HASTY, tls_handshake=20)
    with capture_logs() as logs:
        async with serving(timeouts=timeouts, ssl_context=context) as port:
            yield port, logs


async def s_client(port: int, *options: str) -> str:
    """OpenSSL's client, which says nothing and waits for the end; what it prints."""
    with trio.fail_after(20):
        done = await trio.run_process(
            ["openssl", "s_client", "-ign_eof", "-connect", f"127.0.0.1:{port}", *options],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            stdin=b"",
            check=False,
        )
    return done.stdout.decode(errors="replace")


# --- devices that call ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "cause", "seen"),
    [
        (ANCIENT, "TLS: no version in common", "alert protocol version"),
        (CBC, "TLS: no cipher suite in common", "alert handshake failure"),
        (
            ("-verify_return_error", "-CAfile", "STRANGERS"),
            "refuses the certificate that it was shown (unknown ca)",
            "verify error",
        ),
        (
            ("-verify_return_error", "-CAfile", "AUTHORITY", "-verify_hostname", "other"),
            "refuses the certificate that it was shown (bad certificate)",
            "verify error",
        ),
    ],
    ids=["version", "cipher suite", "authority", "name"],
)
async def test_mismatch_with_a_client_is_named_on_both_ends(
    site: Site, options: Sequence[str], cause: str, seen: str
) -> None:
    files = {"AUTHORITY": str(site.authority.file), "STRANGERS": str(site.strangers.certificate)}
    async with logged(site.server) as (port, logs):
        printed = await s_client(port, *(files.get(option, option) for option in options))
        await good_association(port, site.client)
    assert cause in causes(logs)
    assert seen in printed.lower()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(
    ("shown", "cause", "seen"),
    [
        ("nothing", "shows no certificate, and device_certificates requires one", "alert"),
        ("a stranger's", "certificate refused: unable to get local issuer", "alert unknown ca"),
        ("an expired one", "certificate has expired: it must be renewed there", "alert certif"),
    ],
)
async def test_clients_whose_certificate_does_not_do(
    site: Site, version: str, shown: str, cause: str, seen: str
) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=site.authority.file)
    server.load_cert_chain(site.own.certificate, site.own.private_key)
    server.verify_mode = ssl.CERT_REQUIRED
    options = [version, "-CAfile", str(site.authority.file)]
    if shown != "nothing":
        identity = site.strangers
        if shown == "an expired one":
            identity = site.authority.issue(not_after=datetime.now(UTC) - timedelta(days=1))
        options += ["-cert", str(identity.certificate), "-key", str(identity.private_key)]
    async with logged(server) as (port, logs):
        printed = await s_client(port, *options)
        with trio.fail_after(10):
            while cause not in causes(logs):
                await trio.sleep(0.01)
    assert seen in printed.lower()


async def test_the_alert_arrives_though_the_client_spoke_already(site: Site) -> None:
    """Under TLS 1.3 the A-ASSOCIATE-RQ comes right behind the handshake that is refused."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=site.authority.file)
    server.load_cert_chain(site.own.certificate, site.own.private_key)
    server.verify_mode = ssl.CERT_REQUIRED
    async with logged(server) as (port, _):
        association = await connect("127.0.0.1", port, ssl_context=site.client)
        await association.send(REQUEST)
        with trio.fail_after(5):
            assert isinstance(await association.receive(), AAbort)
        await association.aclose()
    assert association.cause == (
        "TLS: the peer wants a certificate: set certificate and private_key"
    )


async def test_closing_in_the_handshake(site: Site) -> None:
    async with logged(site.server) as (port, logs):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"\x16\x03\x01")
        await good_association(port, site.client)
    assert "connection closed by the peer in the TLS handshake" in causes(logs)


async def test_plain_dicom_on_the_tls_port_is_answered_in_dicom(site: Site) -> None:
    async with logged(site.server) as (port, logs):
        association = await connect("127.0.0.1", port)
        await association.send(REQUEST)
        with trio.fail_after(5):
            assert await association.receive() == AAssociateRJ(1, 2, 2)
            await association.aclose()
        await good_association(port, site.client)
    assert association.cause.startswith("rejected by the peer")
    assert "plain DICOM on the TLS port" in causes(logs)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP on the DICOM port"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS on a plain port"),
    ],
)
async def test_other_things_on_the_plain_port(site: Site, data: bytes, cause: str) -> None:
    async with logged(None) as (port, logs):
        await throw(port, data)
        assert "wrong version number" in (await s_client(port)).lower()
        await good_association(port)
    assert cause in causes(logs)
    assert "TLS on a plain port" in causes(logs)


# --- devices that are called ------------------------------------------------------------------


@asynccontextmanager
async def s_server(identity: Identity, *options: str) -> AsyncIterator[int]:
    """OpenSSL's server on a port of its own, which this gives."""
    port = free_port()
    command = [
        *("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-naccept", "50"),
        *("-cert", str(identity.certificate), "-key", str(identity.private_key), *options),
    ]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with trio.fail_after(20):
            while not await _accepts(port):
                await trio.sleep(0.02)
        yield port
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        assert process.stdin is not None
        await process.stdin.aclose()


async def _accepts(port: int) -> bool:
    try:
        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
    except OSError:
        return False
    return True


TIMEOUTS = Timeouts(connect=5, tls_handshake=5, association_answer=5, release=5, artim=1)


async def why(port: int, context: ssl.SSLContext, server_hostname: str = "") -> str:
    """Why there is no association with this server, in the handshake or right after it."""
    with trio.fail_after(20):
        try:
            association = await connect(
                "127.0.0.1",
                port,
                timeouts=TIMEOUTS,
                ssl_context=context,
                server_hostname=server_hostname,
            )
        except AssociationAborted as error:
            return str(error)
        await association.send(REQUEST)
        assert isinstance(await association.receive(), AAbort)
        await association.aclose()
        return association.cause


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (ANCIENT, "TLS: no version in common: here are TLS 1.2 and 1.3"),
        (CBC, "no cipher suite in common"),
        (("-tls1_3", "-Verify", "1"), "TLS: the peer wants a certificate"),
        (("-tls1_2", "-Verify", "1"), "it wants a certificate and was shown none"),
    ],
    ids=["version", "cipher suite", "certificate, TLS 1.3", "certificate, TLS 1.2"],
)
async def test_mismatch_with_a_server_is_named(
    site: Site, options: Sequence[str], cause: str
) -> None:
    async with s_server(site.own, *options) as port:
        assert cause in await why(port, site.client)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_server_that_does_not_take_our_certificate(site: Site, version: str) -> None:
    context = ssl.create_default_context(cafile=site.authority.file)
    context.load_cert_chain(site.strangers.certificate, site.strangers.private_key)
    options = ("-Verify", "1", "-verify_return_error", "-CAfile", str(site.authority.file))
    async with s_server(site.own, version, *options) as port:
        said = await why(port, context)
    assert said == (
        "TLS: the peer refuses the certificate that it was shown (unknown ca):"
        " it must know the certificate, or its authority"
    )


async def test_certificates_of_servers_that_do_not_hold(site: Site) -> None:
    expired = site.authority.issue(not_after=datetime.now(UTC) - timedelta(days=1))
    elsewhere = site.authority.issue("pacs.example")
    for identity, said in [
        (expired, "certificate has expired: it must be renewed there"),
        (elsewhere, "IP address mismatch, certificate is not valid for '127.0.0.1'.: give the"),
        (site.strangers, "unable to get local issuer certificate: add it, or its authority's, to"),
    ]:
        async with s_server(identity) as port:
            assert f"TLS: certificate refused: {said}" in await why(port, site.client)
    async with s_server(elsewhere) as port:
        said = await why(port, site.client, server_hostname="other.example")
        assert "Hostname mismatch, certificate is not valid for 'other.example'" in said
        # In the handshake all is well; OpenSSL's server does not speak DICOM.
        said = await why(port, site.client, server_hostname="pacs.example")
        assert "TLS: " not in said


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (encode(AAbort(2, 1)), "TLS: the peer answers without TLS: is this its TLS port"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "TLS: the peer answers without TLS"),
        (b"", "connection closed by the peer in the TLS handshake: is this its TLS port"),
        (None, "silence: no TLS handshake within 0.2 s: is this its TLS port?"),
    ],
    ids=["plain DICOM", "HTTP", "closed", "silent"],
)
async def test_calling_a_port_without_tls(site: Site, answer: bytes | None, cause: str) -> None:
    async def serve_one(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        if answer is None:
            await trio.sleep_forever()
        await stream.send_all(answer or b"")
        await stream.aclose()

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve_one, [listener])
        with pytest.raises(AssociationAborted) as caught:
            await connect(
                "127.0.0.1",
                listener.socket.getsockname()[1],
                timeouts=Timeouts(tls_handshake=0.2),
                ssl_context=site.client,
            )
        nursery.cancel_scope.cancel()
    assert cause in str(caught.value)
    assert explains(str(caught.value))


async def test_calling_a_tls_port_without_tls_is_named() -> None:
    """Its alert is no PDU, and says what is the matter."""

    async def serve_one(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await stream.send_all(bytes.fromhex("15030300020246"))

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve_one, [listener])
        association = await connect("127.0.0.1", listener.socket.getsockname()[1])
        await association.send(REQUEST)
        assert isinstance(await association.receive(), AAbort)
        await association.aclose()
        nursery.cancel_scope.cancel()
    assert association.cause == (
        "the peer answers with TLS: call it over TLS (`relay device add … --tls`)"
    )


async def test_a_name_that_no_certificate_can_have(site: Site) -> None:
    async with serving(ssl_context=site.server) as port:
        with pytest.raises(AssociationAborted, match=r"TLS: \.pacs: "):
            await connect("127.0.0.1", port, ssl_context=site.client, server_hostname=".pacs")


# --- frozen handshakes, several ports ---------------------------------------------------------


async def test_forty_frozen_handshakes_keep_nobody_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the limit of one address the oldest goes, so that a device that speaks gets through."""
    monkeypatch.setattr(listener, "FIRST_WORD", 0.0)
    patient = Timeouts(tls_handshake=60)
    with capture_logs() as logs:
        async with serving(timeouts=patient, ssl_context=site.server) as port:
            frozen = []
            for number in range(40):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await stream.send_all(b"\x16\x03\x01\x02"[: number % 5])
                frozen.append(stream)
            await good_association(port, site.client)
            with trio.fail_after(10):
                assert await frozen[0].receive_some(1) == b""
            for stream in frozen:
                await stream.aclose()
    assert "pushed out: 32 connections from 127.0.0.1 without an association" in causes(logs)


async def test_plain_and_tls_ports_share_their_limits(site: Site) -> None:
    plain = await trio.open_tcp_listeners(0, host="127.0.0.1")
    secure = [
        *await trio.open_tcp_listeners(0, host="127.0.0.1"),
        *await trio.open_tcp_listeners(0, host="127.0.0.1"),
    ]
    port, *tls_ports = [each.socket.getsockname()[1] for each in (*plain, *secure)]
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: serve(
                plain,
                echo_back,
                limits=ServerLimits(associations=2),
                tls_listeners=secure,
                ssl_context=site.server,
                task_status=task_status,
            )
        )
        held = []
        for number in (port, tls_ports[0]):
            context = site.client if number != port else None
            association = await connect("127.0.0.1", number, ssl_context=context)
            await association.send(REQUEST)
            assert isinstance(await association.receive(), AAssociateAC)
            held.append(association)
        for number in (port, *tls_ports):
            context = site.client if number != port else None
            turned_away = await connect("127.0.0.1", number, ssl_context=context)
            await turned_away.send(REQUEST)
            assert await turned_away.receive() == AAssociateRJ(2, 3, 2)
            await turned_away.aclose()
        for association in held:
            await association.aclose()
        await good_association(tls_ports[1], site.client)
        nursery.cancel_scope.cancel()


async def test_a_tls_port_is_never_served_without_tls() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with pytest.raises(ValueError, match="would serve without TLS"):
        await serve([], echo_back, tls_listeners=listeners)
    for opened in listeners:
        await opened.aclose()


async def test_the_log_has_the_version_and_suite(site: Site) -> None:
    with capture_logs() as logs:
        async with serving(ssl_context=site.server) as port:
            await good_association(port, site.client)
        async with serving() as port:
            await good_association(port)
    ended = [entry for entry in logs if entry["event"] == "association ended"]
    assert ended[0]["tls"] == "TLSv1.3 TLS_AES_256_GCM_SHA384"
    assert "tls" not in ended[1]


# --- ends -------------------------------------------------------------------------------------


class Device:
    """A device over TLS that the test holds in its hand: OpenSSL's object over a blocking socket.

    Used from a thread, as devices are other processes.
    """

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket = context.wrap_socket(
            raw, server_hostname="127.0.0.1", suppress_ragged_eofs=False
        )

    def associate(self) -> None:
        self.socket.sendall(encode(REQUEST))
        assert isinstance(decode(self.pdu()), AAssociateAC)

    def pdu(self) -> bytes:
        head = self.exactly(6)
        return head + self.exactly(int.from_bytes(head[2:]))

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            assert piece, "closed"
            data += piece
        return data

    def cut(self) -> None:
        """The end of TCP, without close_notify."""
        raw = socket.socket(fileno=self.socket.detach())
        raw.shutdown(socket.SHUT_WR)
        raw.close()


async def ending(site: Site, script: object) -> str:
    """What the acceptor says of an association whose device runs `script` in a thread."""
    with capture_logs() as logs:
        async with serving(ssl_context=site.server) as port:
            with trio.fail_after(20):
                await trio.to_thread.run_sync(script, port, site.client)  # type: ignore[arg-type]
                while not (ended := [e for e in logs if e["event"] == "association ended"]):
                    await trio.sleep(0.01)
    return str(ended[0]["why"])


def released(port: int, context: ssl.SSLContext) -> Device:
    device = Device(port, context)
    device.associate()
    device.socket.sendall(encode(AReleaseRQ()))
    assert decode(device.pdu()) == AReleaseRP()
    return device


async def test_released_and_closed_without_close_notify(site: Site) -> None:
    assert await ending(site, lambda *to: released(*to).cut()) == "released"


async def test_released_and_closed_with_close_notify(site: Site) -> None:
    assert await ending(site, lambda *to: released(*to).socket.unwrap().close()) == "released"


async def test_we_close_with_close_notify(site: Site) -> None:
    """A device that waits for the end gets one that nobody can have forged (RFC 8446 §6.1)."""

    def script(port: int, context: ssl.SSLContext) -> None:
        device = Device(port, context)  # strict: raises where there is no close_notify
        device.associate()
        device.socket.sendall(encode(AReleaseRQ()))
        assert decode(device.pdu()) == AReleaseRP()
        device.socket.sendall(encode(AAbort(0, 0)))  # Sta13: it makes the other end close
        assert device.socket.recv(1000) == b""
        device.socket.close()

    assert await ending(site, script) == "released"


@pytest.mark.parametrize("polite", [True, False])
async def test_a_cut_in_data_is_no_end(site: Site, polite: bool) -> None:
    def script(port: int, context: ssl.SSLContext) -> None:
        device = Device(port, context)
        device.associate()
        half = encode(pdv(bytes(1000)))[:500]
        device.socket.sendall(half)
        if polite:
            device.socket.unwrap().close()
        else:
            device.cut()

    received: list[object] = []

    async def handler(association: TCPAssociation) -> None:
        rq = await association.receive()
        assert isinstance(rq, AAssociateRQ)
        await association.send(accept_all(rq))
        received.append(await association.receive())

    with capture_logs() as logs:
        async with serving(handler, ssl_context=site.server) as port:
            with trio.fail_after(20):
                await trio.to_thread.run_sync(script, port, site.client)
                while not (ended := [e for e in logs if e["event"] == "association ended"]):
                    await trio.sleep(0.01)
    assert isinstance(received[0], AAbort)
    assert ended[0]["why"] == "connection closed by the peer"


async def test_records_that_do_not_open_end_it(site: Site) -> None:
    def script(port: int, context: ssl.SSLContext) -> None:
        device = Device(port, context)
        device.associate()
        raw = socket.socket(fileno=device.socket.detach())
        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        raw.settimeout(10)
        while raw.recv(1000):
            pass
        raw.close()

    assert "TLS: decryption failed or bad record mac" in await ending(site, script)


async def test_what_came_before_a_bad_record_is_read(site: Site) -> None:
    """A PDV in three records and bytes that no key opens, all in one write."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = site.client.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    received: list[object] = []
    done = trio.Event()

    async def handler(association: TCPAssociation) -> None:
        rq = await association.receive()
        assert isinstance(rq, AAssociateRQ)
        await association.send(accept_all(rq))
        received.extend([await association.receive(), await association.receive()])
        received.append(association.cause)
        done.set()

    async with (
        serving(handler, ssl_context=site.server) as port,
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        with trio.fail_after(10):
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await stream.send_all(outgoing.read())
                    incoming.write(await stream.receive_some())
            client.write(encode(REQUEST))
            await stream.send_all(outgoing.read())
            await stream.receive_some()  # the A-ASSOCIATE-AC
            client.write(encode(pdv(bytes(40_000))))
            await stream.send_all(outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
            await done.wait()
    fragment, abort, cause = received
    assert isinstance(fragment, PDV)
    assert len(fragment.fragment) == 40_000
    assert isinstance(abort, AAbort)
    assert cause == "TLS: decryption failed or bad record mac"


async def streams(site: Site) -> tuple[TLSStream, TLSStream]:
    """Both ends of one TLS connection: client, server."""
    near, far = socket.socketpair()
    ends: list[TLSStream] = []

    async def start(raw: socket.socket, context: ssl.SSLContext, name: str | None) -> None:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(raw))
        ends.append(await start_tls(stream, context, 10, server_hostname=name))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start, near, site.client, "127.0.0.1")
        nursery.start_soon(start, far, site.server, None)
    client, server = sorted(ends, key=lambda end: end._tls.server_side)
    return client, server


async def test_a_record_that_was_never_sent_leaves_it_broken(site: Site) -> None:
    """Cancelled before its turn: what would come after it could not be opened by the peer."""
    client, server = await streams(site)
    with trio.fail_after(10):
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.send_all(b"lost")
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"after it")
        await client.aclose()
        assert await server.receive_some() == b""  # and no record that does not open
        await server.aclose()


async def test_pdus_longer_than_a_record_and_several_in_one(site: Site) -> None:
    """A record holds 16 KiB (RFC 8446 §5.1): PDUs do not care."""
    fragments = [bytes([number]) * size for number, size in enumerate([200_000, 1, 2, 70_000, 3])]

    def script(port: int, context: ssl.SSLContext) -> None:
        device = Device(port, context)
        device.associate()
        device.socket.sendall(b"".join(encode(pdv(fragment)) for fragment in fragments))
        back = b""
        while len(back) < sum(map(len, fragments)):
            back += device.pdu()[12:]  # one PDV in each, behind two headers (PS3.8 §9.3.5)
        assert back == b"".join(fragments)
        device.socket.sendall(encode(AReleaseRQ()))
        assert decode(device.pdu()) == AReleaseRP()
        device.cut()

    assert await ending(site, script) == "released"


async def test_both_directions_at_once(site: Site) -> None:
    data = bytes(range(256)) * 8000
    async with serving(ssl_context=site.server) as port:
        with trio.fail_after(30):
            association = await connect("127.0.0.1", port, ssl_context=site.client)
            await association.send(REQUEST)
            assert isinstance(await association.receive(), AAssociateAC)
            back = bytearray()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(association.send, pdv(data))
                while len(back) < len(data):
                    atom = await association.receive()
                    assert isinstance(atom, PDV)
                    back += atom.fragment
            assert back == data
            await association.abort()
            await association.aclose()


async def test_the_peers_a_abort_is_read_though_our_write_has_failed(site: Site) -> None:
    """It aborts and closes with data of ours unread: the write fails, its word is still there."""

    def acceptor(listening: socket.socket) -> None:
        raw, _ = listening.accept()
        raw.settimeout(10)
        device = object.__new__(Device)
        device.socket = site.server.wrap_socket(raw, server_side=True)
        rq = decode(device.pdu())
        assert isinstance(rq, AAssociateRQ)
        device.socket.sendall(encode(accept_all(rq)))
        device.exactly(1)
        device.socket.sendall(encode(AAbort(0, 0)))
        device.socket.close()  # a reset, because of what is unread

    async def send_on(association: TCPAssociation) -> None:
        while True:
            await association.send(pdv(bytes(100_000)))

    with socket.create_server(("127.0.0.1", 0)) as listening, trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, acceptor, listening)
            port = listening.getsockname()[1]
            association = await connect("127.0.0.1", port, ssl_context=site.client)
            await association.send(REQUEST)
            assert isinstance(await association.receive(), AAssociateAC)
            with pytest.raises(AssociationAborted, match="connection lost"):
                await send_on(association)
            assert await association.receive() == AAbort(0, 0)
            assert association.cause == "aborted by the peer: source 0, reason 0"
            await association.aclose()


async def test_the_alert_is_read_though_our_write_has_failed(site: Site) -> None:
    """The certificate that is missing is told in the moment before the connection is reset."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=site.authority.file)
    server.load_cert_chain(site.own.certificate, site.own.private_key)
    server.verify_mode = ssl.CERT_REQUIRED

    def acceptor(listening: socket.socket) -> None:
        raw, _ = listening.accept()
        raw.settimeout(10)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with raw, pytest.raises(ssl.SSLError):
            server.wrap_socket(raw, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listening, trio.fail_after(20):
        reset = trio.Event()

        async def serve_one() -> None:
            await trio.to_thread.run_sync(acceptor, listening)
            reset.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_one)
            port = listening.getsockname()[1]
            association = await connect("127.0.0.1", port, ssl_context=site.client)
            await reset.wait()
            with pytest.raises(AssociationAborted, match="TLS: the peer wants a certificate"):
                await association.send(REQUEST)
            await association.aclose()


async def test_a_refused_client_is_heard_out_for_a_moment(site: Site) -> None:
    """A reset takes the alert with it on many systems, if it comes before that was read."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=site.authority.file)
    server.load_cert_chain(site.own.certificate, site.own.private_key)
    server.verify_mode = ssl.CERT_REQUIRED

    def client(port: int) -> None:
        device = Device(port, site.client)
        with pytest.raises(ssl.SSLError, match="ALERT_CERTIFICATE_REQUIRED"):
            device.socket.recv(1000)
        with socket.socket(fileno=device.socket.detach()) as raw:
            for _ in range(3):  # a reset would fail the next one
                raw.send(bytes(1000))

    async with serving(ssl_context=server) as port:
        with trio.fail_after(20):
            await trio.to_thread.run_sync(client, port)
