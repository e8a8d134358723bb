"""Objects on their way into the Bridge's own store, and who asks for them ahead of time.

A reader that waits for an object when its PUT begins is served what has come while the rest still
arrives, so that the object costs one round trip and not two (DESIGN §5). The end of an object is
held back until it is stored: whoever has read it whole may delete it. What was stored just now is
read from memory as well, since most objects are read once, and that at once.
"""

import os
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from functools import partial

import attrs
import trio
from trio.lowlevel import ParkingLot

from relay.errors import ProviderError
from relay.workers import Workers

# Seconds that a request waits for its object to begin: longer than a sender pauses in a study, and
# shorter than the proxies in between leave an answer out.
AHEAD_WAIT = 20.0
# Requests that wait at once, where the Bridge says nothing else: each holds a connection, so that
# it gives a share of those that it may have.
MAXIMUM_AHEAD = 2048
# ... and of one Router, in all of its sessions: twice what it asks for at once (64), since those
# whose connection was lost wait on until that is noticed.
MAXIMUM_AHEAD_OF_ROUTER = 128

# How much is read at once of what is no longer in memory.
READ_PIECE = 1024 * 1024
# What is held in memory of all objects together, what readers hold and what is read for them
# included: what 1 Gbit/s brings in a round trip of 200 ms, and some. Beyond it stored ones that
# nobody reads are let go of, and no PUT and no reader keeps more than CROWDED_PIECE waiting for its
# other end. So the bound is this, and CROWDED_PIECE for each connection: 0.3 GiB for 4,096 that all
# send or read as slowly as they may. What waits for the disk (READ_PIECE for each of its threads,
# one read of its connection for each PUT) comes on top, and is gone when the disk has had its turn.
MAXIMUM_MEMORY = 32 * 1024 * 1024
CROWDED_PIECE = 64 * 1024
# Stored objects in memory, and pieces of one: the small ones cost more than their bytes.
MAXIMUM_KEPT = 1024
MAXIMUM_PIECES = 64


class _State(Enum):
    UNDER_WAY = auto()
    STORED = auto()
    CUT = auto()


@attrs.define(slots=True)
class _Memory:
    """Bytes of all arrivals, and of what is read of files, that are in memory."""

    held: int = 0

    @property
    def piece(self) -> int:
        """How much is to be read of a file at once now."""
        return READ_PIECE if self.held <= MAXIMUM_MEMORY else CROWDED_PIECE

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """So many bytes more, while the block lasts."""
        self.held += size
        try:
            yield
        finally:
            self.held -= size


class Arrival:
    """One PUT under way. Its bytes are in memory until they are written, and then in its file."""

    def __init__(self, name: str, length: int, memory: _Memory | None = None) -> None:
        self.name = name
        self.length = length
        # Of what was received: from which byte on `pieces` hold it; what is before is in the file.
        self.written = 0
        self.pieces: list[bytes] = []
        self.received = 0
        self.descriptor: int | None = None
        self._memory = memory or _Memory()
        self._state = _State.UNDER_WAY
        self._changed = ParkingLot()
        self._users = 1  # the PUT itself

    # --- for the PUT ----------------------------------------------------------------------------

    def add(self, piece: bytes) -> None:
        """The next piece has come."""
        self.pieces.append(piece)
        self.received += len(piece)
        self._memory.held += len(piece)
        self._changed.unpark_all()

    def wrote(self) -> None:
        """The file holds all that was received."""
        self._memory.held -= self.received - self.written
        self.written, self.pieces = self.received, []

    def end(self, *, stored: bool) -> None:
        """The PUT is over: the object is there, or it will not come by this one.

        One that was taken for hanging, and cut for its readers, may yet be stored.
        """
        if stored or self._state is _State.UNDER_WAY:
            self._state = _State.STORED if stored else _State.CUT
            self._changed.unpark_all()

    # --- for readers ----------------------------------------------------------------------------

    def hold(self) -> None:
        """Keep what was received until `release`."""
        self._users += 1

    def release(self) -> None:
        """One user less; the last lets go of the bytes and closes the file."""
        self._users -= 1
        if self._users:
            return
        self.wrote()
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    async def read(self, workers: Workers) -> AsyncGenerator[bytes, None]:
        """All of the object, in pieces, as it comes; for whoever holds it.

        Raises ProviderError if the PUT is cut short, or the disk fails.
        """
        offset = 0
        while offset < self.length or self._state is not _State.STORED:
            if self._state is _State.CUT:
                raise ProviderError("the upload was cut short")
            end = self.received if self._state is _State.STORED else self.length - 1
            if offset >= end:
                # Not after a look at the file: what changes meanwhile wakes only who is parked.
                await self._changed.park()
            elif offset < self.written:
                assert self.descriptor is not None
                size = min(self._memory.piece, self.written - offset)
                read = partial(os.pread, self.descriptor, size, offset)
                try:
                    piece = (await workers.run(read))[: end - offset]
                except OSError as error:
                    raise ProviderError(f"disk store: {error.strerror}") from error
                if not piece:
                    raise ProviderError("disk store: a file is shorter than what was written")
                offset += len(piece)
                with self._memory.holding(len(piece)):
                    yield piece
            elif piece := self._in_memory(offset, end):
                offset += len(piece)
                # A reader that finds all there is must not have the loop alone.
                await trio.lowlevel.checkpoint()
                yield piece
            else:
                await self._changed.park()

    def _in_memory(self, offset: int, end: int) -> bytes:
        start = self.written
        for piece in self.pieces:
            if start <= offset < start + len(piece):
                return (
                    piece
                    if start == offset and start + len(piece) <= end
                    else bytes(memoryview(piece)[offset - start : end - start])
                )
            start += len(piece)
        return b""


