"""What is held of another hospital's device: how it is learned, refused, renewed and lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from relay.errors import DatabaseError, RelayError, SignallingError
from relay.router.devices import Device
from relay.router.node import Node, unix_time
from relay.router.pairs import Pairs
from relay.router.queue import acceptance
from relay.router.queue.acceptance import DEADLINE, PAUSES, RENEWAL, Acceptance
from relay.router.queue.destinations import Destination, DestinationTable, Mode
from relay.router.queue.held import Held
from relay.router.queue.pauses import Pauses
from relay.tunnel.notes import Knowledge
from tests.router.fakes import CT, IMPLICIT, JPEG, MR, hospital, listing, publication
from tests.waiting import until

WEEK = 7 * 86400
PAIRS = Pairs.of([(CT, IMPLICIT), (CT, JPEG)])
HELD_NOTHING = Held(b"", 0, 0, 1, 1, False, Pairs(), PAIRS)


def knowledge(serial: int = 1, lifetime: int = WEEK, pairs: Pairs = PAIRS) -> Knowledge:
    return Knowledge(serial, lifetime, 1, 1, False, pairs.groups())


@attrs.define(eq=False)
class Owner:
    """The hospital that publishes PACS: `says` is what its Router answers, an error or a note."""

    identity: bytes
    says: Knowledge | RelayError = attrs.field(factory=knowledge)
    asked: list[tuple[str, str]] = attrs.Factory(list)
    ready: trio.Event = attrs.Factory(trio.Event)

    async def __call__(
        self, node: Node, called: str, calling: str, deadline: float
    ) -> tuple[bytes, Knowledge]:
        assert deadline == DEADLINE
        self.asked.append((called, calling))
        await self.ready.wait()
        if isinstance(self.says, RelayError):
            raise self.says
        return self.identity, self.says


@attrs.define(eq=False)
class World:
    node: Node
    other: Node
    third: Node
    owner: Owner
    held: Acceptance

    async def learn(self, calling: str = "WS", *, anew: bool = True) -> Held | None:
        return await self.held.learn(self.node, "PACS", calling, anew=anew)

    def known(self, calling: str = "WS", after: int = 0) -> Held | None:
        return self.held.known(self.node, "PACS", calling, unix_time() + after)

    async def stored(self) -> Held | None:
        """What another run of the Router would know."""
        again = await Acceptance.load(self.node.database)
        return again.known(self.node, "PACS", "WS", unix_time())

    async def publish(self, node: Node, serial: int = 1) -> None:
        """The directory shows PACS as `node`'s."""
        statement = publication(node, "PACS", "store", serial=serial)
        directory = self.node.joined().directory
        await directory.take(listing(node, whole=False, publications=[statement]))


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with (
        hospital(tmp_path / "a", "RELAY_A") as node,
        hospital(tmp_path / "b", "RELAY_B") as other,
        hospital(tmp_path / "c", "RELAY_C") as third,
    ):
        owner = Owner(other.identity.public)
        owner.ready.set()
        monkeypatch.setattr(acceptance, "ask", owner)
        await node.put_device(Device("WS", "h"))
        await node.joined().directory.take(listing(other, third))
        made = World(node, other, third, owner, await Acceptance.load(node.database))
        await made.publish(other)
        yield made


async def test_what_is_unknown_is_none(world: World) -> None:
    assert world.known() is None
    held = await world.learn(anew=False)
    assert held is not None
    assert (held.pairs, held.serial, held.peer) == (PAIRS, 1, world.owner.identity)
    assert world.known() == held == await world.stored()
    assert world.known("WS2") is None
    assert await world.learn(anew=False) == held
    assert world.owner.asked == [("PACS", "WS")]
    await world.learn()
    assert len(world.owner.asked) == 2


async def test_what_has_expired_is_not_known(world: World) -> None:
    held = await world.learn()
    assert held is not None
    assert world.known(after=held.expires - unix_time() - 1) == held
    assert world.known(after=held.expires - unix_time()) is None


