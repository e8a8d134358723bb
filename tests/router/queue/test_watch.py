"""What is looked at from time to time."""

from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from relay.audit.sender import Lagging
from relay.errors import DatabaseError, SpoolFull
from relay.router.pairs import Pairs
from relay.router.queue import watch
from relay.router.queue.destinations import Destination, Mode
from relay.router.queue.held import Held
from relay.router.queue.state import Queue
from relay.router.queue.warnings import Kind
from relay.spool.items import Hold, Pause, Selection, State
from relay.spool.table import HISTORY
from tests.router.fakes import hospital
from tests.router.queue.queues import (
    CT,
    EXPLICIT,
    NOW,
    batch_of,
    becomes,
    couriers_of,
    keep,
    still_queue,
)


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Queue]:
    async with hospital(tmp_path) as node, still_queue(node, tmp_path) as queue:
        yield queue


async def test_what_waits_too_long_is_warned_of_with_its_cause(queue: Queue) -> None:
    batch = batch_of()
    await keep(queue, batch, accepted=NOW - 10)
    await watch.look(queue)
    assert not queue.warnings.standing(Kind.WAITING)
    item = await keep(queue, batch_of("OTHER"), accepted=NOW - 4000)
    couriers_of(queue).troubles["OTHER"] = "the line is down"
    await watch.look(queue)
    assert queue.warnings.standing(Kind.WAITING) == {"OTHER"}
    (warning,) = queue.warnings.to_json()
    assert "the line is down" in warning["words"]
    assert (warning["since"], warning["count"]) == (NOW - 4000, 1)
    await queue.spool.items.pause(Pause("OTHER", True, "it moves", NOW - 5))
    await watch.look(queue)
    (warning,) = queue.warnings.to_json()
    assert warning["words"].endswith(
        "paused by a person, it moves; `relay queue resume OTHER` lets it go on"
    )
    await becomes(queue, item, State.DELIVERED)
    await watch.look(queue)
    assert not queue.warnings.standing(Kind.WAITING)


@attrs.define
class Collected:
    """A sender of the audit that says what it is told to."""

    collector: str = "siem.example:6514"
    found: Lagging | None = None

    def lagging(self) -> Lagging | None:
        return self.found


async def test_a_collector_of_the_audit_that_lags_is_warned_of(queue: Queue) -> None:
    sender = Collected()
    queue.node.audit_sender = sender  # type: ignore[assignment]
    await watch.look(queue)
    assert queue.warnings.to_json() == []
    sender.found = Lagging(7, 1000.0, "the audit's collector siem.example:6514 lacks 7 entries")
    await watch.look(queue)
    (warning,) = queue.warnings.to_json()
    assert (warning["warning"], warning["key"]) == ("audit_behind", "siem.example:6514")
    assert (warning["words"], warning["count"]) == (sender.found.words, 7)
    assert warning["since"] == NOW - 1000
    sender.found = None
    await watch.look(queue)
    assert queue.warnings.to_json() == []


async def test_dead_letters_are_counted_until_there_are_none(queue: Queue) -> None:
    batch = batch_of()
    for _ in range(2):
        await becomes(queue, await keep(queue, batch), State.FAILED, "A900")
    await watch.look(queue)
    (warning,) = queue.warnings.to_json()
    assert (warning["warning"], warning["count"]) == (Kind.FAILED.value, 2)
    await queue.spool.items.discard(Selection(), "not wanted", NOW)
    await watch.look(queue)
    assert queue.warnings.to_json() == []


async def test_what_is_held_and_why(queue: Queue) -> None:
    batch = batch_of()
    await becomes(queue, await keep(queue, batch), State.HELD, hold=Hold.NOT_ACCEPTED)
    for _ in range(2):
        await becomes(queue, await keep(queue, batch), State.HELD, hold=Hold.DOUBTFUL)
    await watch.look(queue)
    assert queue.warnings.standing(Kind.DOUBTFUL) == {"PACS"}
    assert len(queue.warnings.standing(Kind.REFUSED)) == 1
    assert await queue.spool.items.count(Selection(state=State.HELD)) == {State.HELD: 3}
    await queue.spool.items.retry(Selection())
    await watch.look(queue)
    assert queue.warnings.to_json() == []


