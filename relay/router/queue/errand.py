"""What one delivery session carries: a batch's first attempts in their order, or some retries.

A batch whose association is still open goes out while it comes in: `next_page` waits for more.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from relay.spool.items import Batch, Item
from relay.spool.table import ItemTable

# Items that are read ahead: rows only, their data sets stay on the disk.
PAGE = 64

# An association that brings nothing for so long is held open no longer at the far end: a device's
# association is dear, and some devices abort an idle one. What comes later goes over a new one.
IDLE_RELEASE = 120.0

# So long where another errand waits for its session: a modality that keeps its association open for
# a whole examination, and has a few beside it, must not keep what is there from going out.
IDLE_WANTED = 5.0


class Errand(Protocol):
    """The items of one session, or of several that share them."""

    @property
    def batch(self) -> Batch:
        """Whose titles and hospital they all have."""

    @property
    def stopped(self) -> bool:
        """Nothing more is to be sent."""

    def stop(self) -> None:
        """What is being sent is sent to its end, and nothing more, in any of its sessions."""

    async def pairs(self) -> frozenset[tuple[str, str]]:
        """The SOP classes and transfer syntaxes to be proposed: those of the items."""

    async def next_page(self) -> list[Item]:
        """The next items, once there are any; none: there are none left, or it is stopped."""


class Firsts:
    """The first attempts of one batch, in order.

    `accepted` are the pairs that its association may still bring; empty once that is over. Over
    `split` sessions at once, each takes its part of a page at a time. `wanted` says whether
    something else waits for the session.
    """

    def __init__(
        self,
        items: ItemTable,
        batch: Batch,
        accepted: frozenset[tuple[str, str]] = frozenset(),
        *,
        split: int = 1,
        wanted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.batch = batch
        self.split = split
        self.stopped = False
        self._items = items
        self._accepted = accepted
        self._wanted = wanted
        self._after = 0
        self._news = trio.Event()
        self._turn = trio.Lock()

    def arrived(self) -> None:
        """There is a new item, or the batch is closed."""
        self._news.set()

    def stop(self) -> None:
        """See `Errand.stop`."""
        self.stopped = True
        self._news.set()

    async def pairs(self) -> frozenset[tuple[str, str]]:
        """See `Errand.pairs`. Also what may still come, so that it need not wait for another."""
        waiting = await self._items.pairs(self.batch)
        return waiting | (self._accepted if self.batch.closed is None else frozenset())

    async def next_page(self) -> list[Item]:
        """See `Errand.next_page`."""
        limit = max(1, PAGE // self.split)
        async with self._turn:  # several sessions may share a batch (Device.split)
            while not self.stopped:
                news = self._news = trio.Event()
                closed = self.batch.closed is not None
                page = await self._items.firsts(self.batch, self._after, limit)
                if page:
                    self._after = page[-1].number
                if page or closed:
                    return page
                if not await self._more_comes(news):
                    break
            return []

    async def _more_comes(self, news: trio.Event) -> bool:
        """Whether it is worth to hold the session: there is news in time."""
        until = trio.current_time() + IDLE_RELEASE
        while (left := until - trio.current_time()) > 0:
            with trio.move_on_after(min(left, IDLE_WANTED)):
                await news.wait()
                return True
            if self._wanted():
                break
        return False


class Retries:
    """Items that were tried before: all for one device, as one calling AE title."""

    def __init__(self, batch: Batch, items: Sequence[Item]) -> None:
        self.batch = batch
        self.stopped = False
        self._items = list(items)
        self._pairs = frozenset(item.pair for item in items)

    def stop(self) -> None:
        """See `Errand.stop`."""
        self.stopped = True

    async def pairs(self) -> frozenset[tuple[str, str]]:
        """See `Errand.pairs`."""
        return self._pairs

    async def next_page(self) -> list[Item]:
        """See `Errand.next_page`."""
        await trio.lowlevel.checkpoint()
        items, self._items = self._items, []
        return [] if self.stopped else items


def together(items: Sequence[Item], batches: dict[int, Batch]) -> Retries | None:
    """As many of the items that are due as may go over one association with the first of them."""
    usable = [item for item in items if item.batch in batches]
    if not usable:
        return None
    first = usable[0]
    batch = batches[first.batch]
    if first.alone:
        return Retries(batch, [first])
    return Retries(batch, [i for i in usable if not i.alone and _same(batches[i.batch], batch)])


def _same(one: Batch, other: Batch) -> bool:
    return (one.peer, one.called, one.calling) == (other.peer, other.called, other.calling)
