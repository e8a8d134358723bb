"""What is held of another hospital's device: how it is learned, refused, taken again and lost."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from relay.errors import SignallingError
from relay.router.node import unix_time
from relay.router.pairs import Pairs
from relay.router.queue import acceptance
from relay.router.queue.acceptance import DEADLINE
from relay.router.queue.held import Held
from tests.router.fakes import CT, IMPLICIT, JPEG, MR
from tests.router.queue.holding import HELD_NOTHING, PAIRS, World, holding, knowledge
from tests.waiting import until


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with holding(tmp_path, monkeypatch) as made:
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


async def test_transfer_syntaxes_are_those_for_any_caller(world: World) -> None:
    def syntaxes(after: int = 0) -> frozenset[str]:
        return world.held.transfer_syntaxes(world.node, "PACS", unix_time() + after)

    assert syntaxes() == frozenset()
    world.owner.says = knowledge(1, pairs=Pairs.of([(CT, JPEG), (MR, JPEG), (CT, IMPLICIT)]))
    held = await world.learn()
    assert held is not None
    assert syntaxes() == {JPEG, IMPLICIT}
    assert syntaxes(held.expires - unix_time()) == frozenset()
    await world.held.refuse("PACS", "WS", (CT, IMPLICIT))
    assert syntaxes() == {JPEG}


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
    await world.held.refuse("PACS", "WS2", (CT, JPEG))
    for held in (world.known(), await world.stored()):
        assert held is not None
        assert not held.takes(CT, JPEG)
        assert held.takes(CT, IMPLICIT)
        assert len(list(held.refused)) == 1
    assert world.held.refusing(world.node, unix_time()) == [("PACS", "WS")]
    # The same answer once more: it was given before the refusal.
    same = await world.learn()
    assert same is not None
    assert not same.takes(CT, JPEG)
    world.owner.says = knowledge(6)
    for held in (await world.learn(), await world.stored()):
        assert held is not None
        assert held.takes(CT, JPEG)
    assert world.held.refusing(world.node, unix_time()) == []


async def test_a_refusal_stands_while_later_answers_say_the_same(world: World) -> None:
    world.owner.says = knowledge(5)
    await world.learn()
    await world.held.refuse("PACS", "WS", (CT, JPEG))
    world.owner.says = knowledge(6, pairs=Pairs.of([(CT, IMPLICIT)]))
    await world.learn()
    # What was left in the queue, of a kind that was known to be taken long ago.
    await world.held.refuse("PACS", "WS", (MR, JPEG))
    await world.learn()
    for held in (world.known(), await world.stored()):
        assert held is not None
        assert set(held.refused) == {(CT, JPEG), (MR, JPEG)}
    world.owner.says = knowledge(7)
    await world.learn()
    assert set(world.held.refused("PACS", "WS")) == {(MR, JPEG)}
    # Another hospital's device has refused nothing.
    world.owner.identity = world.third.identity.public
    await world.learn()
    assert not world.held.refused("PACS", "WS")


@pytest.mark.parametrize("said", [PAIRS, Pairs.of([(CT, IMPLICIT)])])
async def test_a_delivery_lifts_the_refusal_of_its_kind(world: World, said: Pairs) -> None:
    await world.learn()
    for pair in ((CT, JPEG), (MR, JPEG)):
        await world.held.refuse("PACS", "WS", pair)
    world.owner.says = knowledge(6, pairs=said)
    await world.learn()
    await world.held.refuse("PACS", "WS", (CT, JPEG))
    assert await world.held.lift("PACS", "WS", {(CT, JPEG), (CT, IMPLICIT)})
    assert not await world.held.lift("PACS", "WS", {(CT, JPEG), (CT, IMPLICIT)})
    assert not await world.held.lift("PACS", "WS2", {(CT, JPEG)})
    await world.learn()  # the owner, asked for the other kind, has not probed again
    for held in (world.known(), await world.stored()):
        assert held is not None
        assert held.takes(CT, JPEG)
        assert set(held.refused) == {(MR, JPEG)}
    # Until it is refused again, or a probe says otherwise.
    await world.held.refuse("PACS", "WS", (CT, JPEG))
    world.owner.says = knowledge(7, pairs=Pairs.of([(CT, IMPLICIT)]))
    held = await world.learn()
    assert held is not None
    assert not held.takes(CT, JPEG)


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
    assert str(world.held.why("PACS", "WS")) == "no connection"
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
