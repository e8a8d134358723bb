"""C-GET of a device that only knows C-MOVE: what its requestor gets, and what the device sees."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.lowlevel

from relay.association import Association, TCPAssociation
from relay.dicom import dimse, uids
from relay.dicom.dimse import CommandField, CommandReader, CommandSet, Status, Tag
from relay.dicom.negotiation import RoleSelection, accepted_contexts, find
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
)
from relay.errors import AssociationAborted, LocalProtocolError, RemoteProtocolError
from relay.patience import Timeouts
from relay.router.devices import Device
from relay.router.get_by_move import answering_get
from relay.router.moves import MAXIMUM_DESTINATIONS
from relay.scu import negotiate, release
from tests.router.fakes import (
    CT,
    IMPLICIT,
    JPEG,
    MR,
    FakeAssociation,
    TwoHospitals,
    acceptance,
    command,
    data,
    find_rq,
    get_rq,
    proposal,
    read,
    two_hospitals,
)
from tests.waiting import until

GET, FIND, MOVE = uids.STUDY_ROOT_GET, uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE
BROKEN_OFF = -1  # for the status of an object
OBJECT = bytes(range(256)) * 200


@attrs.define
class Archive:
    """A device that knows C-MOVE and C-FIND, and stores at the Move Destination `sends`.

    Each is a SOP class and a transfer syntax, in `associations` associations at once. `before` is
    done ahead of each object, with how many there were; `hold` keeps it from storing any.
    """

    sends: Sequence[tuple[str, str]] = ((CT, IMPLICIT), (CT, IMPLICIT))
    associations: int = 1
    names: bool = True
    originator: str = ""  # instead of who asked
    early: trio.Event | None = None  # set when it was answered, behind the first object
    breaks_off: bool = False  # in the middle of the first object
    answer: int | None = None  # instead of what became of it
    before: Callable[[int], Awaitable[None]] | None = None
    hold: trio.Event | None = None
    both: TwoHospitals | None = None
    requests: list[AAssociateRQ] = attrs.Factory(list)
    commands: list[CommandSet] = attrs.Factory(list)
    identifiers: list[bytes] = attrs.Factory(list)
    statuses: list[int] = attrs.Factory(list)
    sub: TCPAssociation | None = None
    gone: int = 0  # associations that were aborted

    def let_go(self) -> None:
        """Store what was held back."""
        assert self.hold is not None
        self.hold.set()

    async def serve(self, association: TCPAssociation) -> None:
        try:
            await self._serve(association)
        except* AssociationAborted:
            self.gone += 1

    async def _serve(self, association: TCPAssociation) -> None:
        request = await association.receive()
        assert isinstance(request, AAssociateRQ)
        self.requests.append(request)
        await association.send(acceptance(request))
        reader = CommandReader()
        identifier = b""
        async with trio.open_nursery() as nursery:
            while True:
                match await association.receive():
                    case PDV() as pdv:
                        asked = reader.feed(pdv)
                        if asked is not None:
                            self.commands.append(asked)
                            identifier = b""
                        else:
                            identifier += bytes(pdv.fragment)
                        if not reader.message_open:
                            self.identifiers.append(identifier)
                            nursery.start_soon(
                                self._answer, association, pdv.context_id, self.commands[-1]
                            )
                    case AReleaseRQ():
                        await association.send(AReleaseRP())
                        return
                    case _:
                        return

    async def _answer(self, association: TCPAssociation, context: int, asked: CommandSet) -> None:
        if asked.command_field == CommandField.C_FIND_RQ:
            rsp = dimse.response_to(asked, Status.PENDING, has_data_set=True)
            await association.send(command(context, rsp))
            await association.send(data(context, b"found"))
            await association.send(command(context, dimse.response_to(asked, 0)))
        elif asked.command_field == CommandField.C_MOVE_RQ:
            await self._move(association, context, asked)

    async def _move(self, requestor: TCPAssociation, context: int, asked: CommandSet) -> None:
        self.statuses.clear()
        if self.answer is None:
            pending = dimse.response_to(
                asked,
                Status.PENDING,
                extra={Tag.NUMBER_OF_REMAINING_SUBOPERATIONS: len(self.sends)},
            )
            await requestor.send(command(context, pending))
            async with trio.open_nursery() as nursery:
                for at in range(self.associations):
                    share = self.sends[at :: self.associations]
                    nursery.start_soon(self._store, asked, share, at)
                if self.early is not None:
                    await until(lambda: bool(self.statuses))
                    await requestor.send(command(context, dimse.response_to(asked, 0)))
                    self.early.set()
            if self.early is not None:
                return
        done = [s for s in self.statuses if s == 0 or s >> 12 == 0xB]
        failed = len(self.sends) - len(done)
        status = self.answer
        if status is None:
            status = 0xB000 if failed and done else 0xA702 if failed else 0
        counts: dict[int, int | str | bytes] = {
            Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS: len(done),
            Tag.NUMBER_OF_FAILED_SUBOPERATIONS: failed,
            Tag.NUMBER_OF_WARNING_SUBOPERATIONS: 0,
        }
        rsp = dimse.response_to(asked, status, extra=counts if self.answer is None else None)
        await requestor.send(command(context, rsp))

    async def _store(self, asked: CommandSet, sends: Sequence[tuple[str, str]], first: int) -> None:
        assert self.both is not None
        classes = dict.fromkeys(sends)
        rq = AAssociateRQ(
            asked.move_destination or "",
            "PACS",
            tuple(
                attrs.evolve(
                    proposal(sop_class, transfer_syntaxes=[syntax]).contexts[0], id=2 * n + 1
                )
                for n, (sop_class, syntax) in enumerate(classes)
            ),
        )
        device, answer = await self.both.call(rq, at=self.both.b)
        self.sub = device
        try:
            if not isinstance(answer, AAssociateAC):
                return
            accepted = {r.id for r in answer.contexts if r.accepted}
            contexts = {pair: 2 * n + 1 for n, pair in enumerate(classes)}
            for n, pair in enumerate(sends):
                if self.hold is not None:
                    await self.hold.wait()
                if self.before is not None:
                    await self.before(n)
                if contexts[pair] in accepted:
                    number = first + n * self.associations
                    status = await self._store_one(device, contexts[pair], pair[0], asked, number)
                    self.statuses.append(status)
                    if status == BROKEN_OFF:
                        return
            await release(device)
        finally:
            await device.aclose()

    async def _store_one(
        self, device: TCPAssociation, context: int, sop_class: str, asked: CommandSet, n: int
    ) -> int:
        extra: dict[int, int | str | bytes] = {}
        if self.names:
            extra = {
                Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: self.originator
                or self.requests[-1].calling,
                Tag.MOVE_ORIGINATOR_MESSAGE_ID: asked.message_id,
            }
        rq = dimse.request(CommandField.C_STORE_RQ, 100 + n, sop_class, f"1.2.{n}", extra=extra)
        await device.send(command(context, rq))
        half = len(OBJECT) // 2
        await device.send(data(context, OBJECT[:half], last=False))
        if self.breaks_off:
            await device.abort()
            return BROKEN_OFF
        await device.send(data(context, OBJECT[half:]))
        atom = await device.receive()
        if isinstance(atom, AAbort):
            return BROKEN_OFF
        response = read(atom)
        assert response.message_id_responded_to == 100 + n
        return response.status


@attrs.define
class Got:
    """What a requestor got: objects by instance with their class, and all responses."""

    objects: dict[str, tuple[str, bytes]] = attrs.Factory(dict)
    stores: list[CommandSet] = attrs.Factory(list)
    pending: list[CommandSet] = attrs.Factory(list)
    final: CommandSet | None = None
    identifier: bytes = b""
    end: Atom | None = None

    @property
    def counters(self) -> tuple[int | None, ...]:
        assert self.final is not None
        return tuple(
            self.final.number(tag)
            for tag in (
                Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS,
                Tag.NUMBER_OF_FAILED_SUBOPERATIONS,
                Tag.NUMBER_OF_WARNING_SUBOPERATIONS,
            )
        )


@attrs.define
class World:
    """WS in A asks PACS in B, which is `archive`."""

    both: TwoHospitals
    archive: Archive

    async def associate(self, *sop_classes: str, **options: object) -> TCPAssociation:
        """WS offers to take these."""
        wanted = sop_classes or (CT,)
        rq = proposal(GET, *wanted, FIND, MOVE, scp=wanted, **options)  # type: ignore[arg-type]
        device, answer = await self.both.call(rq)
        assert isinstance(answer, AAssociateAC)
        assert {c.id for c in answer.contexts if c.accepted} == {c.id for c in rq.contexts}
        return device

    async def get(
        self, device: Association, *statuses: int, message_id: int = 7, status: int = 0
    ) -> Got:
        """A C-GET to its end; the objects are answered `statuses`, and then `status`."""
        await device.send(command(1, get_rq(message_id)))
        await device.send(data(1, b"identifier"))
        got, reader, answers = Got(), CommandReader(), list(statuses)
        while got.final is None or reader.message_open:
            atom = await device.receive()
            if not isinstance(atom, PDV):
                got.end = atom
                return got
            said = reader.feed(atom)
            if said is not None and said.command_field == CommandField.C_GET_RSP:
                if dimse.is_pending(said.status):
                    got.pending.append(said)
                else:
                    got.final = said
            elif said is not None:
                assert said.command_field == CommandField.C_STORE_RQ
                got.stores.append(said)
                got.objects[said.sop_instance_uid or ""] = (said.sop_class_uid or "", b"")
            elif got.final is not None:
                got.identifier += bytes(atom.fragment)
            else:
                stored = got.stores[-1]
                name = stored.sop_instance_uid or ""
                sop_class, before = got.objects[name]
                got.objects[name] = sop_class, before + bytes(atom.fragment)
                if atom.is_last:
                    answer = answers.pop(0) if answers else status
                    rsp = dimse.response_to(stored, answer)
                    await device.send(command(atom.context_id, rsp))
        return got


@asynccontextmanager
async def world(
    tmp_path: Path, archive: Archive, *services: str, via_move: bool = True
) -> AsyncIterator[World]:
    granted = services or ("retrieve", "query")
    async with two_hospitals(tmp_path, archive.serve, *granted) as both:
        archive.both = both
        await both.b.put_device(attrs.evolve(both.pacs, get_via_move=via_move))
        yield World(both, archive)


async def test_objects_come_over_the_association_of_the_c_get(tmp_path: Path) -> None:
    archive = Archive()
    async with world(tmp_path, archive) as it:
        device = await it.associate()
        got = await it.get(device)
        assert got.objects == {"1.2.0": (CT, OBJECT), "1.2.1": (CT, OBJECT)}
        assert got.final is not None
        assert (got.final.status, got.counters) == (0, (2, 0, 0))
        for response in (*got.pending, got.final):
            assert response.message_id_responded_to == 7
            assert response.affected_sop_class_uid == GET
        (pending,) = got.pending
        assert pending.number(Tag.NUMBER_OF_REMAINING_SUBOPERATIONS) == 2
        for store in got.stores:
            assert store.text(Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE) is None
            assert store.number(Tag.MOVE_ORIGINATOR_MESSAGE_ID) is None
        assert len({store.message_id for store in got.stores}) == 2
        await release(device)
        assert len(it.both.b.moves) == 0
    (asked,) = archive.commands
    assert asked.command_field == CommandField.C_MOVE_RQ
    assert asked.affected_sop_class_uid == MOVE
    assert asked.move_destination == "RELAY_B"
    assert asked.message_id >= 0x8000
    assert archive.identifiers == [b"identifier"]
    assert archive.statuses == [0, 0]
    # Nothing is proposed to the device that it would have to store in.
    (request,) = archive.requests
    assert [c.abstract_syntax for c in request.contexts] == [MOVE, FIND, MOVE]
    assert not find(request.user_items, RoleSelection)


async def test_one_c_get_after_the_other_and_other_requests_beside(tmp_path: Path) -> None:
    async with world(tmp_path, Archive(names=False)) as it:
        device = await it.associate()
        for number in (3, 3, 4):
            got = await it.get(device, message_id=number)
            assert got.counters == (2, 0, 0)
        await device.send(command(5, find_rq(9)))
        await device.send(data(5, b"query"))
        said = [await device.receive() for _ in range(3)]
        assert [a.fragment for a in said if isinstance(a, PDV) and not a.is_command] == [b"found"]
        assert read(said[0]).status == Status.PENDING
        assert read(said[2]).status == 0
        await release(device)


async def test_several_associations_go_one_object_after_the_other(tmp_path: Path) -> None:
    archive = Archive(sends=[(CT, IMPLICIT)] * 9, associations=3)
    async with world(tmp_path, archive) as it:
        device = await it.associate()
        got = await it.get(device)
        assert got.counters == (9, 0, 0)
        assert got.objects == {f"1.2.{n}": (CT, OBJECT) for n in range(9)}
        await release(device)


async def test_the_answer_waits_for_what_is_stored_yet(tmp_path: Path) -> None:
    archive = Archive(early=trio.Event())

    async def wait(number: int) -> None:
        if number:
            assert archive.early is not None
            await archive.early.wait()
            await trio.sleep(0.05)  # the answer goes ahead of the second object

    archive.before = wait
    async with world(tmp_path, archive) as it:
        device = await it.associate()
        got = await it.get(device)
        assert got.final is not None
        assert (got.final.status, got.counters) == (0, (2, 0, 0))
        assert len(got.objects) == 2
        await release(device)


async def test_what_no_context_carries_is_a_failed_suboperation(tmp_path: Path) -> None:
    archive = Archive(sends=[(CT, IMPLICIT), (MR, IMPLICIT), (CT, JPEG)])
    async with world(tmp_path, archive) as it:
        device = await it.associate(CT)
        got = await it.get(device)
        assert list(got.objects) == ["1.2.0"]
        assert got.final is not None
        assert (got.final.status, got.counters) == (0xB000, (1, 2, 0))
        await release(device)


async def test_nothing_that_can_be_sent_is_a_failure(tmp_path: Path) -> None:
    async with world(tmp_path, Archive(sends=[(MR, IMPLICIT)])) as it:
        device = await it.associate(CT)
        got = await it.get(device)
        assert got.final is not None
        assert (got.final.status, got.counters) == (0xA702, (0, 1, 0))
        await release(device)


async def test_each_transfer_syntax_has_its_context(tmp_path: Path) -> None:
    archive = Archive(sends=[(CT, JPEG), (CT, IMPLICIT)])
    async with world(tmp_path, archive) as it:
        rq = proposal(GET, CT, CT, scp=[CT])
        contexts = [
            attrs.evolve(context, transfer_syntaxes=(syntax,))
            for context, syntax in zip(rq.contexts, (IMPLICIT, JPEG, IMPLICIT), strict=True)
        ]
        device, answer = await it.both.call(attrs.evolve(rq, contexts=tuple(contexts)))
        assert isinstance(answer, AAssociateAC)
        got = await it.get(device)
        assert got.counters == (2, 0, 0)
        await release(device)


async def test_the_requestors_answers_are_the_devices(tmp_path: Path) -> None:
    archive = Archive(sends=[(CT, IMPLICIT)] * 4)
    async with world(tmp_path, archive) as it:
        device = await it.associate()
        got = await it.get(device, 0, 0xB007, 0xA700, 0xC000)
        assert archive.statuses == [0, 0xB007, 0xA700, 0xC000]
        assert got.final is not None
        assert (got.final.status, got.counters) == (0xB000, (1, 2, 1))
        # The device has named none of them.
        assert b"1.2.2\\1.2.3" in got.identifier
        await release(device)


async def test_a_device_that_does_not_know_its_router_is_a_failure_with_words(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, Archive(answer=Status.MOVE_DESTINATION_UNKNOWN)) as it:
        device = await it.associate()
        got = await it.get(device)
        assert got.final is not None
        assert got.final.status == Status.UNABLE_TO_PERFORM_SUBOPERATIONS
        assert "own Router" in (got.final.text(Tag.ERROR_COMMENT) or "")
        (refusal,) = it.both.b.refusals
        assert (refusal.calling, refusal.called, refusal.destination) == ("WS", "PACS", "RELAY_B")
        assert "PACS does not know it: enter it there, with this Router's" in refusal.why
        await release(device)


@pytest.mark.parametrize("status", [0xA900, 0xC001, 0xA701])
async def test_another_failure_is_the_devices(tmp_path: Path, status: int) -> None:
    async with world(tmp_path, Archive(answer=status)) as it:
        device = await it.associate()
        got = await it.get(device)
        assert got.final is not None
        assert got.final.status == status
        await release(device)


async def test_a_c_cancel_is_that_of_the_c_move(tmp_path: Path) -> None:
    archive = Archive(hold=trio.Event())
    async with world(tmp_path, archive) as it:
        device = await it.associate()
        await device.send(command(1, get_rq(7)))
        await device.send(data(1))
        cancel = dimse.request(CommandField.C_CANCEL_RQ, 7)
        await device.send(command(1, cancel))
        await until(lambda: len(archive.commands) == 2)
        moved, cancelled = archive.commands
        assert cancelled.command_field == CommandField.C_CANCEL_RQ
        assert cancelled.message_id_responded_to == moved.message_id != 7
        await device.abort()
        archive.let_go()


async def test_two_at_once_are_one_too_many(tmp_path: Path) -> None:
    archive = Archive(hold=trio.Event())
    async with world(tmp_path, archive) as it:
        device = await it.associate()
        await device.send(command(1, get_rq(1)))
        await device.send(data(1))
        await until(lambda: archive.sub is not None)
        await device.send(command(1, get_rq(2)))
        await device.send(data(1))
        assert read(await device.receive()).status == Status.PENDING
        refused = read(await device.receive())
        assert (refused.message_id_responded_to, refused.status) == (2, 0xA702)
        assert len(archive.commands) == 1
        await device.abort()
        archive.let_go()


async def test_what_the_requestor_stores_is_refused(tmp_path: Path) -> None:
    """Its contexts are those over which it takes objects."""
    async with world(tmp_path, Archive(), "retrieve", "store", "query") as it:
        device = await it.associate()
        rq = dimse.request(CommandField.C_STORE_RQ, 5, CT, "1.2.3")
        await device.send(command(3, rq))
        await device.send(data(3))
        answer = read(await device.receive())
        assert (answer.status, answer.message_id_responded_to) == (0x0122, 5)
        assert (await it.get(device)).counters == (2, 0, 0)
        await release(device)


async def test_a_device_that_breaks_off_in_an_object_ends_the_association(tmp_path: Path) -> None:
    async with world(tmp_path, Archive(breaks_off=True)) as it:
        device = await it.associate()
        got = await it.get(device)
        assert isinstance(got.end, AAbort)
        # Half an object is not made a whole one.
        assert all(len(stored) < len(OBJECT) for _, stored in got.objects.values())
        await until(lambda: len(it.both.b.live) == 0)
        assert it.archive.statuses == [BROKEN_OFF]


async def test_a_requestor_that_is_gone_ends_what_the_device_stores(tmp_path: Path) -> None:
    archive = Archive(sends=[(CT, IMPLICIT)] * 3)
    async with world(tmp_path, archive) as it:
        device = await it.associate()
        await device.send(command(1, get_rq(7)))
        await device.send(data(1))
        while not archive.sub:
            await device.receive()
        await device.abort()
        await until(lambda: archive.statuses == [BROKEN_OFF])
        await until(lambda: len(it.both.b.live) == 0)
        # What it stores late is not taken for another's; and takes the place of no other.
        for _ in range(MAXIMUM_DESTINATIONS + 1):
            archive.sub = None
            device = await it.associate()
            await device.send(command(1, get_rq(7)))
            await device.send(data(1))
            while not archive.sub:
                assert isinstance(await device.receive(), PDV)  # it is not refused
            await device.abort()
            await until(lambda: len(it.both.b.live) == 0)
        assert len(it.both.b.moves.destinations("PACS")) == 1


async def test_in_the_name_of_a_device_of_this_hospital(tmp_path: Path) -> None:
    """As the federation asks: over the device's own association, by a local AE title."""
    archive = Archive()
    async with world(tmp_path, archive) as it:
        node = it.both.b
        await node.put_device(Device("CONSOLE", "127.0.0.1"))
        pacs = node.devices.get("PACS")
        assert pacs is not None
        rq = proposal(GET, CT, FIND, MOVE, scp=[CT], calling="CONSOLE")
        connection = await node.device_tls.connect(pacs, Timeouts())
        try:
            async with answering_get(node, pacs, connection, rq) as device:
                answer = await negotiate(device, rq)
                accepted = accepted_contexts(rq, answer)
                assert [(c.scu, c.scp) for c in accepted.values()] == [
                    (True, False),
                    (False, True),
                    (True, False),
                    (True, False),
                ]
                got = await it.get(device)
                assert got.counters == (2, 0, 0)
                assert archive.statuses == [0, 0]
                await release(device)
                with pytest.raises(LocalProtocolError):
                    await device.receive()
            assert len(node.moves) == 0
        finally:
            await connection.aclose()


