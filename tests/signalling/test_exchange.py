"""Who is connected, and what all of them are told."""

from collections.abc import MutableMapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from relay.errors import Refused, SignallingError
from relay.signalling.exchange import Connection, Exchange
from relay.signalling.messages import (
    MAXIMUM_GRANTED,
    Directory,
    End,
    EndReason,
    Granted,
    Message,
    decode,
)
from tests.signalling.bridge import Registry, session_id

A, B, C = (bytes([number]) * 32 for number in range(3))


async def said(connection: Connection) -> list[Message]:
    """All that waits for it, as it would be written."""
    messages = []
    outbox = connection.outbox
    while outbox.statistics().control_frames or outbox.statistics().sessions:
        messages.append(decode(await outbox.take()))
    return messages


def exchange() -> tuple[Exchange, Registry]:
    registry = Registry()
    registry.routers = {A: ("a", b""), B: ("b", b""), C: ("c", b"")}
    return Exchange(registry), registry


async def joined(exchange: Exchange, router: bytes) -> Connection:
    connection = exchange.register(router)
    await exchange.send_directory(connection)
    exchange.make_ready(connection)
    return connection


async def test_a_router_is_ready_once_it_said_what_it_holds() -> None:
    ex, _ = exchange()
    connection = ex.register(A)
    assert ex.ready(A) is None
    ex.make_ready(connection)
    assert ex.ready(A) is connection
    assert ex.connected() == {A}
    ex.unregister(connection)
    assert ex.connected() == set()


async def test_a_replaced_connection_is_cancelled_and_cannot_unregister_the_newer() -> None:
    ex, _ = exchange()
    watcher = await joined(ex, B)
    older = await joined(ex, A)
    await said(watcher)
    newer = ex.register(A)
    assert older.scope.cancel_called
    ex.unregister(older)
    assert await said(watcher) == []  # still shown as connected: it is about to be ready
    ex.make_ready(newer)
    assert ex.ready(A) is newer
    assert await said(watcher) == []
    ex.unregister(newer)
    (gone,) = await said(watcher)
    assert isinstance(gone, Directory)
    assert gone.routers == ((A, "a", b"", False),)


async def test_a_replacement_that_never_becomes_ready_is_shown_as_gone() -> None:
    ex, _ = exchange()
    watcher = await joined(ex, B)
    await joined(ex, A)
    newer = ex.register(A)
    await said(watcher)
    ex.unregister(newer)
    (gone,) = await said(watcher)
    assert isinstance(gone, Directory)
    assert gone.routers[0][3] is False


async def test_a_change_during_the_snapshot_comes_after_it(autojump_clock: MockClock) -> None:
    ex, registry = exchange()
    connection = ex.register(A)
    directory = registry.directory

    async def slow() -> object:
        snapshot = await directory()
        ex.directory_changed(routers=[(B, "renamed", b"new")])
        return snapshot

    registry.directory = slow  # type: ignore[assignment, method-assign]
    await ex.send_directory(connection)
    snapshot, change = await said(connection)
    assert isinstance(snapshot, Directory)
    assert isinstance(change, Directory)
    assert snapshot.whole
    assert (B, "b", b"", False) in snapshot.routers
    assert change == Directory(False, ((B, "renamed", b"new", False),), (), (), ())


