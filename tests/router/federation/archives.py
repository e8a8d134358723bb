"""Archives of a hospital's own, in memory behind a real socket, that do as each test wants.

They answer C-FIND by UID on all levels of both models, C-GET and C-MOVE, and note what they were
asked. What goes wrong with them is in `Archive`.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from types import MappingProxyType

import attrs
import trio

from relay import listener
from relay.association import TCPAssociation
from relay.dicom import dimse, elements, negotiation
from relay.dicom.dimse import CommandField, CommandReader, CommandSet, Status
from relay.dicom.elements import STUDY_INSTANCE_UID, Encoding, encoding_of
from relay.dicom.negotiation import AcceptedContext, RoleSelection
from relay.dicom.pdu import (
    PDV,
    AAssociateAC,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Buffer,
    PresentationContext,
    UserItem,
)
from relay.errors import RelayError
from relay.router.devices import Device
from relay.router.federation.federation import Federation
from relay.router.federation.identifiers import Level, Model
from relay.router.federation.settings import FederationSettings
from relay.router.federation.sinks import Arriving, Taking
from relay.router.federation.targets import (
    ISSUER_OF_PATIENT_ID,
    PATIENT_ID,
    QUERY_RETRIEVE_LEVEL,
    SERIES_INSTANCE_UID,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    identifier,
    read_text,
)
from relay.router.federation.totals import Counts, Totals
from relay.router.suboperations import FAILED_SOP_INSTANCE_UID_LIST
from tests.router.fakes import CT, IMPLICIT, JPEG, MR, hospital

__all__ = ["CT", "IMPLICIT", "JPEG", "MR"]

PIECE = 16 * 1024  # of a data set, in one PDV


@attrs.frozen(slots=True)
class Stored:
    """An object in an archive. `data` stands for its data set."""

    study: str
    series: str
    uid: str
    sop_class: str = CT
    transfer_syntax: str = IMPLICIT
    data: bytes = b"data"
    patient: bytes = b"P1"

    def value(self, tag: int) -> str:
        return {
            STUDY_INSTANCE_UID: self.study,
            SERIES_INSTANCE_UID: self.series,
            SOP_INSTANCE_UID: self.uid,
            SOP_CLASS_UID: self.sop_class,
            PATIENT_ID: self.patient.decode(),
            ISSUER_OF_PATIENT_ID: "",
        }[tag]


def series_of(study: str, number: int, count: int, **more: object) -> list[Stored]:
    """`count` objects of one series."""
    series = f"{study}.{number}"
    return [Stored(study, series, f"{series}.{n}", **more) for n in range(1, count + 1)]  # type: ignore[arg-type]


@attrs.define(eq=False)
class Archive:
    """`held` are its objects. Its C-GETs and C-MOVEs are noted in `asked`, as level and UIDs.

    `models`: those that it takes. `fails`: instances that it cannot send. `dies_after`: so many
    objects it sends, and the connection is gone; `dies_in_data`: in the middle of the next.
    `silent_after`: so many, and it says no more. `serves`: Command Fields that it accepts contexts
    for. `destinations`: those that it knows. `sends_to` is told each object of a C-MOVE.
    `find_status`: with which its C-FINDs end, `image_status`: those of the IMAGE level. `mute`,
    `mute_image`: they are not answered at all. `counts`: whether its responses have counters;
    `names`: whether they name what has failed. `later`: what comes to it just before it is asked to
    send. `endless`: its C-FINDs have answers without end; `heedless`: by which UIDs it is asked is
    nothing to it. `empty`: so many fragments without a byte come before each data set. `boasts`: so
    many more it says it has sent.
    """

    held: list[Stored]
    models: tuple[Model, ...] = tuple(Model)
    fails: frozenset[str] = frozenset()
    dies_after: int | None = None
    dies_in_data: bool = False
    silent_after: int | None = None
    heeds_cancel: bool = True
    serves: frozenset[CommandField] = frozenset(
        {CommandField.C_FIND_RQ, CommandField.C_GET_RQ, CommandField.C_MOVE_RQ}
    )
    destinations: frozenset[str] = frozenset({"WS"})
    sends_to: Callable[[str, Stored], None] | None = None
    find_status: int = Status.SUCCESS
    image_status: int = Status.SUCCESS
    mute: bool = False
    mute_image: bool = False
    final_status: int | None = None
    counts: bool = True
    names: bool = True
    later: list[Stored] = attrs.field(factory=list)
    endless: bool = False
    heedless: bool = False
    empty: int = 0
    boasts: int = 0
    asked: list[tuple[str, tuple[str, ...]]] = attrs.field(factory=list)
    queries: list[str] = attrs.field(factory=list)  # the level of each
    requests: list[CommandSet] = attrs.field(factory=list)
    callings: list[str] = attrs.field(factory=list)
    proposed: list[AAssociateRQ] = attrs.field(factory=list)
    answers: list[int] = attrs.field(factory=list)  # to its C-STOREs
    cancels: int = 0
    sent: int = 0
    waiting: trio.Event = attrs.field(factory=trio.Event)  # it has fallen silent

    async def serve(self, association: TCPAssociation) -> None:
        """One association."""
        try:
            rq = await association.receive()
            assert isinstance(rq, AAssociateRQ)
            self.proposed.append(rq)
            self.callings.append(rq.calling)
            ac = self._answer(rq)
            await association.send(ac)
            one = _Served(self, association, negotiation.accepted_contexts(rq, ac))
            await one.run()
        except (RelayError, _GoneError):
            await association.abort()

    def _answer(self, rq: AAssociateRQ) -> AAssociateAC:
        ac = negotiation.answer(rq, self._accept)
        roles = tuple(role.encode() for role in negotiation.find(rq.user_items, RoleSelection))
        items: tuple[UserItem, ...] = (*ac.user_items, *roles)
        return attrs.evolve(ac, user_items=items)

    def _accept(self, context: PresentationContext) -> str | None:
        model = Model.of(context.abstract_syntax)
        if model is not None:
            fields = (CommandField.C_FIND_RQ, CommandField.C_MOVE_RQ, CommandField.C_GET_RQ)
            field = fields[model.value.index(context.abstract_syntax)]
            taken = field in self.serves and model in self.models
            return context.transfer_syntaxes[0] if taken else None
        held = {(one.sop_class, one.transfer_syntax) for one in self.held}
        for syntax in context.transfer_syntaxes:
            if (context.abstract_syntax, syntax) in held:
                return syntax
        return context.transfer_syntaxes[0]


class _GoneError(Exception):
    """The archive's process has died."""


