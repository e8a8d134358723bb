"""Two hospitals with queues: what A's devices leave goes to PACS of B, over tunnels in memory."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from enum import Enum, auto
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import trio

from relay.association import TCPAssociation
from relay.dicom import dimse, negotiation
from relay.dicom.commandset import CommandSet
from relay.dicom.dimse import CommandField
from relay.dicom.negotiation import AsynchronousOperationsWindow, find
from relay.dicom.pdu import (
    PDV,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    PresentationContext,
)
from relay.router.node import unix_time
from relay.router.opening import serve_opening
from relay.router.pairs import Pairs
from relay.router.queue import held
from relay.router.queue.acceptance import Acceptance
from relay.router.queue.courier import Couriers
from relay.router.queue.held import Held
from relay.router.queue.knowledge import OwnKnowledge
from relay.router.queue.state import Queue
from relay.signalling import messages
from relay.spool.items import Batch, Item, Priority, Selection, State
from relay.spool.receipts import Recorder
from relay.spool.spool import Spool, open_spool
from relay.tunnel.handshake import Purpose, accept_opening
from tests.router.fakes import (
    CT,
    IMPLICIT,
    MR,
    NETWORK,
    TwoHospitals,
    command,
    two_hospitals,
)
from tests.router.queue.parts import queue_of
from tests.spool import stock

TAKEN = frozenset({(CT, IMPLICIT), (MR, IMPLICIT)})


class Instead(Enum):
    """What a device does instead of an answer."""

    ABORT = auto()
    SILENCE = auto()
    RELEASE = auto()


@attrs.define(eq=False)
class Clock:
    """Unix time, as the test says."""

    now: float = attrs.Factory(lambda: float(unix_time()))

    def __call__(self) -> float:
        return self.now


@attrs.define(eq=False)
class Archive:
    """A device. `answer` gives the status for a data set; `before` is awaited ahead of that."""

    answer: Callable[[bytes], int | Instead] = lambda content: 0
    before: Callable[[bytes], Awaitable[object]] | None = None
    on_request: Callable[[AAssociateRQ], AAssociateRJ | Instead | None] = lambda request: None
    takes: Collection[tuple[str, str]] | None = None  # None: everything
    window: int | None = None
    seen: list[bytes] = attrs.Factory(list)
    """Data sets that came whole, in order."""
    associations: list[list[bytes]] = attrs.Factory(list)
    """The same, by association."""
    commands: list[CommandSet] = attrs.Factory(list)
    requests: list[AAssociateRQ] = attrs.Factory(list)
    released: int = 0
    open: int = 0
    most: int = 0
    changed: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    async def serve(self, association: TCPAssociation) -> None:
        request = await association.receive()
        assert isinstance(request, AAssociateRQ)
        self.requests.append(request)
        rejection = self.on_request(request)
        if isinstance(rejection, AAssociateRJ):
            await association.send(rejection)
            return
        if rejection is Instead.ABORT:
            await association.abort()
            return
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await association.send(self._accept(request))
            await self._store(association)
        finally:
            self.open -= 1
            self.changed.unpark_all()

    def _accept(self, request: AAssociateRQ) -> AAssociateAC:
        def accept(context: PresentationContext) -> str | None:
            syntax = context.transfer_syntaxes[0]
            known = self.takes is None or (context.abstract_syntax, syntax) in self.takes
            return syntax if known else None

        answer = negotiation.answer(request, accept)
        if self.window is None or not find(request.user_items, AsynchronousOperationsWindow):
            return answer
        item = AsynchronousOperationsWindow(self.window, 1).encode()
        return attrs.evolve(answer, user_items=(*answer.user_items, item))

    async def _store(self, association: TCPAssociation) -> None:
        mine: list[bytes] = []
        self.associations.append(mine)
        reader, asked, content = dimse.CommandReader(), None, bytearray()
        while True:
            match await association.receive():
                case PDV() as pdv:
                    asked = reader.feed(pdv) or asked
                    if not pdv.is_command:
                        content += pdv.fragment
                    if asked is None or reader.message_open:
                        continue
                    data, content = bytes(content), bytearray()
                    if asked.command_field == CommandField.C_STORE_RQ:
                        self.seen.append(data)
                        mine.append(data)
                        self.commands.append(asked)
                        self.changed.unpark_all()
                    if self.before is not None:
                        await self.before(data)
                    said = self.answer(data)
                    if said is Instead.ABORT:
                        await association.abort()
                        return
                    if said is Instead.RELEASE:
                        await association.send(AReleaseRQ())
                        return
                    if isinstance(said, int):
                        response = dimse.response_to(asked, said)
                        await association.send(command(pdv.context_id, response))
                case AReleaseRQ():
                    self.released += 1
                    await association.send(AReleaseRP())
                    return
                case _:
                    return


@attrs.define(eq=False)
class Sending:
    """A's queue, and what it sends to."""

    both: TwoHospitals
    queue: Queue
    far: Any  # B's queue, as far as the far side of a delivery needs it
    archive: Archive
    clock: Clock
    nursery: trio.Nursery
    deliveries: list[messages.Open] = attrs.Factory(list)

    def batch(self, *, called: str = "PACS", priority: Priority = Priority.NORMAL) -> Batch:
        """An association of WS that has just begun."""
        return Batch(
            peer=self.both.b.identity.public,
            called=called,
            calling="WS",
            device="WS",
            opened=self.clock(),
            priority=priority,
        )

    async def bring(
        self, batch: Batch, *contents: bytes, pair: tuple[str, str] = (CT, IMPLICIT)
    ) -> list[Item]:
        """Objects of it, in custody and told of."""
        kept = []
        for content in contents:
            kept.append(await keep(self.queue.spool, batch, content, pair))
            self.queue.accepted(batch, TAKEN)
        return kept

    async def close(self, batch: Batch) -> None:
        """Its association is over."""
        await self.queue.spool.items.close_batch(batch, self.clock())
        self.queue.couriers.closed(batch)

    async def left(
        self, *contents: bytes, pair: tuple[str, str] = (CT, IMPLICIT), **batch: Any
    ) -> Batch:
        """A batch with these objects, closed."""
        made = self.batch(**batch)
        await self.bring(made, *contents, pair=pair)
        await self.close(made)
        return made

    async def items(self) -> list[Item]:
        return await self.queue.spool.items.select(Selection())

    async def counts(self) -> dict[State, int]:
        return await self.queue.spool.items.count(Selection())

    async def becomes(self, *, hurry: bool = False, **wanted: int) -> None:
        """Return once so many are in these states, and none in another.

        `hurry`: time passes, whatever is waited for.
        """
        states = {State[word.upper()]: count for word, count in wanted.items()}
        with trio.fail_after(15):
            while await self.counts() != states:
                if hurry:
                    self.hurry()
                await trio.sleep(0.005)

    async def accepts(self, sop_class: str, transfer_syntax: str) -> None:
        """Return once this is accepted for PACS from WS, now and after a new start."""

        def accepted_by(acceptance: Acceptance) -> bool:
            known = acceptance.known(self.both.a, "PACS", "WS", int(self.clock()))
            return known is not None and known.takes(sop_class, transfer_syntax)

        with trio.fail_after(15):
            while not (
                accepted_by(self.queue.acceptance)
                and accepted_by(await Acceptance.load(self.both.a.database))
            ):
                await trio.sleep(0.005)

    def hurry(self, seconds: float = 4000.0) -> None:
        """Time passes."""
        self.clock.now += seconds
        self.queue.couriers.wake("PACS")

    def restart_far(self) -> None:
        """B's Router dies, and is there again with the receipts that it had written."""
        for entry in self.both.b.live:
            entry.scope.cancel()
        spool = self.far.spool
        self.far.spool = attrs.evolve(spool, recorder=Recorder(spool.receipts))

    def lose_tunnels(self) -> None:
        """The Bridge ends all sessions."""
        for session in list(self.both.bridge.caller.ports):
            self.both.bridge.end(session, messages.EndReason.EXPIRED)


