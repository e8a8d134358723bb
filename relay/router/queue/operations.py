"""The C-STORE operations at a device: how many at once, and which response is whose.

The far end of a delivery sends the objects of one session to its device one after the other. With a
window of asynchronous operations (PS3.7 §D.3.3.3) the device may owe answers to several of them,
and give them in any order.
"""

from math import inf

import attrs
import trio

from relay.dicom.commandset import CommandSet
from relay.dicom.dimse import is_pending
from relay.dicom.negotiation import AsynchronousOperationsWindow, find, without
from relay.dicom.pdu import AAssociateAC, AAssociateRQ
from relay.errors import RemoteProtocolError
from relay.scu import STORE_DEADLINE
from relay.tunnel.notes import Item

# Operations outstanding at once. Real devices allow some ten; what is on its way to them beyond
# that gains nothing in one hospital's network, and each one is an object that they may see again
# when the association breaks.
MAXIMUM_WINDOW = 16

HIGHEST_MESSAGE_ID = 0xFFFF  # (0000,0110) is US (PS3.7 §E.1)


def with_window(request: AAssociateRQ) -> AAssociateRQ:
    """`request`, in which we offer to invoke MAXIMUM_WINDOW operations and to perform one."""
    others = without(request.user_items, AsynchronousOperationsWindow)
    ours = AsynchronousOperationsWindow(invoked=MAXIMUM_WINDOW, performed=1)
    return attrs.evolve(request, user_items=(*others, ours.encode()))


def window_of(answer: AAssociateAC) -> int:
    """How many operations the acceptor lets us invoke; without a word of its own one.

    Raises RemoteProtocolError if that cannot be read.
    """
    for granted in find(answer.user_items, AsynchronousOperationsWindow):
        return min(granted.invoked or MAXIMUM_WINDOW, MAXIMUM_WINDOW)  # 0: without a limit
    return 1


def with_window_of(answer: AAssociateAC, window: int) -> AAssociateAC:
    """`answer`, where it grants a window, with the one that we keep to.

    Who reads it can tell how many objects the device may have had when it aborts.
    """
    if not find(answer.user_items, AsynchronousOperationsWindow):
        return answer
    others = without(answer.user_items, AsynchronousOperationsWindow)
    kept = AsynchronousOperationsWindow(invoked=window, performed=1)
    return attrs.evolve(answer, user_items=(*others, kept.encode()))


@attrs.define(slots=True, eq=False)
class Operation:
    """One C-STORE: its item, whether its data set is out, and the response once there is one."""

    item: Item
    message_id: int
    sop_instance: str | None = attrs.field(default=None, repr=False)
    sent: bool = False
    response: CommandSet | None = None

    @property
    def over(self) -> bool:
        """Answered. A device may answer before the last fragment is known to be out."""
        return self.sent and self.response is not None


class Operations:
    """The operations that one device has outstanding, `window` at the most.

    `silence` is the scope in which the device is listened to: cancelled when it owes an answer and
    has given none for STORE_DEADLINE.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.silence = trio.CancelScope()
        self._outstanding: dict[int, Operation] = {}
        self._message_id = 0
        self._highest = 0  # of the Message IDs that the device has seen
        self._closed = False
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def idle(self) -> bool:
        """Nothing is outstanding, and no object is on its way."""
        return not self._outstanding

    @property
    def owed(self) -> bool:
        """The device has an object whole and has not answered it."""
        return any(operation.sent for operation in self._outstanding.values())

    async def begin(self, item: Item, sop_instance: str | None = None) -> Operation:
        """An operation for `item`, the object `sop_instance`, with a Message ID of its own, once
        the window has room."""
        while len(self._outstanding) >= self.window:
            await self._changed.park()
        self._message_id = self._message_id % HIGHEST_MESSAGE_ID + 1
        while self._message_id in self._outstanding:
            self._message_id = self._message_id % HIGHEST_MESSAGE_ID + 1
        self._highest = max(self._highest, self._message_id)
        operation = Operation(item, self._message_id, sop_instance)
        self._outstanding[operation.message_id] = operation
        return operation

    def sent(self, operation: Operation) -> None:
        """The end of the data set is out: from now on the device owes the answer."""
        if not self.owed:
            self.silence.deadline = trio.current_time() + STORE_DEADLINE
        operation.sent = True
        self._end_if_over(operation)

    def answered(self, response: CommandSet) -> Operation | None:
        """The operation that a C-STORE-RSP answers; None for one that is not final.

        Raises RemoteProtocolError if it could be several's, or nobody's.
        """
        if is_pending(response.status):
            return None
        operation = self._outstanding.get(response.message_id_responded_to)
        if operation is None and len(self._outstanding) == 1:
            operation = self._without_doubt(response)
        if operation is None or operation.response is not None:
            raise RemoteProtocolError("a C-STORE-RSP that answers nothing that is outstanding")
        operation.response = response
        self._end_if_over(operation)
        return operation

    def _without_doubt(self, response: CommandSet) -> Operation | None:
        """The only one that is outstanding, where the device has a Message ID of its own for it.

        Some devices do. One that answers an earlier object twice must not be taken at its word for
        the next: the Message ID is one that it was never given, or the SOP instance is named.
        """
        (operation,) = self._outstanding.values()
        named, meant = response.sop_instance_uid, operation.sop_instance
        if named is not None and meant is not None:
            return operation if named == meant else None
        return operation if response.message_id_responded_to > self._highest else None

    def withdraw(self, operation: Operation) -> None:
        """It did not pass: the device has seen nothing of it."""
        self._end(operation)

    async def settled(self) -> None:
        """Return once the device owes no answer, or will give none any more."""
        await trio.lowlevel.checkpoint()
        while self.owed and not self._closed:
            await self._changed.park()

    def close(self) -> None:
        """Nobody listens to the device any more."""
        self._closed = True
        self._changed.unpark_all()

    def _end_if_over(self, operation: Operation) -> None:
        if operation.over:
            self._end(operation)
            self.silence.deadline = trio.current_time() + STORE_DEADLINE if self.owed else inf

    def _end(self, operation: Operation) -> None:
        del self._outstanding[operation.message_id]
        self._changed.unpark_all()
