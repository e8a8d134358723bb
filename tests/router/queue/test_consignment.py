"""A consignment: what the device gets and what the near Router is told, however either behaves."""

import hashlib
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from relay.association import ABORT_LIMIT
from relay.dicom import dimse, uids
from relay.dicom.pdu import PDV, AAbort, AReleaseRP, AReleaseRQ
from relay.errors import AbortReason, DatabaseError
from relay.router.queue.consignment import LAST_ANSWERS, NOT_WRITTEN
from relay.router.queue.results import Counts, Due, How
from relay.scu import STORE_DEADLINE
from relay.spool.receipts import Receipt
from relay.tunnel import notes
from relay.tunnel.notes import (
    Answer,
    Answers,
    Asked,
    EndedBy,
    Forget,
    Knowledge,
    Outcome,
    Question,
    Result,
)
from relay.tunnel.records import Note, Record
from tests.router.fakes import (
    CT,
    command,
    data,
    echo_rq,
    get_rq,
    proposal,
    store_rq,
)
from tests.router.gathering import GatheringFake
from tests.router.queue.consignments import (
    ORIGIN,
    consigned,
    consignment,
    data_set,
    item,
    object_id,
    receipt,
)

LEFT = AAbort(2, 0)


def answered(number: int, status: int = 0, comment: str = "") -> Result:
    return Result(object_id(number), Outcome.ANSWERED, status, comment)


# --- what goes well -------------------------------------------------------------------------------


async def test_objects_arrive_in_order_byte_for_byte_one_at_a_time(
    autojump_clock: MockClock,
) -> None:
    async with consignment() as world:
        for number in range(3):
            world.near.say(*consigned(number))
        for number in range(3):
            asked, content = await world.get()
            assert content == data_set(number)
            assert (asked.message_id, asked.affected_sop_class_uid) == (number + 1, CT)
            assert await world.hears_nothing()
            assert len(world.near.sent) == number
            await world.answer(asked)
            await world.near.got(number + 1)
        world.near.say(AReleaseRQ())
        ending = await world.ended()
        assert ending.how is How.RELEASED
        assert world.consignment.idle
        assert world.near.heard == [answered(0), answered(1), answered(2)]
        assert world.consignment.results.counts == Counts(delivered=3)
        assert set(world.table.receipts) == {(ORIGIN, object_id(n)) for n in range(3)}


async def test_with_a_window_answers_may_come_in_any_order(autojump_clock: MockClock) -> None:
    async with consignment(window=8) as world:
        for number in range(10):
            world.near.say(*consigned(number))
        got = [await world.get() for _ in range(8)]
        assert [content for _, content in got] == [data_set(n) for n in range(8)]
        assert len({asked.message_id for asked, _ in got}) == 8
        assert await world.hears_nothing()
        for asked, _ in reversed(got):
            await world.answer(asked, 0xB000 + asked.message_id)
        assert await world.take(2) == [data_set(8), data_set(9)]
        results = {r.id: r.status for r in await world.near.results(10)}
        assert results == {object_id(n): 0xB001 + n for n in range(8)} | {
            object_id(8): 0,
            object_id(9): 0,
        }


async def test_the_device_hears_of_an_object_when_its_data_set_begins(
    autojump_clock: MockClock,
) -> None:
    async with consignment() as world:
        note, request, *fragments = consigned(0)
        sent = world.relay.bytes_sent
        world.near.say(note, request)
        assert await world.hears_nothing()
        assert world.relay.bytes_sent == sent
        world.near.say(*fragments)
        assert await world.take() == [data_set(0)]


async def test_the_next_object_does_not_wait_for_the_disk(autojump_clock: MockClock) -> None:
    async with consignment() as world:
        world.table.delay = 10
        world.near.say(*consigned(0), *consigned(1))
        asked, _ = await world.get()
        await world.answer(asked)
        start = trio.current_time()
        asked, _ = await world.get()
        assert trio.current_time() - start < 1
        assert world.near.sent == []
        await world.answer(asked)
        assert await world.near.results(2) == [answered(0), answered(1)]


