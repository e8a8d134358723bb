"""A near Router that has a grant and means no good: what it can take from a device of ours."""

import trio
from trio.testing import MockClock

from relay.dicom.pdu import AAbort
from relay.router.queue.consignment import NEAR_SILENCE
from relay.router.queue.results import TELLING_WAIT, How
from relay.scu import STORE_DEADLINE
from relay.tunnel import notes
from relay.tunnel.notes import Asked, Question
from tests.router.queue.consignments import ORIGIN, consigned, consignment, object_id
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


async def test_who_asks_and_takes_no_answer_does_not_keep_a_device_for_ever(
    autojump_clock: MockClock,
) -> None:
    async with consignment() as world:
        world.near.deaf = True
        world.near.say(notes.encode(Question((Asked(object_id(1), bytes(32)),))))
        await trio.sleep(TELLING_WAIT + 1)
        assert world.near.aborts
        world.near.say(AAbort(2, 0))  # as a tunnel does that was aborted
        assert (await world.ended()).how is How.LEFT
        assert world.consignment.idle


async def test_who_takes_no_result_loses_none(autojump_clock: MockClock) -> None:
    """The receipts of what the device has taken are written, whether they are told or not."""
    async with consignment() as world:
        world.near.deaf = True
        count = 80
        for number in range(count):
            world.near.say(*consigned(number))

        async def device() -> None:
            await world.take(count)
            world.near.say(AAbort(2, 0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(device)
            assert (await world.ended()).how in (How.LEFT, How.ROUTER)
            nursery.cancel_scope.cancel()
        taken = len(world.table.receipts)
        assert set(world.table.receipts) == {(ORIGIN, object_id(n)) for n in range(taken)}
        assert taken >= 32
        assert world.near.aborts
