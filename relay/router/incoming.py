"""A call that comes in: whether its opening holds, which device it is for, and what it may do.

Everything is checked before anything is connected: what fails raises HandshakeError with the
refusal that the caller's Router is told.
"""

import attrs

from relay.dicom import pdu, uids
from relay.dicom.pdu import AAssociateRQ
from relay.errors import HandshakeError, Refusal, RemoteProtocolError
from relay.identity import fingerprint
from relay.router import contexts, names, replay
from relay.router.arrival import Arrival
from relay.router.devices import Device
from relay.router.grants import Permission
from relay.router.live import LiveAssociation, Side, Work, number
from relay.router.node import Network, Node, unix_time
from relay.router.services import Service
from relay.signalling import messages
from relay.tunnel.handshake import Purpose, ReceivedOpening

# Who may use a device in one of these ways may know what it is like.
_DESCRIBED_TO = frozenset({Service.QUERY, Service.RETRIEVE, Service.STORE})


@attrs.frozen(slots=True)
class IncomingCall:
    """An opening that holds, and what it asks for.

    `seen` is the calling AE title that the device is shown. `implied` are the services that it may
    use only because a device of ours has asked for something: C-STORE under a C-MOVE, the report of
    a storage commitment.
    """

    received: ReceivedOpening
    device: Device
    request: AAssociateRQ
    seen: str
    permission: Permission
    implied: frozenset[str] = frozenset()

    @property
    def number(self) -> str:
        """The association's, for the log and for people."""
        return number(self.received.session)

    @property
    def asks_description(self) -> bool:
        """Whether this knowledge session asks for what is at hand only (PROTOCOL.md §10.4)."""
        return _asks_description(self.received, self.request)

    def proposal(self) -> AAssociateRQ:
        """What the device is asked: the caller's request, less what is not granted."""
        request = names.to_device(self.request, self.device, self.seen)
        if not self.permission.user_identity:
            request = contexts.without_user_identity(request)
        return contexts.granted(request, self.permission.services, self.implied)


async def check(
    node: Node, network: Network, message: messages.Open, received: ReceivedOpening
) -> IncomingCall:
    """What is called for, if the caller may. Raises HandshakeError with the refusal."""
    if (received.session, received.called) != (message.session, message.called):
        raise HandshakeError("opening is for another session or title than the Bridge says")
    if not network.peers.trusted(received.caller):
        raise HandshakeError("the caller's contact was never verified", Refusal.UNTRUSTED_PEER)
    _admitted(node, network, received)
    # Not before: whoever may do nothing here must not be able to fill our disk.
    if not await replay.remember(node.database, received.opening_hash, unix_time()):
        raise HandshakeError("opening was seen before", Refusal.REPLAY)
    return _admitted(node, network, received)  # as things are by now


def _admitted(node: Node, network: Network, received: ReceivedOpening) -> IncomingCall:
    """What the sealed request asks for, and may. Raises HandshakeError with the refusal."""
    device = node.devices.published_as(received.called)
    if device is None:
        raise HandshakeError("called AE title is not published here", Refusal.UNKNOWN_DEVICE)
    try:
        request = pdu.decode(received.request)
    except RemoteProtocolError as error:
        raise HandshakeError(f"sealed request: {error}") from None
    if not isinstance(request, AAssociateRQ) or request.called != received.called:
        raise HandshakeError("sealed request is no A-ASSOCIATE-RQ for the called AE title")
    try:
        contexts.provider_roles(request)
    except RemoteProtocolError as error:
        raise HandshakeError(f"sealed request: {error}") from None
    permission = node.permission(received.caller, device, request.calling)
    implied = _implied(node, received.caller, device)
    if not permission.services and not implied:
        raise HandshakeError("nothing is granted to the caller", Refusal.NOT_GRANTED)
    if _asks_description(received, request):
        if permission.services.isdisjoint(_DESCRIBED_TO):
            raise HandshakeError("the caller may not ask for it", Refusal.NOT_GRANTED)
    elif received.purpose is not Purpose.ASSOCIATION and Service.STORE not in permission.services:
        # Nobody waits here for what is queued.
        raise HandshakeError("the caller may not store", Refusal.NOT_GRANTED)
    seen = _seen(node, network, received.caller, device, request.calling)
    return IncomingCall(received, device, request, seen, permission, implied)


def _asks_description(received: ReceivedOpening, request: AAssociateRQ) -> bool:
    return received.purpose is Purpose.KNOWLEDGE and {
        context.abstract_syntax for context in request.contexts
    } == {uids.STUDY_ROOT_FIND}


def _implied(node: Node, caller: bytes, device: Device) -> frozenset[str]:
    """What `device` itself has asked the caller's hospital to send it (DESIGN §3)."""
    implied = set()
    if node.moves.expects(caller, device.ae_title):
        implied.add(Service.STORE)
    if node.commitments.awaited(caller, device.ae_title):
        implied.add(Service.COMMIT)
    return frozenset[str](implied)


def _seen(node: Node, network: Network, caller: bytes, device: Device, calling: str) -> str:
    """The calling AE title that `device` is shown.

    Raises HandshakeError for one that is not the caller's to use, or that means another device
    here: what the device answers to by that name would go to the wrong one.
    """
    owner = network.directory.owner(calling)
    if owner not in (None, caller) or node.names.own(calling) is not None:
        raise HandshakeError(
            f"calling AE title {calling!r} is another hospital's", Refusal.AMBIGUOUS_CALLING
        )
    seen = node.names.shown_to(device, calling)
    if seen is None:
        why = names.why_ambiguous(calling)
        node.refusals.note(calling, device.ae_title, why)
        raise HandshakeError(why, Refusal.AMBIGUOUS_CALLING)
    node.refusals.forget(calling, device.ae_title)  # it had no other cause here
    return seen


def live_entry(node: Node, network: Network, call: IncomingCall) -> LiveAssociation:
    """What the register keeps of `call`: it ends when the device, peer or grant is gone."""
    caller, title = call.received.caller, call.device.ae_title

    def still_permitted() -> bool:
        device = node.devices.get(title)
        return (
            device is not None
            and network.peers.trusted(caller)
            and call.permission.within(node.permission(caller, device, call.request.calling))
        )

    return LiveAssociation(
        number=call.number,
        side=Side.CALLEE,
        device=title,
        calling=call.request.calling,
        called=call.request.called,
        peer=fingerprint(caller),
        still_permitted=still_permitted,
        work=Work.of(call.received.purpose),
    )


def border_of(node: Node, call: IncomingCall) -> Arrival:
    """What happens to the names and moves of `call` as they cross into this hospital."""
    caller, calling = call.received.caller, call.request.calling

    def may_store(device: Device) -> bool:
        return Service.STORE in node.permission(caller, device, calling).services

    return Arrival(
        node.knowledge(),
        call.device,
        caller,
        calling,
        seen=call.seen,
        may_store=may_store,
    )
