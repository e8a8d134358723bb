"""Operations: the window, Message IDs, whose a response is, and when a device is silent."""

from math import inf

import attrs
import pytest
import trio
from trio.testing import MockClock

from relay.dicom import dimse
from relay.dicom.commandset import CommandSet, Tag
from relay.dicom.negotiation import AsynchronousOperationsWindow, find
from relay.dicom.pdu import AAssociateAC, UserItem
from relay.errors import RemoteProtocolError
from relay.router.queue.operations import (
    HIGHEST_MESSAGE_ID,
    MAXIMUM_WINDOW,
    Operations,
    window_of,
    with_window,
    with_window_of,
)
from relay.scu import STORE_DEADLINE
from tests.router.fakes import CT, proposal, store_rq
from tests.router.queue.consignments import item


def response(message_id: int, status: int = 0) -> CommandSet:
    return dimse.response_to(store_rq(message_id), status)


def answer(*items: UserItem) -> AAssociateAC:
    return AAssociateAC("PACS", "WS", (), items)


@pytest.mark.parametrize(
    ("granted", "window"),
    [((), 1), ((1, 1), 1), ((5, 1), 5), ((0, 0), MAXIMUM_WINDOW), ((40, 1), MAXIMUM_WINDOW)],
)
def test_the_window_is_what_the_device_grants(granted: tuple[int, ...], window: int) -> None:
    items = [AsynchronousOperationsWindow(*granted).encode()] if granted else []
    assert window_of(answer(*items)) == window


def test_the_near_router_is_told_the_window_that_we_keep_to() -> None:
    assert with_window_of(answer(), 1) == answer()
    told = with_window_of(answer(AsynchronousOperationsWindow(0, 0).encode()), 16)
    assert told == answer(AsynchronousOperationsWindow(16, 1).encode())


def test_a_window_that_cannot_be_read() -> None:
    with pytest.raises(RemoteProtocolError):
        window_of(answer(UserItem(AsynchronousOperationsWindow.TYPE, b"\0")))


def test_our_window_stands_instead_of_any_other() -> None:
    request = proposal(CT)
    theirs = AsynchronousOperationsWindow(1, 1).encode()
    asked = attrs.evolve(request, user_items=(*request.user_items, theirs))
    for before in (request, asked):
        windows = find(with_window(before).user_items, AsynchronousOperationsWindow)
        assert windows == (AsynchronousOperationsWindow(MAXIMUM_WINDOW, 1),)


async def test_who_finds_the_window_full_waits_for_an_answer(autojump_clock: MockClock) -> None:
    operations = Operations(2)
    first, second = await operations.begin(item(1)), await operations.begin(item(2))
    with trio.move_on_after(1) as limit:
        await operations.begin(item(3))
    assert limit.cancelled_caught
    operations.sent(first)
    assert operations.answered(response(first.message_id)) is first
    third = await operations.begin(item(3))
    assert len({first.message_id, second.message_id, third.message_id}) == 3


async def test_message_ids_go_round_and_pass_over_those_in_use() -> None:
    operations = Operations(MAXIMUM_WINDOW)
    lasting = await operations.begin(item(0))
    seen = []
    for _ in range(HIGHEST_MESSAGE_ID):
        operation = await operations.begin(item(1))
        seen.append(operation.message_id)
        operations.withdraw(operation)
    assert lasting.message_id == 1
    assert seen == [*range(2, HIGHEST_MESSAGE_ID + 1), 2]


async def test_whose_a_response_is() -> None:
    operations = Operations(3)
    first = await operations.begin(item(1))
    assert operations.answered(response(first.message_id, 0xFF00)) is None  # not final
    assert not first.over
    assert operations.answered(response(77)) is first  # of one there is no doubt
    with pytest.raises(RemoteProtocolError, match="answers nothing"):
        operations.answered(response(first.message_id))  # once more, before it is out
    second = await operations.begin(item(2))
    with pytest.raises(RemoteProtocolError, match="answers nothing"):
        operations.answered(response(77))
    operations.sent(first)
    assert operations.answered(response(second.message_id)) is second
    operations.sent(second)
    assert operations.idle
    with pytest.raises(RemoteProtocolError, match="answers nothing"):
        operations.answered(response(first.message_id))
    with pytest.raises(RemoteProtocolError):
        operations.answered(response(1).evolve({Tag.STATUS: b""}))


async def test_silence_counts_from_the_last_that_the_device_said_or_could_have(
    autojump_clock: MockClock,
) -> None:
    operations, start = Operations(3), trio.current_time()

    def deadline() -> float:
        return operations.silence.deadline - start

    first, second = await operations.begin(item(1)), await operations.begin(item(2))
    assert deadline() == inf
    operations.sent(first)
    assert deadline() == STORE_DEADLINE
    await trio.sleep(100)
    operations.sent(second)  # says nothing of the device
    assert deadline() == STORE_DEADLINE
    operations.answered(response(second.message_id))
    assert deadline() == 100 + STORE_DEADLINE
    operations.answered(response(first.message_id))
    assert deadline() == inf


async def test_settled_is_what_owes_nothing_or_is_not_heard_any_more(
    autojump_clock: MockClock,
) -> None:
    operations = Operations(2)
    first, second = await operations.begin(item(1)), await operations.begin(item(2))
    await operations.settled()  # an object on its way is no debt
    operations.sent(first)
    operations.sent(second)

    async def settled() -> bool:
        with trio.move_on_after(1):
            await operations.settled()
            return True
        return False

    assert not await settled()
    operations.answered(response(first.message_id))
    assert not await settled()
    operations.close()
    assert await settled()
    assert not operations.idle