async def test_what_the_device_says_goes_back_as_it_is_as_far_as_a_note_carries_it(
    autojump_clock: MockClock,
) -> None:
    async with consignment() as world:
        world.near.say(*consigned(0), *consigned(1), *consigned(2))
        for status, comment in ((0xA700, "disk\nfull é"), (0xC001, "x" * 70), (0x0111, "")):
            asked, _ = await world.get()
            await world.answer(asked, status, comment)
        assert await world.near.results(3) == [
            answered(0, 0xA700, "disk?full ?"),
            answered(1, 0xC001, "x" * 64),
            answered(2, 0x0111),
        ]
        assert world.table.receipts == {}  # it must see each of them again
        assert world.consignment.results.counts == Counts(failed=3)


async def test_what_is_forgotten_is_written_by_the_end(autojump_clock: MockClock) -> None:
    async with consignment(receipt(1), receipt(2)) as world:
        world.near.say(notes.encode(Forget((object_id(1), object_id(2)))), AReleaseRQ())
        assert (await world.ended()).how is How.RELEASED
        assert world.table.forgotten == {(ORIGIN, object_id(1)), (ORIGIN, object_id(2))}


async def test_a_release_waits_for_what_the_device_owes(autojump_clock: MockClock) -> None:
    async with consignment() as world:
        world.near.say(*consigned(0), AReleaseRQ())
        asked, _ = await world.get()
        await trio.sleep(STORE_DEADLINE - 1)
        assert not world.over.is_set()
        await world.answer(asked)
        assert (await world.ended()).how is How.RELEASED
        assert world.near.heard == [answered(0)]


# --- receipts -------------------------------------------------------------------------------------


async def test_what_has_a_receipt_is_answered_from_it_and_the_device_sees_nothing(
    autojump_clock: MockClock,
) -> None:
    async with consignment(receipt(0, 0xB000)) as world:
        world.near.say(*consigned(0), *consigned(1))
        assert await world.take() == [data_set(1)]
        assert await world.near.results(2) == [answered(0, 0xB000), answered(1)]
        assert world.consignment.results.counts == Counts(delivered=1, from_receipts=1)


@pytest.mark.parametrize("same", [True, False])
async def test_an_object_that_has_sha_256_is_held_to_that(
    same: bool, autojump_clock: MockClock
) -> None:
    said = hashlib.sha256(data_set(0) if same else b"another").digest()
    older = notes.Item(object_id(0), said, len(data_set(0)))
    async with consignment() as world:
        world.near.say(notes.encode(older), *consigned(0)[1:])
        if same:
            assert await world.take() == [data_set(0)]
            assert await world.near.results(1) == [answered(0)]
            asked = await world.recorder.table.find(ORIGIN, [(object_id(0), said)])
            assert asked == {object_id(0): Receipt(ORIGIN, object_id(0), said, 0)}
        else:
            assert (await world.ended()).how is How.ROUTER
            assert world.near.heard[0] == Result(object_id(0), Outcome.CHANGED, 0, "")


async def test_another_object_of_that_id_is_a_conflict(autojump_clock: MockClock) -> None:
    async with consignment(receipt(0, content=b"another")) as world:
        world.near.say(*consigned(0), *consigned(1))
        assert await world.take() == [data_set(1)]
        assert (await world.near.results(2))[0] == Result(object_id(0), Outcome.CONFLICT, 0, "")
        assert world.consignment.results.counts == Counts(delivered=1, conflicts=1)


async def test_a_question_is_answered_with_what_there_is(autojump_clock: MockClock) -> None:
    async with consignment(receipt(0, 0xB000), receipt(1, content=b"another")) as world:
        asked = tuple(Asked(object_id(n), item(n).digest) for n in range(3))
        world.near.say(notes.encode(Question(asked)), notes.encode(Question(())))
        await world.near.got(2)
        assert world.near.heard == [
            Answers(
                (
                    Answer(object_id(0), Outcome.ANSWERED, 0xB000, ""),
                    Answer(object_id(1), Outcome.CONFLICT, 0, ""),
                )
            ),
            Answers(()),
        ]


