"""How much may be on its way: the law that both ends of a flow follow, and what bounds it.

    window = 2 x (rate at which bytes arrive) x (shortest time that any took, or SHORTEST_TIME)

What is in flight on a path is rate x time; twice that lets a flow find out whether the path carries
more: while it does, the window doubles in each round trip, and once the path is full its bytes take
longer and nothing grows any more. Both are measured as in Cardwell et al., "BBR: Congestion-Based
Congestion Control", ACM Queue 14(5), 2016:

- The rate is what arrived between a chunk's departure and its arrival, over the time of that: the
  sender's own pauses count against no path. The best of the last two EPOCHs counts. What had waited
  behind a late chunk arrives with it, and counts as if it had come since this one's departure: that
  lets a window grow quickly, and makes the rate three times what the line carries where that is
  narrow. The `line_rate` is reckoned as BBR does, over all the time in which that was sent and
  arrived: it says how chunks are packed and bundled.
- Where nothing has taken about the shortest time for PROBE_AFTER, it may be the queue that makes
  everything late, or the path has changed. Then the window is rate x time, once, until what departs
  after that queue has gone has arrived: that is the new shortest time.

A flow has BASE in any case. What it wants beyond that it takes from its Router's budget, so that
the memory of all of them has one bound.

Where many objects follow, what a flow has of its OWN comes out of the budget as well, whether that
has it or not: where there are many of them, each has little more, and who has more gives it back.
Such a flow has FIRST before anything is known of its path, or FIRST_SHARE of what the budget has
left. Where an earlier one has found out what the path carries (relay.tunnel.paths), it begins with
what was in flight then, rate x time, if that is more: half of what its law gave that one, since the
path may be another's by now; and with KNOWN_SHARE at the most. The first window shrinks only by
what departed behind the first arrival, since nothing before that has filled the path for a round
trip. Later such a flow has what the line carries in LATE, up to FIRST: bundles share the line, one
of them is late, what is behind it is not opened before, and the line is not to be idle meanwhile.
"""

import math

import attrs
import trio

# Each flow's own: two chunks of 1 MiB, enough for any path on which a device would not notice.
BASE = 2 * 1024 * 1024
# Before anything has arrived, where many objects follow: what a Router seals in the two round trips
# that this takes, at 200 ms, and until the far one's connections are through their slow start.
FIRST = 16 * 1024 * 1024
FIRST_SHARE = 1 / 3
# ... where it is known that the path carries it: it would be taken within some round trips anyway.
KNOWN_SHARE = 1 / 2
# Seconds by which a bundle may be late and hold nothing up, where many objects follow.
LATE = 1.0
# Of one flow: 1 Gbit/s over 250 ms from a chunk's sealing to its acknowledgement, two round trips.
MAXIMUM_WINDOW = 32 * 1024 * 1024
# Beyond BASE, of all flows of one Router that read.
BUDGET = 32 * 1024 * 1024
# Of all that write. One has MAXIMUM_WINDOW of it; eight, as many as go to one device, share 8 MiB
# beyond their own.
WRITING_BUDGET = 40 * 1024 * 1024
# Of a flow that writes, in any case, where many objects follow: BASE, a chunk gathered, and one cut
# or sealed. That it counts, and what else keeps memory low (relay.memory, byte_stream), made 16
# senders of 64 MiB each over 200 ms take 177 MiB and not 243 at the near Router.
OWN = BASE + 2 * 1024 * 1024
# What is taken from a budget at a time.
STEP = 1024 * 1024
# On a near path bundles would be so small that requests cost more than what they carry.
SHORTEST_TIME = 0.04
# Seconds for which a rate is remembered, at least; some round trips of the longest path.
EPOCH = 5.0
# Seconds without the shortest time until it is looked for; costs a hundredth of the rate or two.
PROBE_AFTER = 10.0
# ... and where the window does not follow from it: bundles still do.
SELDOM = 60.0
# What is about the shortest time.
ABOUT = 1.1