@attrs.define(eq=False)
class _Served:
    archive: Archive
    association: TCPAssociation
    contexts: dict[int, AcceptedContext]
    reader: CommandReader = attrs.field(factory=CommandReader)
    cancelled: bool = False

    async def run(self) -> None:
        while True:
            match await self.association.receive():
                case PDV() as pdv:
                    command = self.reader.feed(pdv)
                    if command is not None and command.command_field != CommandField.C_CANCEL_RQ:
                        await self._request(self.contexts[pdv.context_id], command)
                case AReleaseRQ():
                    await self.association.send(AReleaseRP())
                    return
                case _:
                    return

    async def _request(self, context: AcceptedContext, command: CommandSet) -> None:
        data = bytearray()
        while self.reader.message_open:
            pdv = await self.association.receive()
            if not isinstance(pdv, PDV):
                raise _GoneError
            self.reader.feed(pdv)
            data += pdv.fragment
        encoding = encoding_of(context.transfer_syntax)
        assert encoding is not None
        self.archive.requests.append(command)
        level = Level[read_text(bytes(data), QUERY_RETRIEVE_LEVEL, encoding)]
        found = self._matching(bytes(data), encoding)
        self.cancelled = False
        if command.command_field == CommandField.C_FIND_RQ:
            self.archive.queries.append(level.name)
            await self._find(context, command, level, found, encoding)
            return
        self.archive.held, self.archive.later = [*self.archive.held, *self.archive.later], []
        found = self._matching(bytes(data), encoding)
        uids = read_text(bytes(data), level.unique_key, encoding)
        self.archive.asked.append((level.name, tuple(uids.split("\\"))))
        await self._retrieve(context, command, found, encoding)

    def _matching(self, data: bytes, encoding: Encoding) -> list[Stored]:
        found = self.archive.held
        if self.archive.heedless:
            return found
        for tag in (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID, PATIENT_ID):
            if wanted := read_text(data, tag, encoding):
                found = [one for one in found if one.value(tag) in wanted.split("\\")]
        return found

    async def _find(
        self,
        context: AcceptedContext,
        command: CommandSet,
        level: Level,
        found: list[Stored],
        encoding: Encoding,
    ) -> None:
        tags = [PATIENT_ID, STUDY_INSTANCE_UID]
        if level in (Level.SERIES, Level.IMAGE):
            tags.append(SERIES_INSTANCE_UID)
        if level is Level.IMAGE:
            tags += SOP_INSTANCE_UID, SOP_CLASS_UID
        if self.archive.mute or (self.archive.mute_image and level is Level.IMAGE):
            return
        status = self.archive.image_status if level is Level.IMAGE else self.archive.find_status
        answers = {one.value(level.unique_key): one for one in found} if not status else {}
        for one in cycle(answers.values()) if self.archive.endless else answers.values():
            values: dict[int, str | bytes] = {
                tag: one.patient if tag == PATIENT_ID else one.value(tag) for tag in tags
            }
            await self._respond(
                context, command, Status.PENDING, identifier(level, values, encoding)
            )
        await self._respond(context, command, status)

    async def _retrieve(
        self, context: AcceptedContext, command: CommandSet, found: list[Stored], encoding: Encoding
    ) -> None:
        archive = self.archive
        moves = command.command_field == CommandField.C_MOVE_RQ
        destination = command.move_destination or ""
        if moves and destination not in archive.destinations:
            await self._respond(context, command, Status.MOVE_DESTINATION_UNKNOWN)
            return
        if archive.final_status is not None:
            await self._respond(context, command, archive.final_status)
            return
        completed, failed, warned = 0, list[str](), 0
        status = 0
        for number, one in enumerate(found):
            await self._misbehave(one, moves=moves)
            if one.uid in archive.fails:
                failed.append(one.uid)
            else:
                status = self._move(destination, one) if moves else await self._store(one)
                completed += status == 0
                warned += status == 0xB000
                if status not in (0, 0xB000):
                    failed.append(one.uid)
                archive.sent += 1
            counts = Counts(len(found) - number - 1, completed, len(failed), warned)
            if number + 1 < len(found):
                await self._respond(context, command, Status.PENDING, counts=counts)
            if moves:
                await self._hear_cancel()
            if self.cancelled and archive.heeds_cancel:
                await self._respond(context, command, Status.CANCEL, counts=counts)
                return
        counts = Counts(0, completed + archive.boasts, len(failed), warned)
        final = Status.SUCCESS if not (failed or warned) else 0xB000
        if failed and not (completed or warned):
            final = Status.UNABLE_TO_PERFORM_SUBOPERATIONS
        data = b""
        if failed and archive.names:
            value = "\\".join(failed).encode()
            data = elements.encode(
                FAILED_SOP_INSTANCE_UID_LIST, b"UI", value + bytes(len(value) % 2), encoding
            )
        await self._respond(context, command, final, data, counts, final=True)

    async def _misbehave(self, one: Stored, *, moves: bool) -> None:
        archive = self.archive
        if archive.dies_after == archive.sent:
            if archive.dies_in_data and not moves:
                await self._begin(one, one.data[: len(one.data) // 2])
            raise _GoneError
        if archive.silent_after == archive.sent:
            archive.waiting.set()
            await self._hear_cancel(wait=True)

    async def _hear_cancel(self, *, wait: bool = False) -> None:
        with trio.move_on_after(3600 if wait else 0.01):
            atom = await self.association.receive()
            if not isinstance(atom, PDV):
                raise _GoneError
            self._note(atom)

    def _note(self, pdv: PDV) -> CommandSet | None:
        command = self.reader.feed(pdv)
        if command is not None and command.command_field == CommandField.C_CANCEL_RQ:
            self.archive.cancels += 1
            self.cancelled = True
            return None
        return command

    def _move(self, destination: str, one: Stored) -> int:
        if self.archive.sends_to is not None:
            self.archive.sends_to(destination, one)
        return 0

    async def _begin(self, one: Stored, data: bytes) -> AcceptedContext | None:
        wanted = (one.sop_class, one.transfer_syntax)
        for context in self.contexts.values():
            if (context.abstract_syntax, context.transfer_syntax) == wanted:
                break
        else:
            return None
        command = dimse.request(
            CommandField.C_STORE_RQ, self.archive.sent + 1, one.sop_class, one.uid
        )
        await self.association.send(PDV(context.id, True, True, command.encode()))
        for _ in range(self.archive.empty):
            await self.association.send(PDV(context.id, False, False, b""))
        whole = len(data) == len(one.data)
        for at in range(0, len(data), PIECE):
            last = whole and at + PIECE >= len(data)
            await self.association.send(PDV(context.id, False, last, data[at : at + PIECE]))
        return context

    async def _store(self, one: Stored) -> int:
        if await self._begin(one, one.data) is None:
            return 0xA900
        while True:
            atom = await self.association.receive()
            if not isinstance(atom, PDV):
                raise _GoneError
            response = self._note(atom)
            if response is not None:
                self.archive.answers.append(response.status)
                return response.status

    async def _respond(
        self,
        context: AcceptedContext,
        command: CommandSet,
        status: int,
        data: bytes = b"",
        counts: Counts | None = None,
        *,
        final: bool = False,
    ) -> None:
        extra: dict[int, int] = {}
        if counts is not None and self.archive.counts:
            extra = counts.elements(with_remaining=not final)
        response = dimse.response_to(command, status, has_data_set=bool(data), extra=extra)
        await self.association.send(PDV(context.id, True, True, response.encode()))
        if data:
            await self.association.send(PDV(context.id, False, True, data))


def asked_by(federation: Federation, title: str) -> Device:
    """The device of this hospital that asks."""
    caller = federation.node.devices.get(title)
    assert caller is not None
    return caller


@attrs.define
class Site:
    """A hospital with archives and a workstation, and its federation."""

    federation: Federation
    caller: Device


@asynccontextmanager
async def site(
    folder: Path,
    archives: dict[str, Archive],
    *,
    wait: float = 10.0,
    issuers: Mapping[str, str] = MappingProxyType({}),
    **settings: object,
) -> AsyncIterator[Site]:
    """A hospital whose federation asks `archives`, by AE title; `issuers` are their own."""
    async with hospital(folder, enrolled=False) as node, trio.open_nursery() as nursery:
        for title, archive in archives.items():
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(listener.serve, listeners, archive.serve)
            port = int(listeners[0].socket.getsockname()[1])
            issuer = issuers.get(title, "")
            await node.put_device(Device(title, "127.0.0.1", port, federation=True, issuer=issuer))
        caller = Device("WS", "127.0.0.1", 104)
        await node.put_device(caller)
        chosen = FederationSettings(site_wait=wait, **settings)  # type: ignore[arg-type]
        yield Site(Federation(node, chosen), caller)
        nursery.cancel_scope.cancel()


@attrs.define
class Shelf:
    """A sink that keeps everything. `takes` are its contexts; `statuses` what it says of each."""

    takes: list[tuple[str, tuple[str, ...]]] = attrs.field(
        factory=lambda: [(CT, (IMPLICIT,)), (MR, (IMPLICIT,))]
    )
    statuses: dict[str, int] = attrs.field(factory=dict)
    refuses: dict[str, int] = attrs.field(factory=dict)
    objects: dict[str, bytes] = attrs.field(factory=dict)
    arrived: list[Arriving] = attrs.field(factory=list)
    abandoned: list[str] = attrs.field(factory=list)
    pieces: int = 0

    @property
    def contexts(self) -> list[tuple[str, tuple[str, ...]]]:
        return self.takes

    async def begin(self, instance: Arriving) -> Taking | int:
        self.arrived.append(instance)
        if instance.sop_instance in self.refuses:
            return self.refuses[instance.sop_instance]
        return _Shelving(self, instance.sop_instance)


@attrs.define
class _Shelving:
    shelf: Shelf
    uid: str
    gathered: bytearray = attrs.field(factory=bytearray)
    whole: bool = False

    async def data(self, fragment: Buffer, last: bool) -> None:
        assert not self.whole
        self.shelf.pieces += 1
        self.gathered += fragment
        self.whole = last

    async def end(self) -> int:
        assert self.whole
        assert self.uid not in self.shelf.objects, "it comes once"
        status = self.shelf.statuses.get(self.uid, 0)
        if status in (0, 0xB000):
            self.shelf.objects[self.uid] = bytes(self.gathered)
        return status

    async def abandon(self) -> None:
        self.shelf.abandoned.append(self.uid)


@attrs.define
class Shown:
    """Progress that is noted, and held to what it must be."""

    counts: list[Counts] = attrs.field(factory=list)

    async def __call__(self, counts: Counts) -> None:
        if self.counts:
            before = self.counts[-1]
            assert counts.completed >= before.completed
            assert counts.failed >= before.failed
            assert counts.warning >= before.warning
        self.counts.append(counts)


def numbers(totals: Totals) -> tuple[int, int, int, int]:
    """Status, completed, failed, warning."""
    return totals.status, totals.completed, totals.failed, totals.warning


def by_uid(*held: Iterable[Stored]) -> dict[str, bytes]:
    return {one.uid: one.data for some in held for one in some}
