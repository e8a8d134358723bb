"""A Bridge in memory: the hub over a registry that forgets, and Routers joined to it by sockets
that are pairs of memory channels."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from relay.errors import ConnectionClosed, Refused, SignallingError
from relay.identity import Identity
from relay.signalling.authentication import introduce
from relay.signalling.client import SessionPort, SignallingClient
from relay.signalling.hub import (
    GrantedRow,
    GrantRow,
    Hub,
    ListedRow,
    RouterRow,
    SessionRefused,
    SignedRow,
    Timeouts,
)
from relay.signalling.messages import (
    Answer,
    Ask,
    Direction,
    Directory,
    EndReason,
    Granted,
    Held,
    InLine,
    Listing,
    Message,
    Open,
    Ping,
    Progress,
    decode,
    encode,
)
from relay.signalling.transport import Socket

NETWORK = bytes(range(16))


class MemorySocket:
    """One end of a socket; `send` waits until the other end receives."""

    def __init__(
        self, send: "trio.MemorySendChannel[bytes]", receive: "trio.MemoryReceiveChannel[bytes]"
    ) -> None:
        self._send = send
        self._receive = receive

    async def receive(self) -> bytes:
        try:
            return await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            return b""

    async def send(self, frame: bytes) -> None:
        try:
            await self._send.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosed("the socket is closed") from error

    async def aclose(self) -> None:
        self.cut()
        await trio.lowlevel.checkpoint()

    def cut(self) -> None:
        """As if the network was gone: both ends find out when they next use it."""
        self._send.close()
        self._receive.close()


def socket_pair() -> tuple[MemorySocket, MemorySocket]:
    one, other = trio.open_memory_channel[bytes](0), trio.open_memory_channel[bytes](0)
    return MemorySocket(one[0], other[1]), MemorySocket(other[0], one[1])


class Registry:
    """A Backend in dictionaries, which checks what the hub promises."""

    def __init__(self) -> None:
        self.hub: Hub | None = None
        self.routers: dict[bytes, tuple[str, bytes]] = {}
        # As if every Router had granted every other something.
        self.all_concern_all = False
        self.publications: dict[bytes, Sequence[bytes]] = {}
        self.granted_by: dict[bytes, Sequence[GrantRow]] = {}
        self.sessions: dict[bytes, tuple[bytes, bytes]] = {}
        self.answers: dict[bytes, bytes] = {}
        self.ended_with: dict[bytes, EndReason] = {}
        self.refuse_open: EndReason | None = None
        self.fail_urls: Exception | None = None
        self.reads_ahead = False
        self.signed: list[tuple[bytes, Direction, int]] = []
        self.slots_opened: dict[tuple[bytes, Direction], int] = {}

    def enrol(self, identity: Identity, name: str = "hospital") -> None:
        self.routers[identity.public] = (name, b"")

    async def admit(self, router: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if router not in self.routers:
            raise Refused(403, "this Router is not enrolled")

    async def publish_key(self, router: bytes, statement: bytes) -> Sequence[str]:
        name, _ = self.routers[router]
        self.routers[router] = (name, statement)
        assert self.hub is not None
        await self.hub.directory_changed(router, routers=[(router, name, statement)])
        return []

    async def publish(self, router: bytes, statements: Sequence[bytes]) -> Sequence[str]:
        refused = [f"{s.decode()} is published already" for s in statements if s == b"taken"]
        self.publications[router] = statements
        assert self.hub is not None
        await self.hub.directory_changed(
            router, listed=[self._listed(router)], publications=statements
        )
        return refused

    async def grants(self, router: bytes, rows: Sequence[GrantRow]) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        before = self.granted_by.get(router, ())
        self.granted_by[router] = rows
        assert self.hub is not None
        await self.hub.granted_changed({router, *(row[0] for row in [*before, *rows])})
        return []

    async def granted(self, router: bytes) -> Sequence[GrantedRow]:
        await trio.lowlevel.checkpoint()
        return [
            (owner, title, services)
            for owner, rows in self.granted_by.items()
            for grantee, title, services in rows
            if grantee == router
        ]

    def _listed(self, router: bytes) -> ListedRow:
        titles = (s.decode() for s in self.publications.get(router, ()))
        return router, self.routers[router][0], tuple((title, ("echo",)) for title in titles)

    async def listing(self) -> Sequence[ListedRow]:
        await trio.lowlevel.checkpoint()
        return list(map(self._listed, self.routers))

    async def concerns(self, router: bytes) -> frozenset[bytes]:
        await trio.lowlevel.checkpoint()
        if self.all_concern_all:
            return frozenset(self.routers)
        return frozenset(
            {router}
            | {row[0] for row in self.granted_by.get(router, ())}
            | {owner for owner, rows in self.granted_by.items() if router in {r[0] for r in rows}}
        )

    async def rows(self, routers: Collection[bytes]) -> tuple[Sequence[RouterRow], Sequence[bytes]]:
        await trio.lowlevel.checkpoint()
        known = sorted(set(routers) & self.routers.keys())
        rows = [(router, *self.routers[router]) for router in known]
        return rows, [s for router in known for s in self.publications.get(router, ())]

    async def owner(self, ae_title: str) -> bytes | None:
        await trio.lowlevel.checkpoint()
        statement = ae_title.encode()
        return next((r for r, held in self.publications.items() if statement in held), None)

    async def open(self, caller: bytes, message: Open) -> None:
        await trio.lowlevel.checkpoint()
        assert message.session not in self.sessions
        if self.refuse_open is not None:
            raise SessionRefused(self.refuse_open)
        self.sessions[message.session] = (caller, message.router)

    async def answered(self, session: bytes, answer: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.answers[session] = answer

    async def ended(self, session: bytes, reason: EndReason) -> None:
        await trio.lowlevel.checkpoint()
        if self.sessions.pop(session, None) is not None:
            self.ended_with[session] = reason

    def ends(self, session: bytes) -> tuple[bytes, bytes] | None:
        return self.sessions.get(session)

    async def sessions_of(self, router: bytes) -> Sequence[bytes]:
        await trio.lowlevel.checkpoint()
        return [session for session, ends in self.sessions.items() if router in ends]

    async def put_urls(
        self, router: bytes, session: bytes, direction: Direction, first: int, count: int
    ) -> Sequence[SignedRow]:
        await trio.lowlevel.checkpoint()
        if (ends := self.sessions.get(session)) is None:
            raise Refused(404, "unknown session")  # it was ended meanwhile
        assert ends[direction] == router
        return [signed("PUT", direction, slot) for slot in range(first, first + count)]

    async def read_urls(
        self, session: bytes, direction: Direction, slot: int
    ) -> tuple[SignedRow, SignedRow]:
        await trio.lowlevel.checkpoint()
        if self.fail_urls is not None:
            raise self.fail_urls
        self.signed.append((session, direction, slot))
        return signed("GET", direction, slot), signed("DELETE", direction, slot)

    async def ahead_urls(
        self, session: bytes, direction: Direction, first: int, count: int
    ) -> list[tuple[SignedRow, SignedRow]]:
        await trio.lowlevel.checkpoint()
        slots = range(first, first + count) if self.reads_ahead else ()
        return [
            (signed("GET", direction, slot), signed("DELETE", direction, slot)) for slot in slots
        ]

    def opened(self, session: bytes, direction: Direction, slots: int) -> None:
        self.slots_opened[session, direction] = slots


def signed(method: str, direction: Direction, slot: int) -> SignedRow:
    return method, f"https://store.example/{direction.value}/{slot}", (("x-a", "b"),), 1_800_000_000


async def nothing(*_: Any) -> None:
    await trio.lowlevel.checkpoint()


@attrs.define(slots=True, eq=False)
class Router:
    """A client with all that came unasked."""

    identity: Identity
    client: SignallingClient
    opens: "trio.MemoryReceiveChannel[Open]"
    directories: list[Directory]
    asks: list[Ask]
    listings: list[Listing] = attrs.field(factory=list)
    granted: list[Granted] = attrs.field(factory=list)

    @property
    def public(self) -> bytes:
        return self.identity.public


class Bridge:
    """The hub, its registry, and every socket that was ever joined to it."""

    def __init__(self, nursery: trio.Nursery, timeouts: Timeouts | None = None) -> None:
        self.nursery = nursery
        self.identity = Identity.from_seed(b"B" * 32)
        self.timeouts = timeouts or Timeouts()
        self.registry = Registry()
        self.up = True
        self.sockets: dict[bytes, MemorySocket] = {}
        self._serving: list[trio.CancelScope] = []
        self._start()

    def _start(self) -> None:
        self.hub = self.registry.hub = Hub(
            self.identity, NETWORK, self.registry, timeouts=self.timeouts
        )
        scope = trio.CancelScope()
        self._serving.append(scope)
        self.nursery.start_soon(self._run, self.hub, scope)

    async def _run(self, hub: Hub, scope: trio.CancelScope) -> None:
        with scope:
            await hub.run()

    def stop(self) -> None:
        """As if the process was killed: nothing is left but the registry."""
        self.up = False
        for scope in self._serving:
            scope.cancel()
        self._serving.clear()

    def start(self) -> None:
        self._start()
        self.up = True

    def join(self) -> MemorySocket:
        """A new socket to the hub."""
        if not self.up:
            raise SignallingError("connection refused")
        ours, theirs = socket_pair()
        scope = trio.CancelScope()
        self._serving.append(scope)
        self.nursery.start_soon(self._serve, theirs, scope)
        return ours

    async def _serve(self, socket: MemorySocket, scope: trio.CancelScope) -> None:
        with scope:
            await self.hub.serve(socket)
        socket.cut()

    def dialler(self, identity: Identity) -> Callable[[trio.Nursery], Any]:
        async def dial(_: trio.Nursery) -> Socket:
            await trio.lowlevel.checkpoint()
            self.sockets[identity.public] = self.join()
            return self.sockets[identity.public]

        return dial

    def cut(self, router: "Router | Identity") -> None:
        """Cut that Router's socket."""
        self.sockets[router.public].cut()

    async def router(
        self,
        letter: str,
        *,
        on_connected: Callable[[], Any] = nothing,
        on_open: Callable[[Open], Any] | None = None,
        timeouts: Timeouts | None = None,
        enrolled: bool = True,
        wait: bool = True,
    ) -> Router:
        """A Router that runs, connected."""
        identity = Identity.from_seed(letter.encode() * 32)
        if enrolled:
            self.registry.enrol(identity, f"hospital {letter}")
        client = SignallingClient(
            "https://bridge.example",
            identity,
            NETWORK,
            self.identity.public,
            timeouts=timeouts or self.timeouts,
            dial=self.dialler(identity),
        )
        send, receive = trio.open_memory_channel[Open](1000)
        router = Router(identity, client, receive, [], [])

        async def on_directory(message: Listing | Directory | Granted) -> None:
            match message:
                case Granted():
                    router.granted.append(message)
                case Listing():
                    router.listings.append(message)
                case Directory():
                    router.directories.append(message)
            await trio.lowlevel.checkpoint()

        async def on_ask(message: Ask) -> None:
            router.asks.append(message)
            await trio.lowlevel.checkpoint()

        async def run() -> None:
            await client.run(
                on_connected=on_connected,
                on_open=on_open or send.send,
                on_directory=on_directory,
                on_ask=on_ask,
            )

        self.nursery.start_soon(run)
        if wait:
            await client.wait_connected()
            # Wait for Held to be read at the other end.
            while identity.public not in self.hub.connected():
                await trio.sleep(0.001)
        return router

    async def raw_router(self, letter: str, *, hold: bool = True) -> MemorySocket:
        """A Router's authenticated socket, for tests that speak for themselves."""
        identity = Identity.from_seed(letter.encode() * 32)
        self.registry.enrol(identity, f"hospital {letter}")
        socket = self.join()
        await introduce(socket, identity, NETWORK, self.identity.public, 10)
        if hold:
            await socket.send(encode(Held(())))
        return socket


