"""What a tunnel stands on, in memory: a hub joining two Routers, and an object store that fails.

`Network` plays the Bridge and both clients: it can cut either connection, delay, drop, duplicate
and end sessions. `Store` plays the object store: it can fail, stall, truncate and lie. Both record
what passed, for tests to look at.
"""

import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio

from relay.dicom.pdu import PDV, AAssociateAC, Atom
from relay.errors import ObjectMissing, ProviderError, SignallingError
from relay.identity import Identity
from relay.signalling.client import Connected, Disconnected
from relay.signalling.messages import (
    Ahead,
    AheadURLs,
    Announce,
    Direction,
    End,
    EndReason,
    Message,
    Open,
    Refuse,
    Resign,
    Resigned,
    Slots,
    SlotURLs,
    Withdraw,
    decode,
    encode,
)
from relay.tunnel.allowance import Allowance
from relay.tunnel.chunks import TARGET_SIZE
from relay.tunnel.handshake import (
    PendingOpening,
    Purpose,
    ReceivedOpening,
    accept_opening,
    open_session,
)
from relay.tunnel.keys import HPKEKeyPair
from relay.tunnel.records import Record
from relay.tunnel.session import (
    TunnelAssociation,
    TunnelTimeouts,
    accept_tunnel,
    open_tunnel,
)
from relay.tunnel.store import ObjectRequest
from relay.tunnel.writer import Throttle

NETWORK = bytes(range(16))
CALLER, CALLEE = Identity.from_seed(b"a" * 32), Identity.from_seed(b"b" * 32)
# Fills a chunk; does not compress.
BLOCK = PDV(1, False, False, random.Random(0).randbytes(TARGET_SIZE - 8))
AC = AAssociateAC("PACS", "MODALITY", ())
KEY = HPKEKeyPair.from_seed(bytes(range(96)))


class Names(trio.abc.HostnameResolver):
    """Resolves every name to these addresses, in order of the calls."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in self.answers.pop(0)
        ]

    async def getnameinfo(self, sockaddr, flags):
        raise AssertionError("nobody asks for this")


class Store:
    """An object store of random temper; also both Routers' ObjectClient."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.objects: dict[str, bytes] = {}
        self.failing = 0.0  # how often a request fails
        self.delay = 0.0
        self.refuse: Callable[[ObjectRequest], bool] = lambda request: False
        self.mangle: Callable[[bytes], bytes] = lambda data: data
        self.stalled: trio.Event | None = None
        self.puts = self.gets = self.gets_ahead = self.deletes = self.warmed = 0
        self.in_flight = self.most_in_flight = 0
        self.concurrent_puts = 0

    async def _request(self, request: ObjectRequest) -> None:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await trio.lowlevel.checkpoint()
            if self.stalled is not None:
                await self.stalled.wait()
            await trio.sleep(self.delay * self.random.random())
        finally:
            self.in_flight -= 1
        if self.refuse(request):
            raise ProviderError("answered 403", permanent=True)
        if self.random.random() < self.failing:
            raise ProviderError("answered 503")

    async def put(self, request: ObjectRequest, data: bytes | Sequence[bytes]) -> None:
        assert request.method == "PUT"
        data = data if isinstance(data, bytes) else b"".join(data)
        if self.random.random() < self.failing / 2:
            # Stored, but the answer is lost: the next try meets its own object.
            self.objects.setdefault(request.url, data)
            raise ProviderError("ReadTimeout")
        await self._request(request)
        self.puts += 1
        if request.url in self.objects:
            assert self.objects[request.url] == data, "a retry sends the same bytes"
        self.objects.setdefault(request.url, data)

    async def get(self, request: ObjectRequest, size: int) -> bytes:
        assert request.method == "GET"
        await self._request(request)
        if request.url not in self.objects:
            raise ObjectMissing("answered 404")
        self.gets += 1
        data = self.mangle(self.objects[request.url])
        if len(data) != size:
            raise ProviderError(f"object has {len(data)} bytes, not {size}")
        return data

    async def warm(self, count: int) -> None:
        self.warmed += count

    async def get_ahead(
        self, request: ObjectRequest, limit: int, begun: Callable[[], None] = lambda: None
    ) -> bytes | None:
        assert request.method == "GET"
        self.gets_ahead += 1
        with trio.move_on_after(20):
            while request.url not in self.objects:
                await trio.sleep(0.01)
            await self._request(request)
            return self.mangle(self.objects[request.url])
        return None

    async def delete(self, request: ObjectRequest) -> None:
        assert request.method == "DELETE"
        await self._request(request)
        self.deletes += 1
        self.objects.pop(request.url, None)


