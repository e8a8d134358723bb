"""The sweeper: everything goes in the end, and nothing of a session that goes on."""

import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

import attrs
import pytest
import structlog
import trio
import trio.testing

from relay.bridge.sessions import Sessions
from relay.bridge.sweeper import LAST_SWEEP_AFTER, ORPHAN_AGE, PAUSE, Sweeper
from relay.errors import ProviderError
from relay.providers import StoredObject
from relay.signalling.messages import Direction, EndReason

from .conftest import NOW, Rooms
from .test_sessions import SigningProvider, opened

# Seconds of the tests' clock, each hundredth of which is one of the machine's.
WAITED = 60.0
OUTWARD = Direction.CALLER_TO_CALLEE


class MemoryStore(SigningProvider):
    """A store that keeps what a test puts into it."""

    name = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, int] = {}
        self.failing = False
        self.deletes = 0
        self.at_once = self.most_at_once = 0

    async def delete(self, names: Sequence[str]) -> None:
        self.deletes += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await trio.lowlevel.checkpoint()
        self.at_once -= 1
        if self.failing:
            raise ProviderError("down")
        for name in names:
            self.objects.pop(name, None)

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        for name, modified in list(self.objects.items()):
            yield StoredObject(name, 10, modified)


@attrs.define
class Swept:
    rooms: Rooms
    store: MemoryStore
    sessions: Sessions
    sweeper: Sweeper
    deleted: list[tuple[str, bool]]
    clock: trio.testing.MockClock

    async def session_with(self, granted, slots: int) -> bytes:
        """An open session that has put into all of its slots."""
        session = await opened(self.sessions, granted)
        await self.sessions.put_urls(granted[0].id, session, OUTWARD, 0, slots)
        for method, name in self.store.signed[-slots:]:
            assert method == "PUT"
            self.store.objects[name] = int(self.rooms.clock.now)
        return session

    async def end(self, session: bytes) -> None:
        self.sweeper.ended(await self.sessions.end(session, EndReason.FINISHED))

    async def settle(self, seconds: float = 0) -> None:
        """Let the clocks go on, and the sweeper come to rest."""
        self.rooms.clock.now += seconds
        self.clock.jump(seconds)
        for _ in range(20):
            await trio.testing.wait_all_tasks_blocked()
            # Behind whatever the sweeper asked of the database's thread.
            await self.rooms.database.run(lambda db: None)

    async def until(self, names: set[str]) -> None:
        """Wait until these are what is stored: orphans are told from others in a thread."""
        with trio.fail_after(WAITED):
            while set(self.store.objects) != names:
                await trio.to_thread.run_sync(time.sleep, 0.01)
                self.clock.jump(0.01)


@pytest.fixture
async def swept(rooms: Rooms, nursery, mock_clock):
    store = MemoryStore()
    deleted: list[tuple[str, bool]] = []
    sessions = Sessions(
        rooms.database,
        {"disk": store},
        in_use=["disk"],
        clock=rooms.clock,
        monotonic=rooms.clock,
    )
    sweeper = Sweeper(
        sessions,
        {"disk": store},
        clock=rooms.clock,
        on_deleted=lambda names, last: deleted.extend((name, last) for name in names),
    )
    return Swept(rooms, store, sessions, sweeper, deleted, mock_clock)


async def test_swept_at_the_end_and_again(swept: Swept, granted, nursery, mock_clock) -> None:
    nursery.start_soon(swept.sweeper.run)
    session = await swept.session_with(granted, 3)
    other = await swept.session_with(granted, 2)
    await swept.end(session)
    await swept.settle()
    assert len(swept.store.objects) == 2
    # An upload that was under way comes late.
    late = swept.store.signed[0][1]
    swept.store.objects[late] = NOW
    await swept.settle(LAST_SWEEP_AFTER - 1)
    assert late in swept.store.objects
    await swept.settle(2)
    assert late not in swept.store.objects
    assert len(swept.store.objects) == 2
    assert await swept.sessions.ended() == []
    assert swept.sessions.ends(other) is not None
    assert (late, False) in swept.deleted
    assert (late, True) in swept.deleted


