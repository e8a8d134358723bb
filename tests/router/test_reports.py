"""Reports of a device that knows the network by one name: to whom they go, and what it is told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from relay.association import TCPAssociation
from relay.dicom import dimse, uids
from relay.dicom.dimse import CommandField, CommandReader, CommandSet, Status, Tag
from relay.dicom.negotiation import RoleSelection, find
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    PresentationContext,
)
from relay.errors import AssociationAborted, DatabaseError, RemoteProtocolError
from relay.router import reports
from relay.router.commitments import Commitment
from relay.router.devices import Device
from relay.router.node import Node, unix_time
from relay.router.reports import IDLE, MAXIMUM_REPORT
from relay.scu import release
from tests.router.fakes import (
    CT,
    IMPLICIT,
    FakeAssociation,
    TwoHospitals,
    acceptance,
    command,
    data,
    echo_rq,
    listing,
    proposal,
    publication,
    read,
    two_hospitals,
    yes_to_all,
)

COMMIT = uids.STORAGE_COMMITMENT_PUSH_MODEL
INSTANCE = "1.2.840.10008.1.20.1.1"  # PS3.4 §J.3.5: its only instance
TRANSACTION = "1.2.3.4.5"
PACS = Device("PACS", "h", present_as="OUTSIDE")
SUCCESS_EVENT = 1


def report(message_id: int = 1, event: int | None = SUCCESS_EVENT) -> CommandSet:
    return dimse.request(
        CommandField.N_EVENT_REPORT_RQ,
        message_id,
        COMMIT,
        INSTANCE,
        has_data_set=True,
        extra={} if event is None else {Tag.EVENT_TYPE_ID: event},
    )


def named(transaction: str = TRANSACTION) -> bytes:
    """The data set of a report: its Transaction UID, and something behind it."""
    value = transaction.encode() + b"\0" * (len(transaction) % 2)
    return (
        b"\x08\x00\x95\x11"
        + len(value).to_bytes(4, "little")
        + value
        + b"\x08\x00\x99\x11"
        + bytes(4)
    )


def request(*contexts: tuple[str, tuple[str, ...]], scp: bool = True) -> AAssociateRQ:
    return AAssociateRQ(
        "OUTSIDE",
        "PACS",
        tuple(
            PresentationContext(2 * n + 1, sop_class, syntaxes)
            for n, (sop_class, syntaxes) in enumerate(contexts or ((COMMIT, (IMPLICIT,)),))
        ),
        (RoleSelection(COMMIT, scu=False, scp=True).encode(),) if scp else (),
    )


# --- the association ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "rq", "wanted"),
    [
        (PACS, request(), True),
        (PACS, request((CT, (IMPLICIT,)), (COMMIT, (IMPLICIT,))), True),
        (PACS, request((CT, (IMPLICIT,))), False),
        (Device("PACS", "h"), request(), False),  # who it means says its name
    ],
)
def test_who_calls_to_report(device: Device, rq: AAssociateRQ, wanted: bool) -> None:
    assert reports.is_wanted(device, rq) is wanted


@asynccontextmanager
async def served(rq: AAssociateRQ, node: Node | None = None) -> AsyncIterator[FakeAssociation]:
    """A fake device that reports; leaving awaits the end."""
    near = FakeAssociation()
    with trio.fail_after(10 * IDLE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reports.serve, cast(Any, node), near, PACS, rq)
            await near.got(1)
            yield near


async def test_only_commitment_is_accepted_and_in_a_syntax_that_can_be_read() -> None:
    deflated, explicit = uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, uids.EXPLICIT_VR_LITTLE_ENDIAN
    rq = request(
        (COMMIT, (explicit, IMPLICIT)),
        (CT, (IMPLICIT,)),
        (COMMIT, (deflated, explicit)),
        (COMMIT, (deflated,)),
    )
    async with served(rq) as near:
        near.say(AReleaseRQ())
    answer, released = near.sent
    assert isinstance(answer, AAssociateAC)
    assert {r.id: r.transfer_syntax for r in answer.contexts if r.accepted} == {
        1: IMPLICIT,
        5: explicit,
    }
    assert find(answer.user_items, RoleSelection) == (RoleSelection(COMMIT, scu=False, scp=True),)
    assert released == AReleaseRP()


async def test_a_role_that_was_not_proposed_is_not_given() -> None:
    async with served(request(scp=False)) as near:
        near.say(AReleaseRQ())
    assert isinstance(near.sent[0], AAssociateAC)
    assert not find(near.sent[0].user_items, RoleSelection)


async def test_it_ends_with_an_abort_and_with_silence(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(request()) as near:
        near.say(AAbort(0, 0))
    with pytest.RaisesGroup(AssociationAborted):
        async with served(request()) as near:
            pass
    assert near.aborts


async def test_what_is_out_of_turn_ends_it() -> None:
    with pytest.RaisesGroup(RemoteProtocolError):
        async with served(request()) as near:
            near.say(request())
    assert near.aborts


async def test_what_is_no_report_is_answered_and_what_is_no_request_is_not() -> None:
    async with served(request()) as near:
        near.say(
            command(1, dimse.response_to(echo_rq(), 0)),
            command(1, dimse.request(CommandField.C_CANCEL_RQ, 1)),
            command(1, echo_rq(3)),
            AReleaseRQ(),
        )
    (answer,) = near.sent[1:-1]
    assert read(answer).status == Status.UNRECOGNIZED_OPERATION
    assert read(answer).message_id_responded_to == 3


async def test_a_report_that_is_too_long_is_refused_and_the_next_one_heard() -> None:
    async with served(request()) as near:
        near.say(command(1, report(1)), data(1, bytes(MAXIMUM_REPORT), last=False))
        near.say(data(1, bytes(2), last=False), data(1, b""))
        near.say(command(1, echo_rq(2)), AReleaseRQ())
    first, second = (read(atom) for atom in near.sent[1:-1])
    assert (first.status, first.message_id_responded_to) == (Status.RESOURCE_LIMITATION, 1)
    assert first.number(Tag.EVENT_TYPE_ID) == SUCCESS_EVENT
    assert second.message_id_responded_to == 2


# --- to whoever asked -----------------------------------------------------------------------------


@attrs.define
class Workstation:
    """What the device that asked is told, and what it answers."""

    status: int = 0
    calling: list[str] = attrs.Factory(list)
    told: list[tuple[CommandSet, bytes]] = attrs.Factory(list)

    async def serve(self, association: TCPAssociation) -> None:
        rq = await association.receive()
        assert isinstance(rq, AAssociateRQ)
        self.calling.append(rq.calling)
        roles = tuple(role.encode() for role in find(rq.user_items, RoleSelection))
        await association.send(attrs.evolve(acceptance(rq), user_items=roles))
        reader = CommandReader()
        asked, data_set = None, bytearray()
        while isinstance(atom := await association.receive(), PDV):
            asked = reader.feed(atom) or asked
            if not atom.is_command:
                data_set += atom.fragment
            if asked is not None and not reader.message_open:
                self.told.append((asked, bytes(data_set)))
                response = dimse.response_to(asked, self.status)
                await association.send(command(atom.context_id, response))
                asked, data_set = None, bytearray()
        if isinstance(atom, AReleaseRQ):
            await association.send(AReleaseRP())


@asynccontextmanager
async def asked(tmp_path: Path, workstation: Workstation) -> AsyncIterator[TwoHospitals]:
    """WS of A has asked the PACS of B, which knows the network as OUTSIDE, to commit."""
    async with two_hospitals(tmp_path, yes_to_all, "commit") as both:
        await both.b.put_device(attrs.evolve(both.pacs, present_as="OUTSIDE"))
        port = await both.listen(workstation.serve)
        await both.publish(Device("WS", "127.0.0.1", port, services=frozenset({"echo"})))
        device, answer = await both.call(proposal(COMMIT))
        assert isinstance(answer, AAssociateAC)
        action = dimse.request(CommandField.N_ACTION_RQ, 1, COMMIT, INSTANCE, has_data_set=True)
        await device.send(command(1, action))
        await device.send(data(1, named()))
        assert read(await device.receive()).status == 0
        await release(device)
        await device.aclose()
        await both.a.live.wait_empty()
        yield both


async def tell(
    both: TwoHospitals, *messages: tuple[CommandSet, bytes], called: str = "OUTSIDE"
) -> list[CommandSet]:
    """The PACS reports; what it is answered."""
    device, answer = await both.call(attrs.evolve(request(), called=called), at=both.b)
    assert isinstance(answer, AAssociateAC)
    answers = []
    for asked_, data_set in messages:
        await device.send(command(1, asked_))
        await device.send(data(1, data_set))
        answers.append(read(await device.receive()))
    await release(device)
    await device.aclose()
    await both.b.live.wait_empty()
    return answers


@pytest.mark.parametrize("called", ["OUTSIDE", "RELAY_B"])
async def test_a_report_reaches_who_asked(tmp_path: Path, called: str) -> None:
    workstation = Workstation()
    async with asked(tmp_path, workstation) as both:
        (answer,) = await tell(both, (report(9), named()), called=called)
        assert (answer.status, answer.message_id_responded_to) == (0, 9)
        assert answer.number(Tag.EVENT_TYPE_ID) == SUCCESS_EVENT
        ((told, data_set),) = workstation.told
        assert data_set == named()
        assert (told.sop_class_uid, told.sop_instance_uid) == (COMMIT, INSTANCE)
        assert told.number(Tag.EVENT_TYPE_ID) == SUCCESS_EVENT
        assert workstation.calling == ["PACS"]
        # It may come again where the answer was lost.
        assert (await tell(both, (report(10), named())))[0].status == 0
        await both.a.live.wait_empty()


async def test_several_reports_on_one_association(tmp_path: Path) -> None:
    workstation = Workstation()
    async with asked(tmp_path, workstation) as both:
        answers = await tell(
            both, (report(1), named()), (report(2), named("9.9")), (report(3), named())
        )
        assert [answer.status for answer in answers] == [0, Status.NOT_AUTHORIZED, 0]
        assert len(workstation.told) == 2


async def test_what_the_device_answers_is_what_the_reporter_hears(tmp_path: Path) -> None:
    workstation = Workstation(Status.PROCESSING_FAILURE)
    async with asked(tmp_path, workstation) as both:
        (answer,) = await tell(both, (report(), named()))
        assert answer.status == Status.PROCESSING_FAILURE
        assert len(workstation.told) == 1


@pytest.mark.parametrize(
    "data_set", [named("1.2.3.4.6"), named("../x"), b"", b"\xff" * 30, named()[:10]]
)
async def test_what_nobody_asked_for_reaches_nobody(tmp_path: Path, data_set: bytes) -> None:
    workstation = Workstation()
    async with asked(tmp_path, workstation) as both:
        (answer,) = await tell(both, (report(), data_set))
        assert answer.status == Status.NOT_AUTHORIZED
        assert not workstation.told


async def test_a_report_without_an_event_type_is_a_failure(tmp_path: Path) -> None:
    async with asked(tmp_path, Workstation()) as both:
        (answer,) = await tell(both, (report(event=None), named()))
        assert answer.status == Status.PROCESSING_FAILURE


async def test_a_device_that_is_away_is_a_failure_and_can_be_told_later(tmp_path: Path) -> None:
    workstation = Workstation()
    async with asked(tmp_path, workstation) as both:
        known = both.a.devices.get("WS")
        assert known is not None
        await both.a.put_device(attrs.evolve(known, port=1))
        (answer,) = await tell(both, (report(), named()))
        assert answer.status == Status.PROCESSING_FAILURE
        both.bridge.cut(both.bridge.callee)
        (answer,) = await tell(both, (report(), named()))
        assert answer.status == Status.PROCESSING_FAILURE
        both.bridge.restore(both.bridge.callee)
        await both.a.put_device(known)
        assert (await tell(both, (report(), named())))[0].status == 0
        assert len(workstation.told) == 1


async def test_a_title_that_is_another_hospitals_by_now_is_told_nothing(tmp_path: Path) -> None:
    workstation = Workstation()
    async with asked(tmp_path, workstation) as both:
        other = Commitment("1.2.9", False, "PACS", b"o" * 32, "WS")
        await both.b.commitments.keep(other, unix_time())
        (answer,) = await tell(both, (report(), named("1.2.9")))
        assert answer.status == Status.PROCESSING_FAILURE
        assert not workstation.told
        assert not workstation.calling


async def test_a_hospital_lets_in_only_what_it_asked_for(tmp_path: Path) -> None:
    """B's Router is mistaken, or lies: A's knows."""
    workstation = Workstation()
    async with asked(tmp_path, workstation) as both:
        other = Commitment("1.2.9", False, "PACS", both.a.identity.public, "WS")
        await both.b.commitments.keep(other, unix_time())
        (answer,) = await tell(both, (report(), named("1.2.9")))
        assert answer.status == Status.NOT_AUTHORIZED
        assert workstation.calling == ["PACS"]
        assert not workstation.told


async def test_a_disk_that_takes_nothing_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workstation = Workstation()

    async def fails(*_: object) -> None:
        raise DatabaseError("disk full")

    async with asked(tmp_path, workstation) as both:
        monkeypatch.setattr(both.b.commitments, "reported", fails)
        (answer,) = await tell(both, (report(), named()))
        assert answer.status == Status.PROCESSING_FAILURE
        # Nor where it is A's: the device is not told what A might not remember.
        monkeypatch.undo()
        monkeypatch.setattr(both.a.commitments, "reported", fails)
        told = len(workstation.told)
        (answer,) = await tell(both, (report(), named()))
        assert answer.status == Status.PROCESSING_FAILURE
        assert len(workstation.told) == told


async def test_a_binding_that_changes_ends_what_runs(tmp_path: Path) -> None:
    workstation = Workstation()
    async with asked(tmp_path, workstation) as both:
        stolen = publication(both.b, "WS", "echo", serial=9)
        await both.b.joined().directory.take(listing(both.b, whole=False, publications=[stolen]))
        (answer,) = await tell(both, (report(), named()))
        assert answer.status == Status.PROCESSING_FAILURE
        assert not workstation.told
