"""What waits for one socket: control first, sessions in turn, bounds, and who is told when."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from relay.signalling.limits import (
    MAXIMUM_WAITING_CONTROL,
    MAXIMUM_WAITING_SESSIONS,
    MAXIMUM_WAITING_TURNS,
)
from relay.signalling.messages import End, InLine, Open, encode
from relay.signalling.outbox import Outbox
from tests.signalling.bridge import session_id

A, B, C = (session_id(number) for number in range(3))


def put(outbox: Outbox, session: bytes, chunk: int) -> bytes:
    frame = session[-1:] + bytes([chunk])
    assert outbox.put(session, InLine(session, chunk, b"x"), frame)
    return frame


async def taken(outbox: Outbox, count: int) -> list[bytes]:
    return [await outbox.take() for _ in range(count)]


async def test_control_goes_first_and_sessions_take_turns() -> None:
    outbox = Outbox()
    a = [put(outbox, A, chunk) for chunk in range(4)]
    b = [put(outbox, B, chunk) for chunk in range(2)]
    outbox.put_control(b"control 1")
    outbox.put_control(b"control 2")
    c = [put(outbox, C, chunk) for chunk in range(1)]
    assert await taken(outbox, 9) == [
        b"control 1", b"control 2", a[0], b[0], c[0], a[1], b[1], a[2], a[3]
    ]  # fmt: skip


async def test_take_waits_for_what_comes() -> None:
    outbox = Outbox()
    async with trio.open_nursery() as nursery:
        got: list[bytes] = []

        async def take() -> None:
            got.extend(await taken(outbox, 2))

        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        outbox.put_control(b"one")
        await wait_all_tasks_blocked()
        put(outbox, A, 2)
    assert got == [b"one", b"\0\2"]


async def test_of_control_with_one_key_the_newest_waits_in_the_oldests_place() -> None:
    outbox = Outbox()
    outbox.put_control(b"pong 1", key="pong")
    outbox.put_control(b"else")
    outbox.put_control(b"pong 2", key="pong")
    assert outbox.statistics().control_bytes == len(b"pong 2else")
    assert await taken(outbox, 2) == [b"pong 2", b"else"]
    assert outbox.statistics().control_bytes == 0


def test_control_is_bounded() -> None:
    outbox = Outbox()
    assert outbox.put_control(bytes(MAXIMUM_WAITING_CONTROL))
    assert not outbox.put_control(b"x")


def test_sessions_are_bounded_together() -> None:
    outbox = Outbox()
    count = 0
    while True:
        session = session_id(count)
        message = Open(session, bytes(32), "", b"", bytes(100_000))
        if not outbox.put(session, message, encode(message)):
            break
        count += 1
    assert count == MAXIMUM_WAITING_SESSIONS // len(encode(message))
    # The Bridge's word always fits.
    outbox.put_last(session, End(session, 5), b"end")
    outbox.put_last(A, End(A, 5), b"end")
    assert outbox.statistics().sessions == count + 1


async def test_a_refused_message_leaves_no_empty_turn() -> None:
    outbox = Outbox()
    assert not outbox.put(A, InLine(A, 0, bytes(10**6)), b"x")
    frame = put(outbox, B, 0)
    assert await taken(outbox, 1) == [frame]
    assert outbox.statistics() == Outbox().statistics()


async def test_put_last_drops_what_waits_for_that_session_only() -> None:
    outbox = Outbox()
    for chunk in range(5):
        put(outbox, A, chunk)
    b = put(outbox, B, 0)
    outbox.put_last(A, End(A, 5), b"end")
    assert await taken(outbox, 2) == [b"end", b]
    assert outbox.statistics() == Outbox().statistics()


async def test_an_end_that_waits_keeps_what_goes_before_it() -> None:
    outbox = Outbox()
    chunk = put(outbox, A, 0)
    outbox.put(A, End(A, 0), b"finished")
    outbox.put_last(A, End(A, 6), b"unknown")
    assert await taken(outbox, 2) == [chunk, b"finished"]


async def test_sessions_without_number_do_not_wait() -> None:
    outbox = Outbox()
    ends = [End(session_id(number), 6) for number in range(MAXIMUM_WAITING_TURNS)]
    assert all(outbox.put_last(end.session, end, b"end") for end in ends)
    more = End(session_id(MAXIMUM_WAITING_TURNS), 6)
    assert not outbox.put_last(more.session, more, b"end")
    assert not outbox.put(more.session, more, b"end")
    assert outbox.put_last(A, End(A, 5), b"end")
    assert outbox.statistics().sessions == MAXIMUM_WAITING_TURNS


async def test_drained_waits_for_that_sessions_last_message() -> None:
    outbox = Outbox()
    assert await outbox.drained(A)
    put(outbox, A, 0)
    put(outbox, B, 0)
    put(outbox, A, 1)
    order: list[str] = []

    async def wait(name: str, session: bytes) -> None:
        assert await outbox.drained(session)
        order.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "a", A)
        nursery.start_soon(wait, "b", B)
        for expected in ([], ["b"], ["b", "a"]):
            await outbox.take()
            await wait_all_tasks_blocked()
            assert order == expected


@pytest.mark.parametrize("early", [True, False])
async def test_whoever_waits_is_told_when_the_outbox_closes(
    early: bool, autojump_clock: MockClock
) -> None:
    outbox = Outbox()
    put(outbox, A, 0)
    if early:
        outbox.close()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            assert not await outbox.drained(A)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        outbox.close()
