"""A device that stores, behind a real socket, and does as each test wants."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from relay import listener
from relay.association import TCPAssociation
from relay.dicom import dimse, negotiation
from relay.dicom.dimse import CommandReader
from relay.dicom.pdu import PDV, AAssociateRQ, AReleaseRP, AReleaseRQ, PresentationContext
from relay.router.devices import Device
from relay.router.node import Node


@attrs.define(eq=False)
class Store:
    """`objects` are what it has stored, by SOP Instance UID. `statuses`: its own, by that.

    `takes`: the transfer syntaxes that it accepts; None: any. `dies_after`: so many objects, and
    the connection is gone.
    """

    takes: frozenset[str] | None = None
    statuses: dict[str, int] = attrs.field(factory=dict)
    dies_after: int | None = None
    objects: dict[str, tuple[str, bytes]] = attrs.field(factory=dict)
    callings: list[str] = attrs.field(factory=list)
    broken: int = 0  # associations that did not end by a release

    async def serve(self, association: TCPAssociation) -> None:
        """One association."""
        request = await association.receive()
        assert isinstance(request, AAssociateRQ)
        self.callings.append(request.calling)
        ac = negotiation.answer(request, self._accept)
        await association.send(ac)
        contexts = negotiation.accepted_contexts(request, ac)
        reader, data = CommandReader(contexts), bytearray()
        while True:
            match await association.receive():
                case PDV() as pdv:
                    command = reader.feed(pdv) or reader.command
                    assert command is not None
                    data += b"" if pdv.is_command else bytes(pdv.fragment)
                    if reader.message_open:
                        continue
                    if self.dies_after == len(self.objects):
                        self.broken += 1
                        await association.abort()
                        return
                    uid = command.sop_instance_uid or ""
                    status = self.statuses.get(uid, 0)
                    syntax = contexts[pdv.context_id].transfer_syntax
                    self.objects[uid] = syntax, bytes(data)
                    data.clear()
                    response = dimse.response_to(command, status)
                    await association.send(PDV(pdv.context_id, True, True, response.encode()))
                case AReleaseRQ():
                    await association.send(AReleaseRP())
                    return
                case _:
                    self.broken += 1
                    return

    def _accept(self, context: PresentationContext) -> str | None:
        for syntax in context.transfer_syntaxes:
            if self.takes is None or syntax in self.takes:
                return syntax
        return None


@asynccontextmanager
async def stores(node: Node, title: str, store: Store) -> AsyncIterator[None]:
    """`store` is the device `title` of the hospital."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(listener.serve, listeners, store.serve)
        port = int(listeners[0].socket.getsockname()[1])
        await node.put_device(Device(title, "127.0.0.1", port, federation=True))
        yield
        nursery.cancel_scope.cancel()
