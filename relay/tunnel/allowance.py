"""What all sessions of one Router share."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from relay.tunnel.paths import Paths
from relay.tunnel.totals import Totals
from relay.tunnel.window import WRITING_BUDGET, Budget
from relay.workers import Workers

# In-line bytes on the way to one session, and to one Router in all (DESIGN §5): what the hub keeps
# for a socket that does not read. The thousand answers to a query are 180 KiB; what is beyond the
# window goes by the store, which over 100 ms brings the last of them 150 ms later.
IN_LINE_WINDOW = 256 * 1024
IN_LINE_WINDOW_IN_ALL = 8 * 1024 * 1024
# ... and once less than so much is left in all: any conversation of questions and answers fits in
# it, and a hundred sessions have it beside eight of the others.
SHORT_IN_LINE_WINDOW = 64 * 1024
PLENTY = 3 / 4
# Sessions in which more of a large object is asked for ahead at a time (relay.tunnel.ahead). Each
# may have ahead.STREAM_AT_ONCE bundles in memory beyond its window, 8 MiB and up to 32, and
# together they leave half of the store's turns for that to deliveries.
MOST_STREAMS = 4
# Threads that seal and open. It is work for processors: more than there are would only wait for
# each other, and each keeps some MiB (relay.tunnel.compression).
MAXIMUM_THREADS = min(4, os.cpu_count() or 1)


class InLineAllowance:
    """What one Router's sessions may have on the way in line, all together."""

    def __init__(self, total: int = IN_LINE_WINDOW_IN_ALL) -> None:
        self._left = total
        self._plenty = PLENTY * total

    def take(self, wanted: int) -> int:
        """`wanted` bytes, where PLENTY is left, else SHORT_IN_LINE_WINDOW at the most; nothing
        where there is not even that."""
        if self._left < self._plenty:
            wanted = min(wanted, SHORT_IN_LINE_WINDOW)
        taken = wanted if wanted <= self._left else 0
        self._left -= taken
        return taken

    def give_back(self, taken: int) -> None:
        self._left += taken


@attrs.frozen(slots=True)
class Allowance:
    """In-line bytes, and bytes in memory: of what is sent and unopened, of what is fetched.

    `streams` are the places of those whose large objects are read ahead. `workers` seal and open;
    `open_allowance` ends them. `totals` is what all of them have done, and `paths` what those that
    are over have found out.
    """

    in_line: InLineAllowance = attrs.field(factory=InLineAllowance)
    writing: Budget = attrs.field(factory=lambda: Budget(WRITING_BUDGET))
    reading: Budget = attrs.field(factory=Budget)
    streams: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(MOST_STREAMS))
    workers: Workers = attrs.field(factory=lambda: Workers(MAXIMUM_THREADS))
    totals: Totals = attrs.field(factory=Totals)
    paths: Paths = attrs.field(factory=Paths)


@asynccontextmanager
async def open_allowance() -> AsyncIterator[Allowance]:
    """What the sessions of one Router share, for as long as it runs."""
    allowance = Allowance()
    try:
        yield allowance
    finally:
        allowance.workers.close()