async def keep(
    spool: Spool, batch: Batch, content: bytes, pair: tuple[str, str] = (CT, IMPLICIT)
) -> Item:
    """One object, in custody; its SOP Instance UID is its own."""
    instance = f"1.2.{int.from_bytes(hashlib.sha256(content).digest()[:8])}"
    asked = dimse.request(CommandField.C_STORE_RQ, 7, pair[0], instance)
    return await stock.keep(
        spool,
        batch,
        content,
        sop_class=pair[0],
        sop_instance=instance,
        transfer_syntax=pair[1],
        command=asked.encode(),
        accepted=spool.clock(),
    )


@asynccontextmanager
async def sending(
    folder: Path,
    archive: Archive | None = None,
    *,
    split: int = 1,
    space: int = 2**30,
    couriers: bool = True,
    known: bool = True,
) -> AsyncIterator[Sending]:
    """A's queue at work; without `couriers` nothing is sent by itself."""
    archive = archive or Archive()
    clock = Clock()
    async with (
        two_hospitals(folder, archive.serve, "store", "echo") as both,
        open_spool(folder / "a", space=space, reserve=0, clock=clock) as spool,
        open_spool(folder / "b", space=2**30, reserve=0) as far_spool,
        trio.open_nursery() as nursery,
    ):
        if known:
            await know(both, split)
        queue = await queue_of(both.a, spool)
        queue.couriers = Couriers(queue)
        far = SimpleNamespace(spool=far_spool, knowledge=OwnKnowledge(both.b.database))
        it = Sending(both, queue, far, archive, clock, nursery)

        def on_open(message: messages.Open) -> None:
            opened = attrs.evolve(message, router=both.a.identity.public)
            if purpose_of(both, opened) is Purpose.DELIVERY:
                it.deliveries.append(message)
            both.nursery.start_soon(serve_opening, both.b, opened, it.far)

        both.bridge.on_open = on_open
        nursery.start_soon(spool.custody.run)
        if couriers:
            nursery.start_soon(queue.couriers.run)
        yield it
        nursery.cancel_scope.cancel()


def purpose_of(both: TwoHospitals, message: messages.Open) -> Purpose:
    """What an opening is for."""
    received = accept_opening(
        both.b.identity,
        both.b.keyring.pairs,
        NETWORK,
        both.a.identity.public,
        message.opening,
        message.request,
        unix_time(),
    )
    return received.purpose


async def know(both: TwoHospitals, split: int = 1) -> None:
    """A knows what PACS takes."""
    row = Held(
        peer=both.b.identity.public,
        serial=1,
        expires=unix_time() + 7 * 86400,
        split=split,
        window=1,
        commitment=False,
        pairs=Pairs.of(TAKEN),
    )
    await both.a.database.run(partial(held.write, key=("PACS", "WS"), held=row))


def objects(count: int, size: int = 60) -> list[bytes]:
    """So many different data sets."""
    return [(f"object {number} " * size)[: 2 * (size // 2)].encode() for number in range(count)]
