"""A device and a near Router in memory, with a consignment between them."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import attrs
import trio
from blake3 import blake3

from relay.association import TCPAssociation
from relay.dicom import dimse
from relay.dicom.commandset import CommandSet, Tag
from relay.dicom.pdu import PDV, AAssociateRQ, Atom
from relay.errors import DatabaseError
from relay.router.guard import Guard
from relay.router.queue.consignment import Consignment
from relay.router.queue.results import Ending
from relay.spool.receipts import Conflict, Receipt, Recorder
from relay.tunnel import notes
from relay.tunnel.notes import Item, Message, Result
from relay.tunnel.records import Note, Record
from tests.association_pairs import pair
from tests.router.fakes import (
    CT,
    FakeAssociation,
    FakeBorder,
    acceptance,
    command,
    proposal,
    read,
    store_rq,
)

ORIGIN = b"near" * 8


def object_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def data_set(number: int) -> bytes:
    return f"object {number} ".encode() * 10


def item(number: int, content: bytes | None = None) -> Item:
    content = data_set(number) if content is None else content
    return Item(object_id(number), b"\x01" + blake3(content).digest(), len(content))


def fragments(content: bytes, size: int = 60) -> list[PDV]:
    """`content` on context 1."""
    starts = range(0, len(content), size)
    return [PDV(1, False, at == starts[-1], content[at : at + size]) for at in starts]


def consigned(number: int, content: bytes | None = None) -> list[Record]:
    """All that the near Router says of an object; with `content`, of another one than it means."""
    said = data_set(number) if content is None else content
    request = command(1, store_rq(7))  # the Message ID is the sender's: the device gets another
    return [notes.encode(item(number)), request, *fragments(said)]


def receipt(number: int, status: int = 0, content: bytes | None = None) -> Receipt:
    return Receipt(ORIGIN, object_id(number), item(number, content).digest, status)


class MemoryTable:
    """A ReceiptTable without a disk; each commit takes `delay` seconds, and fails on demand."""

    def __init__(self, *receipts: Receipt) -> None:
        self.receipts = {(r.origin, r.item): r for r in receipts}
        self.forgotten: set[tuple[bytes, bytes]] = set()
        self.delay = 0.0
        self.failing = False
        self.full = False

    def has_room(self, origin: bytes) -> bool:
        return not self.full

    async def find(
        self, origin: bytes, asked: Sequence[tuple[bytes, bytes]]
    ) -> dict[bytes, Receipt | Conflict]:
        await trio.lowlevel.checkpoint()
        found: dict[bytes, Receipt | Conflict] = {}
        for id_, digest in asked:
            if (known := self.receipts.get((origin, id_))) is not None:
                found[id_] = known if known.digest == digest else Conflict()
        return found

    async def write(
        self, receipts: Sequence[Receipt], forgets: Sequence[tuple[bytes, bytes]], now: int
    ) -> None:
        await trio.sleep(self.delay)
        if self.failing:
            raise DatabaseError("queue.db: disk I/O error")
        self.receipts |= {(r.origin, r.item): r for r in receipts}
        self.forgotten.update(forgets)


class Near(FakeAssociation):
    """The tunnel: the test is the near Router."""

    session = bytes(16)

    def __init__(self) -> None:
        super().__init__()
        self.together: list[int] = []
        """How many records shared each chunk."""
        self._shared = 0

    async def send(
        self, atom: Atom, *, compressible: bool = False, end_of_message: bool = True
    ) -> None:
        await super().send(atom, compressible=compressible, end_of_message=end_of_message)
        self._shared += 1
        if end_of_message:
            self.together.append(self._shared)
            self._shared = 0

    def say(self, *records: Record) -> None:
        super().say(*records)  # type: ignore[arg-type]

    async def receive_records(self) -> Sequence[Record]:
        return [await self.receive()]

    @property
    def heard(self) -> list[Message]:
        """The notes that the near Router was sent."""
        return [notes.decode(record) for record in self.sent if isinstance(record, Note)]

    async def results(self, count: int) -> list[Result]:
        """The results, once there are so many."""
        await self.got(count)
        return [note for note in self.heard if isinstance(note, Result)]


@attrs.define(eq=False)
class World:
    near: Near
    device: TCPAssociation  # the device's end
    relay: TCPAssociation  # the Router's
    table: MemoryTable
    recorder: Recorder
    consignment: Consignment
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ending: Ending | None = None
    over: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        with self.scope:
            self.ending = await self.consignment.run()
        self.over.set()

    async def ended(self) -> Ending:
        await self.over.wait()
        assert self.ending is not None
        return self.ending

    # --- the device ---------------------------------------------------------------------------

    async def get(self) -> tuple[CommandSet, bytes]:
        """The next object, whole."""
        asked, content = read(await self.device.receive()), bytearray()
        while True:
            pdv = await self.device.receive()
            assert isinstance(pdv, PDV)
            content += pdv.fragment
            if pdv.is_last:
                return asked, bytes(content)

    async def answer(self, asked: CommandSet, status: int = 0, comment: str = "") -> None:
        extra = {Tag.ERROR_COMMENT: comment.encode("latin-1")} if comment else {}
        await self.device.send(command(1, dimse.response_to(asked, status, extra=extra)))

    async def take(self, count: int = 1) -> list[bytes]:
        """Get so many objects and answer each."""
        contents = []
        for _ in range(count):
            asked, content = await self.get()
            contents.append(content)
            await self.answer(asked)
        return contents

    async def hears_nothing(self) -> bool:
        """Whether the device is sent nothing once everything has come to rest."""
        with trio.move_on_after(0.5):
            heard: Atom = await self.device.wait_indication()
            return not heard
        return True


@asynccontextmanager
async def consignment(
    *receipts: Receipt,
    window: int = 1,
    granted: Collection[str] = ("store",),
    recorder: Recorder | None = None,
    request: AAssociateRQ | None = None,
) -> AsyncIterator[World]:
    """A consignment that runs; ORIGIN may do what is `granted`."""
    relay, device = pair()
    request = request or proposal(CT)
    await relay.send(request)
    await device.receive()
    answer = acceptance(request)
    await device.send(answer)
    await relay.receive()
    guard = Guard(request, granted, FakeBorder())
    guard.negotiated(answer)
    table = MemoryTable(*receipts)
    if recorder is None:
        recorder = Recorder(table)  # type: ignore[arg-type]
    near = Near()
    run = Consignment(near, relay, guard, recorder, origin=ORIGIN, window=window)  # type: ignore[arg-type]
    world = World(near, device, relay, table, recorder, run)
    with trio.fail_after(5000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.run)
            yield world
            nursery.cancel_scope.cancel()
        await relay.aclose()
        await device.aclose()
