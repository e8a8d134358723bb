"""Many Routers in one process, as a Bridge sees them: real identities, TLS and WebSockets.

A Router's own client would take most of the machine's processor time at two thousand of them, and
what is measured is the Bridge: so these frame WebSockets by hand, read of a directory only how much
it holds, and keep nothing. `scripts.benchmark.bridge_load` starts this as a process and tells it
what to do in lines of JSON on its standard input; each is answered by one on its standard output.
"""

import gc
import json
import os
import random
import ssl
import struct
import sys
import time
from pathlib import Path
from typing import Any

import attrs
import msgpack
import trio

from relay.errors import RelayError
from relay.identity import Identity, Publication
from relay.signalling.authentication import introduce
from relay.signalling.messages import (
    Answer,
    Directory,
    Done,
    Granted,
    Grants,
    Held,
    InLine,
    Listing,
    Message,
    Open,
    Ping,
    Pong,
    Publish,
    PublishKey,
    decode,
    encode,
)
from scripts.benchmark.lean_socket import LeanSocket

# As a Router has it (relay.signalling.limits.Timeouts).
HEARTBEAT = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
# For one answer of a Bridge that is busy with all the others.
PATIENCE = 60.0
# Until all is said and told. Where all come back at once, these Routers share a core: they are far
# slower at taking a directory of megabytes than machines of their own would be.
TOLD_DEADLINE = 600.0

# An answer to a C-FIND, sealed; it begins with the time at which it was sent.
IN_LINE = 512
OPENING, REQUEST, ANSWER = 2600, 600, 1300
CLOCK = struct.Struct("d")


@attrs.frozen(slots=True)
class Enrolled:
    """A Router that the Bridge knows: its seed, and what it says on each connection."""

    seed: bytes
    key_statement: bytes
    publications: tuple[bytes, ...]
    grants: tuple[tuple[bytes, str, tuple[str, ...]], ...]
    title: str


@attrs.frozen(slots=True)
class Job:
    """What a process is given: the Bridge, what each Router is to be shown, and Routers."""

    host: str
    port: int
    ca_file: str
    network: bytes
    bridge: bytes
    listed: int
    shown: int
    enrolled: tuple[Enrolled, ...]

    def write(self, path: Path) -> None:
        path.write_bytes(msgpack.packb(attrs.astuple(self)))

    @classmethod
    def read(cls, path: Path) -> "Job":
        job = cls(*msgpack.unpackb(path.read_bytes(), use_list=False))
        rows: Any = job.enrolled
        return attrs.evolve(job, enrolled=tuple(Enrolled(*row) for row in rows))


def routers_in(frame: bytes) -> int:
    """How many Routers a Listing or Directory message holds, its rows unread."""
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(frame)
    unpacker.read_array_header()
    unpacker.skip()
    unpacker.skip()
    return unpacker.read_array_header()


