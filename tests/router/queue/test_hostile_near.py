"""A near Router that has a grant and means no good: what it can take from a device of ours."""

import trio
from trio.testing import MockClock

from relay.router.queue.consignment import NEAR_SILENCE
from relay.router.queue.results import How
from relay.scu import STORE_DEADLINE
from tests.router.queue.consignments import consigned, consignment
from tests.router.queue.test_consignment import answered


async def test_who_brings_nothing_does_not_keep_a_device_for_ever(
    autojump_clock: MockClock,
) -> None:
    async with consignment() as world:
        world.near.say(*consigned(0))
        await world.take()
        await trio.sleep(NEAR_SILENCE - 1)
        world.near.say(*consigned(1))
        await world.take()
        ending = await world.ended()
        assert ending.how is How.ROUTER
        assert "brought nothing" in ending.words
        assert world.near.heard == [answered(0), answered(1)]


async def test_who_stops_in_the_middle_of_an_object_does_not_keep_a_device_for_ever(
    autojump_clock: MockClock,
) -> None:
    async with consignment() as world:
        world.near.say(*consigned(0)[:-1])
        start = trio.current_time()
        assert (await world.ended()).how is How.ROUTER
        assert NEAR_SILENCE <= trio.current_time() - start <= NEAR_SILENCE + STORE_DEADLINE
        assert world.near.heard == []
        assert not world.consignment.idle  # the device has a part of it: it is aborted
