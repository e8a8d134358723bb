"""Objects that are opened: deleted soon, many in one call, and not when the store cannot."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from relay.bridge.opened import GATHER, MAXIMUM_OF_SESSION, MAXIMUM_WAITING, TIMEOUT, OpenedObjects
from relay.errors import ProviderError

SESSION = bytes(16)


@attrs.define
class Store:
    """A store that notes what it is to delete."""

    name: str = "disk"
    calls: list[list[str]] = attrs.field(factory=list)
    stalled: trio.Event | None = None
    failing: bool = False

    async def delete(self, names: Sequence[str]) -> None:
        self.calls.append(list(names))
        await trio.lowlevel.checkpoint()
        if self.stalled is not None:
            await self.stalled.wait()
        if self.failing:
            raise ProviderError("down")


@pytest.fixture
def gone() -> list[str]:
    return []


@pytest.fixture
async def objects(nursery: trio.Nursery, gone: list[str]) -> Any:
    store = Store()
    objects = OpenedObjects(
        {"disk": store}, has=lambda name: "never" not in name, on_deleted=gone.extend
    )
    nursery.start_soon(objects.run)
    return objects, store


async def test_many_go_in_one_call(
    objects: tuple[OpenedObjects, Store], gone: list[str], autojump_clock: MockClock
) -> None:
    opened, store = objects
    opened.add(SESSION, "disk", [])
    await trio.sleep(1)
    for number in range(5):
        opened.add(SESSION, "disk", [f"{number}/a", f"{number}/b"])
        await trio.sleep(GATHER / 10)
    await trio.sleep(1)
    assert store.calls == [[f"{number}/{name}" for number in range(5) for name in "ab"]]
    assert gone == store.calls[0]
    opened.add(SESSION, "disk", ["later"])
    await trio.sleep(1)
    assert store.calls[1:] == [["later"]]


async def test_a_store_that_fails_or_hangs_hurts_nobody(
    objects: tuple[OpenedObjects, Store], gone: list[str], autojump_clock: MockClock
) -> None:
    opened, store = objects
    store.failing = True
    opened.add(SESSION, "disk", ["1"])
    opened.add(SESSION, "removed meanwhile", ["0"])
    await trio.sleep(1)
    store.failing, store.stalled = False, trio.Event()
    opened.add(SESSION, "disk", ["2"])
    await trio.sleep(1)
    assert (store.calls, gone) == ([["1"], ["2"]], [])
    sessions = [bytes([number]) * 16 for number in range(MAXIMUM_WAITING // MAXIMUM_OF_SESSION)]
    names = iter(map(str, range(MAXIMUM_WAITING)))
    for session in sessions:
        while room := opened.room(session):
            opened.add(session, "disk", list(islice(names, min(room, 100))))
    assert opened.room(b"another") == 0
    store.stalled.set()
    await trio.sleep(1)
    assert gone == ["2", *map(str, range(MAXIMUM_WAITING))]
    store.stalled = trio.Event()
    opened.add(SESSION, "disk", ["3"])
    await trio.sleep(TIMEOUT + 1)
    store.stalled = None
    opened.add(SESSION, "disk", ["4"])
    await trio.sleep(1)
    assert gone[-1] == "4"
    assert "3" not in gone[MAXIMUM_WAITING + 1 :]


async def test_what_never_was_put_takes_no_room(
    objects: tuple[OpenedObjects, Store], gone: list[str], autojump_clock: MockClock
) -> None:
    opened, store = objects
    opened.add(SESSION, "disk", [f"never {number}" for number in range(100)])
    assert opened.room(SESSION) == MAXIMUM_OF_SESSION
    await trio.sleep(1)
    assert store.calls == []
    opened.add(SESSION, "disk", ["never", "1"])
    assert opened.room(SESSION) == MAXIMUM_OF_SESSION - 1
    await trio.sleep(1)
    assert store.calls == [["1"]]
    assert opened.room(SESSION) == MAXIMUM_OF_SESSION


async def test_one_session_leaves_room_for_the_others(
    objects: tuple[OpenedObjects, Store], autojump_clock: MockClock
) -> None:
    opened, _ = objects
    opened.add(SESSION, "disk", list(map(str, range(MAXIMUM_OF_SESSION))))
    assert opened.room(SESSION) == 0
    assert opened.room(b"another") == MAXIMUM_OF_SESSION
