"""Objects on their way: who reads them while they come, and what a PUT's end means to them."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from relay.errors import ProviderError
from relay.providers.arrivals import (
    AHEAD_WAIT,
    MAXIMUM_AHEAD,
    MAXIMUM_AHEAD_OF_SESSION,
    Arrival,
    Arrivals,
)
from relay.workers import Workers


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


async def test_a_reader_that_came_first_is_told(autojump_clock: trio.testing.MockClock) -> None:
    arrivals = Arrivals()
    with arrivals.reader("ab/1", "s") as reader, arrivals.reader("ab/2", "s") as other:
        assert reader is not None
        assert other is not None
        async with trio.open_nursery() as nursery:

            async def put() -> None:
                await trio.sleep(AHEAD_WAIT / 2)
                with arrivals.arrival("ab/1", 3) as arrival:
                    arrival.add(b"abc")

            nursery.start_soon(put)
            arrival = await reader.begun()
            assert arrival is not None
            assert trio.current_time() == AHEAD_WAIT / 2
            assert await other.begun() is None
            assert trio.current_time() == AHEAD_WAIT * 3 / 2
    assert remembered(arrivals) == []


async def test_a_reader_that_comes_in_the_middle_finds_it() -> None:
    arrivals = Arrivals()
    with arrivals.arrival("ab/1", 3) as arrival, arrivals.reader("ab/1", "s") as reader:
        assert reader is not None
        assert await reader.begun() is arrival


async def test_a_second_put_replaces_one_that_hangs(workers: Workers) -> None:
    arrivals = Arrivals()
    with arrivals.arrival("ab/1", 3) as hangs:
        with arrivals.arrival("ab/1", 3) as again:
            with pytest.raises(ProviderError, match="cut short"):
                await read(hangs, workers, [])
            with arrivals.reader("ab/1", "s") as reader:
                assert reader is not None
                assert await reader.begun() is again
        # The first, which may yet be stored, is nobody's to read any more.
        assert remembered(arrivals) == []


async def test_a_reader_is_told_once(tmp_path: Path) -> None:
    """One that joined a PUT is not told again: what it holds would never be closed."""
    arrivals = Arrivals()
    with arrivals.arrival("ab/1", 3) as hangs:
        hangs.descriptor = descriptor = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
        with arrivals.reader("ab/1", "s") as reader:
            assert reader is not None
            with arrivals.arrival("ab/1", 3):
                assert await reader.begun() is hangs
            arrivals.disappoint(["ab/1"])
            assert await reader.begun() is hangs
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


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


async def test_readers_are_bounded_for_a_session_and_in_all() -> None:
    arrivals = Arrivals()
    entered = []

    def enter(session: str) -> bool:
        manager = arrivals.reader("ab/1", session)
        entered.append(manager)
        return manager.__enter__() is not None

    assert all(enter("one") for _ in range(MAXIMUM_AHEAD_OF_SESSION))
    assert not enter("one")
    count = MAXIMUM_AHEAD_OF_SESSION
    while count < MAXIMUM_AHEAD:
        assert enter(str(count // MAXIMUM_AHEAD_OF_SESSION))
        count += 1
    assert not enter("another")
    for manager in entered:
        manager.__exit__(None, None, None)
    assert remembered(arrivals) == []
    assert enter("one")


async def test_who_waits_for_what_was_deleted_is_told() -> None:
    arrivals = Arrivals()
    with arrivals.reader("ab/1", "s") as reader:
        assert reader is not None
        arrivals.disappoint(["ab/1", "ab/never"])
        with trio.fail_after(5):
            assert await reader.begun() is None


async def test_nobody_waits_in_a_store_that_closes() -> None:
    arrivals = Arrivals()
    with arrivals.reader("ab/1", "s") as reader:
        assert reader is not None
        arrivals.close()
        with trio.fail_after(5):
            assert await reader.begun() is None
    with arrivals.reader("ab/1", "s") as reader:
        assert reader is None


def remembered(arrivals: Arrivals) -> list[object]:
    """Whatever is kept of PUTs and readers."""
    kept = (arrivals._under_way, arrivals._readers, arrivals._of_session)
    return [name for names in kept for name in names]
