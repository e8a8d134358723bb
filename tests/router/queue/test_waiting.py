"""C-MOVEs that wait for items: told of each end, also of one that nobody told."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio.testing

from relay.router.moves import HeldMove
from relay.router.queue import waiting as module
from relay.router.queue.state import Queue
from relay.router.queue.waiting import LOOK
from relay.spool.items import Change, Hold, Item, Selection, State
from tests.router.fakes import hospital
from tests.router.queue.queues import NOW, batch_of, becomes, keep, still_queue


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Queue]:
    async with hospital(tmp_path / "a") as node, still_queue(node, tmp_path) as queue:
        yield queue


def held(queue: Queue, message_id: int = 1) -> HeldMove:
    """A C-MOVE of another hospital's WS, at a holder of ours."""
    move = HeldMove(
        holder="CT",
        requestor="WS",
        message_id=message_id,
        destination="PACS",
        seen_requestor="WS",
        seen_message_id=message_id,
    )
    assert queue.node.moves.hold(move)
    return move


async def taken(queue: Queue, move: HeldMove, count: int = 1) -> list[Item]:
    """Objects of the move, in custody."""
    batch = batch_of()
    items = [await keep(queue, batch, instance=f"1.2.{n}") for n in range(count)]
    for item in items:
        queue.waiting.kept([move], item)
    return items


def change(item: Item, state: State, status: int | None = None) -> Change:
    return Change(number=item.number, state=state, attempts=1, status=status)


async def test_each_end_is_told_to_the_move_that_waits(queue: Queue) -> None:
    move, other = held(queue, 1), held(queue, 2)
    items = await taken(queue, move, 5)
    await taken(queue, other)
    states = [State.DELIVERED, State.DELIVERED, State.FAILED, State.HELD, State.WAITING]
    statuses = [0, 0xB000, 0xC000, None, 0xA700]
    queue.settled(batch_of(), [*map(change, items, states, statuses)])
    kept = move.kept
    assert (kept.delivered, kept.warned, kept.failed) == (1, 1, 2)
    assert kept.named == ["1.2.2", "1.2.3"]
    assert list(kept.waiting.values()) == ["1.2.4"]
    assert len(other.kept.waiting) == 1
    queue.settled(batch_of(), [change(items[0], State.DELIVERED, 0)])  # of which it knows
    assert kept.delivered == 1


async def test_what_is_of_no_move_is_not_waited_for(queue: Queue) -> None:
    move = held(queue)
    item = await keep(queue, batch_of())
    queue.waiting.kept([], item)
    assert move.kept.taken == 0


async def test_what_a_person_does_is_found(queue: Queue) -> None:
    move = held(queue)
    one, two, three, _ = await taken(queue, move, 4)
    await queue.spool.items.discard(Selection(numbers=(one.number,)), "by a person", NOW)
    await becomes(queue, two, State.HELD, hold=Hold.MOVED)
    await becomes(queue, three, State.DELIVERED)
    await queue.waiting.look()
    assert (move.kept.delivered, move.kept.named) == (1, ["1.2.0", "1.2.1"])
    assert len(move.kept.waiting) == 1


async def test_what_is_not_there_any_more_was_not_delivered(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    move = held(queue)
    await taken(queue, move, 3)
    for number in range(101, 104):
        move.kept.waiting[number] = f"1.9.{number}"
    await queue.waiting.look()
    assert move.kept.named == ["1.9.101", "1.9.102", "1.9.103"]
    assert len(move.kept.waiting) == 3


async def test_it_is_looked_at_from_time_to_time(
    queue: Queue, patient_clock: trio.testing.MockClock
) -> None:
    move = held(queue)
    (item,) = await taken(queue, move)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.waiting.run)
        await queue.spool.items.discard(Selection(numbers=(item.number,)), "by a person", NOW)
        with trio.fail_after(3 * LOOK):
            await move.kept.settle()
        nursery.cancel_scope.cancel()
    assert move.kept.failed == 1
