"""A device's association that outlives the call that it was made for (relay.router.linger).

To `passthrough.join` it is the acceptor like any other. Nothing may be left over that would mix two
calls up: it outlives a release only when no message is open and no request unanswered, and when
there was no N-service, whose state may live as long as the association does (a film session, PS3.4
§H.4.1; the report of a storage commitment, §J.3).
"""

from collections.abc import Sequence

import trio

from relay.association import TCPAssociation
from relay.dicom import dimse
from relay.dicom.dimse import CommandField, CommandReader
from relay.dicom.pdu import PDV, AAssociateAC, AReleaseRP, AReleaseRQ, Atom
from relay.errors import AbortReason, AbortSource, LocalProtocolError, RemoteProtocolError

# The services whose state is in their messages alone.
_C_SERVICES = frozenset(
    {
        CommandField.C_ECHO_RQ,
        CommandField.C_STORE_RQ,
        CommandField.C_FIND_RQ,
        CommandField.C_GET_RQ,
        CommandField.C_MOVE_RQ,
        CommandField.C_CANCEL_RQ,
    }
)


class Lasting:
    """A device's association as the acceptor of `passthrough.join`, which its release need not end.

    While `stay` holds and nothing is open, an A-RELEASE-RQ to the device is answered here. With
    `answer` it is one that was taken over: that is the A-ASSOCIATE-AC it begins with.
    """

    def __init__(
        self, association: TCPAssociation, *, stay: bool, answer: AAssociateAC | None = None
    ) -> None:
        self.cause = ""
        self.association: TCPAssociation | None = association
        self.answer = answer
        self.released = False  # by its caller, and answered here
        self._device = association
        self._stay = stay
        self._begins_with = answer
        self._ledger = Ledger()
        self._told = False  # of the A-RELEASE-RP
        self._reading: trio.CancelScope | None = None

    @property
    def stays(self) -> bool:
        """It was released here, nothing came across, and the device is still there."""
        return self.released and self._told and self._ledger.quiet and not self._device.over

    async def receive(self) -> Atom:
        """See `Association.receive`."""
        if self._begins_with is not None or self.released:
            return await self._own_word()
        with trio.CancelScope() as self._reading:
            return self._heard(await self._device.receive())
        return await self._own_word()

    async def receive_some(self) -> Sequence[Atom]:
        """See `Gathering.receive_some`."""
        if self._begins_with is not None or self.released:
            return (await self._own_word(),)
        with trio.CancelScope() as self._reading:
            return [self._heard(atom) for atom in await self._device.receive_some()]
        return (await self._own_word(),)

    async def _own_word(self) -> Atom:
        """What the device is not there to say: what it answered before, its A-RELEASE-RP."""
        await trio.lowlevel.checkpoint()
        if self._begins_with is not None:
            atom: Atom = self._begins_with
            self._begins_with = None
            return atom
        if self._told:
            raise LocalProtocolError("receive() after the end of the association")
        self._told = True
        return AReleaseRP()

    def _heard(self, atom: Atom) -> Atom:
        self.cause = self._device.cause
        if isinstance(atom, AAssociateAC):
            self.answer = atom
        elif isinstance(atom, PDV) and self._stay:
            self._ledger.said(atom)
        return atom

    async def send(self, atom: Atom, *, end_of_message: bool = True) -> None:
        """See `Association.send`."""
        if isinstance(atom, AReleaseRQ) and self._may_stay():
            await trio.lowlevel.checkpoint()
            self.released = True
            if self._reading is not None:
                self._reading.cancel()
            return
        if isinstance(atom, PDV) and self._stay:
            self._ledger.told(atom)
        await self._device.send(atom, end_of_message=end_of_message)

    async def send_all(self, pdvs: Sequence[PDV], *, end_of_message: bool = True) -> None:
        """See `Gathering.send_all`."""
        if self._stay:
            for pdv in pdvs:
                self._ledger.told(pdv)
        await self._device.send_all(pdvs, end_of_message=end_of_message)

    def _may_stay(self) -> bool:
        return self._stay and self._ledger.quiet and not self._device.over

    async def abort(
        self, source: int = AbortSource.SERVICE_USER, reason: int = AbortReason.NOT_SPECIFIED
    ) -> None:
        """See `Association.abort`."""
        await self._device.abort(source, reason)
        self.cause = self._device.cause

    async def aclose(self) -> None:
        """See `Association.aclose`. Once it is in other hands: nothing."""
        if self.association is not None:
            await self.association.aclose()

    def let_go(self) -> TCPAssociation:
        """Give the association into other hands."""
        assert self.association is not None, "an association that was given away"
        association, self.association = self.association, None
        return association


class Ledger:
    """Whether one association has anything open, from what passes in both directions."""

    def __init__(self) -> None:
        self._outward, self._inward = CommandReader(), CommandReader()
        self._owed = [0, 0]  # responses: by the device, to the device
        self._stateful = False

    @property
    def quiet(self) -> bool:
        """No message is under way, no request unanswered, and there was no N-service."""
        open_messages = self._outward.message_open or self._inward.message_open
        return not (open_messages or any(self._owed) or self._stateful)

    def told(self, pdv: PDV) -> None:
        """The device is told this."""
        self._enter(self._outward, pdv, 0)

    def said(self, pdv: PDV) -> None:
        """The device says this."""
        self._enter(self._inward, pdv, 1)

    def _enter(self, reader: CommandReader, pdv: PDV, by: int) -> None:
        try:
            command = reader.feed(pdv)
        except RemoteProtocolError:  # for the guard to refuse: what it was is unknown here
            self._stateful = True
            return
        if command is None:
            return
        if command.is_response:
            if not dimse.is_pending(command.status):
                self._owed[1 - by] -= 1
            return
        self._stateful = self._stateful or command.command_field not in _C_SERVICES
        if command.command_field != CommandField.C_CANCEL_RQ:
            self._owed[by] += 1