async def test_another_owner_has_said_nothing_yet(world: World) -> None:
    held = await world.learn()
    await world.publish(world.third, serial=5)  # disputed, until a person accepts it
    assert world.known() is None
    peers = world.node.joined().peers
    third = peers.get(world.third.identity.public)
    assert third is not None
    await world.node.joined().directory.accept(third)
    assert world.known() is None
    # Its serials are its own: a lower one is no replay.
    world.owner.identity, world.owner.says = world.third.identity.public, knowledge(0)
    now = await world.learn()
    assert now is not None
    assert held is not None
    assert (now.peer, now.serial < held.serial) == (world.third.identity.public, True)


async def test_what_is_known_counts_while_the_bridge_is_away(world: World) -> None:
    held = await world.learn()
    directory = world.node.joined().directory
    again = await type(directory).load(
        world.node.database,
        world.node.joined().peers,
        world.node.joined().membership.network,
        world.node.identity.public,
    )
    world.node.joined().directory = again  # of a Router that was started without a connection
    assert again.owner("PACS") is None
    assert world.known() == held
    world.node.network = None
    assert world.known() is None


async def test_an_older_answer_is_not_taken(world: World) -> None:
    world.owner.says = knowledge(5)
    held = await world.learn()
    world.owner.says = knowledge(4, pairs=Pairs.of([(MR, IMPLICIT)]))
    assert await world.learn() == held
    assert await world.stored() == held
    world.owner.says = knowledge(6, pairs=Pairs.of([(MR, IMPLICIT)]))
    newer = await world.learn()
    assert newer is not None
    assert newer.takes(MR, IMPLICIT)
    assert await world.stored() == newer


async def test_what_was_refused_is_not_accepted_until_a_later_serial(world: World) -> None:
    world.owner.says = knowledge(5)
    await world.learn()
    await world.held.refuse("PACS", "WS", (CT, JPEG))
    await world.held.refuse("PACS", "WS", (CT, JPEG))
    await world.held.refuse("PACS", "WS", (MR, JPEG))  # was never said to be taken
    await world.held.refuse("PACS", "WS2", (CT, JPEG))
    for held in (world.known(), await world.stored()):
        assert held is not None
        assert not held.takes(CT, JPEG)
        assert held.takes(CT, IMPLICIT)
        assert len(list(held.refused)) == 1
    # The same answer once more: it was given before the refusal.
    same = await world.learn()
    assert same is not None
    assert not same.takes(CT, JPEG)
    world.owner.says = knowledge(6)
    for held in (await world.learn(), await world.stored()):
        assert held is not None
        assert held.takes(CT, JPEG)


@pytest.mark.parametrize(("serial", "taken"), [(5, False), (6, True)])
async def test_what_is_refused_while_the_answer_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch, serial: int, taken: bool
) -> None:
    world.owner.says = knowledge(5)
    await world.learn()
    world.owner.says = knowledge(serial)
    run, writing, go_on = world.node.database.run, trio.Event(), trio.Event()

    async def slowly(fn: Any) -> Any:
        writing.set()
        await go_on.wait()
        return await run(fn)

    monkeypatch.setattr(world.node.database, "run", slowly)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.learn)
        await writing.wait()
        nursery.start_soon(world.held.refuse, "PACS", "WS", (CT, JPEG))
        await until(lambda: bool((world.known() or HELD_NOTHING).refused))
        go_on.set()
    for held in (world.known(), await world.stored()):
        assert held is not None
        assert held.takes(CT, JPEG) is taken


@pytest.mark.parametrize(("serial", "taken"), [(5, False), (6, True)])
async def test_what_is_refused_while_it_is_asked(world: World, serial: int, taken: bool) -> None:
    world.owner.says = knowledge(5)
    await world.learn()
    world.owner.says, world.owner.ready = knowledge(serial), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.learn)
        await until(lambda: len(world.owner.asked) == 2)
        nursery.start_soon(world.held.refuse, "PACS", "WS", (CT, JPEG))
        world.owner.ready.set()
    for held in (world.known(), await world.stored()):
        assert held is not None
        assert held.takes(CT, JPEG) is taken


