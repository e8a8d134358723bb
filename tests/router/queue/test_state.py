"""What the parts of the queue tell one another."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.errors import SpoolBroken, SpoolFull
from relay.router.queue.state import Queue
from relay.router.queue.warnings import Kind
from relay.spool.items import Change, Pause, State
from tests.router.fakes import hospital
from tests.router.queue.queues import CT, EXPLICIT, batch_of, couriers_of, still_queue


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Queue]:
    async with hospital(tmp_path) as node, still_queue(node, tmp_path) as queue:
        yield queue


async def test_what_is_accepted_is_counted_and_told(queue: Queue) -> None:
    queue.accepted(batch_of(), frozenset())
    assert queue.statistics.accepted == 1
    assert couriers_of(queue).told == [("arrived", "PACS")]


async def test_what_ended_is_counted_and_dead_letters_are_warned_of(queue: Queue) -> None:
    def change(state: State) -> Change:
        return Change(number=1, state=state, attempts=1)

    queue.settled(batch_of(), [change(State.DELIVERED), change(State.WAITING)])
    assert (queue.statistics.delivered, queue.statistics.failed) == (1, 0)
    assert not queue.warnings.standing(Kind.FAILED)
    queue.settled(batch_of(), [change(State.FAILED)])
    assert queue.statistics.failed == 1
    assert queue.warnings.standing(Kind.FAILED) == {"PACS"}


async def test_full_is_not_broken(queue: Queue) -> None:
    queue.no_room(SpoolFull("full"))
    assert queue.warnings.standing(Kind.SPOOL_FULL) == {""}
    queue.no_room(SpoolBroken("broken"))
    assert queue.warnings.standing(Kind.SPOOL_BROKEN) == {""}


async def test_a_pause_is_durable_before_the_couriers_have_it(queue: Queue) -> None:
    await queue.pause(Pause("PACS", False, "0124", 1.0))
    (pause,) = await queue.spool.items.pauses()
    assert pause.called == "PACS"
    assert couriers_of(queue).told == [("stop", "PACS")]
    assert queue.warnings.standing(Kind.PAUSED) == {"PACS"}
    assert await queue.resume("PACS")
    assert not await queue.resume("PACS")
    assert couriers_of(queue).told[1] == ("resume", "PACS")
    assert not queue.warnings.standing(Kind.PAUSED)


async def test_a_persons_own_pause_is_no_warning(queue: Queue) -> None:
    await queue.pause(Pause("PACS", True, "it moves", 1.0))
    assert not queue.warnings.standing(Kind.PAUSED)


async def test_what_the_device_refuses_is_warned_of_by_kind(queue: Queue) -> None:
    await queue.refused(batch_of(), (CT, EXPLICIT))
    await queue.refused(batch_of(), (CT, EXPLICIT))
    assert len(queue.warnings.standing(Kind.REFUSED)) == 1