class Budget:
    """Bytes that flows share, as they share the line."""

    def __init__(self, total: int = BUDGET) -> None:
        self._left = total
        self._rates: dict[Window, tuple[float, float]] = {}  # and when something arrived last

    @property
    def rate(self) -> float:
        """Bytes a second that arrive of all flows together, whatever their peers; 0 where nothing
        does. A flow of which nothing has arrived for two EPOCHs takes nothing of the line."""
        since = trio.current_time() - 2 * EPOCH
        return sum(rate for rate, at in self._rates.values() if at >= since)

    def arrives(self, flow: "Window", rate: float) -> None:
        """So many bytes a second arrive of this flow, until it is forgotten."""
        self._rates[flow] = rate, trio.current_time()

    def forget(self, flow: "Window") -> None:
        """Nothing more is sent of it."""
        self._rates.pop(flow, None)

    @property
    def left(self) -> int:
        """Bytes that nobody has; below 0: what those who have more than their own are to return."""
        return self._left

    def take(self, wanted: int) -> int:
        """As much of `wanted` bytes as is left, in whole STEPs."""
        taken = max(0, min(wanted, self._left)) // STEP * STEP
        self._left -= taken
        return taken

    def claim(self, own: int) -> None:
        """Take what cannot be done without, whether it is left or not."""
        self._left -= own

    def give_back(self, taken: int) -> None:
        self._left += taken


@attrs.frozen(slots=True)
class Path:
    """What a path carries: bytes a second, and the shortest time in seconds that anything took."""

    rate: float
    time: float

    @property
    def in_flight(self) -> int:
        """Bytes on their way where it is full."""
        return int(self.rate * max(self.time, SHORTEST_TIME))


@attrs.frozen(slots=True)
class Departure:
    """When something was sent, and how many bytes had arrived by then; and when the last of those
    had, and had been sent."""

    at: float
    arrived: int
    last_arrived_at: float
    last_sent_at: float


class _Best:
    """The highest of the rates that were seen in this EPOCH and in the one before."""

    def __init__(self) -> None:
        self._before = self._now = 0.0
        self._since = trio.current_time()

    @property
    def rate(self) -> float:
        return max(self._before, self._now)

    def see(self, rate: float) -> None:
        now = trio.current_time()
        if now - self._since > EPOCH:
            self._before, self._now, self._since = self._now, 0.0, now
        self._now = max(self._now, rate)


class _Probe:
    """A look for the shortest time: two rounds, the first of which has the queue's rest in it."""

    def __init__(self, now: float) -> None:
        self._round = now  # what departs from then on is of this round
        self._rounds = 0
        self._shortest = math.inf

    def see(self, now: float, departure: Departure, took: float) -> float | None:
        """The shortest time, once it is known."""
        if departure.at < self._round:
            return None
        self._shortest = min(self._shortest, took)
        if self._rounds == 1:
            return self._shortest
        self._round, self._rounds, self._shortest = now, 1, math.inf
        return None


