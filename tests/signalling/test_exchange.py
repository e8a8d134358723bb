"""Who is connected, and what all of them are told."""

from collections.abc import Collection, MutableMapping
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
    Listing,
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
    registry.all_concern_all = True
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


async def test_a_change_during_the_snapshot_comes_after_it(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ex, registry = exchange()
    connection = ex.register(A)
    nursery.start_soon(ex.tell_news)
    rows = registry.rows

    async def slow(routers: Collection[bytes]) -> object:
        snapshot = await rows(routers)
        ex.directory_changed(B, listed=[(B, "b", ())], routers=[(B, "renamed", b"new")])
        await wait_all_tasks_blocked()
        return snapshot

    registry.rows = slow  # type: ignore[assignment, method-assign]
    await ex.send_directory(connection)
    listing, _, snapshot, listed, change = await said(connection)
    assert isinstance(listing, Listing)
    assert isinstance(snapshot, Directory)
    assert listing.whole
    assert snapshot.whole
    assert (B, "b", b"", False) in snapshot.routers
    assert listed == Listing(False, ((B, "b", ()),))
    assert change == Directory(False, ((B, "renamed", b"new", False),), (), (), ())


async def test_a_title_that_changes_hands_while_rows_are_read_stays_with_its_new_owner(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """That it was withdrawn before is told before the rows that have it again."""
    ex, registry = exchange()
    connection = ex.register(A)
    nursery.start_soon(ex.tell_news)
    concerns = registry.concerns

    async def slow(router: bytes) -> object:
        found = await concerns(router)
        ex.directory_changed(C, gone_titles=["PACS"])
        registry.publications[B] = [b"PACS"]
        await wait_all_tasks_blocked()
        return found

    registry.concerns = slow  # type: ignore[assignment, method-assign]
    await ex.send_directory(connection)
    _, _, gone, snapshot = await said(connection)
    assert gone == Directory(False, (), (), (), ("PACS",))
    assert isinstance(snapshot, Directory)
    assert snapshot.publications == (b"PACS",)


async def test_a_router_is_told_what_it_may_use_when_that_changes(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ex, registry = exchange()
    connection = await joined(ex, A)
    # What is granted goes before the rows, so that a title is not callable before it is known.
    assert [type(message) for message in await said(connection)] == [Listing, Granted, Directory]
    nursery.start_soon(ex.tell_granted, connection, 10)
    await wait_all_tasks_blocked()
    assert await said(connection) == []  # that was said
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
    connection = await joined(ex, A)
    await said(connection)
    granted, asked = registry.granted, 0

    async def slow(router: bytes) -> object:
        nonlocal asked
        asked += 1
        rows = await granted(router)
        await trio.sleep(1)
        return rows

    registry.granted = slow  # type: ignore[assignment, method-assign]
    nursery.start_soon(ex.tell_granted, connection, 10)
    ex.granted_changed([A])
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
    connection = await joined(ex, A)
    await said(connection)
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


async def test_a_router_that_is_gone_from_the_directory_is_not_shown_again(
    nursery: trio.Nursery,
) -> None:
    ex, _ = exchange()
    nursery.start_soon(ex.tell_news)
    watcher = await joined(ex, B)
    leaving = await joined(ex, A)
    await said(watcher)
    ex.directory_changed(A, gone_routers=[A], gone_titles=["PACS"])
    ex.unregister(leaving)
    await wait_all_tasks_blocked()
    assert await said(watcher) == [Directory(False, (), (), (A,), ("PACS",))]


async def test_a_router_is_shown_only_what_concerns_it(nursery: trio.Nursery) -> None:
    ex, registry = exchange()
    registry.all_concern_all = False
    registry.publications = {B: [b"PACS"], C: [b"VNA"]}
    registry.granted_by[B] = [(A, "PACS", ("store",))]
    nursery.start_soon(ex.tell_news)
    a, b, c = [await joined(ex, router) for router in (A, B, C)]
    listing, _, rows, came = await said(a)
    titles = {A: (), B: (("PACS", ("echo",)),), C: (("VNA", ("echo",)),)}
    assert listing == Listing(
        True, tuple((r, n, titles[r]) for r, n in ((A, "a"), (B, "b"), (C, "c")))
    )
    assert rows == Directory(True, ((A, "a", b"", False), (B, "b", b"", False)), (b"PACS",), (), ())
    assert came == Directory(False, ((B, "b", b"", True),), (), (), ())  # and nothing of C
    _, _, rows = await said(b)
    assert isinstance(rows, Directory)
    assert [row[0] for row in rows.routers] == [A, B]  # also who is granted something
    await said(c)
    ex.unregister(c)
    assert await said(a) == await said(b) == []
    ex.directory_changed(B, listed=[(B, "b", ())], publications=[b"VNA2"])
    await wait_all_tasks_blocked()
    listed, published = await said(a)
    assert listed == Listing(False, ((B, "b", ()),))
    assert published == Directory(False, (), (b"VNA2",), (), ())


async def test_all_are_told_what_is_listed_and_gone(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ex, registry = exchange()
    registry.all_concern_all = False
    many = [bytes([1, number]) * 16 for number in range(100)]
    registry.routers |= {router: (f"h{router.hex()[:4]}", b"") for router in many}
    nursery.start_soon(ex.tell_news)
    connections = [await joined(ex, router) for router in many]
    for connection in connections:
        await said(connection)
    ex.directory_changed(A, listed=[(A, "a", ())], routers=[(A, "a", b"key")])
    ex.directory_changed(B, gone_routers=[B])
    await trio.sleep(1)
    told = [Listing(False, ((A, "a", ()),)), Directory(False, (), (), (B,), ())]
    assert [await said(connection) for connection in connections] == [told] * 100


async def test_who_is_granted_something_is_shown_who_grants_it(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ex, registry = exchange()
    registry.all_concern_all = False
    registry.publications = {B: [b"PACS"]}
    connection = await joined(ex, A)
    nursery.start_soon(ex.tell_granted, connection, 10)
    await wait_all_tasks_blocked()
    await said(connection)
    registry.granted_by[B] = [(A, "PACS", ("store",))]
    ex.granted_changed([A, B])
    await wait_all_tasks_blocked()
    granted, rows = await said(connection)
    assert rows == Directory(False, ((B, "b", b"", False),), (b"PACS",), (), ())
    assert granted == Granted(((B, "PACS", ("store",)),), 0)


async def test_who_is_sought_is_shown_from_then_on(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.setattr("relay.signalling.exchange.MAXIMUM_SOUGHT", 1)
    ex, registry = exchange()
    registry.all_concern_all = False
    registry.publications = {B: [b"PACS", b"VNA"], C: [b"RIS"]}
    connection = await joined(ex, A)
    await said(connection)
    await ex.seek(connection, "PACS")
    await ex.seek(connection, "VNA")  # shown already: it counts for nothing
    rows = Directory(False, ((B, "b", b"", False),), (b"PACS", b"VNA"), (), ())
    assert await said(connection) == [rows]
    await joined(ex, B)
    assert await said(connection) == [Directory(False, ((B, "b", b"", True),), (), (), ())]
    with pytest.raises(Refused, match="not published") as caught:
        await ex.seek(connection, "NONE")
    assert caught.value.status == 404
    with pytest.raises(Refused, match="more than 1") as caught:
        await ex.seek(connection, "RIS")
    assert caught.value.status == 429
    assert ex.present() == (A, B)


async def test_the_listing_is_read_once_for_all_who_come(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ex, registry = exchange()
    nursery.start_soon(ex.tell_news)
    listing, read = registry.listing, 0

    async def counted() -> object:
        nonlocal read
        read += 1
        return await listing()

    registry.listing = counted  # type: ignore[assignment, method-assign]
    await joined(ex, A)
    ex.directory_changed(C, listed=[(C, "c", (("NEW", ("echo",)),))])
    second = await joined(ex, B)
    whole, changed, *_ = await said(second)
    assert isinstance(whole, Listing)
    assert whole.whole
    assert changed == Listing(False, ((C, "c", (("NEW", ("echo",)),)),))
    assert read == 1
    await trio.sleep(31)
    registry.publications[C] = [b"NEWER"]
    await joined(ex, C)
    assert read == 2


async def test_a_listing_that_could_not_be_read_is_read_again() -> None:
    ex, registry = exchange()
    listing = registry.listing

    async def failing() -> object:
        registry.listing = listing  # type: ignore[method-assign]
        raise Refused(500, "disk")

    registry.listing = failing  # type: ignore[assignment, method-assign]
    with pytest.raises(Refused):
        await ex.send_directory(ex.register(A))
    first, *_ = await said(await joined(ex, B))
    assert isinstance(first, Listing)


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


async def test_who_grants_something_while_one_connects_is_shown(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Between the question whom it concerns and the first waiting for changes."""
    ex, registry = exchange()
    registry.all_concern_all = False
    registry.publications = {B: [b"PACS"]}
    concerns, granting = registry.concerns, True

    async def then_granted(router: bytes) -> object:
        nonlocal granting
        found = await concerns(router)
        if granting:
            granting = False
            registry.granted_by[B] = [(A, "PACS", ("store",))]
            ex.granted_changed([A, B])
        return found

    registry.concerns = then_granted  # type: ignore[assignment, method-assign]
    connection = await joined(ex, A)
    await said(connection)
    nursery.start_soon(ex.tell_granted, connection, 10)
    await wait_all_tasks_blocked()
    assert await said(connection) == [
        Granted(((B, "PACS", ("store",)),), 0),
        Directory(False, ((B, "b", b"", False),), (b"PACS",), (), ()),
    ]


async def test_rows_that_could_not_be_read_are_read_again(autojump_clock: MockClock) -> None:
    ex, registry = exchange()
    registry.all_concern_all = False
    registry.publications = {B: [b"PACS"]}
    connection = await joined(ex, A)
    await said(connection)
    rows, shown = registry.rows, connection.shows.copy()

    async def owner(ae_title: str) -> bytes:
        return B

    async def never(routers: Collection[bytes]) -> object:
        await trio.sleep_forever()

    async def fails(routers: Collection[bytes]) -> object:
        raise SignallingError("down")

    registry.owner = owner  # type: ignore[method-assign]
    registry.rows = never  # type: ignore[assignment, method-assign]
    with trio.move_on_after(1):
        await ex.seek(connection, "PACS")
    registry.rows = fails  # type: ignore[assignment, method-assign]
    with pytest.raises(SignallingError):
        await ex.seek(connection, "PACS")
    assert (connection.shows, connection.sought) == (shown, 0)
    assert B not in ex._watchers
    registry.rows = rows  # type: ignore[method-assign]
    await ex.seek(connection, "PACS")
    assert connection.sought == 1
    assert await said(connection) == [Directory(False, ((B, "b", b"", False),), (b"PACS",), (), ())]
