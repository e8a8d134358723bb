"""A device that answers what it was not asked: nothing counts as delivered that it did not take."""

from trio.testing import MockClock

from relay.dicom.commandset import CommandSet, Tag
from relay.router.queue.results import How
from tests.router.queue.consignments import ORIGIN, consigned, consignment, object_id
from tests.router.queue.test_consignment import answered


def without_instance(asked: CommandSet) -> CommandSet:
    return asked.evolve({Tag.AFFECTED_SOP_INSTANCE_UID: b""})


async def test_a_second_answer_to_one_object_is_none_to_the_next(
    autojump_clock: MockClock,
) -> None:
    async with consignment() as world:
        world.near.say(*consigned(0), *consigned(1))
        asked, _ = await world.get()
        await world.answer(without_instance(asked))
        await world.answer(without_instance(asked))  # once more, while the next one comes
        assert "answers nothing" in (await world.ended()).words
        assert world.near.heard == [answered(0)]
        assert set(world.table.receipts) == {(ORIGIN, object_id(0))}


async def test_an_answer_that_names_another_object_is_none_to_this_one(
    autojump_clock: MockClock,
) -> None:
    async with consignment() as world:
        world.near.say(*consigned(0))
        asked, _ = await world.get()
        other: dict[int, int | str | bytes] = {
            Tag.MESSAGE_ID: 999,
            Tag.AFFECTED_SOP_INSTANCE_UID: "1.2.3.4",
        }
        await world.answer(asked.evolve(other))
        ending = await world.ended()
        assert ending.how is How.ROUTER
        assert world.near.heard == []
        assert not world.table.receipts


async def test_a_device_with_message_ids_of_its_own_is_understood_without_a_name_too(
    autojump_clock: MockClock,
) -> None:
    async with consignment() as world:
        for number in range(3):
            world.near.say(*consigned(number))
            asked, _ = await world.get()
            own = without_instance(asked).evolve({Tag.MESSAGE_ID: 999})
            await world.answer(own)
        assert await world.near.results(3) == [answered(number) for number in range(3)]
