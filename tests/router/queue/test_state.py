"""What the parts of the queue tell one another."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.errors import DatabaseError, SpoolBroken, SpoolFull
from relay.router.queue.state import NAMED, Queue
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
    queue.settled(batch_of(), [change(State.FAILED)])
    assert queue.warnings.to_json()[0]["count"] == 2


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


async def test_what_the_device_refuses_is_one_warning_in_words(queue: Queue) -> None:
    await queue.refused(batch_of(), (CT, EXPLICIT))
    await queue.refused(batch_of(), (CT, EXPLICIT))
    (warning,) = queue.warnings.to_json()
    assert "PACS does not accept CT in Explicit VR Little Endian from CT_N" in warning["words"]
    assert (warning["destination"], warning["device"]) == ("PACS", "CT_N")
    kinds = [(f"1.2.{number}", EXPLICIT) for number in range(NAMED + 2)]
    queue.warn_refused("PACS", "CT_N", kinds, 3)
    (warning,) = queue.warnings.to_json()
    assert "1.2.0 in Explicit VR Little Endian, 1.2.1 in" in warning["words"]
    assert "and 2 more kinds from CT_N" in warning["words"]
    assert warning["count"] == 3


async def test_a_full_disk_keeps_no_delivery_from_being_noted(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*arguments: object) -> None:
        raise DatabaseError("database or disk is full")

    monkeypatch.setattr(queue.acceptance, "lift", full)
    await queue.taken(batch_of(), {(CT, EXPLICIT)})
