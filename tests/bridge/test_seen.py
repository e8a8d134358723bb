"""When a Router was last connected is known after a restart, too."""

from collections.abc import MutableMapping
from typing import Any

import pytest
import trio

from relay.bridge import seen as seen_module
from relay.bridge.seen import LastSeen
from relay.errors import DatabaseError

from .conftest import NOW, PATIENCE, Rooms


async def test_who_is_here_is_seen_now_and_who_was_then(rooms: Rooms) -> None:
    north, south = await rooms.router("North"), await rooms.router("South")
    here: set[bytes] = {north.id}
    seen = LastSeen(rooms.database, lambda: here, clock=rooms.clock)
    await seen.load()
    assert seen.all() == {north.id: NOW}
    await seen.look()
    here.clear()
    rooms.clock.now += 100
    assert seen.all() == {north.id: NOW}
    here.add(south.id)
    assert seen.all() == {north.id: NOW, south.id: NOW + 100}
    await seen.look()
    again = LastSeen(rooms.database, lambda: (), clock=rooms.clock)
    await again.load()
    assert again.all() == {north.id: NOW, south.id: NOW + 100}


async def test_it_looks_again_and_again(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    north = await rooms.router("North")
    monkeypatch.setattr(seen_module, "LOOK_INTERVAL", 0.001)
    seen, looks = LastSeen(rooms.database, lambda: {north.id}, clock=rooms.clock), 0
    look, twice = seen.look, trio.Event()

    async def counted() -> None:
        nonlocal looks
        await look()
        looks += 1
        if looks == 2:
            twice.set()

    monkeypatch.setattr(seen, "look", counted)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(seen.run)
        with trio.fail_after(PATIENCE):
            await twice.wait()
        nursery.cancel_scope.cancel()
    assert seen.all() == {north.id: NOW}


async def test_a_database_that_fails_ends_nothing(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, logs: list[MutableMapping[str, Any]]
) -> None:
    north = await rooms.router("North")
    seen = LastSeen(rooms.database, lambda: {north.id}, clock=rooms.clock)

    async def fails(*values: object) -> None:
        raise DatabaseError("bridge.db: disk I/O error")

    monkeypatch.setattr(seen, "_write", fails)
    await seen.look()
    assert logs[-1]["why"] == "bridge.db: disk I/O error"
    assert seen.all() == {north.id: NOW}