async def test_what_is_raised_in_the_block_is_what_is_raised(tmp_path: Path) -> None:
    async with world(tmp_path, Archive()) as it:
        rq = proposal(GET, CT, scp=[CT])
        fake = FakeAssociation()
        pacs = attrs.evolve(it.both.pacs, get_via_move=True)
        with pytest.raises(RemoteProtocolError, match="mine"):
            async with answering_get(it.both.b, pacs, fake, rq):
                raise RemoteProtocolError("mine")


async def test_the_objects_that_another_device_asks_for_stay_refused(tmp_path: Path) -> None:
    """A C-MOVE of a device here that named the Router by mistake is not this one."""
    archive = Archive()
    async with world(tmp_path, archive) as it:
        await it.both.b.put_device(Device("CONSOLE", "127.0.0.1"))
        archive.originator = "CONSOLE"
        device = await it.associate()
        got = await it.get(device)
        assert got.counters == (0, 2, 0)
        assert archive.statuses == [Status.OUT_OF_RESOURCES] * 2
        await release(device)


async def test_the_second_time_objects_come_in_what_the_device_stores(tmp_path: Path) -> None:
    archive = Archive(sends=[(CT, JPEG)])
    async with world(tmp_path, archive) as it:
        for counters in ((0, 1, 0), (1, 0, 0)):
            device = await it.associate(transfer_syntaxes=[JPEG, IMPLICIT])
            assert (await it.get(device)).counters == counters
            await release(device)


async def test_a_device_with_c_get_is_asked_by_it(tmp_path: Path) -> None:
    archive = Archive()
    async with world(tmp_path, archive, via_move=False) as it:
        device = await it.associate()
        await device.send(command(1, get_rq(7)))
        await device.send(data(1))
        await until(lambda: bool(archive.commands))
        assert archive.commands[0].command_field == CommandField.C_GET_RQ
        await device.abort()


async def test_a_call_for_other_things_is_as_ever(tmp_path: Path) -> None:
    async with world(tmp_path, Archive()) as it:
        assert isinstance(it.both.b.devices.get("PACS"), Device)
        rq = proposal(FIND, CT, scp=[CT])
        device, answer = await it.both.call(rq)
        assert isinstance(answer, AAssociateAC)
        await release(device)
        assert it.archive.requests[0].contexts == rq.contexts
