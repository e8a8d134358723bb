"""A small HTTPS proxy before an object store, that fails as stores and networks do, when told.

It carries one request a connection, so that each fault meets the request that it is meant for. The
signature covers the Host header, which passes as it came: URLs are signed for the proxy's address.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum, auto
from pathlib import Path

import attrs
import trio
import trustme

LOOPBACK = "127.0.0.1"
PIECE = 64 * 1024


class Fault(Enum):
    """What may go wrong with one request."""

    ERROR_500 = auto()
    SLOW_DOWN_503 = auto()
    # The request never gets there: half of it is read, then the connection closes.
    CUT_REQUEST = auto()
    # The store has done it, and its answer gets lost.
    LOST_ANSWER = auto()
    # The answer ends in the middle of its body.
    CUT_ANSWER = auto()
    # Nothing comes, ever.
    STALL = auto()
    # The answer comes in small pieces with pauses.
    TRICKLE = auto()


STATUS = {Fault.ERROR_500: "500 Internal Server Error", Fault.SLOW_DOWN_503: "503 Slow Down"}
CODE = {Fault.ERROR_500: "InternalError", Fault.SLOW_DOWN_503: "SlowDown"}


@attrs.define(eq=False)
class FaultyProxy:
    """The proxy: its endpoint and authority, what is to fail next, and what it has seen."""

    endpoint: str
    ca_file: Path
    # For each method its next faults; and what all requests of a method meet.
    next: dict[str, list[Fault]] = attrs.Factory(dict)
    always: dict[str, Fault] = attrs.Factory(dict)
    seen: list[str] = attrs.Factory(list)
    # (method, status) of what the store itself has answered.
    answered: list[tuple[str, int]] = attrs.Factory(list)
    # Trickle's pause in seconds.
    pause: float = 0.05

    def fail(self, method: str, *faults: Fault) -> None:
        """The next requests of this method meet these faults, one each."""
        self.next.setdefault(method, []).extend(faults)

    def fault_of(self, method: str) -> Fault | None:
        waiting = self.next.get(method)
        return waiting.pop(0) if waiting else self.always.get(method)

    def client_trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))


@asynccontextmanager
async def faulty_proxy(
    folder: Path, target: int, trust: ssl.SSLContext
) -> AsyncIterator[FaultyProxy]:
    """Stand before the store on loopback port `target`, whose certificate `trust` knows."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(LOOPBACK).configure_cert(context)
    folder.mkdir(exist_ok=True)
    ca_file = folder / "faulty-ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
    port = listeners[0].socket.getsockname()[1]
    proxy = FaultyProxy(f"https://{LOOPBACK}:{port}", ca_file)

    async def serve(stream: trio.SocketStream) -> None:
        near = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            await _carry(proxy, near, target, trust)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass  # either side may end a connection in any way: that is what this is for
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield proxy
        nursery.cancel_scope.cancel()


Stream = trio.SSLStream[trio.SocketStream]


async def _carry(proxy: FaultyProxy, near: Stream, target: int, trust: ssl.SSLContext) -> None:
    head, body = await _read_head(near)
    if not head:
        return
    method = head.split(b" ", 1)[0].decode()
    fault = proxy.fault_of(method)
    proxy.seen.append(f"{method} {fault.name if fault else 'passed'}")
    length = _content_length(head)
    if fault is Fault.STALL:
        await trio.sleep_forever()
    if fault is Fault.CUT_REQUEST:
        while len(body) < length // 2:
            body += await near.receive_some(PIECE)
        return
    while len(body) < length:
        body += await near.receive_some(PIECE)
    if fault in STATUS:
        words = f"<Error><Code>{CODE[fault]}</Code></Error>".encode()
        status = f"HTTP/1.1 {STATUS[fault]}\r\nContent-Length: {len(words)}\r\n"
        await near.send_all(f"{status}Connection: close\r\n\r\n".encode() + words)
        return
    answer = await _ask(target, trust, head, body)
    proxy.answered.append((method, int(answer.split(b" ", 2)[1])))
    if fault is Fault.LOST_ANSWER:
        return
    if fault is Fault.CUT_ANSWER:
        await near.send_all(answer[: answer.index(b"\r\n\r\n") + 4 + _content_length(answer) // 2])
        return
    if fault is Fault.TRICKLE:
        for start in range(0, len(answer), len(answer) // 10 + 1):
            await near.send_all(answer[start : start + len(answer) // 10 + 1])
            await trio.sleep(proxy.pause)
        return
    await near.send_all(answer)


async def _ask(target: int, trust: ssl.SSLContext, head: bytes, body: bytes) -> bytes:
    """The store's whole answer."""
    stream = await trio.open_tcp_stream(LOOPBACK, target)
    far = trio.SSLStream(stream, trust, server_hostname=LOOPBACK, https_compatible=True)
    async with far:
        lines = [
            line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")
        ]
        await far.send_all(b"\r\n".join([*lines[:-2], b"Connection: close", b"", b""]) + body)
        answer = b""
        while piece := await far.receive_some(PIECE):
            answer += piece
        return answer


async def _read_head(stream: Stream) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = await stream.receive_some(PIECE)
        if not piece:
            return b"", b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", body


def _content_length(head: bytes) -> int:
    for line in head.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