async def test_one_asks_and_the_others_wait_for_the_same(world: World) -> None:
    world.owner.ready = trio.Event()
    answers: list[Held | None] = []

    async def learn(calling: str, anew: bool) -> None:
        answers.append(await world.learn(calling, anew=anew))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(learn, "WS", False)
        nursery.start_soon(learn, "WS2", False)
        await until(lambda: len(world.owner.asked) == 2)
        # Who asks anew is not content with what was asked before, but with one answer for all.
        for _ in range(3):
            nursery.start_soon(learn, "WS", True)
        await trio.testing.wait_all_tasks_blocked()
        world.owner.ready.set()
    assert len([held for held in answers if held is not None]) == 7
    assert sorted(world.owner.asked) == [("PACS", "WS")] * 2 + [("PACS", "WS2")]


async def test_a_failure_is_the_answer_for_all_who_waited(world: World) -> None:
    world.owner.ready, world.owner.says = trio.Event(), SignallingError("no connection")
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(world.learn)
        await until(lambda: bool(world.owner.asked))
        world.owner.ready.set()
    assert len(world.owner.asked) == 1
    assert world.known() is None
    assert world.held.unknown("PACS") == {"WS": "no connection"}
    assert world.held.unknown("MR") == {}
    world.owner.says = knowledge()
    await world.learn()
    assert world.held.unknown("PACS") == {}


async def test_when_who_asks_is_cancelled_another_one_asks(world: World) -> None:
    world.owner.ready = trio.Event()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def impatient() -> None:
                with trio.move_on_after(0.01):
                    await world.learn(anew=False)
                world.owner.ready.set()

            nursery.start_soon(impatient)
            await until(lambda: len(world.owner.asked) == 1)
            assert await world.learn(anew=False) is not None
    assert not scope.cancelled_caught
    assert len(world.owner.asked) == 2


async def test_waiting_has_a_limit(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.owner.ready = trio.Event()
    start = trio.current_time()
    assert await world.held.wait(world.node, "PACS", "WS", 5) is None
    assert trio.current_time() - start == 5
    world.owner.ready.set()
    held = await world.held.wait(world.node, "PACS", "WS", 5)
    assert held is not None
    assert await world.held.wait(world.node, "PACS", "WS", 0) == held
    assert len(world.owner.asked) == 2


async def test_an_owner_that_does_not_answer(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.owner.ready = trio.Event()
    start = trio.current_time()
    assert await world.learn() is None
    assert trio.current_time() - start == DEADLINE


async def test_the_table_has_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptance, "MAXIMUM_HELD", 2)
    world.owner.says = knowledge(lifetime=60)
    await world.learn("WS1")
    await world.learn("WS2")
    assert await world.learn("WS3") is None
    assert await world.learn("WS2") is not None
    real = unix_time()
    monkeypatch.setattr(acceptance, "unix_time", lambda: real + 61)
    assert await world.learn("WS3") is not None  # in place of what has expired
    assert world.held.callers(world.node, "PACS", real) == ["WS3"]


async def test_equal_pairs_are_held_once(world: World) -> None:
    one, other = await world.learn("WS1"), await world.learn("WS2")
    assert one is not None
    assert other is not None
    assert one.pairs is other.pairs


# --- in the background ----------------------------------------------------------------------------


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
    monkeypatch.setattr(acceptance, "_either", made)
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

    monkeypatch.setattr(acceptance, "PAUSES", Counted)
    monkeypatch.setattr(acceptance, "LOOK", 0.01)
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
        assert world.held._busy == {"PACS", "MR"}
    assert world.owner.asked == [("PACS", "WS"), ("MR", "WS")]


async def test_a_full_disk_ends_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptance, "LOOK", 0.01)
    monkeypatch.setattr(acceptance, "PAUSES", Pauses(first=0.001, cap=0.001))
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
    monkeypatch.setattr(acceptance, "LOOK", 0.01)
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
