import pytest
import trio

from relay.dicom import uids
from relay.dicom.dimse import CommandField, CommandSet, Status, Tag, request
from relay.dicom.negotiation import AcceptedContext
from relay.dicom.pdu import PDV
from relay.errors import AssociationAborted
from relay.router.federation.responding import Responder
from relay.router.inner import InnerAssociation
from tests.router.fakes import FakeAssociation, acceptance, proposal, read

CONTEXT = AcceptedContext(1, uids.STUDY_ROOT_FIND, uids.EXPLICIT_VR_LITTLE_ENDIAN)
ASKED = request(CommandField.C_FIND_RQ, 7, uids.STUDY_ROOT_FIND)


def responder(near: FakeAssociation | InnerAssociation) -> Responder:
    return Responder(near, trio.Lock(), [CONTEXT], CONTEXT, ASKED)


async def test_a_pending_response_and_the_final_one() -> None:
    near = FakeAssociation()
    one = responder(near)
    await one.send(Status.PENDING, data_set=b"data")
    assert not one.finished.is_set()
    await one.send(0xC001, extra={Tag.ERROR_COMMENT: "why"})
    assert one.finished.is_set()
    first, data, last = near.sent
    assert read(first).status == 0xFF00
    assert read(first).has_data_set
    assert data == PDV(1, False, True, b"data")
    assert read(last).status == 0xC001
    assert read(last).message_id_responded_to == 7
    assert read(last).text(Tag.ERROR_COMMENT) == "why"
    assert not read(last).has_data_set


async def test_it_is_finished_before_the_device_can_have_heard_so() -> None:
    near = FakeAssociation()
    one = responder(near)
    seen: list[bool] = []

    def refuses(atom: object) -> bool:
        seen.append(one.finished.is_set())
        return False

    near.refuses = refuses
    await one.send(0)
    assert seen == [True]


@pytest.mark.parametrize("count", [1, 64, 65, 200])
async def test_many_answers_in_few_calls(count: int) -> None:
    from relay.router.inner import pair

    far, near = pair()
    with trio.fail_after(5):
        request_ = proposal(uids.STUDY_ROOT_FIND)
        await far.send(request_)
        await near.receive()
        await near.send(acceptance(request_))
        await far.receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                responder(near).send_answers, 0xFF00, [b"x%d" % n for n in range(count)]
            )
            for number in range(count):
                head, data = await far.receive(), await far.receive()
                assert read(head).status == 0xFF00
                assert isinstance(data, PDV)
                assert data.fragment == b"x%d" % number


async def test_messages_of_two_tasks_do_not_mix() -> None:
    near = FakeAssociation()
    one = responder(near)
    async with trio.open_nursery() as nursery:
        for n in range(10):
            nursery.start_soon(one.send_answers, 0xFF00, [b"%d" % n] * 5)
    kinds = [atom.is_command for atom in near.sent if isinstance(atom, PDV)]
    assert kinds == [True, False] * 50


async def test_a_cancel_is_told_once_to_whom_it_concerns() -> None:
    one, told = responder(FakeAssociation()), []
    one.cancel()
    assert one.cancelled.is_set()
    one.on_cancel = lambda: told.append(1)
    one.cancel()
    assert told == [1]


async def test_a_device_that_is_gone() -> None:
    near = FakeAssociation()
    near.lost = True
    with pytest.raises(AssociationAborted):
        await responder(near).send(0)


def test_the_request_is_kept() -> None:
    assert isinstance(responder(FakeAssociation()).request, CommandSet)
