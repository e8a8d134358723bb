"""Lanes: what goes to one destination, and when."""

from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
import trio
from trio.testing import MockClock

from relay.errors import DatabaseError
from relay.router.queue import lane as lane_module
from relay.router.queue.courier import Couriers
from relay.router.queue.errand import IDLE_RELEASE, IDLE_WANTED, Errand, Firsts
from relay.router.queue.lane import LONGEST_LOOK_AWAY, PARALLEL, Lane
from relay.router.queue.ledger import How, Report
from relay.router.queue.warnings import Kind
from relay.spool.items import Batch, Hold, Item, Pause, Priority, Selection, State
from tests.router.queue.lanes import Lanes, lanes
from tests.router.queue.sending import TAKEN, keep
from tests.spool.stock import item_of


async def no_line(errand: Errand) -> Report:
    await trio.sleep(1)
    return Report(How.TROUBLE, "the line is down")


def lane_of(it: Lanes) -> Lane:
    assert isinstance(it.queue.couriers, Couriers)
    return it.queue.couriers._lanes["PACS"]


# --- what goes, and in which order ----------------------------------------------------------------


async def test_what_waits_is_taken_up_at_the_start(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        await it.left(3)
        await it.tried()
        it.start()
        await it.done()
    assert sorted(number for page in it.deliveries.pages for number in page) == [1, 2, 3, 4]


async def test_a_batch_of_which_more_comes(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        it.start()
        batch = it.batch()
        for number in (1, 2, 3):
            await it.bring(batch)
            await it.done()
            assert it.deliveries.pages[-1] == [number]
        await it.queue.spool.items.close_batch(batch, 1.0)
        it.queue.couriers.closed(batch)
        while it.queue.couriers.sessions("PACS"):
            await trio.sleep(1)
    assert len(it.deliveries.errands) == 1


async def test_a_session_is_begun_while_its_first_object_comes(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        it.start()
        batch = it.batch()
        it.queue.couriers.coming(batch, TAKEN)
        await trio.sleep(1)
        assert (it.queue.couriers.sessions("PACS"), batch.number) == (1, 0)
        for number in (1, 2):
            await it.bring(batch)
            await it.done()
            assert it.deliveries.pages[-1] == [number]
        it.queue.couriers.wake("PACS")
        await trio.sleep(1)
        await it.queue.spool.items.close_batch(batch, 1.0)
        it.queue.couriers.closed(batch)
        while it.queue.couriers.sessions("PACS"):
            await trio.sleep(1)
    assert len(it.deliveries.errands) == 1


async def test_a_row_that_is_seen_before_its_batch_has_its_number_is_carried(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        it.start()
        batch = it.batch()
        it.queue.couriers.coming(batch, TAKEN)
        await trio.sleep(1)
        await keep(it.queue.spool, attrs.evolve(batch), b"object")  # the row alone
        it.queue.couriers.wake("PACS")
        await trio.sleep(1)
        assert len(it.deliveries.errands) == 1
        other = attrs.evolve(it.batch(), opened=batch.opened + 1)
        await it.bring(other)  # what is behind it is not overlooked
        await trio.sleep(1)
        assert it.deliveries.pages == [[2]]


async def test_a_batch_that_brings_nothing_ends_its_session(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        it.start()
        batch = it.batch()
        it.queue.couriers.coming(batch, TAKEN)
        await trio.sleep(1)
        await it.queue.spool.items.close_batch(batch, 1.0)
        it.queue.couriers.closed(batch)
        with trio.fail_after(5):
            while it.queue.couriers.sessions("PACS"):
                await trio.sleep(0.1)
        assert it.queue.couriers.again("PACS") is None  # and holds nothing else up


async def test_after_trouble_no_session_is_begun_for_what_only_comes(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(errand: Errand) -> Report:
        assert errand.batch.number
        return await no_line(errand)

    async with lanes(tmp_path, monkeypatch, down) as it:
        await it.left()
        it.start()
        await trio.sleep(5)
        for _ in range(100):
            it.queue.couriers.coming(it.batch(), TAKEN)
        assert not lane_of(it)._coming
        await trio.sleep(600)


@pytest.mark.parametrize("how", ["pause", "finish"])
async def test_nor_where_nothing_may_go_out(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        it.start()
        await it.queue.pause(Pause("PACS", True, "it moves", 1.0))
        if how == "finish":
            await it.queue.resume("PACS")
            it.queue.couriers.finish()
        it.queue.couriers.coming(it.batch(), TAKEN)
        await trio.sleep(10)
        assert not lane_of(it)._coming
        assert it.deliveries.errands == []


async def test_what_comes_is_noted_for_as_long_as_it_does(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(errand: Errand) -> None:
        await trio.sleep_forever()

    async with lanes(tmp_path, monkeypatch, busy) as it:
        for _ in range(PARALLEL):
            await it.left()
        it.start()
        await trio.sleep(1)
        kept, closed = it.batch(), it.batch()
        for batch in (kept, closed):
            it.queue.couriers.coming(batch, TAKEN)
        await trio.sleep(1)
        assert list(lane_of(it)._coming) == [kept, closed]
        await it.bring(kept)
        await it.queue.spool.items.close_batch(closed, 1.0)
        it.queue.couriers.closed(closed)
        assert not lane_of(it)._coming


async def test_a_session_that_came_to_nothing_before_anything_was_to_go_is_no_trouble(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch, no_line) as it:
        it.start()
        batch = it.batch()
        it.queue.couriers.coming(batch, TAKEN)
        await trio.sleep(2)
        assert len(it.deliveries.errands) == 1
        assert it.queue.couriers.again("PACS") is None
        assert it.queue.couriers.trouble("PACS") == ""
        it.deliveries.instead = None
        begun = trio.current_time()
        await it.bring(batch)
        await trio.sleep(0.5)
        assert it.deliveries.at[-1] == begun


async def test_what_is_long_in_coming_holds_no_session(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        it.start()
        it.queue.couriers.coming(it.batch(), TAKEN)
        await trio.sleep(1)
        assert it.queue.couriers.sessions("PACS") == 1
        await trio.sleep(IDLE_WANTED)
        assert it.queue.couriers.sessions("PACS") == 0


async def test_one_session_is_begun_ahead_and_the_others_with_the_first_object(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        monkeypatch.setattr(it.queue.acceptance, "known", lambda *a: SimpleNamespace(split=3))
        it.start()
        batch = it.batch()
        it.queue.couriers.coming(batch, TAKEN)
        await trio.sleep(1)
        assert it.queue.couriers.sessions("PACS") == 1
        for _ in range(3):
            await it.bring(batch)
            await it.done()
            assert it.queue.couriers.sessions("PACS") == 3
        await it.queue.spool.items.close_batch(batch, 1.0)
        it.queue.couriers.closed(batch)
        await trio.sleep(1)
        assert it.queue.couriers.sessions("PACS") == 0
    assert len(it.deliveries.errands) == 3


async def test_priority_goes_before_age(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "PARALLEL", 1)
    async with lanes(tmp_path, monkeypatch) as it:
        for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.HIGH):
            await it.left(1, priority=priority)
        it.start()
        await it.done()
    assert it.deliveries.pages == [[3], [4], [2], [1]]


async def test_batches_go_at_the_same_time_but_not_all(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(errand: Errand) -> None:
        await trio.sleep(5)

    async with lanes(tmp_path, monkeypatch, slow) as it:
        for _ in range(PARALLEL + 3):
            await it.left()
        it.start()
        await it.done()
    assert it.deliveries.most == PARALLEL


@pytest.mark.parametrize("split", [2, 255])
async def test_a_batch_over_several_associations(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch, split: int
) -> None:
    async def slow(errand: Errand) -> None:
        await trio.sleep(1)

    async with lanes(tmp_path, monkeypatch, slow) as it:
        held = SimpleNamespace(split=split)
        monkeypatch.setattr(it.queue.acceptance, "known", lambda *arguments: held)
        await it.left(70)
        it.start()
        await it.done()
    assert it.deliveries.most == min(split, PARALLEL)
    numbers = [number for page in it.deliveries.pages for number in page]
    assert sorted(numbers) == list(range(1, 71))


async def test_what_one_of_several_sessions_had_is_begun_anew(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: list[list[Item]] = []

    async def first_breaks(errand: Errand) -> Report | None:
        if not broken:
            broken.append(await errand.next_page())
            return Report(How.TROUBLE, "cut off")
        return None

    async with lanes(tmp_path, monkeypatch, first_breaks) as it:
        monkeypatch.setattr(it.queue.acceptance, "known", lambda *a: SimpleNamespace(split=2))
        batch = it.batch()
        for _ in range(3):
            await it.bring(batch)  # and it stays open
        it.start()
        await it.done()
        assert trio.current_time() < IDLE_RELEASE  # the other one does not wait for more first
    assert broken[0]


async def test_retries_and_batches_take_turns(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "PARALLEL", 1)
    monkeypatch.setattr(lane_module, "RETRIES", 1)
    async with lanes(tmp_path, monkeypatch) as it:
        for _ in range(3):
            await it.tried()
        for _ in range(3):
            await it.left()
        it.start()
        await it.done()
    assert [kind for kind, _ in it.deliveries.errands] == ["Retries", "Firsts"] * 3


async def test_an_object_that_never_goes_does_not_keep_a_batch_waiting(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(errand: Errand) -> Report | None:
        if isinstance(errand, Firsts):
            return None
        await it.deliveries.settle(await errand.next_page(), State.WAITING)
        return Report(How.TROUBLE, "A700", 0, 1)

    async with lanes(tmp_path, monkeypatch, full) as it:
        await it.tried()
        for _ in range(10):
            await it.left()
        it.start()
        with trio.fail_after(5000):
            while await it.waiting() > 1:
                await trio.sleep(1)


# --- trouble --------------------------------------------------------------------------------------


async def test_pauses_grow_and_one_goes_ahead(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch, no_line) as it:
        for _ in range(20):
            await it.left()
        it.start()
        await trio.sleep(2000)
        assert it.queue.couriers.trouble("PACS") == "the line is down"
        assert it.deliveries.most == PARALLEL
        later = it.deliveries.at[PARALLEL:]
        # All that broke together, after a second, are one failure.
        assert later[0] - it.deliveries.at[0] <= 2
        pauses = [after - before for before, after in pairwise(later)]
        assert all(pause >= 100 for pause in pauses[-3:])
        it.deliveries.most = it.deliveries.running
        assert it.deliveries.most <= 1
        it.deliveries.instead = None
        it.queue.couriers.wake("PACS")
        await it.done()
        assert it.queue.couriers.trouble("PACS") == ""


async def test_a_lane_that_is_down_does_not_slow_another(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(errand: Errand) -> None:
        if errand.batch.called == "DEAD":
            await trio.sleep_forever()

    async with lanes(tmp_path, monkeypatch, hangs) as it:
        for _ in range(40):
            await it.left(called="DEAD")
        it.start()
        await trio.sleep(1)
        batch = it.batch()
        await it.bring(batch)
        await it.done()
        assert it.queue.couriers.sessions("DEAD") == PARALLEL


async def test_a_fault_in_one_lane_ends_neither_it_nor_another(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [3]

    async def fails(errand: Errand) -> None:
        if errand.batch.called == "ODD" and faults[0]:
            faults[0] -= 1
            raise RuntimeError("a bug")

    async with lanes(tmp_path, monkeypatch, fails) as it:
        await it.left(called="ODD")
        await it.left()
        it.start()
        await it.done("ODD", "PACS")
    assert faults == [0]


@pytest.mark.parametrize("error", [DatabaseError("disk I/O error"), RuntimeError("a bug")])
@pytest.mark.parametrize("question", ["due", "next_batch", "next_due", "batches"])
async def test_rows_that_cannot_be_read_end_nothing(
    tmp_path: Path,
    patient_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    question: str,
    error: Exception,
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        await it.left(2)
        await it.tried()
        await it.tried(due=it.queue.spool.clock() + 60)
        items = it.queue.spool.items
        real, failing = getattr(items, question), [2]

        async def ask(*arguments: object) -> object:
            if failing[0]:
                failing[0] -= 1
                raise error
            return await real(*arguments)

        monkeypatch.setattr(items, question, ask)
        it.start()
        await it.done()
        assert failing == [0]


async def test_an_errand_that_comes_to_nothing_is_not_begun_at_once_again(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(errand: Errand) -> Report:
        await trio.lowlevel.checkpoint()
        return Report(How.DONE)

    async with lanes(tmp_path, monkeypatch, nothing) as it:
        await it.left()
        await it.tried()
        it.start()
        await trio.sleep(20)
        assert 2 <= len(it.deliveries.errands) <= 45


async def test_what_is_due_and_cannot_be_begun_is_not_asked_for_without_end(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        await it.tried()
        asked = []

        async def none(numbers: object) -> dict[int, Batch]:
            asked.append(numbers)
            return {}

        monkeypatch.setattr(it.queue.spool.items, "batches", none)
        it.start()
        await trio.sleep(20)
        assert 2 <= len(asked) <= 25


async def test_a_pause_that_cannot_be_noted_is_no_endless_loop(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def not_authorized(errand: Errand) -> Report:
        await trio.lowlevel.checkpoint()
        return Report(How.PAUSE, "0124")

    async def fails(pause: Pause) -> None:
        raise DatabaseError("disk I/O error")

    async with lanes(tmp_path, monkeypatch, not_authorized) as it:
        await it.left()
        monkeypatch.setattr(it.queue.spool.items, "pause", fails)
        it.start()
        await trio.sleep(100)
        assert 2 <= len(it.deliveries.errands) < 12


# --- when it goes on ------------------------------------------------------------------------------


async def test_what_is_due_goes_when_it_is(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        due = it.queue.spool.clock() + 500
        await it.tried(due)
        it.start()
        await it.done()
        assert due <= it.queue.spool.clock() < due + 60


async def test_a_clock_that_is_set_back_keeps_nothing_waiting(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        await it.tried(it.queue.spool.clock() + 300)
        it.start()
        await trio.sleep(1)
        it.set_clock(-86400)
        begun = trio.current_time()
        await it.done()
        assert trio.current_time() - begun < 2 * LONGEST_LOOK_AWAY


async def test_a_clock_that_is_set_forward_is_noticed(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        await it.tried(it.queue.spool.clock() + 3000)
        it.start()
        await trio.sleep(1)
        it.set_clock(3600)
        begun = trio.current_time()
        await it.done()
        assert trio.current_time() - begun < 2 * LONGEST_LOOK_AWAY


async def test_the_network_comes_back(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch, no_line) as it:
        await it.left()
        it.start()
        await trio.sleep(1000)
        it.deliveries.instead = None
        directory = it.queue.node.joined().directory
        monkeypatch.setattr(directory, "is_reachable", lambda called: True)
        begun = trio.current_time()
        it.queue.couriers.network_changed()
        await it.done()
        assert trio.current_time() - begun < 10


async def test_a_person_stops_it_and_lets_it_go_on(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        it.start()
        await it.queue.pause(Pause("PACS", True, "it moves", 1.0))
        batch = it.batch()
        await it.bring(batch)
        it.queue.couriers.wake()
        await trio.sleep(1000)
        assert it.deliveries.errands == []
        assert not it.queue.warnings.standing(Kind.PAUSED)
        assert await it.queue.resume("PACS")
        await it.done()
        assert not await it.queue.resume("PACS")


async def test_the_devices_word_does_not_take_the_place_of_a_persons(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stopped_meanwhile(errand: Errand) -> Report:
        await it.queue.pause(Pause("PACS", True, "it moves", 1.0))
        assert errand.stopped
        return Report(How.PAUSE, "0124")

    async with lanes(tmp_path, monkeypatch, stopped_meanwhile) as it:
        await it.left()
        it.start()
        while not await it.queue.spool.items.pauses():
            await trio.sleep(1)
        await trio.sleep(1)
        (pause,) = await it.queue.spool.items.pauses()
        assert pause.by_person
        assert not it.queue.warnings.standing(Kind.PAUSED)


async def test_what_has_moved_is_held(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def moved(errand: Errand) -> Report:
        await trio.lowlevel.checkpoint()
        return Report(How.MOVED, "it has moved")

    async with lanes(tmp_path, monkeypatch, moved) as it:
        await it.left(2)
        await it.tried()
        it.start()
        await it.done()
        items = await it.queue.spool.items.select(Selection(state=State.HELD))
        assert {(item.hold, item.reason) for item in items} == {(Hold.MOVED, "it has moved")}


# --- batches that end while they are looked for ---------------------------------------------------


async def test_a_batch_that_is_closed_while_its_row_is_read(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[object] = []

    async def look(errand: Errand) -> None:
        closed.append(errand.batch.closed)

    async with lanes(tmp_path, monkeypatch, look) as it:
        batch = it.batch()
        await it.bring(batch)
        items = it.queue.spool.items
        real = items.next_batch

        async def read(*arguments: object) -> Batch | None:
            row = await real(*arguments)  # type: ignore[arg-type]
            if batch.closed is None:
                await items.close_batch(batch, 5.0)
                it.queue.couriers.closed(batch)
            return row

        monkeypatch.setattr(items, "next_batch", read)
        it.start()
        await it.done()
    assert closed == [5.0]


@pytest.mark.parametrize("told", [True, False])
async def test_who_sees_a_row_has_been_told_of_it(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Also where it is the lane's own look that has it written: its batch is the one that is open,
    and not an earlier run's."""
    batches: list[Batch] = []

    async def look(errand: Errand) -> None:
        batches.append(errand.batch)

    async with lanes(tmp_path, monkeypatch, look) as it:
        batch, spool = it.batch(), it.queue.spool
        writer = await spool.objects.begin()
        await writer.write(b"object")

        def then(item: Item) -> None:
            if told:
                it.queue.accepted(batch, TAKEN, item)

        make = partial(item_of, batch)
        await spool.custody.finish(batch, writer, make, soon=False, then=then)
        assert spool.custody.waits
        it.start()
        await it.done()
        assert it.deliveries.pages == [[1]]
        assert len(batches) == 1
        assert (batches[0] is batch) == told
        assert (batches[0].closed is None) == told


async def test_a_batch_whose_end_could_not_be_noted_is_delivered_and_released(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        batch = it.batch()
        await it.bring(batch)
        batch.closed = 5.0  # and its row was not written
        it.queue.couriers.closed(batch)
        it.start()
        await it.done()
        begun = trio.current_time()
        while it.queue.couriers.sessions("PACS"):
            await trio.sleep(1)
        assert trio.current_time() - begun < 5


async def test_news_of_a_batch_under_way_is_the_errands(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path, monkeypatch) as it:
        it.start()
        batch = it.batch()
        await it.bring(batch)
        await it.done()
        asked = []
        real = it.queue.spool.items.next_batch

        async def count(*arguments: object) -> Batch | None:
            asked.append(arguments)
            return await real(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(it.queue.spool.items, "next_batch", count)
        for _ in range(10):
            await it.bring(batch)
        await it.done()
        assert asked == []


async def test_what_comes_when_the_errand_has_just_stopped_is_not_forgotten(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = trio.Event()
    count = [0]

    async def leaves(errand: Errand) -> Report | None:
        count[0] += 1
        if count[0] > 1:
            return None
        page = await errand.next_page()
        await it.deliveries.settle(page)
        await released.wait()
        return Report(How.DONE, "", 1, 1)

    async with lanes(tmp_path, monkeypatch, leaves) as it:
        it.start()
        batch = it.batch()
        await it.bring(batch)
        await trio.sleep(1)
        await it.bring(batch)
        released.set()
        await it.done()
    assert count == [2]