@asynccontextmanager
async def running_bridge(timeouts: Timeouts | None = None) -> AsyncIterator[Bridge]:
    async with trio.open_nursery() as nursery:
        yield Bridge(nursery, timeouts)
        nursery.cancel_scope.cancel()


def session_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def opening(number: int, callee: Router | bytes) -> Open:
    router = callee if isinstance(callee, bytes) else callee.public
    return Open(session_id(number), router, "PACS", b"opening", b"request")


def progress(session: bytes, opened: int = 0) -> Progress:
    return Progress(session, (0, 0, opened, 8, 65536), (0, 0, 0, 8, 65536))


async def joined(number: int, caller: Router, callee: Router) -> tuple[SessionPort, SessionPort]:
    """The two ports of an answered session."""
    near = caller.client.attach(session_id(number))
    assert await near.send(opening(number, callee))
    message = await callee.opens.receive()
    far = callee.client.attach(message.session)
    assert await far.send(Answer(message.session, b"answer"))
    assert isinstance(await near.receive(), Answer)
    return near, far


def in_line(session: bytes, chunk: int, size: int = 100) -> InLine:
    return InLine(session, chunk, bytes(size))


async def receive_until(socket: Socket, kind: type[Message]) -> Any:
    """The next message of that kind; others, but for pings, are passed over."""
    while True:
        frame = await socket.receive()
        assert frame, f"closed before a {kind.__name__} came"
        message = decode(frame)
        if isinstance(message, kind):
            return message
        assert not isinstance(message, Ping) or kind is not Ping
