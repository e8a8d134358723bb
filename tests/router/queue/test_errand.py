"""Errands: the items of one session, or of several that share them."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from relay.router.queue import errand
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


# --- what is given on as it came ------------------------------------------------------------------


class Asked:
    """Counts how often the rows are asked for first attempts."""

    def __init__(self, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        self.meanwhile: Callable[[], None] = lambda: None
        firsts = spool.items.firsts

        async def counted(batch: Batch, after: int, limit: int) -> list[Item]:
            self.times += 1
            found = await firsts(batch, after, limit)
            self.meanwhile()
            return found

        monkeypatch.setattr(spool.items, "firsts", counted)


async def test_what_comes_meanwhile_is_not_looked_for(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, batch = Asked(spool, monkeypatch), await batch_of(spool, 1)
    firsts = Firsts(spool.items, batch)
    (first,) = await firsts.next_page()
    assert firsts.content(first) is None
    for number in (2, 3, 4):
        content = b"object %d" % number
        firsts.arrived(await keep(spool, batch, content), content)
        page = await firsts.next_page()
        assert numbers(page) == [number]
        assert page == await spool.items.firsts(batch, number - 1, 1)
        assert firsts.content(page[0]) == content
        assert firsts.content(page[0]) is None  # it is given once
    asked.times -= 3
    assert asked.times == 1
    await spool.items.close_batch(batch, 2.0)
    assert await firsts.next_page() == []
    assert asked.times == 2


async def test_nothing_is_given_twice_and_nothing_left_out(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told before, while and after the rows are read; more than a page; without the item."""
    asked = Asked(spool, monkeypatch)
    batch, given = await batch_of(spool, 0), list[int]()
    firsts = Firsts(spool.items, batch)
    items = [await keep(spool, batch, b"object") for _ in range(3)]
    firsts.arrived(items[0], b"object")

    def told() -> None:
        for item in items[1:]:
            firsts.arrived(item, b"object")

    asked.meanwhile = told
    given += numbers(await firsts.next_page())
    asked.meanwhile = lambda: None
    firsts.arrived(items[-1], b"object")  # told late
    for count in (2 * PAGE + 5, 1, PAGE, 3):
        for _ in range(count):
            firsts.arrived(await keep(spool, batch, b"object"), b"object")
        while len(given) < (await spool.items.count(Selection()))[State.WAITING]:
            given += numbers(await firsts.next_page())
    await keep(spool, batch, b"object")
    firsts.arrived()
    given += numbers(await firsts.next_page())
    firsts.arrived(await keep(spool, batch, b"object"), b"object")
    given += numbers(await firsts.next_page())
    assert given == list(range(1, given[-1] + 1))
    assert given[-1] == (await spool.items.count(Selection()))[State.WAITING]


async def test_no_more_than_so_much_is_held(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errand, "MAXIMUM_CONTENT", 10)
    batch = await batch_of(spool, 1)
    firsts = Firsts(spool.items, batch)
    await firsts.next_page()
    items = [await keep(spool, batch, b"1234") for _ in range(5)]
    for item in items[:3]:
        firsts.arrived(item, b"1234")
    assert [firsts.content(item) for item in items[:3]] == [b"1234", b"1234", None]
    for item in items[3:]:  # there is room again
        firsts.arrived(item, b"1234")
    assert [firsts.content(item) for item in items[3:]] == [b"1234", b"1234"]
    assert numbers(await firsts.next_page()) == [2, 3, 4, 5, 6]


async def test_what_is_not_sent_is_not_held(spool: Spool) -> None:
    batch = await batch_of(spool, 1)
    firsts = Firsts(spool.items, batch)
    await firsts.next_page()

    async def bring(count: int) -> list[Item]:
        items = [await keep(spool, batch, b"1234") for _ in range(count)]
        for item in items:
            firsts.arrived(item, b"1234")
        return items

    items = await bring(3)
    firsts.discarded({items[0].id, items[2].id})
    assert firsts._content_size == 4
    assert await firsts.next_page() == [items[1]]
    firsts.discarded({items[1].id})  # it is in a page already
    assert (firsts.content(items[1]), firsts._content_size) == (None, 0)
    await bring(2)
    assert firsts._content_size == 8
    firsts.stop()
    await bring(2)
    assert (firsts._contents, firsts._content_size) == ({}, 0)


async def test_nor_what_the_rows_are_asked_for_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(spool, monkeypatch)
    firsts = Firsts(spool.items, batch := await batch_of(spool, PAGE))
    late = await keep(spool, batch, b"1234")
    asked.meanwhile = lambda: firsts.arrived(late, b"1234")
    assert len(await firsts.next_page()) == PAGE
    assert (firsts._contents, firsts._content_size) == ({}, 0)
    assert numbers(await firsts.next_page()) == [late.number]


# --- how long it is waited for --------------------------------------------------------------------


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


async def test_what_is_kept_and_closed_while_its_rows_are_read_is_proposed(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, accepted = a_batch(), frozenset({(CT, IMPLICIT)})
    real = spool.items.pairs

    async def read(asked: Batch) -> frozenset[tuple[str, str]]:
        found = await real(asked)
        await keep(spool, batch, b"object")
        await spool.items.close_batch(batch, 2.0)
        return found

    monkeypatch.setattr(spool.items, "pairs", read)
    firsts = Firsts(spool.items, batch, accepted)
    assert await firsts.pairs() == accepted
    assert numbers(await firsts.next_page()) == [1]
    assert await firsts.next_page() == []


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