@pytest.mark.parametrize("asks", [True, False])
async def test_what_another_session_has_in_hand_waits_for_what_comes_of_it(
    asks: bool, autojump_clock: MockClock
) -> None:
    """The near Router has lost its session, and comes back while the device still works."""
    async with consignment() as one:
        one.near.say(*consigned(0), LEFT)
        asked, _ = await one.get()
        async with consignment(recorder=one.recorder) as two:
            question = Question((Asked(object_id(0), item(0).digest),))
            two.near.say(*([notes.encode(question)] if asks else consigned(0)))
            await trio.sleep(LAST_ANSWERS / 2)
            assert two.near.sent == []
            await one.answer(asked)
            assert (await one.ended()).how is How.LEFT
            assert one.consignment.idle
            await two.near.got(1)
            assert two.near.heard == [
                Answers((Answer(object_id(0), Outcome.ANSWERED, 0, ""),)) if asks else answered(0)
            ]
            assert await two.hears_nothing()


async def test_who_is_cancelled_has_nothing_in_hand_any_more(autojump_clock: MockClock) -> None:
    async with consignment() as one:
        one.near.say(*consigned(0))
        await one.get()
        async with consignment(recorder=one.recorder) as two:
            two.near.say(*consigned(0))
            assert await two.hears_nothing()
            one.scope.cancel()
            assert await two.take() == [data_set(0)]
            await two.near.results(1)


async def test_a_sender_that_never_forgets_gets_no_further_and_loses_nothing(
    autojump_clock: MockClock,
) -> None:
    async with consignment() as world:
        world.near.say(*consigned(0))
        asked, _ = await world.get()
        world.table.full = True
        world.near.say(*consigned(1))
        assert await world.hears_nothing()
        await world.answer(asked)
        ending = await world.ended()
        assert ending.how is How.ROUTER
        assert "receipts" in ending.words
        assert world.near.heard == [answered(0)]


async def test_a_commit_that_fails_leaves_no_result(autojump_clock: MockClock) -> None:
    async with consignment(window=2) as world:
        world.near.say(*consigned(0), *consigned(1), *consigned(2))
        asked, _ = await world.get()
        later, _ = await world.get()
        world.table.failing = True
        start = trio.current_time()
        await world.answer(asked)
        await world.answer(later)
        ending = await world.ended()
        assert (ending.how, ending.words) == (How.ROUTER, NOT_WRITTEN)
        assert trio.current_time() - start < 1
        assert world.near.sent == []
        assert world.consignment.results.counts == Counts()
        await world.recorder.wait_free(ORIGIN, [object_id(n) for n in range(3)])


