"""What an association may bring into the queue: the answer to its A-ASSOCIATE-RQ.

Of objects it is what the far device is known to take (DESIGN §6), of the rest what the queue can do
itself.
"""

import secrets

import attrs

from relay.dicom import elements, negotiation, uids
from relay.dicom.negotiation import AsynchronousOperationsWindow
from relay.dicom.pdu import AAssociateAC, AAssociateRQ, ContextResult, PresentationContext
from relay.errors import SpoolFull
from relay.identity import fingerprint
from relay.router.departure import Departure
from relay.router.devices import Device
from relay.router.live import LiveAssociation, Side, Work, number
from relay.router.moved import MovedDeparture, Only
from relay.router.queue.destinations import Mode
from relay.router.queue.held import Held
from relay.router.queue.state import Queue
from relay.spool.items import KEPT, Priority

# Objects of one association that are on their way to the disk: as many operations as we let a
# sender have outstanding (PS3.7 §D.3.3.3). More share no sync that these do not.
WINDOW = 16

# Of the spool, what objects for one destination cannot take where there are others.
OTHERS_SHARE = 1 / 4


@attrs.frozen(slots=True, kw_only=True)
class Intake:
    """What one association is taken in for. `request` is as the network sees it."""

    queue: Queue
    device: Device | None
    request: AAssociateRQ
    held: Held
    priority: Priority
    moved: bool = False  # a holder sends what a C-MOVE has asked for to its Router

    @property
    def local(self) -> str:
        """The sender's local AE title."""
        return self.queue.node.ae_title if self.device is None else self.device.ae_title


def border_of(intake: Intake) -> Departure:
    """What happens to the names in commands, and what they answer."""
    node, called, peer = intake.queue.node, intake.request.called, intake.held.peer
    if intake.moved and intake.device is not None:
        return MovedDeparture(node, intake.device, Only(called), peer, called)
    return Departure(node.knowledge(), intake.device, peer, called)


async def check_share(queue: Queue, called: str) -> None:
    """Whether what waits for `called` leaves room for other destinations: one that is away for
    days must not keep everything else from being accepted. Raises SpoolFull, DatabaseError.

    An association that was accepted brings all that it has, as long as there is room at all.
    """
    titles = {row.called for row in queue.destinations if row.mode is Mode.QUEUED}
    if not titles - {called}:
        return
    share = queue.settings.space - int(OTHERS_SHARE * queue.settings.space)
    counts = await queue.spool.items.counts()
    waiting = sum(t.bytes for t in counts if t.called == called and t.state in KEPT)
    if waiting >= share:
        raise SpoolFull(
            f"{waiting} bytes wait for {called} in the spool, and the rest of its"
            f" {queue.settings.space} is for other destinations"
        )


def live_entry(intake: Intake) -> LiveAssociation:
    """What the register keeps of it: it ends when the device or the title's binding is gone."""
    node, request, title = intake.queue.node, intake.request, intake.local

    def still_permitted() -> bool:
        device = node.devices.get(title)
        known = intake.device is None or (
            device is not None and device.published == request.calling
        )
        return known and node.joined().directory.permits(request.called, intake.held.peer)

    return LiveAssociation(
        number=number(secrets.token_bytes(16)),  # it is no session's
        side=Side.CALLER,
        device=title,
        calling=request.calling,
        called=request.called,
        peer=fingerprint(intake.held.peer),
        still_permitted=still_permitted,
        work=Work.QUEUED,
    )


def answer_to(intake: Intake) -> AAssociateAC:
    """What is accepted: what the device is known to take, and Verification."""

    def accept(context: PresentationContext) -> str | ContextResult | None:
        if context.abstract_syntax == uids.VERIFICATION:
            return context.transfer_syntaxes[0]
        if context.abstract_syntax == uids.STORAGE_COMMITMENT_PUSH_MODEL:
            return _commitment_syntax(intake, context)
        if not intake.held.takes_class(context.abstract_syntax):
            return None
        return intake.held.choose(context) or ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED

    answer = negotiation.answer(intake.request, accept)
    asked = negotiation.find(intake.request.user_items, AsynchronousOperationsWindow)
    if not asked:
        return answer
    invoked = min(asked[0].invoked or WINDOW, WINDOW)
    window = AsynchronousOperationsWindow(invoked, 1).encode()
    return attrs.evolve(answer, user_items=(*answer.user_items, window))


def _commitment_syntax(intake: Intake, context: PresentationContext) -> str | None:
    """The transfer syntax for storage commitment; None: it is not supported.

    The device must be known to have it, and the sender must have an address to report to.
    """
    if intake.queue.commitments is None or intake.device is None or not intake.held.commitment:
        return None
    offered = (s for s in context.transfer_syntaxes if elements.encoding_of(s) is not None)
    return next(offered, None)
