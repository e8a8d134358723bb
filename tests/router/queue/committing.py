"""A hospital whose WS asks for storage commitment, and an archive elsewhere: to test with."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from relay.association import TCPAssociation
from relay.dicom import dimse
from relay.dicom.commandset import CommandSet
from relay.dicom.dimse import CommandField, CommandReader, Status, Tag
from relay.dicom.negotiation import RoleSelection, find
from relay.dicom.pdu import PDV, AAssociateRQ, AReleaseRP, AReleaseRQ
from relay.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL
from relay.router.devices import Device
from relay.router.queue.state import Queue
from relay.spool.transactions import Transaction
from tests.router.fakes import IMPLICIT, TwoHospitals, acceptance, command, data, two_hospitals
from tests.router.queue.queues import NOW, still_queue

INSTANCE = "1.2.840.10008.1.20.1.1"
TRANSACTION = "1.2.3.4.5"
CT = "1.2.840.10008.5.1.4.1.1.2"


def uid(tag: int, value: str) -> bytes:
    """An element of a UID in Implicit VR Little Endian."""
    text = value.encode() + b"\0" * (len(value) % 2)
    return (
        tag.to_bytes(4, "little")[2:]
        + tag.to_bytes(4, "little")[:2]
        + (len(text).to_bytes(4, "little") + text)
    )


def request_for(*instances: str, transaction: str = TRANSACTION) -> bytes:
    """The data set of a request, in Implicit VR Little Endian."""
    items = b""
    for instance in instances:
        item = uid(0x0008_1150, CT) + uid(0x0008_1155, instance)
        items += b"\xfe\xff\x00\xe0" + len(item).to_bytes(4, "little") + item
    sequence = b"\x08\x00\x99\x11" + len(items).to_bytes(4, "little") + items
    return uid(0x0008_1195, transaction) + sequence


def action(message_id: int = 1) -> CommandSet:
    """An N-ACTION-RQ for storage commitment."""
    return dimse.request(
        CommandField.N_ACTION_RQ,
        message_id,
        STORAGE_COMMITMENT_PUSH_MODEL,
        INSTANCE,
        has_data_set=True,
        extra={Tag.ACTION_TYPE_ID: 1},
    )


def event(event_type: int = 1, message_id: int = 1) -> CommandSet:
    """An N-EVENT-REPORT-RQ."""
    return dimse.request(
        CommandField.N_EVENT_REPORT_RQ,
        message_id,
        STORAGE_COMMITMENT_PUSH_MODEL,
        INSTANCE,
        has_data_set=True,
        extra={Tag.EVENT_TYPE_ID: event_type},
    )


@attrs.define
class FakeDevice:
    """A device over real sockets: it notes each message, and answers as it is told."""

    status: Callable[[CommandSet], int] = lambda command: Status.SUCCESS
    accepts: bool = True
    calls: list[AAssociateRQ] = attrs.Factory(list)
    heard: list[tuple[CommandSet, bytes]] = attrs.Factory(list)
    # Sent before it answers an N-ACTION, and after that.
    before: Sequence[tuple[CommandSet, bytes]] = ()
    after: Sequence[tuple[CommandSet, bytes]] = ()

    async def serve(self, association: TCPAssociation) -> None:
        request = await association.receive()
        if not isinstance(request, AAssociateRQ):
            return
        self.calls.append(request)
        answer = acceptance(request)
        roles = [role.encode() for role in find(request.user_items, RoleSelection)]
        answer = attrs.evolve(answer, user_items=(*answer.user_items, *roles))
        if not self.accepts:
            refused = [attrs.evolve(c, result=3) for c in answer.contexts]
            answer = attrs.evolve(answer, contexts=tuple(refused))
        await association.send(answer)
        reader, content = CommandReader(), bytearray()
        while True:
            match await association.receive():
                case PDV() as pdv:
                    reader.feed(pdv)
                    content += b"" if pdv.is_command else pdv.fragment
                    if reader.command is not None and not reader.message_open:
                        self.heard.append((reader.command, bytes(content)))
                        content.clear()
                        await self._answer(association, pdv.context_id, reader.command)
                case AReleaseRQ():
                    await association.send(AReleaseRP())
                    return
                case _:
                    return

    async def _answer(
        self, association: TCPAssociation, context_id: int, asked: CommandSet
    ) -> None:
        if asked.is_response:
            return
        is_action = asked.command_field == CommandField.N_ACTION_RQ
        for said, content in self.before if is_action else ():
            await association.send(command(context_id, said))
            await association.send(data(context_id, content))
        response = dimse.response_to(asked, self.status(asked))
        await association.send(command(context_id, response))
        for said, content in self.after if is_action else ():
            await association.send(command(context_id, said))
            await association.send(data(context_id, content))


@attrs.define
class World:
    """Hospital A with WS and its queue, hospital B with the archive PACS.

    `now` is the time at which it began; it goes on by itself, unless that `stands`.
    """

    pair: TwoHospitals
    queue: Queue
    ws: FakeDevice
    pacs: FakeDevice
    now: float = NOW
    stands: bool = False
    _begun: float = attrs.Factory(trio.current_time)

    def clock(self) -> float:
        """Unix seconds."""
        return self.now + (0 if self.stands else trio.current_time() - self._begun)

    def transaction(self, transfer_syntax: str = IMPLICIT) -> Transaction:
        """What WS has asked PACS for."""
        return Transaction(
            peer=self.pair.b.identity.public,
            called="PACS",
            calling="WS",
            device="WS",
            uid=TRANSACTION,
            transfer_syntax=transfer_syntax,
            command=action(77).encode(),
            accepted=self.now,
        )


@asynccontextmanager
async def open_world(folder: Path, *services: str) -> AsyncIterator[World]:
    """What PACS publishes and grants, without any: commit."""
    pacs, ws = FakeDevice(), FakeDevice()
    async with (
        two_hospitals(folder, pacs.serve, *(services or ("commit",))) as pair,
        still_queue(pair.a, folder) as queue,
    ):
        await pair.a.put_device(Device("WS", "127.0.0.1", await pair.listen(ws.serve)))
        world = World(pair, queue, ws, pacs)
        queue.spool = attrs.evolve(queue.spool, clock=world.clock)
        yield world