@pytest.mark.parametrize("when", ["find", "flush"])
async def test_a_table_that_fails_otherwise_ends_the_session(
    when: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with consignment(receipt(1)) as world:
        world.table.failing = True

        async def find(*arguments: object) -> None:
            await world.table.write((), (), 0)

        if when == "find":
            monkeypatch.setattr(world.table, "find", find)
            world.near.say(*consigned(0))
        else:
            world.near.say(notes.encode(Forget((object_id(1),))), AReleaseRQ())
        assert (await world.ended()).words == NOT_WRITTEN


# --- what is not what it should be ----------------------------------------------------------------


@pytest.mark.parametrize("content", [data_set(0)[:-1], data_set(0)[:-1] + b"X"])
async def test_the_device_never_gets_a_changed_object_whole(
    content: bytes, autojump_clock: MockClock
) -> None:
    async with consignment() as world:
        world.near.say(*consigned(0, content), *consigned(1))
        ending = await world.ended()
        assert ending.how is How.ROUTER
        assert world.near.heard == [Result(object_id(0), Outcome.CHANGED, 0, "")]
        assert not world.consignment.idle  # so that it is aborted
        await world.relay.abort()
        heard = []
        while not isinstance(atom := await world.device.receive(), AAbort):
            heard.append(atom)
        assert heard
        assert not any(isinstance(pdv, PDV) and pdv.is_last for pdv in heard[1:])
        assert world.consignment.results.counts == Counts(changed=1)


async def test_what_the_device_has_whole_beside_a_changed_one_may_still_be_answered(
    autojump_clock: MockClock,
) -> None:
    async with consignment(window=2) as world:
        world.near.say(*consigned(0), *consigned(1, b"not this"))
        asked, _ = await world.get()
        await trio.sleep(LAST_ANSWERS - 1)
        await world.answer(asked)
        assert (await world.ended()).how is How.ROUTER
        assert {r.id: r.outcome for r in await world.near.results(2)} == {
            object_id(0): Outcome.ANSWERED,
            object_id(1): Outcome.CHANGED,
        }


@pytest.mark.parametrize("granted", [(), ("echo",)])
async def test_what_the_guard_refuses_is_told_and_the_device_sees_nothing(
    granted: tuple[str, ...], autojump_clock: MockClock
) -> None:
    async with consignment(granted=granted) as world:
        world.near.say(*consigned(0), *consigned(1, b"not even this"))
        refused = (Outcome.REFUSED, dimse.Status.NOT_AUTHORIZED, "")
        assert await world.near.results(2) == [Result(object_id(n), *refused) for n in range(2)]
        assert await world.hears_nothing()
        world.near.say(AReleaseRQ())
        assert (await world.ended()).how is How.RELEASED
        assert world.consignment.idle
        assert world.consignment.results.counts == Counts(refused=2)


ITEM = notes.encode(item(0))
REQUEST = command(1, store_rq())
ECHO = command(3, echo_rq())
TAKES = ("store", "echo", "retrieve")


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([REQUEST], "without an item"),
        ([data(1)], "without an item"),
        ([ITEM, ITEM], "Note out of turn"),
        ([ITEM, notes.encode(Forget((object_id(1),)))], "Note out of turn"),
        ([ITEM, AReleaseRQ()], "AReleaseRQ out of turn"),
        ([ITEM, REQUEST, AReleaseRQ()], "AReleaseRQ out of turn"),
        ([ITEM, REQUEST, ITEM], "Note out of turn"),
        ([ITEM, REQUEST, REQUEST], "before the last of the data set"),
        ([ITEM, data(1)], "without a command"),
        ([ITEM, ECHO], "0030H"),
        ([ITEM, command(5, get_rq())], "0010H"),
        ([ITEM, command(1, dimse.response_to(store_rq(), 0))], "8001H"),
        ([ITEM, command(1, store_rq().evolve({dimse.Tag.COMMAND_DATA_SET_TYPE: 0x0101}))], "0001H"),
        ([ITEM, PDV(1, True, True, b"junk")], "command set"),
        ([ITEM, command(9, store_rq())], "presentation context 9"),
        ([ITEM, REQUEST, data(3, last=False)], "presentation context 3"),
        ([ITEM, REQUEST, data(1, data_set(0) + b"X", last=False)], "longer than its item"),
        ([ITEM, REQUEST, data(1, data_set(0) + b"X")], "longer than its item"),
        ([Note(b"\x90")], "not known"),
        ([Note(b"\x92\x05\x00")], "out of bounds"),
        ([notes.encode(Result(object_id(0), Outcome.ANSWERED, 0, ""))], "Result out of turn"),
        ([notes.encode(Answers(()))], "Answers out of turn"),
        ([notes.encode(Knowledge(1, 1, 1, 1, 0, ()))], "Knowledge out of turn"),
        ([AReleaseRP()], "AReleaseRP out of turn"),
    ],
)
@pytest.mark.parametrize("before", [0, 1])
async def test_a_near_router_that_breaks_the_protocol(
    records: list[Record], words: str, before: int, autojump_clock: MockClock
) -> None:
    request = proposal(CT, uids.VERIFICATION, uids.STUDY_ROOT_GET)
    async with consignment(granted=TAKES, request=request, window=4) as world:
        for number in range(1, 1 + before):
            world.near.say(*consigned(number))
            await world.take()
        world.near.say(*records, *consigned(5))
        ending = await world.ended()
        assert ending.how is How.ROUTER
        assert ending.words.startswith("near Router: ")
        assert words in ending.words
        assert ending.note().by is EndedBy.ROUTER
        assert world.near.heard == [answered(n) for n in range(1, 1 + before)]
        assert await no_whole_object(world.relay, world.device)