class Port:
    """One end's SessionPort."""

    def __init__(self, client: "Client", session: bytes) -> None:
        self.session = session
        self.client = client
        self.inbox: list[object] = []
        self.wake = trio.Event()
        self.over = False

    def put(self, item: object) -> None:
        self.inbox.append(item)
        self.wake.set()

    async def send(self, message: Message) -> bool:
        await trio.lowlevel.checkpoint()
        return not self.over and self.client.network.carry(self.client, message)

    async def receive(self) -> object:
        while not self.inbox:
            self.wake = trio.Event()
            await self.wake.wait()
        item = self.inbox.pop(0)
        if isinstance(item, End):
            self.over = True
        return item

    def detach(self) -> None:
        self.client.ports.pop(self.session, None)

    async def aclose(self, reason: EndReason = EndReason.FINISHED) -> None:
        if not self.over:
            await self.send(End(self.session, reason))
            self.over = True
        self.detach()


class Client:
    """One Router's SignallingClient."""

    def __init__(self, network: "Network", direction: Direction) -> None:
        self.network = network
        self.direction = direction  # that which it writes
        self.connected = True
        self.ports: dict[bytes, Port] = {}
        self.known: set[bytes] = set()
        self.requests = 0

    def attach(self, session: bytes) -> Port:
        self.known.add(session)
        return self.ports.setdefault(session, Port(self, session))

    async def request(self, build: Callable[[int], Message], deadline: float = 10) -> Message:
        self.requests += 1
        await trio.sleep(self.network.latency)
        if not self.connected:
            raise SignallingError("no connection to the Bridge")
        match decode(encode(build(self.requests))):
            case Slots(request=number, session=session, first=first, count=count):
                rows = [
                    self.network.sign("PUT", session, self.direction, slot)
                    for slot in range(first, first + count)
                ]
                return SlotURLs(number, session, first, tuple(rows))
            case Resign(request=number, session=session, slot=slot):
                other = self.direction.other
                get = self.network.sign("GET", session, other, slot)
                delete = self.network.sign("DELETE", session, other, slot)
                return Resigned(number, session, (get,), (delete,))
            case Ahead(request=number, session=session, first=first, count=count):
                other = self.direction.other
                slots = range(first, first + count) if self.network.reads_ahead else ()
                gets = [self.network.sign("GET", session, other, slot) for slot in slots]
                deletes = [self.network.sign("DELETE", session, other, slot) for slot in slots]
                return AheadURLs(number, session, first, gets, deletes)
            case other:
                raise AssertionError(other)


@attrs.define(eq=False)
class Frame:
    """A message on its way, and when it arrives."""

    due: float
    target: Client
    message: Message
    connection: int


