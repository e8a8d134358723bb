"""What is remembered of paths: for whom, for how long, and what replaces it."""

import trio
from trio.testing import MockClock

from relay.tunnel.paths import LIFE, MAXIMUM_PATHS, TELLING, Paths
from relay.tunnel.window import Path

PEER, OTHER = b"p" * 32, b"o" * 32
FAST, SLOW = Path(60e6, 0.25), Path(5e6, 0.25)
ENOUGH = TELLING * FAST.in_flight


async def test_each_hospital_has_its_own_for_a_while(autojump_clock: MockClock) -> None:
    paths = Paths()
    assert paths.recall(PEER) is None
    paths.remember(PEER, FAST, ENOUGH)
    assert (paths.recall(PEER), paths.recall(OTHER)) == (FAST, None)
    await trio.sleep(LIFE - 1)
    assert paths.recall(PEER) == FAST
    await trio.sleep(2)
    assert paths.recall(PEER) is None


async def test_a_few_objects_do_not_say_that_a_path_has_become_slow(
    autojump_clock: MockClock,
) -> None:
    paths = Paths()
    paths.remember(PEER, FAST, ENOUGH)
    await trio.sleep(LIFE / 2)
    paths.remember(PEER, SLOW, ENOUGH - 1)
    assert paths.recall(PEER) == FAST
    await trio.sleep(LIFE / 2 + 1)  # and it is no younger for that
    assert paths.recall(PEER) is None
    paths.remember(PEER, SLOW, 1)  # better than nothing
    assert paths.recall(PEER) == SLOW


async def test_many_do_and_a_faster_one_is_believed_at_once(autojump_clock: MockClock) -> None:
    paths = Paths()
    paths.remember(PEER, FAST, ENOUGH)
    paths.remember(PEER, SLOW, ENOUGH)
    assert paths.recall(PEER) == SLOW
    paths.remember(PEER, FAST, 1)
    assert paths.recall(PEER) == FAST


async def test_who_was_delivered_to_the_longest_ago_is_forgotten(
    autojump_clock: MockClock,
) -> None:
    paths = Paths()
    for number in range(MAXIMUM_PATHS):
        paths.remember(b"%d" % number, FAST, ENOUGH)
    paths.remember(b"0", FAST, ENOUGH)
    paths.remember(PEER, FAST, ENOUGH)
    assert paths.recall(b"1") is None
    assert paths.recall(b"0") == paths.recall(b"2") == paths.recall(PEER) == FAST