async def test_what_ended_before_a_restart(swept: Swept, granted, nursery, mock_clock) -> None:
    session = await swept.session_with(granted, 3)
    await swept.sessions.end(session, EndReason.FINISHED)  # and the Bridge stops here
    swept.rooms.clock.now += LAST_SWEEP_AFTER
    nursery.start_soon(swept.sweeper.run)
    await swept.settle(1)
    assert swept.store.objects == {}
    assert await swept.sessions.ended() == []


async def test_a_store_that_is_down_is_tried_again(
    swept: Swept,
    granted,
    nursery,
    mock_clock,
) -> None:
    with structlog.testing.capture_logs() as logs:
        nursery.start_soon(swept.sweeper.run)
        session = await swept.session_with(granted, 3)
        swept.store.failing = True
        await swept.end(session)
        await swept.settle(LAST_SWEEP_AFTER + 1)
        assert len(swept.store.objects) == 3
        assert len(await swept.sessions.ended()) == 1
        swept.store.failing = False
        await swept.settle(2 * PAUSE)
    assert swept.store.objects == {}
    assert await swept.sessions.ended() == []
    assert "down" in str(logs)


async def test_one_sweep_at_a_time(swept: Swept, granted, nursery, mock_clock) -> None:
    nursery.start_soon(swept.sweeper.run)
    for session in [await swept.session_with(granted, 2) for _ in range(10)]:
        await swept.end(session)
    await swept.settle(1)
    assert swept.store.objects == {}
    assert swept.store.deletes >= 10
    assert swept.store.most_at_once == 1


async def test_orphans_go_by_age(swept: Swept, granted, nursery, mock_clock) -> None:
    await swept.session_with(granted, 2)
    paused = set(swept.store.objects)
    swept.rooms.clock.now += 10 * ORPHAN_AGE
    young = f"ab/{'1' * 62}"
    for old in (f"ab/{'0' * 62}", f"probe/{'0' * 32}", "letters/of-somebody-else", "ab/0"):
        swept.store.objects[old] = int(swept.rooms.clock.now - ORPHAN_AGE - 1)
    swept.store.objects[young] = int(swept.rooms.clock.now - ORPHAN_AGE + 60)
    nursery.start_soon(swept.sweeper.run)
    await swept.settle(1)
    # A paused session's objects are kept, however old they are; and what Relay has not named.
    others = {"letters/of-somebody-else", "ab/0"}
    await swept.until({*paused, *others, young})
    await swept.settle(ORPHAN_AGE)
    await swept.until({*paused, *others})


async def test_store_that_is_not_open_is_waited_for(
    swept: Swept, granted, nursery, mock_clock
) -> None:
    session = await swept.session_with(granted, 2)
    stores: dict[str, MemoryStore] = {}
    sweeper = Sweeper(swept.sessions, stores, clock=swept.rooms.clock)
    ended = await swept.sessions.end(session, EndReason.FINISHED)
    with structlog.testing.capture_logs() as logs:
        nursery.start_soon(partial(sweeper.run))
        sweeper.ended(ended)
        await swept.settle(LAST_SWEEP_AFTER + 1)
        assert len(await swept.sessions.ended()) == 1
        stores["disk"] = swept.store
        await swept.settle(2 * PAUSE)
    assert await swept.sessions.ended() == []
    assert swept.store.objects == {}
    assert "not open" in str(logs)


async def test_a_store_that_is_down_is_asked_once_in_a_round(
    swept: Swept, granted, nursery, mock_clock
) -> None:
    sessions = [await swept.session_with(granted, 1) for _ in range(10)]
    swept.store.failing = True
    for session in sessions:
        await swept.end(session)
    nursery.start_soon(swept.sweeper.run)
    await swept.settle(1)
    assert swept.store.deletes == 1
    swept.store.failing = False
    await swept.settle(2 * PAUSE)
    assert swept.store.objects == {}
