"""A flow's sealed chunks until the peer has opened them, and their way into the store.

    sealed -> in line --------------------> may be announced
           -> waits -> bundle, slot -> PUT -^

Several PUTs are under way at a time, and what waits for one meanwhile goes together in the next
(relay.tunnel.bundle). The sealed bytes are kept until the peer has opened them: every retry sends
the same ones (DESIGN §3).
"""

import math
from collections import deque

import attrs
import trio
from trio.lowlevel import ParkingLot

from relay.signalling.messages import MAXIMUM_BUNDLED
from relay.tunnel import bundle
from relay.tunnel.retry import persist
from relay.tunnel.slots import Slot, SlotSupply
from relay.tunnel.store import ObjectClient
from relay.tunnel.window import SHORTEST_TIME, Budget, Departure, Path, Window

# PUTs under way at once: two, so that the line is not idle between them, and one more for each
# PUT_STEP seconds that one takes at the least, since each connection begins slowly and doubles what
# it sends in a round trip (RFC 5681 §3.1). With steps of 20 ms four of them filled three quarters
# of 100 Mbit/s to a Bridge that is 50 ms away; six fill it.
FEWEST_PUTS, MOST_PUTS = 2, 8
PUT_STEP = 0.0125
# A bundle is a part of the window, so that there are several of them in it. The first window goes
# over all connections there may be, which begin slowly: 100 CT over 200 ms were there after 1.8 s
# (median of three, one took 2.7), and after 2.8 without such a window; with four bundles in it 3.0.
BUNDLES_IN_WINDOW = 4
# ... and a part of what is in flight: where the line is narrow, and the window is many times that,
# a bundle that shares it with others is late by as much as they are large. 300 CT over 50 ms and
# 100 Mbit/s take 6.2 s, and 7.1 with the window's part alone and 8 MiB of it.
BUNDLES_IN_FLIGHT = 4
# ... but what the line carries in so many seconds: where it is quick the requests are what is late.
# 300 CT over 20 ms and 1 Gbit/s take 2.3 s with a fourth alone, and 1.9 with this or the window's.
BUNDLE_TIME = 0.04
# ... and of what a PUT brought in so many seconds at the best: the first window is many seconds of
# a slow line, and of eight PUTs that share it some starve until they are given up
# (relay.tunnel.store). 80 CT over 50 ms and 2 Mbit/s took 107 s without, and take 88.
LONGEST_PUT = 15.0
# ... where that is worth a request.
SMALLEST_BUNDLE = 256 * 1024
# Where so many are on their way, what has not the size of a bundle yet may wait for more, and for
# how many seconds it may: what a bundle takes at the window's shortest time. A request costs all
# three of writer, store and reader the same whatever it carries.
ENOUGH_BUNDLES = 2
GATHERING = SHORTEST_TIME / 2


@attrs.frozen(slots=True, eq=False)
class Sealed:
    """A sealed chunk."""

    number: int
    sealed: bytes
    in_line: bool
    departure: Departure


@attrs.define(slots=True, eq=False)
class Bundle:
    """Chunks that are announced together; `announced` is when, by trio's clock."""

    chunks: list[Sealed]
    slot: Slot | None  # None: one chunk, in line
    stored: bool
    announced: float = -math.inf

    @property
    def first(self) -> int:
        """The number of its first chunk."""
        return self.chunks[0].number

    @property
    def end(self) -> int:
        """The number behind its last chunk."""
        return self.first + len(self.chunks)

    @property
    def size(self) -> int:
        """Bytes in the store."""
        return sum(bundle.OVERHEAD + len(chunk.sealed) for chunk in self.chunks)