class Router:
    """One Router: connected for as long as it runs, and again whenever that is lost."""

    def __init__(self, enrolled: Enrolled, job: Job, trust: ssl.SSLContext) -> None:
        self.enrolled = enrolled
        self.identity = Identity.from_seed(enrolled.seed)
        self.ready = trio.Event()
        self.dials = 0
        self.directory_bytes = 0
        # Messages of the directory behind the snapshot, and when the last of them came.
        self.told, self.told_bytes, self.told_at = 0, 0, 0.0
        self.latencies: list[float] = []
        self._job = job
        self._trust = trust
        self._socket: LeanSocket | None = None
        self._scope = trio.CancelScope()
        self._listed = self._shown = 0
        self._whole, self._granted, self._done = trio.Event(), trio.Event(), trio.Event()
        self._session, self._answered, self._chunk = b"", trio.Event(), 0

    async def run(self) -> None:
        """Be connected, and come back whenever the connection is lost."""
        pause = FIRST_PAUSE
        while True:
            self.dials += 1
            try:
                await self._connection()
            except* (RelayError, trio.TooSlowError):
                pass  # the Bridge is away, or too busy: it is dialled again
            if self.ready.is_set():
                self.ready, pause = trio.Event(), FIRST_PAUSE
            await trio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE)

    def leave(self) -> None:
        """Lose the connection."""
        self._scope.cancel()

    async def _connection(self) -> None:
        self._listed = self._shown = self.directory_bytes = 0
        self._whole, self._granted, self._done = trio.Event(), trio.Event(), trio.Event()
        job = self._job
        with trio.CancelScope() as self._scope:
            with trio.fail_after(PATIENCE):
                self._socket = socket = await LeanSocket.dial(job.host, job.port, self._trust)
            try:
                await introduce(socket, self.identity, job.network, job.bridge, PATIENCE)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._say_everything)
                    nursery.start_soon(self._ping)
                    while frame := await socket.receive():
                        await self._take(frame)
                    nursery.cancel_scope.cancel()
            finally:
                await socket.aclose()

    async def _say_everything(self) -> None:
        with trio.fail_after(TOLD_DEADLINE):
            for message in (
                PublishKey(1, self.enrolled.key_statement),
                Publish(2, self.enrolled.publications),
                Grants(3, self.enrolled.grants),
            ):
                await self.ask(message)
            await self._say(Held((self._session,) if self._session else ()))
            await self._whole.wait()
            await self._granted.wait()
        self.ready.set()

    async def _ping(self) -> None:
        while True:
            await trio.sleep(HEARTBEAT)
            await self._say(Ping(0))

    async def ask(self, message: Message) -> None:
        """Send a request, and wait until it is done."""
        self._done = trio.Event()
        await self._say(message)
        await self._done.wait()

    async def open(self, callee: "Router") -> None:
        """Open a session with `callee`, and wait for its answer."""
        self._session = callee._session = os.urandom(16)
        self._answered = trio.Event()
        await self._say(
            Open(
                self._session,
                callee.identity.public,
                callee.enrolled.title,
                os.urandom(OPENING),
                os.urandom(REQUEST),
            )
        )
        with trio.fail_after(PATIENCE):
            await self._answered.wait()

    async def exchange(self, padding: bytes) -> None:
        """Send the other end of the session a message that says when it was sent."""
        self._chunk += 1
        sealed = CLOCK.pack(time.monotonic()) + padding
        await self._say(InLine(self._session, self._chunk, sealed))

    async def _say(self, message: Message) -> None:
        assert self._socket is not None
        await self._socket.send(encode(message))

    async def _take(self, frame: bytes) -> None:
        number = frame[1]  # behind the header of an array of fewer than sixteen
        if number in (Listing.number, Directory.number):
            self._take_directory(number, frame)
        elif number == InLine.number:
            now = time.monotonic()
            message = decode(frame)
            assert isinstance(message, InLine)
            self.latencies.append(now - CLOCK.unpack_from(message.sealed)[0])
        elif number == Ping.number:
            await self._say(Pong(0))
        elif number == Open.number:
            message = decode(frame)
            assert isinstance(message, Open)
            await self._say(Answer(message.session, os.urandom(ANSWER)))
        elif number == Answer.number:
            self._answered.set()
        elif number == Granted.number:
            self._granted.set()
        elif number == Done.number:
            message = decode(frame)
            assert isinstance(message, Done)
            if message.refusals:
                raise RuntimeError(f"the Bridge refused: {message.refusals[0]}")
            self._done.set()
        elif number != Pong.number:
            raise RuntimeError(f"not expected: {decode(frame)!r:.200}")

    def _take_directory(self, number: int, frame: bytes) -> None:
        if self._whole.is_set():
            self.told += 1
            self.told_bytes += len(frame)
            self.told_at = time.monotonic()
            return
        self.directory_bytes += len(frame)
        if number == Listing.number:
            self._listed += routers_in(frame)
        else:
            self._shown += routers_in(frame)
        if self._listed >= self._job.listed and self._shown >= self._job.shown:
            self._whole.set()