class Network:
    """The Bridge: carries messages between two clients, in order, after `latency` seconds."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.latency = 0.01
        self.reads_ahead = seed % 2 == 1
        self.clients = (
            Client(self, Direction.CALLER_TO_CALLEE),
            Client(self, Direction.CALLEE_TO_CALLER),
        )
        self.caller, self.callee = self.clients
        self.connections = {id(client): 0 for client in self.clients}
        self.frames: list[Frame] = []
        self.wake = trio.Event()
        self.passed: list[Message] = []
        self.on_open: Callable[[Open], None] = lambda message: None
        self.ended: list[EndReason] = []
        self.lose: Callable[[Message], bool] = lambda message: False
        self.signed = 0
        self.resigned = 0

    def sign(self, method: str, session: bytes, direction: Direction, slot: int) -> tuple:
        self.signed += 1
        url = f"https://store.example/{session.hex()}/{int(direction)}/{slot}"
        return (method, url, (), 0)

    def carry(self, source: Client, message: Message) -> bool:
        if not source.connected:
            return False
        message = decode(encode(message))
        self.passed.append(message)
        if isinstance(message, End):
            self.ended.append(EndReason(message.reason))
        if isinstance(message, Announce):
            session, direction, slot = message.session, source.direction, message.slot
            message = attrs.evolve(
                message,
                get=(self.sign("GET", session, direction, slot),),
                delete=(self.sign("DELETE", session, direction, slot),),
            )
        target = self.callee if source is self.caller else self.caller
        if not self.lose(message):
            due = trio.current_time() + self.latency
            self.frames.append(Frame(due, target, message, self.connections[id(target)]))
            self.wake.set()
        return True

    async def run(self) -> None:
        while True:
            while not self.frames:
                self.wake = trio.Event()
                await self.wake.wait()
            frame = self.frames[0]
            await trio.sleep_until(frame.due)
            if frame not in self.frames:
                continue  # it was lost meanwhile
            self.frames.remove(frame)
            # What was on its way over a connection that was cut is lost.
            if frame.target.connected and frame.connection == self.connections[id(frame.target)]:
                self.deliver(frame.target, frame.message)

    def deliver(self, target: Client, message: Message) -> None:
        if isinstance(message, Open):
            if message.session not in target.ports:
                target.attach(message.session)
                self.on_open(message)
            return
        port = target.ports.get(message.session)
        if port is not None:
            port.put(message)
        elif message.session in target.known and not isinstance(message, (End, Withdraw, Refuse)):
            other = self.caller if target is self.callee else self.callee
            # Behind what is on its way there already, such as the refusal that ended the session.
            end = End(message.session, EndReason.UNKNOWN_SESSION)
            due = trio.current_time() + self.latency
            self.frames.append(Frame(due, other, end, self.connections[id(other)]))
            self.wake.set()

    def cut(self, client: Client) -> None:
        if client.connected:
            client.connected = False
            self.connections[id(client)] += 1
            # What it had sent may have been lost as well.
            kept = [f for f in self.frames if f.target is client or self.random.random() < 0.5]
            self.frames[:] = kept
            for port in client.ports.values():
                port.put(Disconnected())

    def restore(self, client: Client) -> None:
        if not client.connected:
            client.connected = True
            for port in client.ports.values():
                port.put(Connected())

    def end(self, session: bytes, reason: EndReason) -> None:
        """The Bridge ends the session."""
        for client in self.clients:
            if session in client.ports:
                client.ports[session].put(End(session, reason))


def opening(request: bytes = b"request", purpose: Purpose = Purpose.ASSOCIATION) -> PendingOpening:
    entropy = random.randbytes
    return open_session(
        CALLER, NETWORK, CALLEE.public, KEY.public, "PACS", request, purpose, 0, entropy
    )


def received(message: Open) -> ReceivedOpening:
    return accept_opening(
        CALLEE, {KEY.key_id: KEY}, NETWORK, CALLER.public, message.opening, message.request, 0
    )


def near_end(
    network: Network,
    store: Store | None = None,
    timeouts: TunnelTimeouts | None = None,
    purpose: Purpose = Purpose.ASSOCIATION,
    throttle: Throttle | None = None,
) -> AbstractAsyncContextManager[TunnelAssociation]:
    """The caller's end of a new session."""
    return open_tunnel(
        network.caller,
        store or Store(),
        opening(purpose=purpose),
        allowance=Allowance(),
        timeouts=timeouts,
        throttle=throttle,
    )