class Reader:
    """Somebody who asked for an object ahead of time. `leave` ends it, however it ends."""

    def __init__(self, left: Callable[["Reader"], None], name: str, tag: str) -> None:
        self.name = name
        self.tag = tag
        self._left = left
        self._arrival: Arrival | None = None
        self._told = False
        self._waiting: trio.CancelScope | None = None

    def tell(self, arrival: Arrival | None) -> None:
        """The object has begun to come, or will not; the first word of it counts."""
        if self._told:
            return
        self._told = True
        if arrival is not None:
            arrival.hold()
        self._arrival = arrival
        if self._waiting is not None:
            self._waiting.cancel()

    async def begun(self, gone: Callable[[], Awaitable[None]]) -> Arrival | None:
        """Wait until the object begins to come; it is the caller's then, to be released.

        None if it does not in AHEAD_WAIT, or not before `gone` returns, which is cancelled as soon
        as it is not needed: so that one task listens both to the store and to who asks.
        """
        if not self._told:
            with trio.move_on_after(AHEAD_WAIT) as self._waiting:
                await gone()
        arrival, self._arrival = self._arrival, None
        return arrival

    def leave(self) -> None:
        """The reader waits no more."""
        self._left(self)
        if self._arrival is not None:
            self._arrival.release()
            self._arrival = None


class Arrivals:
    """The PUTs of one store that are under way, what of them is in memory, and who waits for one.

    Of what was stored, the last is kept in memory, as far as MAXIMUM_MEMORY and MAXIMUM_KEPT go.
    `maximum_ahead` readers may wait.
    """

    def __init__(self, maximum_ahead: int = MAXIMUM_AHEAD) -> None:
        self._maximum_ahead = maximum_ahead
        self.memory = _Memory()
        self._under_way: dict[str, Arrival] = {}
        self._stored: dict[str, Arrival] = {}  # oldest first
        self._readers: dict[str, list[Reader]] = {}
        self._waiting: Counter[str] = Counter()  # by the tag of their Router
        self._closed = False

    # --- PUTs -----------------------------------------------------------------------------------

    def begin(self, name: str, length: int) -> Arrival:
        """A PUT, to be given to `over`. It replaces one of the same name that hangs."""
        arrival = Arrival(name, length, self.memory)
        earlier = self._under_way.get(name)
        if earlier is not None:
            earlier.end(stored=False)  # for its readers, who ask again; it may yet be stored
        self._under_way[name] = arrival
        for reader in self._readers.pop(name, ()):
            reader.tell(arrival)
        return arrival

    def crowd(self, arrival: Arrival) -> bool:
        """Whether too much is in memory, so that what came of this PUT is to be written now."""
        if self.memory.held <= MAXIMUM_MEMORY:
            return False
        self._make_room()
        held = arrival.received - arrival.written
        return held >= CROWDED_PIECE and self.memory.held > MAXIMUM_MEMORY

    def over(self, arrival: Arrival, *, stored: bool) -> None:
        """The PUT has ended."""
        whole = stored and not arrival.written and arrival.descriptor is None
        if whole and arrival.name not in self._stored:
            if len(arrival.pieces) > MAXIMUM_PIECES:
                arrival.pieces = [b"".join(arrival.pieces)]
            arrival.hold()
            self._stored[arrival.name] = arrival
            self._make_room()
        if stored and arrival.written:
            arrival.wrote()  # its file, which is open still, has the rest as well
        arrival.end(stored=stored)
        if self._under_way.get(arrival.name) is arrival:
            del self._under_way[arrival.name]
        arrival.release()

    # --- what is stored -------------------------------------------------------------------------

    def in_memory(self, name: str) -> Arrival | None:
        """The stored object, if it is still there; whoever reads it holds it."""
        return self._stored.get(name)

    def forget(self, names: Iterable[str]) -> None:
        """These are not to be had any more, and will not come."""
        for name in names:
            if (arrival := self._stored.pop(name, None)) is not None:
                arrival.release()
            for reader in self._readers.pop(name, ()):
                reader.tell(None)

    # --- readers --------------------------------------------------------------------------------

    def reader(self, name: str, tag: str) -> Reader | None:
        """Somebody who waits for `name`; None if too many do already, or the store closes.

        `tag` stands for the Router whose request it is: one cannot take the places of all others.
        """
        full = (
            self._closed
            or self._waiting[tag] >= MAXIMUM_AHEAD_OF_ROUTER
            or self._waiting.total() >= self._maximum_ahead
        )
        if full:
            return None
        reader = Reader(self._leave, name, tag)
        self._waiting[tag] += 1
        if (arrival := self._under_way.get(name)) is not None:
            reader.tell(arrival)
        else:
            self._readers.setdefault(name, []).append(reader)
        return reader

    def close(self) -> None:
        """Nobody waits any more, and nothing stays in memory."""
        self._closed = True
        self.forget([*self._readers, *self._stored])

    def _leave(self, reader: Reader) -> None:
        self._waiting[reader.tag] -= 1
        if not self._waiting[reader.tag]:
            del self._waiting[reader.tag]
        readers = self._readers.get(reader.name, [])
        if reader in readers:
            readers.remove(reader)
            if not readers:
                del self._readers[reader.name]

    def _make_room(self) -> None:
        while self._stored and (
            self.memory.held > MAXIMUM_MEMORY or len(self._stored) > MAXIMUM_KEPT
        ):
            self._stored.pop(next(iter(self._stored))).release()
