"""Objects on their way: who reads them while they come, and what a PUT's end means to them."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing

from relay.errors import ProviderError
from relay.providers import arrivals as module
from relay.providers.arrivals import (
    AHEAD_WAIT,
    CROWDED_PIECE,
    MAXIMUM_AHEAD_OF_ROUTER,
    Arrival,
    Arrivals,
    Reader,
)
from relay.tunnel.store import AHEAD_PER_STORE
from relay.workers import Workers

T = TypeVar("T")


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers(2)
    yield workers
    workers.close()


async def read(arrival: Arrival, workers: Workers, into: list[bytes]) -> None:
    async for piece in arrival.read(workers):
        into.append(bytes(piece))


async def test_what_has_come_is_read_and_its_end_is_held_back_until_it_is_stored(
    workers: Workers, autojump_clock: trio.testing.MockClock
) -> None:
    arrival, got = Arrival("ab/1", 9), list[bytes]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, arrival, workers, got)
        for piece, seen in ((b"abc", b"abc"), (b"def", b"abcdef"), (b"ghi", b"abcdefgh")):
            arrival.add(piece)
            await trio.sleep(1)
            assert b"".join(got) == seen
        arrival.end(stored=True)
    assert b"".join(got) == b"abcdefghi"


async def test_an_object_of_no_bytes_is_there_when_it_is_stored(
    workers: Workers, autojump_clock: trio.testing.MockClock
) -> None:
    arrival, got = Arrival("ab/1", 0), list[bytes]()
    with trio.move_on_after(1) as waiting:
        await read(arrival, workers, got)
    assert waiting.cancelled_caught
    arrival.end(stored=True)
    await read(arrival, workers, got)
    assert got == []


async def test_a_put_that_is_cut_short_cuts_its_readers(workers: Workers) -> None:
    arrival, got = Arrival("ab/1", 9), list[bytes]()
    arrival.add(b"abc")
    arrival.end(stored=False)
    with pytest.raises(ProviderError, match="cut short"):
        await read(arrival, workers, got)


async def test_what_was_written_already_is_read_from_the_file(
    workers: Workers, tmp_path: Path
) -> None:
    arrival, got = Arrival("ab/1", 9), list[bytes]()
    arrival.descriptor = descriptor = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    arrival.hold()
    arrival.add(b"abcd")
    os.write(descriptor, b"abcd")
    arrival.wrote()
    arrival.add(b"efg")
    arrival.add(b"hi")
    arrival.end(stored=True)
    arrival.release()  # the PUT
    await read(arrival, workers, got)
    assert b"".join(got) == b"abcdefghi"
    arrival.release()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


async def begun(reader: Reader | None) -> Arrival | None:
    """What a reader learns whose peer stays."""
    assert reader is not None
    return await reader.begun(trio.sleep_forever)


async def test_what_is_stored_while_its_file_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    """The end is held back, so that there is nothing to read but it: who waits then is woken."""
    arrival, got = Arrival("ab/1", 6), list[bytes]()
    reads = 0

    class Slow(Workers):
        async def run(self, work: Callable[[], T]) -> T:
            nonlocal reads
            reads += 1
            done = await super().run(work)
            if reads == 2:
                arrival.end(stored=True)
            return done

    (tmp_path / "file").write_bytes(b"abcdef")
    arrival.add(b"abcdef")
    arrival.descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    arrival.wrote()
    workers = Slow(1)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, arrival, workers, got)
            await trio.testing.wait_all_tasks_blocked(0.05)
            if reads == 1:
                arrival.end(stored=True)
    workers.close()
    arrival.release()
    assert b"".join(got) == b"abcdef"


async def test_a_reader_that_came_first_is_told(autojump_clock: trio.testing.MockClock) -> None:
    arrivals = Arrivals()
    reader, other = arrivals.reader("ab/1", "r"), arrivals.reader("ab/2", "r")
    async with trio.open_nursery() as nursery:

        async def put() -> None:
            await trio.sleep(AHEAD_WAIT / 2)
            arrival = arrivals.begin("ab/1", 3)
            arrival.add(b"abc")
            arrivals.over(arrival, stored=False)

        nursery.start_soon(put)
        arrival = await begun(reader)
        assert arrival is not None
        assert trio.current_time() == AHEAD_WAIT / 2
        assert await begun(other) is None
        assert trio.current_time() == AHEAD_WAIT * 3 / 2
    arrival.release()
    leave(reader, other)
    assert remembered(arrivals) == []


async def test_a_reader_whose_peer_goes_waits_no_more() -> None:
    arrivals = Arrivals()
    reader = arrivals.reader("ab/1", "r")
    assert reader is not None

    async def gone() -> None:
        await trio.lowlevel.checkpoint()

    with trio.fail_after(5):
        assert await reader.begun(gone) is None
    leave(reader)
    assert remembered(arrivals) == []


async def test_a_reader_that_comes_in_the_middle_finds_it() -> None:
    arrivals = Arrivals()
    arrival = arrivals.begin("ab/1", 3)
    reader = arrivals.reader("ab/1", "r")
    assert await begun(reader) is arrival
    arrivals.over(arrival, stored=False)
    leave(reader)
    arrival.release()
    assert remembered(arrivals) == []


async def test_a_second_put_replaces_one_that_hangs(workers: Workers) -> None:
    arrivals = Arrivals()
    hangs, again = arrivals.begin("ab/1", 3), arrivals.begin("ab/1", 3)
    with pytest.raises(ProviderError, match="cut short"):
        await read(hangs, workers, [])
    reader = arrivals.reader("ab/1", "r")
    assert await begun(reader) is again
    arrivals.over(again, stored=False)
    # The first, which may yet be stored, is nobody's to read any more.
    leave(reader)
    assert remembered(arrivals) == []
    arrivals.over(hangs, stored=False)
    assert remembered(arrivals) == []


async def test_a_reader_is_told_once(tmp_path: Path) -> None:
    """One that joined a PUT is not told again: what it holds would never be closed."""
    arrivals = Arrivals()
    hangs = arrivals.begin("ab/1", 3)
    hangs.descriptor = descriptor = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    reader = arrivals.reader("ab/1", "r")
    again = arrivals.begin("ab/1", 3)
    arrivals.forget(["ab/1"])
    assert await begun(reader) is hangs
    for arrival in (hangs, again):
        arrivals.over(arrival, stored=False)
    leave(reader)
    os.fstat(descriptor)  # it is the reader's
    hangs.release()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


async def test_a_reader_that_leaves_before_it_has_taken_what_it_was_told_of() -> None:
    arrivals = Arrivals()
    reader = arrivals.reader("ab/1", "r")
    arrival = arrivals.begin("ab/1", 3)
    arrival.add(b"abc")
    leave(reader)
    arrivals.over(arrival, stored=False)
    assert remembered(arrivals) == []


async def test_who_reads_what_is_there_leaves_others_their_turn(workers: Workers) -> None:
    arrival, turns = Arrival("ab/1", 101), 0
    for _ in range(101):
        arrival.add(b"x")
    arrival.end(stored=True)

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await read(arrival, workers, [])
        nursery.cancel_scope.cancel()
    assert turns >= 50


async def test_a_disk_that_fails_is_the_stores_failure(workers: Workers, tmp_path: Path) -> None:
    arrival = Arrival("ab/1", 9)
    arrival.descriptor = os.open(tmp_path / "a", os.O_WRONLY | os.O_CREAT)  # cannot be read
    arrival.add(b"abcd")
    arrival.wrote()
    with pytest.raises(ProviderError, match="Bad file descriptor"):
        await read(arrival, workers, [])
    arrival.release()


async def test_readers_are_bounded_for_a_router_and_in_all() -> None:
    arrivals = Arrivals(maximum_ahead := 3 * MAXIMUM_AHEAD_OF_ROUTER + 1)
    readers: list[Reader | None] = []

    def enter(router: str) -> bool:
        readers.append(arrivals.reader("ab/1", router))
        return readers[-1] is not None

    assert all(enter("one") for _ in range(MAXIMUM_AHEAD_OF_ROUTER))
    assert not enter("one")
    count = MAXIMUM_AHEAD_OF_ROUTER
    while count < maximum_ahead:
        assert enter(str(count // MAXIMUM_AHEAD_OF_ROUTER))
        count += 1
    assert not enter("another")
    leave(*filter(None, readers))
    assert remembered(arrivals) == []
    assert enter("one")


def test_a_router_has_a_place_for_all_that_it_asks_for() -> None:
    assert MAXIMUM_AHEAD_OF_ROUTER >= AHEAD_PER_STORE


async def test_who_waits_for_what_was_deleted_is_told() -> None:
    arrivals = Arrivals()
    reader = arrivals.reader("ab/1", "r")
    arrivals.forget(["ab/1", "ab/never"])
    with trio.fail_after(5):
        assert await begun(reader) is None
    leave(reader)
    assert remembered(arrivals) == []


async def test_nobody_waits_in_a_store_that_closes() -> None:
    arrivals = Arrivals()
    reader = arrivals.reader("ab/1", "r")
    arrivals.close()
    with trio.fail_after(5):
        assert await begun(reader) is None
    assert arrivals.reader("ab/1", "r") is None


# --- in memory ------------------------------------------------------------------------------------


def put(arrivals: Arrivals, name: str, size: int) -> Arrival:
    arrival = arrivals.begin(name, size)
    arrival.add(bytes(size))
    arrivals.over(arrival, stored=True)
    return arrival


async def test_what_was_stored_just_now_is_in_memory_as_far_as_that_goes(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_MEMORY", 10)
    arrivals, got = Arrivals(), list[bytes]()
    first = put(arrivals, "ab/1", 6)
    assert arrivals.in_memory("ab/1") is first
    first.hold()
    put(arrivals, "ab/2", 4)
    assert arrivals.memory.held == 10
    put(arrivals, "ab/3", 1)
    # The oldest goes; who reads it may do so to its end, and its bytes count so long.
    assert arrivals.in_memory("ab/1") is None
    assert [arrivals.in_memory(f"ab/{n}") is not None for n in (2, 3)] == [False, True]
    assert arrivals.memory.held == 7
    await read(first, workers, got)
    assert b"".join(got) == bytes(6)
    first.release()
    assert arrivals.memory.held == 1
    arrivals.forget(["ab/3"])
    assert arrivals.memory.held == 0
    assert remembered(arrivals) == []


async def test_small_objects_and_small_pieces_are_not_kept_without_number(
    workers: Workers,
) -> None:
    arrivals, got = Arrivals(), list[bytes]()
    for number in range(module.MAXIMUM_KEPT + 1):
        put(arrivals, f"ab/{number}", 1)
    assert len(remembered(arrivals)) == module.MAXIMUM_KEPT
    assert arrivals.in_memory("ab/0") is None
    count = module.MAXIMUM_PIECES + 1
    drips = arrivals.begin("cd/1", count)
    for number in range(count):
        drips.add(b"%c" % number)
    arrivals.over(drips, stored=True)
    assert len(drips.pieces) == 1
    await read(drips, workers, got)
    assert got == [bytes(range(count))]


async def test_what_was_not_stored_or_not_in_one_is_not_in_memory(tmp_path: Path) -> None:
    arrivals = Arrivals()
    cut = arrivals.begin("ab/1", 6)
    cut.add(b"abc")
    arrivals.over(cut, stored=False)
    parts = arrivals.begin("ab/2", 6)
    parts.descriptor = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    parts.add(b"abc")
    parts.wrote()
    parts.add(b"def")
    arrivals.over(parts, stored=True)
    assert (arrivals.in_memory("ab/1"), arrivals.in_memory("ab/2")) == (None, None)
    assert arrivals.memory.held == 0


async def test_a_crowd_is_written_out_and_what_is_stored_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_MEMORY", CROWDED_PIECE)
    arrivals = Arrivals()
    put(arrivals, "ab/1", 6)
    large, small = arrivals.begin("ab/2", 2 * CROWDED_PIECE), arrivals.begin("ab/3", 10)
    large.add(bytes(CROWDED_PIECE))
    assert not arrivals.crowd(large)  # one was let go of, and that was enough
    assert arrivals.in_memory("ab/1") is None
    small.add(b"abc")
    assert arrivals.crowd(large)
    assert not arrivals.crowd(small)  # a call to a thread for each little piece helps nobody
    large.wrote()
    assert not arrivals.crowd(large)


async def test_what_is_read_of_a_file_is_small_in_a_crowd_and_counts(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_MEMORY", 10)
    arrivals, size = Arrivals(), 3 * CROWDED_PIECE
    arrival = arrivals.begin("ab/1", size)
    arrival.descriptor = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    os.write(arrival.descriptor, bytes(size))
    arrival.add(bytes(size))
    arrival.wrote()
    arrival.end(stored=True)
    other = arrivals.begin("ab/2", 11)
    other.add(bytes(11))
    sizes = []
    async with aclosing(arrival.read(workers)) as pieces:
        async for piece in pieces:
            assert arrivals.memory.held == 11 + len(piece)
            sizes.append(len(piece))
    assert sizes == [CROWDED_PIECE] * 3
    assert arrivals.memory.held == 11
    arrivals.over(arrival, stored=True)
    arrivals.over(other, stored=False)


def leave(*readers: Reader | None) -> None:
    for reader in readers:
        assert reader is not None
        reader.leave()


def remembered(arrivals: Arrivals) -> list[object]:
    """Whatever is kept of PUTs and readers."""
    kept = (arrivals._under_way, arrivals._stored, arrivals._readers, arrivals._waiting)
    return [name for names in kept for name in names]
