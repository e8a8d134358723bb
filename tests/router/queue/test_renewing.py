"""When it is asked what another hospital's device takes: in time, anew, and not too often."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from relay.errors import DatabaseError, SignallingError
from relay.router.devices import Device
from relay.router.node import unix_time
from relay.router.pairs import Pairs
from relay.router.queue import acceptance, renewing
from relay.router.queue.destinations import Destination, DestinationTable, Mode
from relay.router.queue.pauses import Pauses
from relay.router.queue.renewing import PAUSES, RENEWAL
from relay.signalling import messages
from tests.router.fakes import CT, IMPLICIT, JPEG, listing
from tests.router.queue.holding import HELD_NOTHING, WEEK, World, holding, knowledge
from tests.waiting import until


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with holding(tmp_path, monkeypatch) as made:
        yield made


@asynccontextmanager
async def running(world: World) -> AsyncIterator[DestinationTable]:
    table = await DestinationTable.load(world.node.database)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.held.run, world.node, table)
        yield table
        nursery.cancel_scope.cancel()


async def test_what_a_destination_needs_is_learned_when_it_is_added(world: World) -> None:
    await world.node.put_device(Device("CT", "h", published="CT_A"))
    async with running(world) as table:
        await table.put(Destination("PACS", "X", Mode.CONFIRMED))
        await table.put(Destination("PACS", "CT_A", Mode.CONFIRMED))
        await table.put(Destination("PACS"))
        await until(lambda: world.known() is not None)
        assert world.owner.asked == [("PACS", "WS")]  # not for the exceptions
        await table.put(Destination("PACS", "CT_A"))
        await until(lambda: world.known("CT_A") is not None)
    assert world.owner.asked == [("PACS", "WS"), ("PACS", "CT_A")]


@attrs.define(eq=False)
class Looks:
    """How often `run` has looked, each time at once."""

    count: int = 0

    async def __call__(self, *events: trio.Event) -> None:
        self.count += 1
        await trio.sleep(0.001)

    async def some(self) -> None:
        """Return once it has looked again, from its beginning to its end."""
        now = self.count
        await until(lambda: self.count > now + 2)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    made = Looks()
    monkeypatch.setattr(renewing, "_either", made)
    return made


async def test_the_command_line_is_asked_for_once_it_was_used(world: World, looks: Looks) -> None:
    await world.learn("RELAY_A")
    await world.held.refuse("PACS", "RELAY_A", (CT, JPEG))  # so that it is due
    async with running(world) as table:
        await looks.some()
        assert world.owner.asked == [("PACS", "RELAY_A")]
        await table.put(Destination("PACS"))
        await until(lambda: len(world.owner.asked) == 3)
    assert sorted(world.owner.asked[1:]) == [("PACS", "RELAY_A"), ("PACS", "WS")]


async def test_it_is_renewed_a_day_before_it_expires(
    world: World, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = unix_time()
    monkeypatch.setattr(acceptance, "unix_time", lambda: now)
    monkeypatch.setattr(renewing, "unix_time", lambda: now)
    async with running(world) as table:
        await table.put(Destination("PACS"))
        await until(lambda: world.known() is not None)
        now += WEEK - RENEWAL - 1
        await looks.some()
        assert len(world.owner.asked) == 1
        world.owner.says = knowledge(2)
        now += 1
        await until(lambda: (world.known() or HELD_NOTHING).serial == 2)
        await looks.some()
    assert len(world.owner.asked) == 2


async def test_failures_are_tried_again_after_growing_pauses(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[int] = []

    class Counted:
        @staticmethod
        def next(count: int) -> float:
            failures.append(count)
            return 0.001

    monkeypatch.setattr(renewing, "PAUSES", Counted)
    monkeypatch.setattr(renewing, "LOOK", 0.01)
    world.owner.says = SignallingError("no connection")
    async with running(world) as table:
        await table.put(Destination("PACS"))
        await until(lambda: len(failures) == 3)
        # A device that was not reached lately: what is known of it ends soon.
        world.owner.says = knowledge(lifetime=RENEWAL - 1)
        await until(lambda: len(failures) == 5)
        assert world.known() is not None
        world.owner.says = knowledge(2)
        await until(lambda: world.known(after=RENEWAL) is not None)
        world.owner.says = knowledge(3, lifetime=1)
        await world.learn()
        await until(lambda: 1 in failures[5:])
    assert failures[:5] == [1, 2, 3, 4, 5]


async def test_it_is_asked_again_while_something_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[int] = []

    class Counted:
        @staticmethod
        def next(count: int) -> float:
            failures.append(count)
            return 0.001

    monkeypatch.setattr(renewing, "PAUSES", Counted)
    monkeypatch.setattr(renewing, "LOOK", 0.01)
    async with running(world) as table:
        await table.put(Destination("PACS"))
        await until(lambda: world.known() is not None)
        world.owner.says = knowledge(2, pairs=Pairs.of([(CT, IMPLICIT)]))
        await world.held.refuse("PACS", "WS", (CT, JPEG))
        await until(lambda: len(failures) > 2)  # the device was probed, and is not mended
        assert failures[:3] == [1, 2, 3]
        world.owner.says = knowledge(3)
        await until(lambda: (world.known() or HELD_NOTHING).takes(CT, JPEG))


async def test_a_person_need_not_wait_for_the_pause(world: World) -> None:
    async with running(world) as table:
        world.owner.says = SignallingError("no connection")
        await table.put(Destination("PACS"))
        await until(lambda: bool(world.held._renewal.failures))
        world.owner.says = knowledge()
        world.held.ask_soon("MR")
        await trio.testing.wait_all_tasks_blocked()
        assert len(world.owner.asked) == 1
        world.held.ask_soon("PACS")
        await until(lambda: world.known() is not None)
    assert len(world.owner.asked) == 2


async def test_after_a_new_grant_it_is_asked_at_once(world: World) -> None:
    directory = world.node.joined().directory

    async def say(*services: str) -> None:
        rows = ((world.other.identity.public, "PACS", services),)
        await directory.take(messages.Granted(rows, 0))
        world.held.network_changed()
        await trio.testing.wait_all_tasks_blocked()

    async with running(world) as table:
        world.owner.says = SignallingError("not granted")
        await say()
        await table.put(Destination("PACS"))
        await until(lambda: bool(world.held._renewal.failures))
        await say()
        assert len(world.owner.asked) == 1
        world.owner.says = knowledge()
        await say("store")
        await until(lambda: world.known() is not None)
        await say("store")
        assert len(world.owner.asked) == 2
        await say("store", "commit")  # it says more than it did
        await until(lambda: len(world.owner.asked) == 3)
        await say("store")
        assert len(world.owner.asked) == 3
        await say("store", "commit")
        assert len(world.owner.asked) == 3


async def test_a_router_that_is_there_again_is_asked_at_once(world: World) -> None:
    directory = world.node.joined().directory

    async def say(connected: bool) -> None:
        ((identity, name, statement, _),) = listing(world.other, whole=False).routers
        routers = ((identity, name, statement, connected),)
        await directory.take(messages.Directory(False, routers, (), (), ()))
        world.held.network_changed()
        await trio.testing.wait_all_tasks_blocked()

    async with running(world) as table:
        await say(False)
        world.owner.says = SignallingError("callee offline")
        await table.put(Destination("PACS"))
        await until(lambda: bool(world.held._renewal.failures))
        await say(False)
        assert len(world.owner.asked) == 1
        world.owner.says = knowledge()
        await say(True)
        await until(lambda: world.known() is not None)


def test_the_pauses_grow_to_an_hour() -> None:
    assert [PAUSES.ceiling(count) for count in (1, 2, 3, 7, 20)] == [60, 120, 240, 3600, 3600]


async def test_nobody_is_asked_without_a_connection(world: World, looks: Looks) -> None:
    client: Any = world.node.joined().client
    client.connected = False
    async with running(world) as table:
        await table.put(Destination("PACS"))
        await looks.some()
        assert not world.owner.asked
        client.connected = True
        await until(lambda: bool(world.owner.asked))


async def test_what_was_refused_is_asked_anew_at_once(world: World) -> None:
    async with running(world) as table:
        await table.put(Destination("PACS"))
        await until(lambda: world.known() is not None)
        world.owner.says = knowledge(2)
        await world.held.refuse("PACS", "WS", (CT, JPEG))
        await until(lambda: not (world.known() or HELD_NOTHING).refused)
        held = world.known()
        assert held is not None
        assert (held.serial, held.takes(CT, JPEG)) == (2, True)
    assert len(world.owner.asked) == 2


async def test_a_device_that_is_slow_holds_up_no_other(world: World, looks: Looks) -> None:
    world.owner.ready = trio.Event()
    async with running(world) as table:
        await table.put(Destination("PACS", "WS"))
        await until(lambda: len(world.owner.asked) == 1)
        await table.put(Destination("MR", "WS"))
        await until(lambda: len(world.owner.asked) == 2)
        await looks.some()  # and is not asked more than once at a time
        assert world.held._renewal._busy == {"PACS", "MR"}
    assert world.owner.asked == [("PACS", "WS"), ("MR", "WS")]


async def test_a_full_disk_ends_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewing, "LOOK", 0.01)
    monkeypatch.setattr(renewing, "PAUSES", Pauses(first=0.001, cap=0.001))
    run = world.node.database.run

    async def full(fn: Any) -> Any:
        raise DatabaseError("database or disk is full")

    async with running(world) as table:
        await table.put(Destination("PACS"))
        await until(lambda: world.known() is not None)
        monkeypatch.setattr(world.node.database, "run", full)
        with pytest.raises(DatabaseError):
            await world.held.refuse("PACS", "WS", (CT, JPEG))
        held = world.known()
        assert held is not None
        assert not held.takes(CT, JPEG)
        count = len(world.owner.asked)
        await until(lambda: len(world.owner.asked) > count + 1)
        monkeypatch.setattr(world.node.database, "run", run)
        world.owner.says = knowledge(2)
        await until(lambda: (world.known() or HELD_NOTHING).serial == 2)


async def test_a_fault_of_our_own_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewing, "LOOK", 0.01)
    learn, faults = world.held.learn, [1]

    async def fault(*arguments: Any, **options: Any) -> Any:
        if faults:
            raise ValueError(faults.pop())
        return await learn(*arguments, **options)

    monkeypatch.setattr(world.held, "learn", fault)
    async with running(world) as table:
        await table.put(Destination("PACS"))
        await until(lambda: world.known() is not None)
    assert not faults
