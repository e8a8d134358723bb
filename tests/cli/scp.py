"""A device behind the DICOM socket: takes what it is told to take, and answers as told."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from relay import listener
from relay.association import TCPAssociation
from relay.cli.control import DICOM_SOCKET
from relay.dicom.dimse import CommandField, CommandReader, CommandSet, Tag, response_to
from relay.dicom.negotiation import answer
from relay.dicom.pdu import (
    PDV,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    PresentationContext,
)
from relay.web.server import listen_unix


@attrs.define
class Device:
    """What it does, and what it has seen."""

    rejects: AAssociateRJ | None = None
    refused_classes: frozenset[str] = frozenset()
    status: int = 0
    statuses: dict[str, int] = attrs.Factory(dict)  # by SOP instance
    aborts_at: str = ""  # a SOP instance
    found: Sequence[bytes] = ()
    comment: str = ""  # the Error Comment of a C-FIND's final response
    waits_for_cancel: bool = False

    requests: list[AAssociateRQ] = attrs.Factory(list)
    commands: list[CommandSet] = attrs.Factory(list)
    data_sets: list[bytes] = attrs.Factory(list)

    async def serve(self, association: TCPAssociation) -> None:
        rq = await association.receive()
        assert isinstance(rq, AAssociateRQ)
        self.requests.append(rq)
        if self.rejects is not None:
            await association.send(self.rejects)
            return
        await association.send(answer(rq, self._accept))
        reader = CommandReader()
        command: CommandSet | None = None
        data = bytearray()
        while True:
            atom = await association.receive()
            if isinstance(atom, AReleaseRQ):
                await association.send(AReleaseRP())
                return
            if not isinstance(atom, PDV):
                return
            command = reader.feed(atom) or command
            if not atom.is_command:
                data += atom.fragment
            if not reader.message_open and command is not None:
                self.commands.append(command)
                self.data_sets.append(bytes(data))
                await self._respond(association, atom.context_id, command)
                command = None
                data.clear()

    def _accept(self, context: PresentationContext) -> str | None:
        if context.abstract_syntax in self.refused_classes:
            return None
        return context.transfer_syntaxes[0]

    async def _respond(
        self, association: TCPAssociation, context_id: int, command: CommandSet
    ) -> None:
        send = partial(_send, association, context_id, command)
        if command.command_field == CommandField.C_ECHO_RQ:
            await send(self.status)
        elif command.command_field == CommandField.C_STORE_RQ:
            instance = command.sop_instance_uid or ""
            if instance == self.aborts_at:
                await association.abort()
                return
            await send(self.statuses.get(instance, self.status))
        elif command.command_field == CommandField.C_FIND_RQ:
            for identifier in self.found:
                await send(0xFF00, identifier)
            if not self.waits_for_cancel:
                await send(self.status, comment=self.comment)
            self._find = send
        elif command.command_field == CommandField.C_CANCEL_RQ:
            await self._find(0xFE00)

    _find: partial = attrs.field(default=None, init=False)  # type: ignore[type-arg]


async def _send(
    association: TCPAssociation,
    context_id: int,
    request: CommandSet,
    status: int,
    identifier: bytes | None = None,
    comment: str = "",
) -> None:
    extra: dict[int, int | str | bytes] = {Tag.ERROR_COMMENT: comment} if comment else {}
    response = response_to(request, status, has_data_set=identifier is not None, extra=extra)
    await association.send(PDV(context_id, True, True, response.encode()))
    if identifier is not None:
        await association.send(PDV(context_id, False, True, identifier))


@asynccontextmanager
async def listening(device: Device, data_dir: Path) -> AsyncIterator[Device]:
    """The device, on the DICOM socket of `data_dir`, for the length of the block."""
    async with trio.open_nursery() as nursery:
        opened = listen_unix(data_dir / DICOM_SOCKET)
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(opened))]
        await nursery.start(partial(listener.serve, listeners, device.serve))
        yield device
        nursery.cancel_scope.cancel()
