"""A device of A's that calls PACS, which is queued."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio
import trio.testing

from relay.association import TCPAssociation
from relay.dicom import dimse
from relay.dicom.commandset import CommandSet
from relay.dicom.dimse import CommandField
from relay.dicom.pdu import (
    PDV,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
)
from relay.dicom.upperlayer import Role
from relay.router.calling import serve_device
from relay.router.queue.destinations import Destination
from tests.router.fakes import CT, MR, command, data, proposal, read
from tests.router.queue.sending import Archive, Sending, sending


@attrs.define(eq=False)
class Sender:
    """WS's end of an association."""

    association: TCPAssociation
    over: trio.Event = attrs.field(factory=trio.Event)

    async def say(self, *atoms: Atom) -> None:
        for atom in atoms:
            await self.association.send(atom)

    async def store(
        self, number: int, content: bytes = b"content!", request: CommandSet | None = None
    ) -> None:
        await self.say(*stored(number, content, request=request))

    async def status(self) -> tuple[int, int]:
        """Message ID and status of the next response."""
        with trio.fail_after(10):
            response = read(await self.association.receive())
        return response.message_id_responded_to, response.status

    async def release(self) -> None:
        await self.say(AReleaseRQ())
        with trio.fail_after(10):
            assert isinstance(await self.association.receive(), AReleaseRP)


def asked(number: int, sop_class: str = CT, instance: str = "1.2.3") -> CommandSet:
    return dimse.request(CommandField.C_STORE_RQ, number, sop_class, f"{instance}.{number}")


def without(request: CommandSet, tag: int) -> CommandSet:
    return CommandSet({key: value for key, value in request.elements.items() if key != tag})


def stored(
    number: int,
    content: bytes = b"content!",
    *,
    context: int = 1,
    request: CommandSet | None = None,
    fragments: int = 1,
) -> list[PDV]:
    """A C-STORE-RQ."""
    size = max(1, -(-len(content) // fragments))
    starts = list(range(0, len(content), size)) or [0]
    return [
        command(context, request or asked(number)),
        *(data(context, content[at : at + size], last=at == starts[-1]) for at in starts),
    ]


@asynccontextmanager
async def calling(
    it: Sending, request: AAssociateRQ | None = None
) -> AsyncIterator[tuple[Sender, Atom]]:
    """WS calls, and what it is answered."""
    near, far = trio.testing.memory_stream_pair()
    sender = Sender(TCPAssociation(near, Role.REQUESTOR, host="127.0.0.1"))
    router = TCPAssociation(far, Role.ACCEPTOR, host="127.0.0.1")

    async def serve() -> None:
        try:
            await serve_device(it.both.a, router, queue=it.queue)
        finally:
            await router.aclose()
            sender.over.set()

    it.nursery.start_soon(serve)
    await sender.say(request or proposal(CT, MR))
    with trio.fail_after(10):
        answer = await sender.association.receive()
    yield sender, answer
    await sender.association.aclose()
    with trio.fail_after(10):
        await sender.over.wait()


@asynccontextmanager
async def taking(
    tmp_path: Path,
    archive: Archive | None = None,
    destination: Destination | None = None,
    **options: object,
) -> AsyncIterator[Sending]:
    """PACS is queued."""
    async with sending(tmp_path, archive, **options) as it:  # type: ignore[arg-type]
        await it.queue.destinations.put(destination or Destination("PACS"))
        yield it


def files(it: Sending) -> int:
    folder = it.both.a.database.path.parent / "spool"
    return sum(path.is_file() and path.stat().st_size > 0 for path in folder.glob("*/*"))
