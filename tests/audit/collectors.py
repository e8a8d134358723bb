"""A syslog collector over TLS for tests (RFC 5425): what it gets, and how it fails."""

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from relay.audit.sender import Collector
from relay.web.tls import client_tls
from tests.certificates import LOOPBACK, Authority


class FakeCollector:
    """Keeps the messages of all connections, in the order in which they came."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.connections = 0
        self.reads = True
        self.clients: list[trio.SSLStream[trio.SocketStream]] = []
        self.changed = trio.lowlevel.ParkingLot()

    async def serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self.connections += 1
        self.clients.append(stream)
        data = b""
        try:
            while piece := await stream.receive_some(65536):
                data += piece
                while match := re.match(rb"(\d+) ", data):
                    end = match.end() + int(match[1])
                    if len(data) < end:
                        break
                    self.messages.append(data[match.end() : end])
                    data = data[end:]
                self.changed.unpark_all()
                while not self.reads:
                    await self.changed.park()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # as a real one, it is there for the next connection
        finally:
            await trio.aclose_forcefully(stream)

    async def wait_for(self, count: int) -> None:
        """Return once it has so many messages, and the same again counts twice."""
        with trio.fail_after(30):
            while len(self.messages) < count:
                await self.changed.park()

    async def cut(self) -> None:
        """End all connections, without a word."""
        for client in self.clients:
            await trio.aclose_forcefully(client)
        self.clients.clear()


@asynccontextmanager
async def listening(
    authority: Authority, *, port: int = 0, clients: bool = False
) -> AsyncIterator[tuple[FakeCollector, Collector]]:
    """A collector that runs, and where it is; `clients`: it asks them for a certificate."""
    fake = FakeCollector()
    served = authority.issue()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(served.certificate, served.private_key)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.file)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(
            port, context, host=LOOPBACK, https_compatible=True
        )
        nursery.start_soon(trio.serve_listeners, fake.serve, listeners)
        bound = listeners[0].transport_listener.socket.getsockname()[1]
        yield fake, Collector(LOOPBACK, bound, client_tls(authority.file))
        nursery.cancel_scope.cancel()
