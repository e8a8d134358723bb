"""The federation's own C-MOVEs at devices of this hospital, in the register of all moves.

As another hospital's C-MOVE there (relay.router.arrival):

    move_via = router   the device is given the Router as the destination, and a Message ID that the
                        Router has chosen; what it stores there goes to whom the caller has named,
                        of this hospital or another, as of the caller's own C-MOVE
    a queue             the device was told 0000 for what the queue took: the final response waits
                        until that is delivered, and counts what became of it

A device that stores at a device of this hospital by itself needs nothing of this.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import attrs
import structlog
import trio

from relay.dicom.dimse import CommandSet, Status
from relay.dicom.elements import Encoding
from relay.errors import Outcome, SourceFailed
from relay.router import suboperations
from relay.router.arrival import DELIVERY_WAIT, PENDING_PAUSE
from relay.router.devices import Device, MoveVia
from relay.router.federation.conversing import Cancelling
from relay.router.federation.sources import Source
from relay.router.moves import HeldMove, MoveRegister
from relay.router.node import Node

log = structlog.get_logger()


@attrs.define(slots=True, eq=False)
class Outstanding:
    """A C-MOVE, as the device is to be asked for it: `destination` and `message_id`."""

    destination: str
    message_id: int
    over: bool = False
    _moves: MoveRegister | None = None
    _move: HeldMove | None = None

    async def settled(
        self,
        answer: CommandSet,
        data_set: bytes,
        encoding: Encoding,
        cancelling: Cancelling,
        show: Callable[[CommandSet], Awaitable[None]],
    ) -> tuple[CommandSet, bytes]:
        """The final response and its data set, put right once all that was stored is delivered.

        `show` is given what a pending one says meanwhile.
        """
        move, moves = self._move, self._moves
        self.over = True
        if move is None or moves is None:
            return answer, data_set
        settling = trio.CancelScope()
        with settling, cancelling.waking(settling):
            await moves.settle(move)
        move.stored = True  # another one of its holder need not wait
        kept = move.kept
        if answer.status == Status.CANCEL:
            kept.cancel()
        until = trio.current_time() + DELIVERY_WAIT
        while kept.waiting and not kept.cancelled and trio.current_time() < until:
            scope = trio.CancelScope(deadline=min(trio.current_time() + PENDING_PAUSE, until))
            with scope, cancelling.waking(scope):
                await kept.settle()
            if cancelling.asked:
                kept.cancel()
            elif kept.waiting:
                await show(suboperations.pending(answer, kept))
        if kept.taken:
            log.info(
                "move delivered",
                holder=move.holder,
                destination=move.destination,
                delivered=kept.delivered + kept.warned,
                failed=kept.failed,
                waiting=len(kept.waiting),
            )
        return suboperations.final(answer, data_set, kept, encoding)


@contextmanager
def outstanding(
    node: Node, caller: Device | None, source: Source, destination: str, message_id: int
) -> Iterator[Outstanding]:
    """`caller` moves from `source` to `destination`, by its name here, while the block lasts.

    Raises SourceFailed where the device has too many moves to tell them apart.
    """
    move = _move(node, caller, source, destination, message_id)
    if move is None:
        yield Outstanding(destination, message_id)
        return
    if not node.moves.hold(move):
        raise SourceFailed("it moves to too many destinations at once", Outcome.SLOW)
    seen = node.ae_title if move.via_router else destination
    asked = Outstanding(seen, move.seen_message_id, moves=node.moves, move=move)
    try:
        yield asked
    finally:
        if asked.over:
            node.moves.end(move)
        else:
            node.moves.abandon(move)


def _move(
    node: Node, caller: Device | None, source: Source, destination: str, message_id: int
) -> HeldMove | None:
    """What the register keeps; None: nothing, the device or another Router sees to it all."""
    device, own = source.device, node.devices.get(destination)
    title = node.names.published(destination)
    if device is None or title is None or node.network is None:
        return None
    via_router = device.move_via is MoveVia.ROUTER and destination != device.ae_title
    if own is not None and not via_router:
        return None
    seen = node.ae_title if caller is None else caller.ae_title
    return HeldMove(
        holder=device.ae_title,
        requestor=seen if caller is None or own is not None else caller.published,
        message_id=message_id,
        destination=title,
        seen_requestor=seen,
        seen_message_id=node.moves.message_id(device.ae_title),
        via_router=via_router,
    )
