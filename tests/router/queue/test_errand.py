"""Errands: the items of one session, or of several that share them."""

from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from relay.router.queue.errand import IDLE_RELEASE, PAGE, Firsts, Retries, together
from relay.spool.items import Batch, Change, Item, Selection, State
from relay.spool.spool import Spool
from tests.router.fakes import CT, IMPLICIT, MR
from tests.router.queue.sending import keep
from tests.spool.rows import a_batch
from tests.spool.stock import opened


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    async with opened(tmp_path / "data") as spool:
        yield spool


async def batch_of(spool: Spool, count: int, **changes: object) -> Batch:
    batch = attrs.evolve(a_batch(), **changes)  # type: ignore[arg-type]
    for _ in range(count):
        await keep(spool, batch, b"object")
    return batch


def numbers(items: list[Item]) -> list[int]:
    return [item.number for item in items]


async def test_a_closed_batch_page_by_page(spool: Spool) -> None:
    batch = await batch_of(spool, PAGE + 3)
    await spool.items.close_batch(batch, 2.0)
    firsts = Firsts(spool.items, batch)
    assert numbers(await firsts.next_page()) == list(range(1, PAGE + 1))
    assert numbers(await firsts.next_page()) == [PAGE + 1, PAGE + 2, PAGE + 3]
    assert await firsts.next_page() == []


async def test_an_open_batch_is_waited_for(patient_clock: MockClock, spool: Spool) -> None:
    batch = await batch_of(spool, 1)
    firsts = Firsts(spool.items, batch)
    assert numbers(await firsts.next_page()) == [1]

    async def later() -> None:
        await trio.sleep(IDLE_RELEASE / 2)
        firsts.arrived()  # of nothing
        await trio.sleep(IDLE_RELEASE / 2)
        await keep(spool, batch, b"another")
        firsts.arrived()
        await trio.sleep(10)
        await spool.items.close_batch(batch, 2.0)
        firsts.arrived()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later)
        assert numbers(await firsts.next_page()) == [2]
        assert await firsts.next_page() == []
    assert trio.current_time() < 2 * IDLE_RELEASE


async def test_but_not_for_ever(patient_clock: MockClock, spool: Spool) -> None:
    firsts = Firsts(spool.items, await batch_of(spool, 1))
    await firsts.next_page()
    begun = trio.current_time()
    assert await firsts.next_page() == []
    assert trio.current_time() - begun >= IDLE_RELEASE


async def test_a_stop_ends_the_wait(patient_clock: MockClock, spool: Spool) -> None:
    firsts = Firsts(spool.items, await batch_of(spool, 1))
    await firsts.next_page()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def stop() -> None:
            await trio.sleep(1)
            firsts.stop()

        assert await firsts.next_page() == []
        assert await firsts.next_page() == []
    assert trio.current_time() < IDLE_RELEASE


async def test_sessions_that_share_a_batch_take_parts_of_a_page(spool: Spool) -> None:
    batch = await batch_of(spool, 5)
    await spool.items.close_batch(batch, 2.0)
    firsts = Firsts(spool.items, batch, split=PAGE // 2)
    taken: list[list[int]] = []

    async def take() -> None:
        while page := await firsts.next_page():
            taken.append(numbers(page))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        nursery.start_soon(take)
    assert sorted(taken) == [[1, 2], [3, 4], [5]]


async def test_an_open_batch_proposes_what_may_still_come(spool: Spool) -> None:
    batch = await batch_of(spool, 1)
    accepted = frozenset({(CT, IMPLICIT), (MR, IMPLICIT)})
    firsts = Firsts(spool.items, batch, accepted)
    assert await firsts.pairs() == accepted
    await spool.items.close_batch(batch, 2.0)
    assert await firsts.pairs() == {(CT, IMPLICIT)}


async def test_retries_are_one_page(spool: Spool) -> None:
    batch = await batch_of(spool, 2)
    items = await spool.items.select(Selection())
    retries = Retries(batch, items)
    assert await retries.pairs() == {(CT, IMPLICIT)}
    assert numbers(await retries.next_page()) == [1, 2]
    assert await retries.next_page() == []
    retries = Retries(batch, items)
    retries.stop()
    assert await retries.next_page() == []


async def test_what_may_go_together(spool: Spool) -> None:
    one, other = await batch_of(spool, 2), await batch_of(spool, 2)
    stranger = await batch_of(spool, 1, calling="OTHER")
    batches = {batch.number: batch for batch in (one, other, stranger)}
    items = await spool.items.select(Selection())

    async def taken(*order: Item) -> list[int]:
        retries = together(order, batches)
        assert retries is not None
        return numbers(await retries.next_page())

    assert await taken(*items) == [1, 2, 3, 4]
    assert await taken(items[4], *items[:4]) == [5]
    alone = attrs.evolve(items[1], alone=True)
    assert await taken(alone, *items) == [2]
    assert await taken(items[0], alone, *items[2:]) == [1, 3, 4]
    assert together([], batches) is None
    assert together(items, {}) is None


async def test_what_an_earlier_run_began_is_doubtful(spool: Spool) -> None:
    batch = await batch_of(spool, 2)
    await spool.items.close_batch(batch, 2.0)
    batch.run = spool.items.run + 5
    page = await Firsts(spool.items, batch).next_page()
    assert all(item.doubtful and item.attempted for item in page)
    change = Change(number=1, state=State.DELIVERED, attempts=1)
    await spool.items.settle([change])
    assert numbers(await Firsts(spool.items, batch).next_page()) == [2]
