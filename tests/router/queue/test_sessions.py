"""Sessions of all destinations: how many there are, and whose."""

import trio
from trio.testing import MockClock

from relay.router.queue.sessions import Sessions

ONE, OTHER = b"1" * 32, b"2" * 32


async def holds(sessions: Sessions, peer: bytes, held: list[bytes], until: trio.Event) -> None:
    async with sessions.one(peer):
        held.append(peer)
        await until.wait()
        held.remove(peer)


async def test_one_hospital_does_not_have_them_all(autojump_clock: MockClock) -> None:
    sessions, held, over = Sessions(8), list[bytes](), trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(holds, sessions, ONE, held, over)
        await trio.sleep(1)
        assert held == [ONE] * 6
        assert sessions.wanted(ONE)
        assert not sessions.wanted(OTHER)
        for _ in range(3):
            nursery.start_soon(holds, sessions, OTHER, held, over)
        await trio.sleep(1)
        assert sorted(held) == [ONE] * 6 + [OTHER] * 2
        assert sessions.wanted(OTHER)
        over.set()
    assert not sessions.wanted(ONE)


async def test_of_few_there_is_no_share(autojump_clock: MockClock) -> None:
    sessions, held, over = Sessions(3), list[bytes](), trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(holds, sessions, ONE, held, over)
        await trio.sleep(1)
        assert held == [ONE] * 3
        over.set()
