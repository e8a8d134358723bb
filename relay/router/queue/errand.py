"""What one delivery session carries: a batch's first attempts in their order, or some retries.

A batch whose association is still open goes out while it comes in: `next_page` waits for more. What
comes then is given on as it came: to look for each object in the rows, and to read it back, is more
than half of its transactions and a fifth of the processor time that it takes beside the tunnel.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
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
# a whole examination, and has a few beside it, must not keep what is there from going out. Also
# where nothing is kept yet: an object that is long in coming is to hold no place at the device.
IDLE_WANTED = 5.0

# Bytes of data sets that one errand holds in memory from their coming to their going: some CT
# images, since what goes out as fast as it comes in is few at a time. A session's windows have more
# (relay.router.queue.sessions).
MAXIMUM_CONTENT = 4 * 2**20


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

    def content(self, item: Item) -> bytes | None:
        """The data set of an item, if it is at hand; it is given once."""


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
        self._after = 0  # the number of the last one that was given
        self._fresh: deque[Item] = deque()  # what follows that one, as it came
        self._gapless = False  # what comes now follows on that
        self._contents: dict[bytes, bytes] = {}
        self._content_size = 0
        self._news = trio.Event()
        self._turn = trio.Lock()

    def arrived(self, item: Item | None = None, content: bytes | None = None) -> None:
        """There is a new item, or the batch is closed.

        Without `item`, and where more come than a page has, they are looked for in the rows.
        `content` is the item's data set, if it is at hand.
        """
        if item is None:
            self._gapless = False
        elif self._gapless and not self.stopped and item.number > self._after:
            self._gapless = len(self._fresh) < PAGE
            if self._gapless:
                self._fresh.append(item)
                self._hold(item, content)
        self._news.set()

    def _hold(self, item: Item, content: bytes | None) -> None:
        if content is not None and self._content_size + len(content) <= MAXIMUM_CONTENT:
            self._contents[item.id] = content
            self._content_size += len(content)

    def content(self, item: Item) -> bytes | None:
        """See `Errand.content`."""
        content = self._contents.pop(item.id, None)
        if content is not None:
            self._content_size -= len(content)
        return content

    def discarded(self, items: Collection[bytes]) -> None:
        """A person has discarded these: what is not being sent by now has no file, and is not."""
        self._let_go(items)
        self._fresh = deque(item for item in self._fresh if item.id not in items)

    def _let_go(self, items: Iterable[bytes]) -> None:
        for item in items:
            self._content_size -= len(self._contents.pop(item, b""))

    def stop(self) -> None:
        """See `Errand.stop`."""
        self.stopped = True
        self._let_go(list(self._contents))
        self._news.set()

    async def pairs(self) -> frozenset[tuple[str, str]]:
        """See `Errand.pairs`. Also what may still come, so that it need not wait for another."""
        unseen = not self.batch.number  # what comes with its first object is in no row yet
        waiting = await self._items.pairs(self.batch)
        comes = unseen or self.batch.closed is None
        return waiting | (self._accepted if comes else frozenset())

    async def next_page(self) -> list[Item]:
        """See `Errand.next_page`."""
        limit = max(1, PAGE // self.split)
        async with self._turn:  # several sessions may share a batch (Device.split)
            while not self.stopped:
                news = self._news = trio.Event()
                closed = self.batch.closed is not None
                if self._fresh:
                    page = [self._fresh.popleft() for _ in range(min(limit, len(self._fresh)))]
                elif self._gapless and not closed:
                    page = []
                else:
                    page = await self._from_rows(limit)
                if page:
                    self._after = page[-1].number
                if page or closed:
                    return page
                if not await self._more_comes(news):
                    break
            return []

    async def _from_rows(self, limit: int) -> list[Item]:
        """The next items by the rows. What comes from now on follows on them, if that is all."""
        self._gapless = True
        page = await self._items.firsts(self.batch, self._after, limit)
        if len(page) == limit:
            self._gapless = False
            self._let_go(item.id for item in self._fresh)
            self._fresh.clear()
        while page and self._fresh and self._fresh[0].number <= page[-1].number:
            self._fresh.popleft()
        return page

    async def _more_comes(self, news: trio.Event) -> bool:
        """Whether it is worth to hold the session: there is news in time."""
        until = trio.current_time() + (IDLE_RELEASE if self.batch.number else IDLE_WANTED)
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

    def content(self, item: Item) -> bytes | None:
        """See `Errand.content`."""
        return None


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
