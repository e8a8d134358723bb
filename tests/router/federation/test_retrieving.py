"""C-GET and C-MOVE as a workstation does them, over the federation's own association."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from relay.association import TCPAssociation
from relay.dicom import dimse, negotiation, uids
from relay.dicom.dimse import CommandField, CommandReader, CommandSet, Priority, Status, Tag
from relay.dicom.elements import Encoding
from relay.dicom.negotiation import AcceptedContext, RoleSelection, accepted_contexts
from relay.dicom.pdu import PDV, AAssociateAC, AAssociateRQ
from relay.router.devices import Device
from relay.router.federation.federation import Federation
from relay.router.federation.identifiers import Level, Model
from relay.router.federation.retrieving import Target, retrieve_get, retrieve_move
from relay.router.federation.serving import serve
from relay.router.federation.settings import FederationSettings
from relay.router.federation.targets import read_text
from relay.router.federation.totals import MAXIMUM_COMMENT
from relay.router.suboperations import FAILED_SOP_INSTANCE_UID_LIST
from relay.signalling import messages
from tests.association_pairs import pair
from tests.router.fakes import two_hospitals
from tests.router.federation.archives import (
    CT,
    IMPLICIT,
    MR,
    Archive,
    Shelf,
    asked_by,
    by_uid,
    numbers,
    series_of,
    site,
)

STUDY = Target(level=Level.STUDY, studies=("1.2",))
MOVE_RQ = CommandField.C_MOVE_RQ
GET, MOVE = uids.STUDY_ROOT_GET, uids.STUDY_ROOT_MOVE
LARGE = bytes(range(256)) * 16 * 1024  # 4 MiB


@attrs.define
class Workstation:
    """The requestor of an association with the federation. `says` is its word for an instance."""

    association: TCPAssociation
    contexts: dict[int, AcceptedContext]
    says: dict[str, int] = attrs.field(factory=dict)
    objects: dict[str, bytes] = attrs.field(factory=dict)
    stores: list[CommandSet] = attrs.field(factory=list)
    cancels_after: int | None = None

    async def ask(
        self, sop_class: str, identifier: bytes, destination: str = ""
    ) -> list[tuple[CommandSet, bytes]]:
        """The responses, the final one last."""
        context = next(c for c in self.contexts.values() if c.abstract_syntax == sop_class)
        field = CommandField.C_MOVE_RQ if destination else CommandField.C_GET_RQ
        extra: dict[int, int | str | bytes] = {}
        if destination:
            extra[Tag.MOVE_DESTINATION] = destination
        command = dimse.request(field, 5, sop_class, priority=Priority.HIGH, extra=extra)
        await self.association.send(PDV(context.id, True, True, command.encode()))
        await self.association.send(PDV(context.id, False, True, identifier))
        responses = []
        reader = CommandReader(self.contexts)
        while True:
            command, data, at = await self._message(reader)
            if command.is_response:
                responses.append((command, data))
                if not dimse.is_pending(command.status):
                    return responses
                continue
            assert command.command_field == CommandField.C_STORE_RQ
            uid = command.sop_instance_uid or ""
            self.stores.append(command)
            self.objects[uid] = data
            if self.cancels_after == len(self.stores):
                cancel = dimse.request(CommandField.C_CANCEL_RQ, 5)
                await self.association.send(PDV(context.id, True, True, cancel.encode()))
            response = dimse.response_to(command, self.says.get(uid, 0))
            await self.association.send(PDV(at, True, True, response.encode()))

    async def _message(self, reader: CommandReader) -> tuple[CommandSet, bytes, int]:
        data = bytearray()
        while True:
            pdv = await self.association.receive()
            assert isinstance(pdv, PDV), self.association.cause
            reader.feed(pdv)
            if not pdv.is_command:
                data += pdv.fragment
            if not reader.message_open:
                assert reader.command is not None
                return reader.command, bytes(data), pdv.context_id


@asynccontextmanager
async def workstation(federation: Federation, caller: Device) -> AsyncIterator[Workstation]:
    """`caller` associated with the federation, for both retrieves and the storage of CT and MR."""
    near, far = pair()
    rq = negotiation.request(
        "FEDERATION",
        caller.ae_title,
        negotiation.propose(
            [(GET, [IMPLICIT]), (MOVE, [IMPLICIT]), (CT, [IMPLICIT]), (MR, [IMPLICIT])]
        ),
        *(RoleSelection(sop_class, scu=False, scp=True) for sop_class in (CT, MR)),
    )

    async def serving() -> None:
        request = await far.receive()
        assert isinstance(request, AAssociateRQ)
        await serve(federation, far, caller, request)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serving)
        await near.send(rq)
        ac = await near.receive()
        assert isinstance(ac, AAssociateAC)
        yield Workstation(near, accepted_contexts(rq, ac))
        await near.abort()


def identifier(target: Target = STUDY, sop_class: str = GET) -> bytes:
    return target.encode(Encoding(explicit_vr=False), sop_class)


def counters(response: CommandSet) -> list[int | None]:
    """Remaining, completed, failed, warning."""
    return [response.number(tag) for tag in range(0x1020, 0x1024)]


async def test_a_part_that_may_be_there_under_another_id_of_the_patient_is_said(
    tmp_path: Path,
) -> None:
    a = Archive(series_of("1.2", 1, 2), models=(Model.PATIENT_ROOT,))
    b = Archive(series_of("1.2", 2, 2, patient=b"P7"))
    whose = attrs.evolve(STUDY, patient=b"P7")
    for number, known in enumerate([(), ("A", "B")]):  # also where it is known to have some
        with trio.fail_after(20):
            async with site(tmp_path / str(number), {"A": a, "B": b}) as here:
                here.federation.found.note(here.caller, "1.2", known)
                totals = await retrieve_get(here.federation, here.caller, whose, Shelf())
        assert numbers(totals) == (0xB000, 2, 0, 0)
        assert totals.words.startswith("A: not known whether it holds it")


async def test_a_c_get_of_a_split_study(tmp_path: Path) -> None:
    a = Archive(series_of("1.2", 1, 2))
    b = Archive([*series_of("1.2", 2, 2, sop_class=MR, data=LARGE), *a.held])
    with trio.fail_after(20):
        async with (
            site(tmp_path, {"A": a, "B": b}) as here,
            workstation(here.federation, here.caller) as device,
        ):
            responses = await device.ask(GET, identifier())
    assert device.objects == by_uid(b.held)
    assert [r.message_id for r in device.stores] == [1, 2, 3, 4]
    assert {r.number(Tag.PRIORITY) for r in device.stores} == {Priority.HIGH}
    *pending, (final, data_set) = responses
    assert [counters(r) for r, _ in pending] == [
        [3, 1, 0, 0],
        [2, 2, 0, 0],
        [1, 3, 0, 0],
        [0, 4, 0, 0],
    ]
    assert final.status == Status.SUCCESS
    assert counters(final) == [None, 4, 0, 0]
    assert final.message_id_responded_to == 5
    assert data_set == b""
    asked = [r for r in a.requests if r.command_field == CommandField.C_GET_RQ]
    assert [(r.message_id, r.number(Tag.PRIORITY)) for r in asked] == [(5, Priority.HIGH)]


async def test_what_the_device_refuses_is_named_in_the_end(tmp_path: Path) -> None:
    archive = Archive(series_of("1.2", 1, 3))
    with trio.fail_after(20):
        async with (
            site(tmp_path, {"A": archive}) as here,
            workstation(here.federation, here.caller) as device,
        ):
            device.says = {"1.2.1.2": 0xA700, "1.2.1.3": 0xB000}
            final, data_set = (await device.ask(GET, identifier()))[-1]
    assert archive.answers == [0, 0xA700, 0xB000]
    assert final.status == 0xB000
    assert counters(final) == [None, 1, 1, 1]
    encoding = Encoding(explicit_vr=False)
    assert read_text(data_set, FAILED_SOP_INSTANCE_UID_LIST, encoding) == "1.2.1.2"


async def test_a_cancelled_c_get(tmp_path: Path) -> None:
    archive = Archive(series_of("1.2", 1, 30))
    with trio.fail_after(20):
        async with (
            site(tmp_path, {"A": archive}) as here,
            workstation(here.federation, here.caller) as device,
        ):
            device.cancels_after = 2
            final, _ = (await device.ask(GET, identifier()))[-1]
            assert final.status == Status.CANCEL
            remaining, completed, failed, warning = counters(final)
            assert completed == len(device.objects)
            assert (failed, warning) == (0, 0)
            assert remaining == 30 - len(device.objects)
            assert archive.cancels == 1
            # The association serves the next one.
            device.cancels_after = None
            final, _ = (await device.ask(GET, identifier()))[-1]
            assert final.status == Status.SUCCESS


async def test_one_lost_in_a_large_object_ends_the_association(tmp_path: Path) -> None:
    archive = Archive(series_of("1.2", 1, 2, data=LARGE), dies_after=1, dies_in_data=True)
    with trio.fail_after(20):
        async with (
            site(tmp_path, {"A": archive}) as here,
            workstation(here.federation, here.caller) as device,
        ):
            with pytest.raises(AssertionError, match="abort"):
                await device.ask(GET, identifier())
    assert list(device.objects) == ["1.2.1.1"]


async def test_a_c_move(tmp_path: Path) -> None:
    archive = Archive(series_of("1.2", 1, 2))
    with trio.fail_after(20):
        async with (
            site(tmp_path, {"A": archive}) as here,
            workstation(here.federation, here.caller) as device,
        ):
            *pending, (final, _) = await device.ask(MOVE, identifier(), "WS")
            assert [counters(r) for r, _ in pending] == [[1, 1, 0, 0], [0, 2, 0, 0]]
            assert final.status == Status.SUCCESS
            assert counters(final) == [None, 2, 0, 0]
            ((final, _),) = await device.ask(MOVE, identifier(), "NOBODY")
            assert final.status == Status.MOVE_DESTINATION_UNKNOWN
            assert final.text(Tag.ERROR_COMMENT)


async def test_an_identifier_that_is_none(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with (
            site(tmp_path, {}) as here,
            workstation(here.federation, here.caller) as device,
        ):
            for sop_class, destination in ((GET, ""), (MOVE, "WS")):
                wrong = identifier(Target(level=Level.SERIES, studies=("1.2",)))
                ((final, _),) = await device.ask(sop_class, wrong, destination)
                assert final.status == Status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS
                assert "Series Instance UID" in (final.text(Tag.ERROR_COMMENT) or "")


@pytest.mark.parametrize("what", ["caller", "grant"])
async def test_it_ends_with_what_it_rests_on(tmp_path: Path, what: str) -> None:
    archive, shelf = Archive(series_of("1.2", 1, 3), silent_after=1), Shelf()
    with trio.fail_after(20):
        async with two_hospitals(tmp_path, archive.serve, "query", "retrieve") as both:
            federation = Federation(both.a, FederationSettings(site_wait=600))
            rows = ((both.b.identity.public, "PACS", ("query", "retrieve")),)
            await both.a.joined().directory.take(messages.Granted(rows, 0))
            caller = asked_by(federation, "WS")

            async def take_away() -> None:
                await archive.waiting.wait()
                assert list(federation.transfer_lines._busy) == ["PACS"]
                assert not federation.lines._busy  # queries do not wait behind it
                if what == "grant":
                    await both.b.remove_grant(next(iter(both.b.grants)).id)
                else:
                    await both.a.remove_device("WS")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(take_away)
                totals = await retrieve_get(federation, caller, STUDY, shelf)
            assert numbers(totals)[:2] == (0xB000, 1)
            assert "PACS" in totals.words
            for node in (both.a, both.b):
                await node.live.wait_empty()
            assert not len(both.a.moves)


async def test_from_another_hospital(tmp_path: Path) -> None:
    held = [*series_of("1.2", 1, 2), *series_of("1.2", 2, 1, data=LARGE)]
    archive, shelf = Archive(held), Shelf()
    with trio.fail_after(20):
        async with two_hospitals(tmp_path, archive.serve, "query", "retrieve") as both:
            federation = Federation(both.a, FederationSettings(site_wait=10))
            rows = ((both.b.identity.public, "PACS", ("query", "retrieve")),)
            await both.a.joined().directory.take(messages.Granted(rows, 0))
            caller = asked_by(federation, "WS")
            totals = await retrieve_get(federation, caller, STUDY, shelf, message_id=9)
            assert numbers(totals) == (0, 3, 0, 0)
            assert shelf.objects == by_uid(held)
            # Nobody else's objects come to what is not published: the archive is not asked.
            asked = len(archive.requests)
            totals = await retrieve_move(federation, caller, STUDY, "WS", message_id=9)
            assert numbers(totals)[:2] == (Status.MOVE_DESTINATION_UNKNOWN, 0)
            assert totals.words == "RELAY_A: refuses WS; publish with store"
            longest = totals.words.replace("RELAY_A", "A" * 16).replace("WS", "B" * 16)
            assert len(longest) <= MAXIMUM_COMMENT
            assert all(r.command_field != MOVE_RQ for r in archive.requests[asked:])
            (refusal,) = both.a.refusals
            assert (refusal.calling, refusal.called) == ("WS", "FEDERATION")
            assert refusal.destination == "WS"
            assert "relay device add WS … --publish store" in refusal.why
            # What comes from an archive next door says nothing of it.
            other = Target(level=Level.STUDY, studies=("1.9",))
            assert (await retrieve_move(federation, caller, other, "WS")).status == 0
            assert list(both.a.refusals) == [refusal]
            await both.publish(Device("WS", "127.0.0.1", 104, services=frozenset({"store"})))
            totals = await retrieve_move(
                federation, asked_by(federation, "WS"), STUDY, "WS", message_id=9
            )
            assert numbers(totals) == (0, 3, 0, 0)
            assert not list(both.a.refusals)
    assert {r.message_id for r in archive.requests if r.command_field != 0x20} == {9}
