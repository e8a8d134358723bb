"""N-EVENT-REPORTs to a device over the association that it has opened (PS3.4 §J.3.3.1.2).

It asked for storage commitment there and has not gone: it may be told there too. What is sent over
the association in two parts, command and data set, holds `lock` meanwhile.
"""

import attrs
import trio

from relay.association import Association
from relay.dicom.dimse import CommandField, CommandSet, Tag, request
from relay.dicom.pdu import PDV
from relay.errors import AssociationAborted
from relay.scu import REPORT_DEADLINE

# Reports that wait for their answers: of one association, whose device asks for a few.
MAXIMUM_WAITING = 16


@attrs.define(slots=True, eq=False)
class _Waiting:
    answered: trio.Event = attrs.field(factory=trio.Event)
    status: int | None = None


class Events:
    """The reports of one association. Whoever reads it tells what is `answered`."""

    def __init__(self, near: Association) -> None:
        self.lock = trio.Lock()
        self._near = near
        self._waiting: dict[int, _Waiting] = {}  # by Message ID
        self._last_id = 0
        self._closed = False

    async def report(self, context_id: int, event: CommandSet, data_set: bytes) -> int:
        """Send what `event`, another N-EVENT-REPORT-RQ, reports; the status of its response.

        Raises AssociationAborted if there is none, since the association is over or slow.
        """
        if self._closed or len(self._waiting) >= MAXIMUM_WAITING:
            raise AssociationAborted(0, 0, "the association is over")
        self._last_id = self._last_id % 0x7FFF + 1
        command = event.evolve({Tag.MESSAGE_ID: self._last_id})
        waiting = self._waiting[command.message_id] = _Waiting()
        try:
            with trio.move_on_after(REPORT_DEADLINE):
                async with self.lock:
                    await self._near.send(PDV(context_id, True, True, command.encode()))
                    await self._near.send(PDV(context_id, False, True, data_set))
                await waiting.answered.wait()
        finally:
            del self._waiting[command.message_id]
        if waiting.status is None:
            raise AssociationAborted(0, 0, "no response to N-EVENT-REPORT")
        return waiting.status

    async def answer(self, response: PDV) -> None:
        """Send a response, but not between the two parts of a report.

        Raises AssociationAborted.
        """
        if self.lock.locked():  # one that is free costs a turn of the event loop
            async with self.lock:
                await self._near.send(response)
        else:
            await self._near.send(response)

    def answered(self, response: CommandSet) -> None:
        """A response has come. What was not asked is passed over."""
        if response.command_field != CommandField.N_EVENT_REPORT_RSP:
            return
        waiting = self._waiting.get(response.message_id_responded_to)
        if waiting is not None and not waiting.answered.is_set():
            waiting.status = response.status
            waiting.answered.set()

    def close(self) -> None:
        """The association is over."""
        self._closed = True
        for waiting in self._waiting.values():
            waiting.answered.set()


def event_report(sop_class: str, sop_instance: str, event_type: int) -> CommandSet:
    """The command set of an N-EVENT-REPORT-RQ with a data set."""
    return request(
        CommandField.N_EVENT_REPORT_RQ,
        1,
        sop_class,
        sop_instance,
        has_data_set=True,
        extra={Tag.EVENT_TYPE_ID: event_type},
    )