class Window:
    """Bytes that one flow may have on their way. `close` gives back what it took.

    `bulk`: many objects follow one another. `known` is what the path carried the last time.
    """

    def __init__(self, budget: Budget, *, bulk: bool = False, known: Path | None = None) -> None:
        self._budget = budget
        self._own = OWN if bulk else 0
        budget.claim(self._own)
        first, share = FIRST, FIRST_SHARE
        if known is not None and known.in_flight > FIRST:
            first, share = min(known.in_flight, MAXIMUM_WINDOW), KNOWN_SHARE
        self._extra = budget.take(min(first - BASE, int(share * budget.left))) if bulk else 0
        self._first = bulk
        self._arrived = 0
        self._rate, self._line_rate = _Best(), _Best()
        self._time = math.inf
        self._seen = trio.current_time()  # when something took about that
        # When something arrived last, and when that was sent; or when all had and more was sent.
        self._last_arrived_at = self._last_sent_at = self._seen
        self._sent_at: float | None = None  # when what was sent last was, if it is on its way
        self._probe: _Probe | None = None

    @property
    def size(self) -> int:
        """Bytes that may be on their way."""
        return BASE + self._extra

    @property
    def first(self) -> bool:
        """Whether nothing has arrived yet that departed behind an arrival, of many objects."""
        return self._first

    @property
    def rate(self) -> float:
        """Bytes a second that arrived, at the best, what had been late included; 0 where nothing
        has yet."""
        return self._rate.rate

    @property
    def line_rate(self) -> float:
        """Bytes a second that the line carries, as far as is known: what arrives of all flows that
        share it, or of this one when it was used last. 0 where nothing has arrived."""
        return max(self._budget.rate, self._line_rate.rate)

    @property
    def time(self) -> float:
        """The shortest time in seconds that anything took; infinite where nothing has arrived."""
        return self._time

    @property
    def path(self) -> Path | None:
        """What was found out of the path; None where nothing has arrived."""
        return Path(self.rate, self._time) if self._time < math.inf else None

    @property
    def arrived(self) -> int:
        """Bytes that have arrived."""
        return self._arrived

    def depart(self) -> Departure:
        """Something is sent now."""
        now = trio.current_time()
        if self._sent_at is None:
            self._last_arrived_at = self._last_sent_at = now
        self._sent_at = now
        return Departure(now, self._arrived, self._last_arrived_at, self._last_sent_at)

    def arrive(self, departure: Departure, size: int) -> None:
        """What departed so, `size` bytes, has arrived."""
        now = trio.current_time()
        self._arrived += size
        self._last_arrived_at = now
        self._last_sent_at = max(self._last_sent_at, departure.at)
        if self._sent_at is not None and departure.at >= self._sent_at:
            self._sent_at = None
        took = now - departure.at
        if took <= 0:
            return  # no clock is that fine
        arrived = self._arrived - departure.arrived
        self._rate.see(arrived / took)
        sending = departure.at - departure.last_sent_at
        self._line_rate.see(arrived / max(now - departure.last_arrived_at, sending))
        self._budget.arrives(self, self._line_rate.rate)
        self._see_time(now, departure, took)
        self._first = self._first and not departure.arrived
        wanted = self._wanted()
        self._adjust(max(wanted, self.size) if self._first else wanted)

    @property
    def _in_flight(self) -> int:
        return Path(self.rate, self._time).in_flight

    @property
    def _late(self) -> int:
        """What the line carries while a bundle is late, where many objects follow.

        None, once all has arrived: who pauses leaves it to others.
        """
        if not self._own or self._sent_at is None:
            return 0
        return min(FIRST, int(LATE * self._line_rate.rate))

    def _wanted(self) -> int:
        wanted = self._in_flight if self._probe else max(2 * self._in_flight, self._late)
        return min(MAXIMUM_WINDOW, wanted)

    def _see_time(self, now: float, departure: Departure, took: float) -> None:
        if took <= ABOUT * self._time:
            self._time, self._seen, self._probe = min(self._time, took), now, None
        elif self._probe is not None:
            found = self._probe.see(now, departure, took)
            if found is not None:
                self._time, self._seen, self._probe = found, now, None
        elif now - self._seen > (PROBE_AFTER if 2 * self._in_flight > self._late else SELDOM):
            self._probe = _Probe(now)

    def _adjust(self, wanted: int) -> None:
        # Rounded down: what a probe rounds up would come back as a longer time.
        extra = wanted - BASE
        if self._budget.left < 0:
            extra = min(extra, self._extra + self._budget.left)
        extra = max(0, extra) // STEP * STEP
        if extra > self._extra:
            self._extra += self._budget.take(extra - self._extra)
        else:
            self._budget.give_back(self._extra - extra)
            self._extra = extra

    def close(self) -> None:
        """Give everything back: nothing more is sent."""
        self._budget.give_back(self._extra + self._own)
        self._budget.forget(self)
        self._extra = self._own = 0
