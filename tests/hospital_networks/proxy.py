"""A hospital's outbound HTTP proxy, as a process of its own: CONNECT, and all that goes with it.

    proxy.py PORT [--credentials USER:PASSWORD] [--idle SECONDS] [--answer ANSWER]
             [--open-tls CA_FILE --trust CA_FILE]

It says on stdout, a line each, what it was asked (`CONNECT host:port`, `refused host:port`) and
what it has cut (`cut host:port`).
"""

import argparse
import base64
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import attrs
import trio
import trustme

# For a target to answer in; the tests' own machines do at once.
CONNECT_DEADLINE = 5.0
PIECE = 256 * 1024

PAGE = b"<html><body>Please log in to use the internet</body></html>"
ANSWERS = {
    "forbidden": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    "login": b"HTTP/1.1 302 Found\r\nLocation: http://login.hospital.test/?back\r\n\r\n",
    "page": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s"
    % (len(PAGE), PAGE),
    "ntlm": b"HTTP/1.1 407 Proxy Authentication Required\r\n"
    b"Proxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n",
}
UNAUTHENTICATED = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
    b'Proxy-Authenticate: Basic realm="hospital"\r\nContent-Length: 0\r\n\r\n'
)
UNREACHABLE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@attrs.frozen(kw_only=True)
class Inspection:
    """What a proxy needs that opens TLS: an authority of its own, and whom it trusts itself."""

    authority: trustme.CA
    outside: ssl.SSLContext

    async def open(
        self, near: trio.abc.Stream, far: trio.abc.Stream, host: str
    ) -> tuple[trio.abc.Stream, trio.abc.Stream]:
        """Both sides as what is inside their TLS; to the client we are `host`."""
        disguise = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert(host).configure_cert(disguise)
        outside = trio.SSLStream(far, self.outside, server_hostname=host, https_compatible=True)
        await outside.do_handshake()
        inside = trio.SSLStream(near, disguise, server_side=True, https_compatible=True)
        await inside.do_handshake()
        return inside, outside


@attrs.frozen(kw_only=True)
class Proxy:
    """How this one behaves."""

    credentials: str | None
    idle: float
    answer: bytes | None
    inspection: Inspection | None

    async def serve(self, near: trio.SocketStream) -> None:
        try:
            async with near:
                await self._serve(near)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
            say("lost a connection")  # either side may end one in any way

    async def _serve(self, near: trio.SocketStream) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = await near.receive_some(1)
            if not data:
                return
            head += data
        method, target, _ = head.split(b"\r\n")[0].decode("ascii").split(" ")
        if self.answer is not None or method != "CONNECT" or not self._let_in(head):
            say(f"refused {target}")
            await near.send_all(self.answer or UNAUTHENTICATED)
            return
        host, _, port = target.rpartition(":")
        host = host.strip("[]")
        try:
            with trio.fail_after(CONNECT_DEADLINE):
                far = await trio.open_tcp_stream(host, int(port))
        except (OSError, trio.TooSlowError):
            say(f"unreachable {target}")
            await near.send_all(UNREACHABLE)
            return
        say(f"CONNECT {target}")
        async with far:
            await near.send_all(CONNECTED)
            if self.inspection is None:
                await self._carry(near, far, target)
            else:
                await self._carry(*await self.inspection.open(near, far, host), target)

    def _let_in(self, head: bytes) -> bool:
        if self.credentials is None:
            return True
        words = base64.b64encode(self.credentials.encode())
        return b"\r\nProxy-Authorization: Basic " + words + b"\r\n" in head

    async def _carry(self, near: trio.abc.Stream, far: trio.abc.Stream, target: str) -> None:
        with trio.CancelScope() as scope:

            def moved() -> None:
                scope.deadline = trio.current_time() + self.idle

            moved()
            async with trio.open_nursery() as nursery:
                for source, sink in ((near, far), (far, near)):
                    nursery.start_soon(_pump, source, sink, moved, nursery.cancel_scope)
        if scope.cancelled_caught:
            say(f"cut {target}")


async def _pump(
    source: trio.abc.Stream,
    sink: trio.abc.Stream,
    moved: Callable[[], None],
    end: trio.CancelScope,
) -> None:
    while data := await source.receive_some(PIECE):
        moved()
        await sink.send_all(data)
    end.cancel()


def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--credentials")
    parser.add_argument("--idle", type=float, default=float("inf"))
    parser.add_argument("--answer", choices=ANSWERS)
    parser.add_argument("--open-tls", type=Path)
    parser.add_argument("--trust", type=Path)
    given = parser.parse_args()
    inspection = None
    if given.open_tls is not None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(given.open_tls)
        inspection = Inspection(
            authority=authority, outside=ssl.create_default_context(cafile=given.trust)
        )
    proxy = Proxy(
        credentials=given.credentials,
        idle=given.idle,
        answer=ANSWERS[given.answer] if given.answer else None,
        inspection=inspection,
    )
    serve: Callable[..., Awaitable[None]] = partial(trio.serve_tcp, proxy.serve, given.port)
    trio.run(serve)


if __name__ == "__main__":
    main()
