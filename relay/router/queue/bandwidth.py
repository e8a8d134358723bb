"""One bucket of bytes that all deliveries of a Router share: whoever sends takes from it first.

A token bucket: it fills at the rate that `relay.bandwidth` gives for the local time, up to one
chunk, so that a quiet minute cannot be made up for by a burst that fills the hospital's line.
Whoever comes first is served first. Confirmed associations do not take from it: a person waits for
those.
"""

from collections.abc import Callable
from datetime import datetime

import trio

from relay.bandwidth import BandwidthLimit

# What may go out at once after a pause: one chunk of the largest size.
BURST = 4 * 2**20

# How long a wait goes on without a look at the clock. Rules change at whole minutes; this bounds
# how late that is noticed, and what a clock that is set in between can do.
LONGEST_LOOK_AWAY = 5.0


class Throttle:
    """Keeps what is sent within `limit`; `clock` gives the local time."""

    def __init__(self, limit: BandwidthLimit, clock: Callable[[], datetime] = datetime.now) -> None:
        self._limit = limit
        self._clock = clock
        self._turn = trio.StrictFIFOLock()
        self._level = float(BURST)  # below 0 after a chunk that was larger than BURST
        self._rate = limit.rate(clock())
        self._filled = trio.current_time()

    def limit_now(self) -> float | None:
        """Bytes a second that hold at this moment; None: no limit."""
        return self._limit.rate(self._clock())

    async def take(self, size: int) -> None:
        """Return once `size` bytes may be sent; the caller sends them now.

        May take as long as the limit makes it. A wait that is cancelled takes nothing.
        """
        async with self._turn:
            # More than the bucket holds is let through when it is full, and made up for after.
            needed = min(size, BURST)
            # Less than a byte is the rounding's, and is made up for too.
            while (missing := needed - self._fill()) >= 1:
                assert self._rate is not None, "without a limit the bucket is full"
                await trio.sleep(min(missing / self._rate, LONGEST_LOOK_AWAY))
            if self._rate is not None:
                self._level -= size

    def _fill(self) -> float:
        """Let in what has come since the last time; returns the level."""
        now, before = trio.current_time(), self._rate
        self._rate = self._limit.rate(self._clock())
        if self._rate is None:
            self._level = float(BURST)
        elif before is not None:
            # The rate may have changed in between: the lower one never gives too much.
            come = (now - self._filled) * min(before, self._rate)
            self._level = min(float(BURST), self._level + come)
        self._filled = now
        return self._level
