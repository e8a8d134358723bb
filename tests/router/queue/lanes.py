"""Couriers with a spool of their own, whose deliveries are the test's."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from relay.router.queue import lane
from relay.router.queue.courier import Couriers
from relay.router.queue.errand import Errand
from relay.router.queue.ledger import How, Report
from relay.router.queue.state import Queue
from relay.spool.items import Batch, Change, Item, Priority, Selection, State
from relay.spool.spool import open_spool
from tests.router.fakes import hospital
from tests.router.queue.parts import queue_of
from tests.router.queue.sending import TAKEN, keep

EPOCH = 1_780_300_000.0


@attrs.define(eq=False)
class Deliveries:
    """In the place of `deliver`: what `instead` gives for an errand, or all of it is delivered."""

    queue: Queue = attrs.field(init=False)
    instead: Callable[[Errand], Awaitable[Report | None]] | None = None
    errands: list[tuple[str, str]] = attrs.Factory(list)
    """Kind and called title of each, in the order in which they began."""
    at: list[float] = attrs.Factory(list)
    pages: list[list[int]] = attrs.Factory(list)
    """The items' numbers, as they were taken."""
    running: int = 0
    most: int = 0

    async def __call__(self, queue: Queue, errand: Errand) -> Report:
        self.errands.append((type(errand).__name__, errand.batch.called))
        self.at.append(trio.current_time())
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            report = await self.instead(errand) if self.instead is not None else None
            return report or await self.deliver(errand)
        finally:
            self.running -= 1

    async def deliver(self, errand: Errand) -> Report:
        count = 0
        while page := await errand.next_page():
            self.pages.append([item.number for item in page])
            count += len(page)
            await self.settle(page)
        return Report(How.DONE, "", count, count)

    async def settle(
        self, items: Iterable[Item], state: State = State.DELIVERED, *, due: float = 0.0
    ) -> None:
        await self.queue.spool.items.settle(
            [
                Change(number=item.number, state=state, attempts=item.attempts + 1, due=due)
                for item in items
            ]
        )


@attrs.define(eq=False)
class Lanes:
    queue: Queue
    deliveries: Deliveries
    nursery: trio.Nursery
    offset: list[float]

    def batch(self, called: str = "PACS", priority: Priority = Priority.NORMAL) -> Batch:
        return Batch(
            peer=bytes(32),
            called=called,
            calling="WS",
            device="WS",
            opened=EPOCH,
            priority=priority,
        )

    async def left(
        self, count: int = 1, called: str = "PACS", priority: Priority = Priority.NORMAL
    ) -> Batch:
        """A closed batch with so many objects; nobody was told."""
        batch = self.batch(called, priority)
        for _ in range(count):
            await keep(self.queue.spool, batch, b"object")
        await self.queue.spool.items.close_batch(batch, EPOCH)
        return batch

    async def bring(self, batch: Batch) -> Item:
        """One more object; the couriers are told."""
        item = await keep(self.queue.spool, batch, b"object")
        self.queue.accepted(batch, TAKEN)
        return item

    async def tried(self, due: float = 0.0, called: str = "PACS") -> Item:
        """An object that was tried before."""
        await self.left(1, called)
        (item,) = (await self.queue.spool.items.select(Selection(called=called)))[-1:]
        await self.deliveries.settle([item], State.WAITING, due=due)
        return item

    def start(self) -> None:
        self.nursery.start_soon(self.queue.couriers.run)

    async def done(self, *called: str) -> None:
        """Return once nothing waits for these."""
        with trio.fail_after(10_000):
            while await self.waiting(*called):
                await trio.sleep(2)

    async def waiting(self, *called: str) -> int:
        counts = [
            await self.queue.spool.items.count(Selection(called=title, state=State.WAITING))
            for title in called or ("PACS",)
        ]
        return sum(sum(count.values()) for count in counts)

    def set_clock(self, seconds: float) -> None:
        """Somebody sets the machine's clock forward, or back."""
        self.offset[0] += seconds


@asynccontextmanager
async def lanes(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    instead: Callable[[Errand], Awaitable[Report | None]] | None = None,
) -> AsyncIterator[Lanes]:
    """Nothing runs before `start`."""
    deliveries = Deliveries(instead=instead)
    monkeypatch.setattr(lane, "deliver", deliveries)
    offset = [EPOCH]

    def clock() -> float:
        return offset[0] + trio.current_time()

    async with (
        hospital(folder / "a") as node,
        open_spool(folder / "a", space=2**30, reserve=0, clock=clock) as spool,
        trio.open_nursery() as nursery,
    ):
        queue = await queue_of(node, spool)
        queue.couriers = Couriers(queue)
        deliveries.queue = queue
        yield Lanes(queue, deliveries, nursery, offset)
        nursery.cancel_scope.cancel()