async def test_the_warning_of_a_refusal_stands_as_long_as_that(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, pair = queue.node, (CT, EXPLICIT)
    other = node.identity.public
    held = Held(other, 1, int(NOW) + 10**6, 1, 1, False, Pairs.of([pair]))
    monkeypatch.setattr(node.joined().directory, "permits", lambda called, peer: peer == other)
    await queue.destinations.put(Destination("PACS"))
    item = await keep(queue, batch_of("PACS", calling=node.ae_title))
    queue.acceptance._held["PACS", node.ae_title] = held
    await queue.refused(batch_of("PACS", calling=node.ae_title), pair)
    await becomes(queue, item, State.HELD, hold=Hold.NOT_ACCEPTED)
    await watch.look(queue)
    (warning,) = queue.warnings.to_json()
    assert warning["count"] == 1
    # A person gives it up: it is not accepted all the same.
    await queue.spool.items.discard(Selection(), "not wanted", NOW)
    await watch.look(queue)
    (warning,) = queue.warnings.to_json()
    assert (warning["warning"], warning["count"]) == (Kind.REFUSED.value, None)
    assert await queue.acceptance.lift("PACS", node.ae_title, {pair})
    await watch.look(queue)
    assert not queue.warnings.to_json()
    # And nobody is to see to what nobody sends any more.
    await queue.refused(batch_of("PACS", calling=node.ae_title), pair)
    await queue.destinations.put(Destination("PACS", mode=Mode.CONFIRMED))
    await watch.look(queue)
    assert not queue.warnings.to_json()


async def test_what_is_held_is_asked_for_though_its_refusal_was_forgotten(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(bytes(32), 1, int(NOW) + 10**6, 1, 1, False, Pairs())
    monkeypatch.setattr(queue.node.joined().directory, "permits", lambda called, peer: True)
    queue.acceptance._held["PACS", "CT_N"] = held
    await becomes(queue, await keep(queue, batch_of()), State.HELD, hold=Hold.NOT_ACCEPTED)
    await watch.look(queue)
    assert len(list(queue.acceptance.refused("PACS", "CT_N"))) == 1


@pytest.mark.parametrize(("hold", "kind"), [(Hold.MOVED, Kind.MOVED), (Hold.LOCKED, Kind.LOCKED)])
async def test_what_goes_nowhere_is_not_held_in_silence(
    queue: Queue, hold: Hold, kind: Kind
) -> None:
    for _ in range(2):
        await becomes(queue, await keep(queue, batch_of()), State.HELD, hold=hold)
    await watch.look(queue)
    (warning,) = queue.warnings.to_json()
    assert (warning["warning"], warning["count"]) == (kind.value, 2)
    await queue.spool.items.discard(Selection(), "sent again", NOW)
    await watch.look(queue)
    assert queue.warnings.to_json() == []


async def test_a_pause_by_the_device_is_warned_of_and_a_persons_is_not(queue: Queue) -> None:
    await queue.spool.items.pause(Pause("ONE", False, "0124", NOW - 5))
    await queue.spool.items.pause(Pause("TWO", True, "it moves", NOW - 5))
    await watch.look(queue)
    assert queue.warnings.standing(Kind.PAUSED) == {"ONE"}
    await queue.spool.items.resume("ONE")
    await watch.look(queue)
    assert not queue.warnings.standing(Kind.PAUSED)


async def test_room_again_is_not_said_after_each_object(
    patient_clock: MockClock, queue: Queue
) -> None:
    queue.no_room(SpoolFull("no room for a large one"))
    for _ in range(3):
        await trio.sleep(watch.LOOK)
        await watch.look(queue)
        assert queue.warnings.standing(Kind.SPOOL_FULL) == {""}
    await trio.sleep(watch.ROOM_AGAIN)
    await watch.look(queue)
    assert not queue.warnings.standing(Kind.SPOOL_FULL)


async def test_a_full_spool_and_a_broken_one(queue: Queue) -> None:
    queue.spool.objects.space.used = queue.spool.objects.space.maximum + 1
    await watch.look(queue)
    assert queue.warnings.standing(Kind.SPOOL_FULL) == {""}
    queue.spool.objects.space.break_off("the disk does not sync")
    await watch.look(queue)
    assert queue.warnings.standing(Kind.SPOOL_BROKEN) == {""}


async def test_what_is_long_over_is_forgotten(queue: Queue, monkeypatch: Any) -> None:
    batch = batch_of()
    for _ in range(3):
        await becomes(queue, await keep(queue, batch), State.DELIVERED)
    items = await queue.spool.items.select(Selection())
    await queue.spool.items.forgotten([item.id for item in items])
    await watch.expire(queue)
    assert len(await queue.spool.items.select(Selection())) == 3
    object.__setattr__(queue.spool, "clock", lambda: NOW + HISTORY + 1)
    await watch.expire(queue)
    assert await queue.spool.items.select(Selection()) == []


@pytest.mark.parametrize("error", [DatabaseError("locked"), RuntimeError("a bug")])
async def test_a_look_that_fails_ends_nothing(
    patient_clock: MockClock,
    queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
    logs: list[MutableMapping[str, Any]],
    error: Exception,
) -> None:
    real, failing = queue.spool.items.counts, [2]

    async def counts() -> Any:
        if failing[0]:
            failing[0] -= 1
            raise error
        return await real()

    monkeypatch.setattr(queue.spool.items, "counts", counts)
    await keep(queue, batch_of(), accepted=NOW - 4000)
    with trio.move_on_after(4 * watch.LOOK):
        await watch.run(queue)
    assert queue.warnings.standing(Kind.WAITING) == {"PACS"}
    assert [line["event"] for line in logs].count("the queue cannot be looked at") == 2
