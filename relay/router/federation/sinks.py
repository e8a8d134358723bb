"""Where the objects of a C-GET go: what carries them to whoever asked.

A sink says what it can carry, and takes one object after the other, fragment by fragment as they
come. `CallerSink` is that of a device: each object is a C-STORE over the association on which the
C-GET came (PS3.4 §C.4.3). DICOMweb has one of its own.
"""

from collections.abc import Sequence
from typing import Protocol

import attrs
import trio

from relay.association import Association
from relay.dicom import dimse
from relay.dicom.dimse import CommandField, CommandSet, Priority, Status
from relay.dicom.negotiation import AcceptedContext
from relay.dicom.pdu import PDV, Buffer
from relay.errors import AbortReason, AbortSource, AssociationAborted
from relay.scu import STORE_DEADLINE


@attrs.frozen(slots=True, kw_only=True)
class Arriving:
    """An object of which an owner sends the data set next. `source`: its title in this hospital."""

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    source: str


class Taking(Protocol):
    """One object that is being taken."""

    async def data(self, fragment: Buffer, last: bool) -> None:
        """The next bytes of its data set. Holds its caller back."""

    async def end(self) -> int:
        """After the last: the status of the C-STORE (PS3.4 Table B.2-1), which the owner hears."""

    async def abandon(self) -> None:
        """The owner is gone in the middle of it: what has gone out of it must never be taken for
        the whole. Ends whatever carries it, since a message cannot be taken back; the retrieve ends
        with AssociationAborted."""


class Sink(Protocol):
    """What takes objects. What its methods raise ends the retrieve."""

    @property
    def contexts(self) -> Sequence[tuple[str, Sequence[str]]]:
        """SOP classes, each with transfer syntaxes, that it can take: each pair is proposed to
        owners as a presentation context of its own, and an owner chooses one of the syntaxes for
        all that it sends over it. A SOP class may come several times."""

    async def begin(self, instance: Arriving) -> Taking | int:
        """Take this object next, or the status with which it is refused and its data drained."""


class CallerSink:
    """Sends the objects to the device that asked, over its own association.

    `writing` is held while a message goes out, so that no other one comes in between (PS3.8
    Annex E). `contexts` are those of the association; objects go over the ones in whose SCP role
    the device offered itself. Whoever reads the association hands C-STORE-RSPs to `answered`.
    """

    def __init__(
        self,
        association: Association,
        writing: trio.Lock,
        contexts: Sequence[AcceptedContext],
        *,
        priority: Priority = Priority.MEDIUM,
    ) -> None:
        self.association = association
        self.writing = writing
        self.priority = priority
        self.message_id = 0  # of the C-STORE-RQ that went last
        self.response: CommandSet | None = None
        self.arrived = trio.Event()
        self._contexts = {
            (c.abstract_syntax, c.transfer_syntax): c.id for c in reversed(contexts) if c.scp
        }

    @property
    def contexts(self) -> Sequence[tuple[str, Sequence[str]]]:
        """See `Sink.contexts`: of an accepted context the one transfer syntax."""
        return [(sop_class, (syntax,)) for sop_class, syntax in self._contexts]

    def answered(self, response: CommandSet) -> bool:
        """A C-STORE-RSP has come; whether it is the one that is waited for."""
        if self.arrived.is_set() or response.message_id_responded_to != self.message_id:
            return False
        self.response = response
        self.arrived.set()
        return True

    async def begin(self, instance: Arriving) -> Taking | int:
        """See `Sink.begin`."""
        context_id = self._contexts.get((instance.sop_class, instance.transfer_syntax))
        if context_id is None:
            return Status.SOP_CLASS_NOT_SUPPORTED
        self.message_id = self.message_id % 0xFFFF + 1
        self.response, self.arrived = None, trio.Event()
        command = dimse.request(
            CommandField.C_STORE_RQ,
            self.message_id,
            instance.sop_class,
            instance.sop_instance,
            priority=self.priority,
        )
        await self.writing.acquire()
        taking = _CallerTaking(self, context_id)
        await taking.send(PDV(context_id, True, True, command.encode()))
        return taking


class _CallerTaking:
    """One C-STORE to the device; holds the lock until its last fragment, or the end of it all."""

    def __init__(self, sink: CallerSink, context_id: int) -> None:
        self._sink = sink
        self._context_id = context_id
        self._writes = True

    async def data(self, fragment: Buffer, last: bool) -> None:
        """See `Taking.data`."""
        await self.send(PDV(self._context_id, False, last, fragment))
        if last:
            self._let_go()

    async def send(self, pdv: PDV) -> None:
        """Send one fragment of the message."""
        last = pdv.is_last and not pdv.is_command
        try:
            await self._sink.association.send(pdv, end_of_message=last)
        except BaseException:
            self._let_go()
            raise

    async def end(self) -> int:
        """See `Taking.end`. Raises AssociationAborted if there is no response in time."""
        sink = self._sink
        with trio.move_on_after(STORE_DEADLINE):
            await sink.arrived.wait()
        if sink.response is not None:
            return sink.response.status
        await sink.association.abort()
        raise AssociationAborted(
            AbortSource.SERVICE_USER,
            AbortReason.NOT_SPECIFIED,
            f"no C-STORE-RSP within {STORE_DEADLINE:g} s",
        )

    async def abandon(self) -> None:
        """See `Taking.abandon`."""
        await self._sink.association.abort()
        self._let_go()

    def _let_go(self) -> None:
        if self._writes:
            self._writes = False
            self._sink.writing.release()
