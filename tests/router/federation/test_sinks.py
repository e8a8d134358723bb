import pytest
import trio
import trio.testing

from relay.dicom import dimse
from relay.dicom.dimse import Priority, Status, Tag
from relay.dicom.negotiation import AcceptedContext
from relay.dicom.pdu import PDV
from relay.errors import AssociationAborted
from relay.router.federation.sinks import Arriving, CallerSink, Taking
from relay.scu import STORE_DEADLINE
from tests.router.fakes import CT, IMPLICIT, JPEG, MR, FakeAssociation, read

CONTEXTS = [
    AcceptedContext(1, "1.2.840.10008.5.1.4.1.2.2.3", IMPLICIT),
    AcceptedContext(3, CT, IMPLICIT, scu=False, scp=True),
    AcceptedContext(5, CT, JPEG, scu=False, scp=True),
    AcceptedContext(7, MR, IMPLICIT),  # as user only
    AcceptedContext(9, CT, IMPLICIT, scu=False, scp=True),  # once more
]


def object_of(uid: str = "1.2.3", transfer_syntax: str = IMPLICIT) -> Arriving:
    return Arriving(sop_class=CT, sop_instance=uid, transfer_syntax=transfer_syntax, source="PACS")


def made() -> tuple[FakeAssociation, CallerSink]:
    association = FakeAssociation()
    sink = CallerSink(association, trio.Lock(), CONTEXTS, priority=Priority.LOW)
    return association, sink


async def begun(sink: CallerSink, instance: Arriving | None = None) -> Taking:
    taking = await sink.begin(instance or object_of())
    assert not isinstance(taking, int)
    return taking


def answer(association: FakeAssociation, status: int) -> dimse.CommandSet:
    """The device's response to the C-STORE-RQ that it got last."""
    commands = [atom for atom in association.sent if isinstance(atom, PDV) and atom.is_command]
    return dimse.response_to(read(commands[-1]), status)


def test_it_takes_what_the_device_provides_storage_for() -> None:
    _, sink = made()
    assert sorted(sink.contexts) == sorted([(CT, (IMPLICIT,)), (CT, (JPEG,))])


async def test_an_object_goes_out_as_a_c_store_of_its_own_context() -> None:
    association, sink = made()
    for context_id, syntax, message_id in ((3, IMPLICIT, 1), (5, JPEG, 2)):
        taking = await begun(sink, object_of("1.2.3", syntax))
        await taking.data(b"some", False)
        await taking.data(b"more", True)
        command, *data = association.sent[-3:]
        assert data == [
            PDV(context_id, False, False, b"some"),
            PDV(context_id, False, True, b"more"),
        ]
        assert isinstance(command, PDV)
        assert command.context_id == context_id
        request = read(command)
        assert request.message_id == message_id
        assert (request.affected_sop_class_uid, request.sop_instance_uid) == (CT, "1.2.3")
        assert request.number(Tag.PRIORITY) == Priority.LOW
        assert sink.answered(answer(association, 0xB007))
        assert await taking.end() == 0xB007


async def test_what_no_context_carries_is_refused() -> None:
    association, sink = made()
    assert await sink.begin(object_of(transfer_syntax="1.2.9")) == Status.SOP_CLASS_NOT_SUPPORTED
    assert not association.sent
    assert not sink.writing.locked()


async def test_no_other_message_comes_in_between() -> None:
    _, sink = made()
    taking = await begun(sink)
    assert sink.writing.locked()
    await taking.data(b"some", False)
    assert sink.writing.locked()
    await taking.data(b"", True)
    assert not sink.writing.locked()


async def test_only_the_response_that_is_waited_for_counts() -> None:
    association, sink = made()
    first = await begun(sink)
    await first.data(b"", True)
    late = answer(association, 0)
    assert sink.answered(late)
    assert not sink.answered(late)
    await first.end()
    second = await begun(sink)
    await second.data(b"", True)
    assert not sink.answered(late)
    assert sink.answered(answer(association, 0xA700))
    assert await second.end() == 0xA700


async def test_a_device_that_does_not_answer_is_aborted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    association, sink = made()
    taking = await begun(sink)
    await taking.data(b"", True)
    before = trio.current_time()
    with pytest.raises(AssociationAborted, match="no C-STORE-RSP"):
        await taking.end()
    assert trio.current_time() - before == pytest.approx(STORE_DEADLINE)
    assert association.aborts


async def test_an_object_cut_short_ends_the_association() -> None:
    association, sink = made()
    taking = await begun(sink)
    await taking.data(b"some", False)
    await taking.abandon()
    assert association.aborts
    assert not sink.writing.locked()
    await taking.abandon()


async def test_an_association_that_is_over_lets_go_of_the_lock() -> None:
    association, sink = made()
    taking = await begun(sink)
    association.lost = True
    with pytest.raises(AssociationAborted):
        await taking.data(b"", True)
    assert not sink.writing.locked()
    with pytest.raises(AssociationAborted):
        await sink.begin(object_of())
    assert not sink.writing.locked()


async def test_message_ids_begin_again() -> None:
    association, sink = made()
    sink.message_id = 0xFFFE
    for expected in (0xFFFF, 1):
        taking = await begun(sink)
        await taking.data(b"", True)
        assert sink.message_id == expected
        assert sink.answered(answer(association, 0))
