"""What passed lately, for people who watch: messages and bytes in each of the last intervals.

Counters are read every few seconds by a task of its own, so that what is counted pays nothing for
being watched.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

import trio

# Seconds. Short enough to see a study begin, long enough to even out one image after the other.
INTERVAL = 2
# Five minutes: what a person who looks up remembers.
INTERVALS = 150


class Rates:
    """`read` gives what was counted so far, (messages, bytes); `clock` Unix seconds."""

    def __init__(self, read: Callable[[], tuple[int, int]], *, clock: Callable[[], float]) -> None:
        self._read = read
        self._clock = clock
        self._before = read()
        self._until = int(clock())
        self._passed: deque[tuple[int, int]] = deque(maxlen=INTERVALS)

    async def run(self) -> NoReturn:
        """Look at the counters again and again, for as long as the Bridge runs."""
        due = trio.current_time()
        while True:
            due += INTERVAL
            await trio.sleep_until(due)
            self.look()

    def look(self) -> None:
        """Note what was counted since the last look."""
        now = self._read()
        self._passed.append((now[0] - self._before[0], now[1] - self._before[1]))
        self._before = now
        self._until = int(self._clock())

    def describe(self) -> dict[str, Any]:
        """What passed in each interval, the oldest first; the last one ended at `until`."""
        return {
            "interval": INTERVAL,
            "until": self._until,
            "messages": [messages for messages, _ in self._passed],
            "bytes": [size for _, size in self._passed],
        }
