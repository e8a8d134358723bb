"""Network links that can be cut, silenced, delayed and restored.

    async with link() as made:                 # an HTTP proxy (CONNECT): `proxy` of one Router
        made.state = LinkState.DOWN            # what is open ends, what is new is refused
        made.state = LinkState.SILENT          # nothing ends, and nothing passes
        made.state = LinkState.UP

A Router that has the link as its proxy is cut off from the Bridge and from the store, and no other
Router is.
"""

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum, auto
from urllib.parse import urlsplit

import attrs
import trio

from tests.interop.processes import LOOPBACK, Address

PIECE = 64 * 1024

# For a target to take a connection in; it is on this machine.
CONNECT_DEADLINE = 5.0

# A CONNECT request is some hundred bytes.
MAXIMUM_HEAD = 8 * 1024

# struct linger: on, 0 seconds.
RESET = struct.pack("ii", 1, 0)

CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class LinkState(Enum):
    UP = auto()
    DOWN = auto()
    SILENT = auto()


@attrs.define(slots=True, eq=False)
class Carried:
    """One connection over the link."""

    requested: bytearray = attrs.field(factory=bytearray)
    answered: bytearray = attrs.field(factory=bytearray)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


@attrs.define(eq=False)
class Link:
    """One link. `record`: keep what passes, connection by connection."""

    port: int
    target: Address | None
    record: bool = False
    delay: float = 0.0
    """Seconds that each piece takes, either way."""
    carried: list[Carried] = attrs.field(factory=list)
    _live: set[Carried] = attrs.field(factory=set)
    _state: LinkState = LinkState.UP
    _changed: trio.Event = attrs.field(factory=trio.Event)

    @property
    def url(self) -> str:
        """As an HTTP proxy."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def state(self) -> LinkState:
        return self._state

    @state.setter
    def state(self, state: LinkState) -> None:
        self._state = state
        self._changed.set()
        self._changed = trio.Event()
        if state is LinkState.DOWN:
            self.drop()

    def drop(self) -> int:
        """End what is open, as a fallen line does; how many connections there were."""
        for carried in self._live:
            carried.scope.cancel()
        return len(self._live)

    async def serve(self, near: trio.SocketStream) -> None:
        """Carry one connection."""
        carried = Carried()
        self._live.add(carried)
        if self.record:
            self.carried.append(carried)
        try:
            with carried.scope:
                if self._state is not LinkState.DOWN:
                    await self._serve(near, carried)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass  # either side may end a connection in any way: that is what this is for
        finally:
            self._live.discard(carried)
            if carried.scope.cancel_called or self._state is LinkState.DOWN:
                # A reset, as of a line that has lost its memory; not the quiet end of a stream.
                near.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, RESET)
            await trio.aclose_forcefully(near)

    async def _serve(self, near: trio.SocketStream, carried: Carried) -> None:
        target = self.target or await _asked(near)
        with trio.fail_after(CONNECT_DEADLINE):
            far = await trio.open_tcp_stream(target.host, target.port)
        async with far, trio.open_nursery() as nursery:
            if self.target is None:
                await near.send_all(CONNECTED)
            nursery.start_soon(self._carry, near, far, carried.requested)
            await self._carry(far, near, carried.answered)
            nursery.cancel_scope.cancel()  # who has answered to the end hears nothing more

    async def _carry(
        self, source: trio.SocketStream, sink: trio.SocketStream, record: bytearray
    ) -> None:
        while data := await source.receive_some(PIECE):
            while self._state is LinkState.SILENT:
                await self._changed.wait()
            if self.delay:
                await trio.sleep(self.delay)
            if self.record:
                record += data
            await sink.send_all(data)
        await sink.send_eof()


async def _asked(near: trio.SocketStream) -> Address:
    """Where a CONNECT wants to."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = await near.receive_some(1)
        if not data or len(head) > MAXIMUM_HEAD:
            raise trio.BrokenResourceError("no CONNECT")
        head += data
    where = urlsplit("//" + head.split(b" ")[1].decode("ascii"))
    assert where.port is not None
    return Address(where.port, "", where.hostname or LOOPBACK)


@asynccontextmanager
async def link(target: Address | None = None, *, record: bool = False) -> AsyncIterator[Link]:
    """A link to `target`; without one it is an HTTP proxy, to wherever a CONNECT wants."""
    listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
    made = Link(listeners[0].socket.getsockname()[1], target, record)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, made.serve, listeners)
        yield made
        nursery.cancel_scope.cancel()
