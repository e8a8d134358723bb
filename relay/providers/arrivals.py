"""Objects on their way into the Bridge's own store, and who asks for them ahead of time.

A reader that waits for an object when its PUT begins is served what has come while the rest still
arrives, so that the object costs one round trip and not two (DESIGN §5). The end of an object is
held back until it is stored: whoever has read it whole may delete it.
"""

import os
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from functools import partial

import trio
from trio.lowlevel import ParkingLot

from relay.errors import ProviderError
from relay.workers import Workers

# Seconds that a request waits for its object to begin: longer than a sender pauses in a study, and
# shorter than the proxies in between leave an answer out.
AHEAD_WAIT = 20.0
# Requests ahead of time at once: each holds a connection, of which the server has 768.
MAXIMUM_AHEAD = 256
# ... and for one session, both directions together: a few slots each, and their retries.
MAXIMUM_AHEAD_OF_SESSION = 16

# How much is read at once of what is no longer in memory: so much may lie there for each reader.
READ_PIECE = 256 * 1024


class _State(Enum):
    UNDER_WAY = auto()
    STORED = auto()
    CUT = auto()


class Arrival:
    """One PUT under way. Its bytes are in memory until they are written, and then in its file."""

    def __init__(self, name: str, length: int) -> None:
        self.name = name
        self.length = length
        # Of what was received: from which byte on `pieces` hold it; what is before is in the file.
        self.written = 0
        self.pieces: list[bytes] = []
        self.received = 0
        self.descriptor: int | None = None
        self._state = _State.UNDER_WAY
        self._changed = ParkingLot()
        self._users = 1  # the PUT itself

    # --- for the PUT ----------------------------------------------------------------------------

    def add(self, piece: bytes) -> None:
        """The next piece has come."""
        self.pieces.append(piece)
        self.received += len(piece)
        self._changed.unpark_all()

    def wrote(self) -> None:
        """The file holds all that was received."""
        self.written, self.pieces = self.received, []

    def end(self, *, stored: bool) -> None:
        """The PUT is over: the object is there, or it will not come by this one."""
        if self._state is _State.UNDER_WAY:
            self._state = _State.STORED if stored else _State.CUT
            self._changed.unpark_all()

    # --- for readers ----------------------------------------------------------------------------

    def hold(self) -> None:
        """Keep what was received until `release`."""
        self._users += 1

    def release(self) -> None:
        """One user less; the last closes the file."""
        self._users -= 1
        if not self._users and self.descriptor is not None:
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
            if offset < self.written:
                assert self.descriptor is not None
                size = min(READ_PIECE, self.written - offset)
                read = partial(os.pread, self.descriptor, size, offset)
                try:
                    piece = (await workers.run(read))[: end - offset]
                except OSError as error:
                    raise ProviderError(f"disk store: {error.strerror}") from error
            else:
                piece = self._in_memory(offset, end)
            if piece:
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


class _Reader:
    """Somebody who asked for an object ahead of time."""

    def __init__(self, arrival: Arrival | None) -> None:
        self._arrival: Arrival | None = None
        self._told = trio.Event()
        if arrival is not None:
            self.tell(arrival)

    def tell(self, arrival: Arrival | None) -> None:
        """The object has begun to come, or will not; the first word of it counts."""
        if self._told.is_set():
            return
        if arrival is not None:
            arrival.hold()
        self._arrival = arrival
        self._told.set()

    async def begun(self) -> Arrival | None:
        """Wait until the object begins to come; None if it does not in AHEAD_WAIT."""
        with trio.move_on_after(AHEAD_WAIT):
            await self._told.wait()
        return self._arrival

    def leave(self) -> None:
        if self._arrival is not None:
            self._arrival.release()


class Arrivals:
    """The PUTs of one store that are under way, and those who wait for one."""

    def __init__(self) -> None:
        self._under_way: dict[str, Arrival] = {}
        self._readers: dict[str, list[_Reader]] = {}
        self._of_session: Counter[str] = Counter()
        self._closed = False

    @contextmanager
    def arrival(self, name: str, length: int) -> Iterator[Arrival]:
        """A PUT, for as long as it takes. It replaces one of the same name that hangs."""
        arrival = Arrival(name, length)
        earlier = self._under_way.get(name)
        if earlier is not None:
            earlier.end(stored=False)  # for its readers, who ask again; it may yet be stored
        self._under_way[name] = arrival
        for reader in self._readers.pop(name, ()):
            reader.tell(arrival)
        try:
            yield arrival
        finally:
            arrival.end(stored=False)
            if self._under_way.get(name) is arrival:
                del self._under_way[name]
            arrival.release()

    @contextmanager
    def reader(self, name: str, session: str) -> Iterator[_Reader | None]:
        """Somebody who waits for `name`; None if too many do already, or the store closes."""
        full = (
            self._closed
            or self._of_session.total() >= MAXIMUM_AHEAD
            or self._of_session[session] >= MAXIMUM_AHEAD_OF_SESSION
        )
        if full:
            yield None
            return
        reader = _Reader(self._under_way.get(name))
        self._of_session[session] += 1
        self._readers.setdefault(name, []).append(reader)
        try:
            yield reader
        finally:
            self._of_session[session] -= 1
            if not self._of_session[session]:
                del self._of_session[session]
            readers = self._readers.get(name, [])
            if reader in readers:
                readers.remove(reader)
                if not readers:
                    del self._readers[name]
            reader.leave()

    def disappoint(self, names: Iterable[str]) -> None:
        """These will not come: their session is over."""
        for name in names:
            for reader in self._readers.pop(name, ()):
                reader.tell(None)

    def close(self) -> None:
        """Nobody waits any more."""
        self._closed = True
        self.disappoint(list(self._readers))