async def no_whole_object(relay: object, device: object) -> bool:
    await relay.abort()  # type: ignore[attr-defined]
    while not isinstance(atom := await device.receive(), AAbort):  # type: ignore[attr-defined]
        if isinstance(atom, PDV) and atom.is_last and not atom.is_command:
            return False
    return True


@pytest.mark.parametrize("message", [echo_rq(), store_rq()])
async def test_a_device_that_asks_for_something_is_aborted(
    message: dimse.CommandSet, autojump_clock: MockClock
) -> None:
    async with consignment(window=2) as world:
        world.near.say(*consigned(0))
        await world.get()
        await world.device.send(command(1, message))
        if message.has_data_set:
            await world.device.send(data(1))
        ending = await world.ended()
        assert ending.how is How.ROUTER
        assert ending.words.startswith("device: ")
        assert await world.device.receive() == AAbort(2, AbortReason.INVALID_PDU_PARAMETER_VALUE)


async def test_a_device_that_counts_nothing_is_understood_where_there_is_no_doubt(
    autojump_clock: MockClock,
) -> None:
    async with consignment(window=2) as world:
        world.near.say(*consigned(0))
        asked, _ = await world.get()
        other = asked.evolve({dimse.Tag.MESSAGE_ID: 999})
        await world.answer(other)
        assert await world.near.results(1) == [answered(0)]
        world.near.say(*consigned(1), *consigned(2))
        await world.get()
        await world.get()
        await world.answer(other)
        assert "answers nothing" in (await world.ended()).words


async def test_an_answer_before_the_end_of_the_object_counts_once_that_is_out(
    autojump_clock: MockClock,
) -> None:
    async with consignment() as world:
        *first, last = consigned(0)
        world.near.say(*first)
        request = await world.device.receive()
        assert isinstance(request, PDV)
        await world.answer(dimse.CommandSet.decode(request.fragment), 0xA700)
        await trio.sleep(1)
        assert world.near.sent == []
        world.near.say(last)
        assert await world.near.results(1) == [answered(0, 0xA700)]
        world.near.say(*consigned(1))
        await trio.sleep(1)
        assert world.over.is_set() is False


# --- how it breaks off ----------------------------------------------------------------------------


async def test_a_device_that_aborts_in_the_middle_of_an_object(autojump_clock: MockClock) -> None:
    async with consignment() as world:
        world.near.say(*consigned(0)[:-1])
        await world.device.receive()
        await world.device.abort(0, 0)
        ending = await world.ended()
        assert (ending.how, ending.source, ending.reason) == (How.DEVICE, 0, 0)
        assert ending.note().by is EndedBy.DEVICE
        assert "aborted by the peer" in ending.words
        assert world.near.sent == []


async def test_what_was_answered_before_an_abort_is_told_before_the_end(
    autojump_clock: MockClock,
) -> None:
    async with consignment(window=3) as world:
        world.table.delay = 5
        for number in range(4):
            world.near.say(*consigned(number))
        got = [await world.get() for _ in range(3)]
        for asked, _ in got[:2]:
            await world.answer(asked)
        await world.device.abort(2, 5)
        ending = await world.ended()
        assert (ending.how, ending.source, ending.reason) == (How.DEVICE, 2, 5)
        assert world.near.heard == [answered(0), answered(1)]
        assert len(world.table.receipts) == 2


async def test_a_device_that_is_gone_while_it_is_written_to(autojump_clock: MockClock) -> None:
    async with consignment() as world:
        await world.device._stream.aclose()
        world.near.say(*consigned(0))
        assert (await world.ended()).how is How.DEVICE


async def test_a_device_that_takes_nothing_and_says_nothing_is_not_waited_for(
    autojump_clock: MockClock,
) -> None:
    async with consignment() as world:
        silent = GatheringFake()
        silent.lost = True
        world.consignment._device = silent
        world.near.say(*consigned(0))
        start = trio.current_time()
        assert (await world.ended()).how is How.DEVICE
        assert trio.current_time() - start == pytest.approx(ABORT_LIMIT, abs=1)