class Clients:
    """The Routers of this process, and what it may be told to do with them."""

    def __init__(self, job: Job, nursery: trio.Nursery) -> None:
        trust = ssl.create_default_context(cafile=job.ca_file)
        self._routers = [Router(enrolled, job, trust) for enrolled in job.enrolled]
        # Two next to each other are a pair; the last two are kept for what is to change.
        self._pairs = [
            (self._routers[i], self._routers[i + 1]) for i in range(0, len(self._routers) - 3, 2)
        ]
        self._network = job.network
        self._nursery = nursery
        self._random = random.Random(len(self._routers))
        self._serial = 1

    async def connect(self, at_once: int) -> dict[str, Any]:
        """Connect all, `at_once` at a time."""
        limit = trio.CapacityLimiter(at_once)

        async def one(router: Router) -> None:
            async with limit:
                self._nursery.start_soon(router.run)
                await router.ready.wait()

        async with trio.open_nursery() as nursery:
            for router in self._routers:
                nursery.start_soon(one, router)
        # What is there stays: collecting it again and again would be measured as the Bridge's.
        gc.collect()
        gc.freeze()
        return {
            "dials": sum(router.dials for router in self._routers),
            "directory_bytes": self._routers[-1].directory_bytes,
        }

    async def again(self, seconds: float) -> dict[str, Any]:
        """How many are connected once all are, or so many seconds after the Bridge was away."""
        with trio.move_on_after(seconds):
            for router in self._routers:
                await router.ready.wait()
        return {"back": sum(router.ready.is_set() for router in self._routers)}

    async def open(self) -> dict[str, Any]:
        """Open the session of each pair."""
        for caller, callee in self._pairs:
            await caller.open(callee)
        return {"sessions": len(self._pairs)}

    async def exchange(self, seconds: float, rate: float, leaving: float = 0) -> dict[str, Any]:
        """Send so many messages a second, at random times, over all sessions; their latencies.

        Meanwhile a Router leaves and comes back every so many seconds, if `leaving` is not 0.
        """
        async with trio.open_nursery() as nursery:
            if leaving:
                nursery.start_soon(self._come_and_go, leaving)
            found = await self._exchange(seconds, rate)
            nursery.cancel_scope.cancel()
        return found

    async def _come_and_go(self, every: float) -> None:
        while True:
            await trio.sleep(every)
            await self.leave()

    async def _exchange(self, seconds: float, rate: float) -> dict[str, Any]:
        for router in self._routers:
            router.latencies.clear()
        padding = os.urandom(IN_LINE - CLOCK.size)
        began = due = trio.current_time()
        sent, late = 0, 0.0
        while (due := due + self._random.expovariate(rate)) < began + seconds:
            await trio.sleep_until(due)
            late = max(late, trio.current_time() - due)
            await self._random.choice(self._random.choice(self._pairs)).exchange(padding)
            sent += 1
        with trio.fail_after(PATIENCE):
            while sum(len(router.latencies) for router in self._routers) < sent:
                await trio.sleep(0.01)
        latencies = [seconds for router in self._routers for seconds in router.latencies]
        return {"sent": sent, "late": late, "latencies": latencies}

    async def publish(self) -> dict[str, Any]:
        """The last Router publishes its titles anew; when it said so."""
        router = self._routers[-1]
        self._serial += 1
        statements = tuple(
            attrs.evolve(publication, serial=self._serial).sign(router.identity)
            for _, publication in (
                Publication.open(statement, self._network)
                for statement in router.enrolled.publications
            )
        )
        router.enrolled = attrs.evolve(router.enrolled, publications=statements)
        at = time.monotonic()
        await router.ask(Publish(4, statements))
        return {"at": at}

    async def leave(self) -> dict[str, Any]:
        """The last Router but one loses its connection, and is back at once."""
        router = self._routers[-2]
        at = time.monotonic()
        router.leave()
        while router.ready.is_set():
            await trio.sleep(0.001)
        await router.ready.wait()
        return {"at": at}

    async def told(self, messages: int, partners: bool) -> dict[str, Any]:
        """When the last Router had its news: so many messages, but for the last two Routers.

        Only those that work with the last but one, if `partners`: it concerns nobody else.
        """
        others = self._routers[:-2]
        if partners:
            concerned = {grantee for grantee, _, _ in self._routers[-2].enrolled.grants}
            others = [router for router in others if router.identity.public in concerned]
        with trio.fail_after(PATIENCE):
            while any(router.told < messages for router in others):
                await trio.sleep(0.005)
        found = {
            "at": max((router.told_at for router in others), default=0.0),
            "bytes": sum(router.told_bytes for router in others),
            "messages": sum(router.told for router in others),
        }
        return found

    async def forget(self) -> dict[str, Any]:
        """Count news from now on."""
        for router in self._routers:
            router.told, router.told_bytes = 0, 0
        return {}


async def serve(path: Path) -> None:
    """Do what standard input says, line by line, until it ends."""
    job = Job.read(path)
    commands = trio.lowlevel.FdStream(os.dup(sys.stdin.fileno()))
    async with trio.open_nursery() as nursery, commands:
        clients = Clients(job, nursery)
        received = bytearray()
        async for data in commands:
            received += data
            while b"\n" in received:
                line, _, received = received.partition(b"\n")
                command = json.loads(line)
                answer = await getattr(clients, command.pop("do"))(**command)
                print(json.dumps(answer), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(serve, Path(sys.argv[1]))