@asynccontextmanager
async def running(
    network: Network,
    body: Callable[[TunnelAssociation], Awaitable[object]] | None = None,
    store: Store | None = None,
    timeouts: TunnelTimeouts | None = None,
    throttle: Throttle | None = None,
) -> AsyncIterator[trio.Nursery]:
    """The network, and a callee that accepts what is opened and does `body` with it.

    Left when the callee has left its sessions. Without `body` openings are only noted.
    """

    async def serve(message: Open) -> None:
        async with accept_tunnel(
            network.callee,
            store or Store(),
            received(message),
            allowance=Allowance(),
            timeouts=timeouts,
            throttle=throttle,
        ) as association:
            await body(association)

    async with trio.open_nursery() as carrying:
        carrying.start_soon(network.run)
        async with trio.open_nursery() as serving:
            if body is not None:
                network.on_open = lambda message: serving.start_soon(serve, message)
            yield serving
        carrying.cancel_scope.cancel()


@attrs.define
class Pair:
    """Both ends of one tunnel, and what it stands on."""

    network: Network
    store: Store
    caller: TunnelAssociation
    callee: TunnelAssociation


@asynccontextmanager
async def tunnel(
    network: Network | None = None,
    store: Store | None = None,
    timeouts: TunnelTimeouts | None = None,
) -> AsyncIterator[Pair]:
    """A standing tunnel. Leaving it, the caller leaves first."""
    network, store = network or Network(), store or Store()
    far: list[TunnelAssociation] = []
    stands, leave = trio.Event(), trio.Event()

    async def body(association: TunnelAssociation) -> None:
        far.append(association)
        stands.set()
        await leave.wait()

    async with running(network, body, store, timeouts):
        try:
            async with near_end(network, store, timeouts) as caller:
                with trio.fail_after(60):
                    await stands.wait()
                yield Pair(network, store, caller, far[0])
        finally:
            leave.set()


@asynccontextmanager
async def established(
    network: Network | None = None,
    store: Store | None = None,
    timeouts: TunnelTimeouts | None = None,
) -> AsyncIterator[Pair]:
    """A tunnel whose association was accepted, and the caller's half has heard of it."""
    async with tunnel(network, store, timeouts) as pair:
        await pair.callee.send(AC)
        assert await pair.caller.receive() == AC
        await trio.sleep(1)
        yield pair


def plain(record: Record) -> Record:
    """The record with its own bytes, to compare and keep."""
    if isinstance(record, PDV):
        return attrs.evolve(record, fragment=bytes(record.fragment))
    return record


def merged(atoms: list[Record]) -> list[Record]:
    """Records as they compare across hops: a fragment may be split and merged in its message."""
    result: list[Record] = []
    for atom in map(plain, atoms):
        last = result[-1] if result else None
        if (
            isinstance(atom, PDV)
            and isinstance(last, PDV)
            and not last.is_last
            and (last.context_id, last.is_command) == (atom.context_id, atom.is_command)
        ):
            result[-1] = attrs.evolve(
                last, fragment=last.fragment + atom.fragment, is_last=atom.is_last
            )
        else:
            result.append(atom)
    return result


def messages(count: int, seed: int = 0, largest: int = 60_000) -> list[Atom]:
    """C-STORE-like messages: a command, then a data set in several fragments."""
    rng = random.Random(seed)
    atoms: list[Atom] = []
    for number in range(count):
        atoms.append(PDV(1, True, True, f"command {number}".encode().ljust(64)))
        size = rng.choice([100, 5_000, largest])
        fragments = rng.choice([1, 2, 7])
        for index in range(fragments):
            content = rng.randbytes(size // 2) + bytes(size // 2)
            atoms.append(PDV(1, False, index == fragments - 1, content))
    return atoms