async def test_a_router_is_told_what_it_may_use_when_that_changes(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ex, registry = exchange()
    connection = ex.register(A)
    nursery.start_soon(ex.tell_granted, connection, 10)
    await wait_all_tasks_blocked()
    assert await said(connection) == [Granted((), 0)]
    row = (B, "PACS", ("store",))
    registry.granted_by[B] = [(A, "PACS", ("store",))]
    ex.granted_changed([A, C])  # C is not connected
    await wait_all_tasks_blocked()
    assert await said(connection) == [Granted((row,), 0)]
    ex.granted_changed([A])
    await wait_all_tasks_blocked()
    assert await said(connection) == []  # the same as before


async def test_changes_while_the_registry_is_asked_are_told_together(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ex, registry = exchange()
    connection = ex.register(A)
    granted, asked = registry.granted, 0

    async def slow(router: bytes) -> object:
        nonlocal asked
        asked += 1
        rows = await granted(router)
        await trio.sleep(1)
        return rows

    registry.granted = slow  # type: ignore[assignment, method-assign]
    nursery.start_soon(ex.tell_granted, connection, 10)
    await wait_all_tasks_blocked()
    for number in range(5):
        registry.granted_by[B] = [(A, f"PACS{number}", ("store",))]
        ex.granted_changed([A])
    await trio.sleep(3)
    assert asked == 2
    assert await said(connection) == [Granted(((B, "PACS4", ("store",)),), 0)]


async def test_of_what_a_router_does_not_take_only_the_newest_waits(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Another one that changes its grants without end does not have its connection closed."""
    ex, registry = exchange()
    connection = ex.register(A)
    nursery.start_soon(ex.tell_granted, connection, 10)
    for number in range(20):
        registry.granted_by[B] = [(A, f"PACS{number}", ("store",))]
        ex.granted_changed([A])
        await wait_all_tasks_blocked()
    assert await said(connection) == [Granted(((B, "PACS19", ("store",)),), 0)]


async def test_a_registry_that_does_not_say_what_is_granted(autojump_clock: MockClock) -> None:
    ex, registry = exchange()

    async def never(router: bytes) -> object:
        await trio.sleep_forever()

    registry.granted = never  # type: ignore[assignment, method-assign]
    with pytest.raises(SignallingError, match="in time"):
        await ex.tell_granted(ex.register(A), 10)


async def test_what_finds_no_room_is_logged(
    autojump_clock: MockClock, nursery: trio.Nursery, logs: list[MutableMapping[str, Any]]
) -> None:
    ex, registry = exchange()
    registry.granted_by[B] = [(A, "PACS", ("store",))] * (MAXIMUM_GRANTED + 1)
    nursery.start_soon(ex.tell_granted, ex.register(A), 10)
    await wait_all_tasks_blocked()
    assert [(line["event"], line["left_out"]) for line in logs] == [
        ("more is granted to a router than it can be told", 1)
    ]


async def test_a_router_that_is_gone_from_the_directory_is_not_shown_again() -> None:
    ex, _ = exchange()
    watcher = await joined(ex, B)
    leaving = await joined(ex, A)
    await said(watcher)
    ex.directory_changed(gone_routers=[A], gone_titles=["PACS"])
    ex.unregister(leaving)
    assert await said(watcher) == [Directory(False, (), (), (A,), ("PACS",))]


async def test_ending_a_session_tells_both_ends_once() -> None:
    ex, registry = exchange()
    a, b = await joined(ex, A), await joined(ex, B)
    await said(a)
    await said(b)
    session = session_id(1)
    registry.sessions[session] = (A, B)
    await ex.end_session(session, EndReason.EXPIRED)
    await ex.end_session(session, EndReason.EXPIRED)
    assert await said(a) == await said(b) == [End(session, EndReason.EXPIRED)]
    assert registry.ended_with == {session: EndReason.EXPIRED}


async def test_revoking_goes_on_when_one_session_cannot_be_ended() -> None:
    ex, registry = exchange()
    a, b = await joined(ex, A), await joined(ex, B)
    for number in range(3):
        registry.sessions[session_id(number)] = (A, B)
    ended, failed = registry.ended, session_id(1)

    async def ended_but_one(session: bytes, reason: EndReason) -> None:
        if session == failed:
            raise Refused(500, "disk is full")
        await ended(session, reason)

    registry.ended = ended_but_one  # type: ignore[method-assign]
    await said(b)
    await ex.revoke(A)
    assert a.scope.cancel_called
    assert a.why == "it was revoked"
    assert ex.connected() == {B}
    assert set(registry.ended_with) == {session_id(0), session_id(2)}


async def test_a_connection_that_takes_no_control_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relay.signalling.outbox.MAXIMUM_WAITING_CONTROL", 10)
    connection = Connection(A)
    connection.tell(bytes(10))
    assert not connection.scope.cancel_called
    connection.tell(b"x")
    connection.close("later")
    assert connection.scope.cancel_called
    assert connection.why == "it does not take what it is sent"