async def test_a_device_that_releases_is_answered(autojump_clock: MockClock) -> None:
    async with consignment() as world:
        world.near.say(*consigned(0))
        await world.take()
        await world.device.send(AReleaseRQ())
        assert await world.device.receive() == AReleaseRP()
        ending = await world.ended()
        assert (ending.how, ending.source, ending.reason) == (How.DEVICE, 0, 0)
        assert "released" in ending.words
        assert world.near.heard == [answered(0)]


async def test_a_silent_device_is_given_up(autojump_clock: MockClock) -> None:
    async with consignment(window=2) as world:
        world.near.say(*consigned(0), *consigned(1), *consigned(2))
        first, _ = await world.get()
        await world.get()
        await trio.sleep(STORE_DEADLINE - 1)
        await world.answer(first)
        start = trio.current_time()
        ending = await world.ended()
        assert trio.current_time() - start == pytest.approx(STORE_DEADLINE, abs=1)
        assert ending.how is How.ROUTER
        assert "no C-STORE-RSP" in ending.words
        assert world.near.heard == [answered(0)]


async def test_a_device_that_owes_nothing_may_be_silent(autojump_clock: MockClock) -> None:
    async with consignment() as world:
        world.near.say(*consigned(0)[:-1])
        await trio.sleep(2 * STORE_DEADLINE)
        world.near.say(consigned(0)[-1])
        await world.take()
        await trio.sleep(2 * STORE_DEADLINE)
        assert not world.over.is_set()


async def test_a_near_router_that_leaves_when_all_is_answered(autojump_clock: MockClock) -> None:
    async with consignment() as world:
        world.near.say(*consigned(0))
        await world.take()
        world.near.say(LEFT)
        assert (await world.ended()).how is How.LEFT
        assert world.consignment.idle
        assert world.near.heard == [answered(0)]


async def test_a_near_router_that_leaves_in_the_middle_of_an_object(
    autojump_clock: MockClock,
) -> None:
    async with consignment(window=2) as world:
        world.near.say(*consigned(0), *consigned(1)[:-1], LEFT)
        asked, _ = await world.get()
        world.near.lost = True
        await world.answer(asked)
        assert (await world.ended()).how is How.LEFT
        assert not world.consignment.idle
        assert set(world.table.receipts) == {(ORIGIN, object_id(0))}


async def test_a_device_that_answers_no_more_is_not_waited_for_long(
    autojump_clock: MockClock,
) -> None:
    async with consignment() as world:
        world.near.say(*consigned(0), LEFT)
        await world.get()
        start = trio.current_time()
        assert (await world.ended()).how is How.LEFT
        assert trio.current_time() - start == pytest.approx(LAST_ANSWERS, abs=1)
        assert not world.consignment.idle


async def test_many_results_at_a_slow_disk_hold_the_device_back_and_lose_nothing(
    autojump_clock: MockClock,
) -> None:
    async with consignment(window=4) as world:
        world.table.delay = 100
        count = 80
        for number in range(count):
            world.near.say(*consigned(number))
        await world.take(count)
        results = await world.near.results(count)
        assert [r.id for r in results] == [object_id(n) for n in range(count)]
        assert world.recorder.groups < count / 4
        assert world.consignment.results.counts == Counts(delivered=count)


async def test_what_is_answered_while_it_is_cancelled_has_its_receipt(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nobody is there any more who writes it."""
    async with consignment() as world:
        results = world.consignment.results
        await results.take(object_id(1))
        real = results.run

        async def run(failed: Callable[[DatabaseError], None]) -> None:
            try:
                await real(failed)
            finally:
                with trio.CancelScope(shield=True):
                    result = Result(object_id(1), Outcome.ANSWERED, 0, "")
                    await results.add(Due(result, receipt(1)))

        monkeypatch.setattr(results, "run", run)
        await trio.sleep(1)
        world.scope.cancel()
        await world.over.wait()
        assert len(world.table.receipts) == 1
