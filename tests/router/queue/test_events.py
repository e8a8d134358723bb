"""Reports over the association that a device has opened: sent whole, and each answered."""

import pytest
import trio
import trio.testing

from relay.dicom import dimse
from relay.dicom.dimse import CommandField, CommandSet, Tag
from relay.dicom.pdu import PDV
from relay.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL
from relay.errors import AssociationAborted
from relay.router.queue.events import MAXIMUM_WAITING, Events, event_report
from relay.scu import REPORT_DEADLINE
from tests.router.fakes import FakeAssociation, read, store_rq

EVENT = event_report(STORAGE_COMMITMENT_PUSH_MODEL, "1.2.840.10008.1.20.1.1", 2)


def test_an_event_names_its_class_instance_and_type() -> None:
    assert EVENT.command_field == CommandField.N_EVENT_REPORT_RQ
    assert EVENT.sop_class_uid == STORAGE_COMMITMENT_PUSH_MODEL
    assert EVENT.sop_instance_uid == "1.2.840.10008.1.20.1.1"
    assert EVENT.number(Tag.EVENT_TYPE_ID) == 2
    assert EVENT.has_data_set


def answer(to: PDV, status: int) -> CommandSet:
    return dimse.response_to(read(to), status)


async def test_each_report_has_its_own_answer() -> None:
    near = FakeAssociation()
    events = Events(near)
    statuses: dict[bytes, int] = {}

    async def report(data: bytes) -> None:
        statuses[data] = await events.report(5, EVENT, data)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(report, b"one")
            nursery.start_soon(report, b"two")
            first, one, second, two = await near.got(4)
            assert isinstance(first, PDV)
            assert isinstance(second, PDV)
            assert isinstance(one, PDV)
            assert isinstance(two, PDV)
            assert read(first).message_id != read(second).message_id
            assert {one.fragment, two.fragment} == {b"one", b"two"}
            assert all(not data.is_command and data.is_last for data in (one, two))
            assert {pdv.context_id for pdv in (first, one, second, two)} == {5}
            events.answered(dimse.response_to(store_rq(read(first).message_id), 0))  # no answer
            events.answered(answer(second, 0x0110))
            events.answered(answer(second, 0))  # once more
            events.answered(answer(first, 0))
    assert statuses == {one.fragment: 0, two.fragment: 0x0110}


async def test_a_report_is_not_sent_into_another_message() -> None:
    near = FakeAssociation()
    events = Events(near)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            async with events.lock:
                nursery.start_soon(events.report, 5, EVENT, b"one")
                await trio.testing.wait_all_tasks_blocked()
                assert near.sent == []
            first, _ = await near.got(2)
            assert isinstance(first, PDV)
            events.answered(answer(first, 0))


async def test_nor_is_an_answer_sent_into_a_report() -> None:
    near = FakeAssociation()
    events = Events(near)
    response = PDV(5, True, True, dimse.response_to(store_rq(1), 0).encode())
    with trio.fail_after(5):
        await events.answer(response)
        assert await near.got(1) == [response]
        async with trio.open_nursery() as nursery:
            async with events.lock:
                nursery.start_soon(events.answer, response)
                await trio.testing.wait_all_tasks_blocked()
                assert near.sent == [response]
            assert await near.got(2) == [response, response]


async def test_without_an_answer_it_was_not_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    begin = trio.current_time()
    with pytest.raises(AssociationAborted, match="no response"):
        await Events(FakeAssociation()).report(5, EVENT, b"")
    assert trio.current_time() - begin == pytest.approx(REPORT_DEADLINE)


async def test_who_has_gone_is_told_nothing() -> None:
    events = Events(FakeAssociation())
    failures: list[AssociationAborted] = []

    async def report() -> None:
        try:
            await events.report(5, EVENT, b"")
        except AssociationAborted as error:
            failures.append(error)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(MAXIMUM_WAITING):
                nursery.start_soon(report)
            await trio.testing.wait_all_tasks_blocked()
            assert failures == []
            await report()  # one too many
            assert len(failures) == 1
            events.close()
    assert len(failures) == MAXIMUM_WAITING + 1
    with pytest.raises(AssociationAborted):
        await events.report(5, EVENT, b"")