class Outbox:
    """What one flow has sealed and the peer has not opened. `changed` is unparked at each change.

    `window` says how much that may be; whoever seals keeps to it.
    """

    def __init__(
        self,
        *,
        slots: SlotSupply,
        objects: ObjectClient,
        budget: Budget,
        resume_window: float,
        changed: ParkingLot,
        bulk: bool = False,
        known: Path | None = None,
    ) -> None:
        """`known` is what the path carried the last time."""
        self.window = Window(budget, bulk=bulk, known=known)
        self._bulk = bulk
        self.bytes = 0
        """Sealed bytes that are not opened."""
        self.begun = 0
        """How many chunks of the flow have been handed to the store, in part at least."""
        self.in_line = 0
        """How many chunks of those travel in line."""
        self._retries = 0
        self._slots = slots
        self._objects = objects
        self._resume_window = resume_window
        self._changed = changed
        self._unopened: deque[Sealed] = deque()
        self._waiting: deque[Sealed] = deque()  # for a PUT
        self._bundles: dict[int, Bundle] = {}  # by their first chunk
        self._puts = 0  # under way
        self._put_time = math.inf  # the shortest
        self._put_rate = 0.0  # the highest, in bytes a second

    def __len__(self) -> int:
        """How many chunks are not opened."""
        return len(self._unopened)

    def __getitem__(self, first: int) -> Bundle | None:
        """The bundle that begins with this chunk, if it has been made."""
        return self._bundles.get(first)

    @property
    def has_room(self) -> bool:
        """Whether more may be sealed."""
        return self.bytes < self.window.size

    def keep(self, number: int, sealed: bytes, *, in_line: bool) -> Sealed:
        """Keep a chunk that has just been sealed; `send` follows."""
        chunk = Sealed(number, sealed, in_line, self.window.depart())
        self._unopened.append(chunk)
        self.bytes += len(sealed)
        self.in_line += in_line
        return chunk

    def send(self, chunk: Sealed) -> None:
        """It may go: in its announcement, or by the store."""
        if chunk.in_line:
            self._bundles[chunk.number] = Bundle([chunk], slot=None, stored=True)
        else:
            self._waiting.append(chunk)
        self._changed.unpark_all()

    def forget(self, opened: int) -> None:
        """The peer has opened so many chunks of the flow."""
        while self._unopened and self._unopened[0].number < opened:
            chunk = self._unopened.popleft()
            self.bytes -= len(chunk.sealed)
            self.in_line -= chunk.in_line
            self.window.arrive(chunk.departure, len(chunk.sealed))
        for first in [first for first, made in self._bundles.items() if made.end <= opened]:
            del self._bundles[first]

    @property
    def failures(self) -> int:
        """How often a request came to nothing and was made again."""
        return self._retries + self._slots.failures

    def close(self) -> None:
        """Give back what the window took; nothing is sent any more."""
        self.window.close()

    async def run(self) -> None:
        """Put what waits, for ever.

        Raises ProviderError or SignallingError when a bundle could not be stored for the resume
        window.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._slots.run)
            while True:
                due = self._due()
                if due > trio.current_time():
                    with trio.move_on_at(due):
                        await self._changed.park()
                    continue
                # Here and not in the task that puts: slots are used in the chunks' order.
                slot = await self._slots.take()
                made = Bundle(self._next_bundle(), slot, stored=False)
                self._bundles[made.first] = made
                self.begun = made.end
                self._puts += 1
                nursery.start_soon(self._put, made)

    def _due(self) -> float:
        """When the next bundle is to go, by trio's clock; infinite: something has to change."""
        if not self._waiting or self._puts >= self._puts_at_once():
            return math.inf
        on_their_way = sum(made.slot is not None for made in self._bundles.values())
        gathered = sum(len(chunk.sealed) for chunk in self._waiting)
        if on_their_way < ENOUGH_BUNDLES or gathered >= self._bundle_size() or self._is_first:
            return -math.inf
        return self._waiting[0].departure.at + GATHERING

    def _bundle_size(self) -> int:
        several = MOST_PUTS if self.window.first else BUNDLES_IN_WINDOW
        size = min(bundle.MAXIMUM_BUNDLE, self.window.size // several)
        if not self._bulk:
            return size
        worth = LONGEST_PUT * self._put_rate
        if not self.window.first and self.window.time < math.inf:
            seconds = max(BUNDLE_TIME, self.window.time / BUNDLES_IN_FLIGHT)
            worth = min(worth, seconds * self.window.line_rate)
        return int(min(size, max(SMALLEST_BUNDLE, worth)))

    @property
    def _is_first(self) -> bool:
        """Nothing is stored yet: each chunk goes by itself, over as many connections as there may
        be, and what one takes is not known."""
        return self._put_time == math.inf

    def _puts_at_once(self) -> int:
        if self._is_first:
            return MOST_PUTS
        return min(MOST_PUTS, FEWEST_PUTS + int(self._put_time / PUT_STEP))

    def _next_bundle(self) -> list[Sealed]:
        """Of the chunks that wait those that follow one another, up to a bundle's size."""
        limit = 0 if self._is_first else self._bundle_size()
        chunks = [self._waiting.popleft()]
        size = bundle.OVERHEAD + len(chunks[0].sealed)
        while self._waiting and len(chunks) < MAXIMUM_BUNDLED:
            following = self._waiting[0]
            size += bundle.OVERHEAD + len(following.sealed)
            if size > limit or following.number != chunks[-1].number + 1:
                break
            chunks.append(self._waiting.popleft())
        return chunks

    async def _put(self, made: Bundle) -> None:
        parts = bundle.join(chunk.sealed for chunk in made.chunks)

        async def attempt(renew: bool) -> None:
            assert made.slot is not None
            if made.first not in self._bundles:
                return  # read ahead, and opened: only the answer to an earlier attempt was lost
            if renew or made.slot.stale:
                made.slot = await self._slots.renew(made.slot)
            began = trio.current_time()
            await self._objects.put(made.slot.put, parts)
            took = trio.current_time() - began
            self._put_time = min(self._put_time, took)
            self._put_rate = max(self._put_rate, made.size / took if took else math.inf)

        try:
            await persist(attempt, window=self._resume_window, failed=self._failed)
        finally:
            self._puts -= 1
        made.stored = True
        self._changed.unpark_all()

    def _failed(self) -> None:
        self._retries += 1
