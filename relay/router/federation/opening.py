"""An association with one source of the federation, for as long as a block lasts.

    its line -> a device of ours:  a place of the device, a connection, A-ASSOCIATE
             -> a peer's device:   an association inside this process (relay.router.inner), whose
                                   other end is relayed as a call of the caller's own device

So grants, names, the register of what is live and the C-STORE that a C-MOVE implies are those of
any other call. Whatever does not come about is SourceFailed, with words for people.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf

import attrs
import structlog
import trio

from relay import scu
from relay.association import TCPAssociation
from relay.dicom import negotiation
from relay.dicom.negotiation import AcceptedContext, RoleSelection, accepted_contexts
from relay.dicom.pdu import AAssociateAC, AAssociateRQ
from relay.dicom.rejection import TRANSIENT
from relay.errors import (
    AbortSource,
    AssociationAborted,
    AssociationRejected,
    HandshakeError,
    LocalProtocolError,
    Outcome,
    PeerSilent,
    RelayError,
    RemoteProtocolError,
    SourceFailed,
    leaves,
)
from relay.router import inner, reaching, relaying
from relay.router.devices import Device
from relay.router.federation.federation import Federation
from relay.router.federation.registering import source_entry
from relay.router.federation.sources import Source
from relay.router.get_by_move import GetByMove, answering_get
from relay.router.inner import InnerAssociation
from relay.router.node import Node
from relay.router.outgoing import OutgoingCall, called_title, prepare
from relay.router.own_destination import own_claim
from relay.router.passthrough import Ending
from relay.router.places import Place
from relay.router.refusals import NOTHING_GRANTED, is_not_granted

log = structlog.get_logger()

# To a device of ours; to another hospital's; to one of ours that has no C-GET.
SourceAssociation = TCPAssociation | InnerAssociation | GetByMove

# What is proposed: an abstract syntax and its transfer syntaxes.
Proposed = tuple[str, Sequence[str]]

# For the A-RELEASE-RP, whatever is cancelled around it, and then for the far Router to take the end
# of the session: all that was asked for is here already, and somebody waits for it.
LEAVING = 2.0

# For a turn of what moves objects: those before it may take minutes each, and whoever waits, the
# person or the program, is better served late than not at all.
LINE_WAIT = 300.0

# What people are shown of a device: that something is wrong there, or on the way.
_FAULTS = frozenset({Outcome.UNREACHABLE, Outcome.SLOW, Outcome.REFUSED})

# From a rejection to the word of what relayed it: both are said in one breath.
CAUSE_WAIT = 1.0


@attrs.frozen(slots=True)
class Opened:
    """An association that was accepted; `accepted` are its contexts by ID."""

    association: SourceAssociation
    request: AAssociateRQ
    ac: AAssociateAC
    accepted: dict[int, AcceptedContext]

    def context(self, *abstract_syntaxes: str) -> AcceptedContext:
        """The accepted context of the first of `abstract_syntaxes` that has one.

        Raises SourceFailed (REFUSED) if none has.
        """
        for abstract_syntax in abstract_syntaxes:
            for context in self.accepted.values():
                if context.abstract_syntax == abstract_syntax:
                    return context
        raise SourceFailed(
            f"it does not take {', '.join(abstract_syntaxes)} of this calling AE title",
            Outcome.REFUSED,
        )


@asynccontextmanager
async def open_source(
    federation: Federation,
    caller: Device | None,
    source: Source,
    proposed: Sequence[Proposed],
    *,
    provider_roles: Sequence[str] = (),
    transfers: bool = False,
) -> AsyncIterator[Opened]:
    """Associate with `source` in the name of `caller`; None is the Router itself.

    `provider_roles` are the abstract syntaxes in whose SCP role we offer ourselves (PS3.7
    §D.3.3.4). It waits `site_wait` seconds in line, where it `transfers` objects LINE_WAIT, and
    `site_wait` for the answer. When the block ends the association is released if it is not over;
    after an error it is aborted.

    Raises SourceFailed; also for an AssociationAborted or RemoteProtocolError in the block that
    ended this association. What ended another one passes as it is.
    """
    node, wait = federation.node, federation.settings.site_wait
    request = negotiation.request(
        source.title,
        node.ae_title if caller is None else caller.ae_title,
        negotiation.propose(proposed),
        *(RoleSelection(uid, scu=False, scp=True) for uid in provider_roles),
    )
    lines, in_line = federation.lines, wait
    if transfers:
        lines, in_line = federation.transfer_lines, max(wait, LINE_WAIT)
    try:
        if not source.known:
            raise SourceFailed(
                "the Bridge has not said yet what other hospitals grant this one",
                Outcome.UNREACHABLE,
            )
        async with (
            lines.served(source.published, in_line),
            _association(node, caller, source, request, wait) as opened,
        ):
            federation.states.seen(source.published)
            yield opened
    except SourceFailed as error:
        if source.known and error.outcome in _FAULTS:
            federation.states.failed(source.published, str(error))
        node.counts.source_failures[source.published, error.outcome.value] += 1
        log.info(
            "federation's source failed",
            called=source.title,
            outcome=error.outcome.value,
            why=str(error),
        )
        raise


def _association(
    node: Node, caller: Device | None, source: Source, request: AAssociateRQ, wait: float
) -> AbstractAsyncContextManager[Opened]:
    if source.device is not None:
        return _of_ours(node, caller, source.device, request, wait)
    return _of_a_peer(node, caller, request, wait)


# --- a device of this hospital ------------------------------------------------------------------


@asynccontextmanager
async def _of_ours(
    node: Node, caller: Device | None, device: Device, request: AAssociateRQ, wait: float
) -> AsyncIterator[Opened]:
    with node.live.hold(source_entry(node, caller, device)):
        deadline = trio.current_time() + wait
        with await _place(node, device, wait):
            association = await _connected(node, device, deadline, wait)
            try:
                async with answering_get(node, device, association, request) as asked:
                    assert isinstance(asked, TCPAssociation | GetByMove)
                    yield await _negotiated(asked, request, deadline, wait)
                    await _release(asked)
            except (AssociationAborted, AssociationRejected, RemoteProtocolError) as error:
                if not association.over:
                    raise
                raise _failed(error) from error
            finally:
                with trio.move_on_after(LEAVING):
                    await association.aclose()
        return
    raise SourceFailed("the device, or its caller, was changed meanwhile", Outcome.UNREACHABLE)


async def _place(node: Node, device: Device, wait: float) -> Place:
    """A place of `device`, which has only so many for all who call it."""
    try:
        return await node.places.take(own_claim(node, device), wait, trio.sleep_forever)
    except AssociationRejected as error:
        raise SourceFailed(str(error), Outcome.SLOW) from None


async def _connected(node: Node, device: Device, deadline: float, wait: float) -> TCPAssociation:
    with trio.move_on_at(deadline):
        try:
            return await reaching.connect(node, device)
        except HandshakeError as error:
            raise SourceFailed(str(error), Outcome.UNREACHABLE) from None
    raise _slow(wait)


# --- a device of another hospital ---------------------------------------------------------------


@attrs.define(slots=True, eq=False)
class _Relayed:
    """How the other end of an association inside this process went."""

    ending: Ending | None = None
    why: str = ""
    told: trio.Event = attrs.field(factory=trio.Event)
    over: trio.Event = attrs.field(factory=trio.Event)

    def ended(self, ending: Ending, why: str) -> None:
        self.ending, self.why = ending, why
        self.told.set()


@asynccontextmanager
async def _of_a_peer(
    node: Node, caller: Device | None, request: AAssociateRQ, wait: float
) -> AsyncIterator[Opened]:
    deadline = trio.current_time() + wait
    try:
        call = prepare(node, caller, request, called_title(node, caller, request))
    except AssociationRejected as error:
        raise _failed(error) from None
    failure: Exception | None = None
    association, near = inner.pair()
    relayed = _Relayed()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_relay, node, near, call, request, wait, relayed)
        try:
            yield await _negotiated(association, request, deadline, wait)
            await _release(association)
        except (AssociationAborted, AssociationRejected, RemoteProtocolError) as error:
            failure = error
            if association.over:
                with trio.move_on_after(CAUSE_WAIT):
                    await relayed.told.wait()
                failure = _failed(error, relayed)
        except Exception as error:
            # Raised again outside, where the nursery does not wrap it.
            failure = error
        finally:
            await association.aclose()
        with trio.move_on_after(LEAVING):
            await relayed.over.wait()
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _relay(
    node: Node,
    near: InnerAssociation,
    call: OutgoingCall,
    request: AAssociateRQ,
    wait: float,
    relayed: _Relayed,
) -> None:
    """Serve the other end, as a call of the device's own is (relay.router.calling)."""
    try:
        if not isinstance(await near.receive(), AAssociateRQ):
            return  # whoever opened it was cancelled first
        await relaying.relay(
            node,
            near,
            call,
            request,
            placed=True,
            answer_wait=2 * wait,  # whoever opened it waits less, and knows then what was slow
            ended=relayed.ended,
        )
    except* RelayError as group:
        log.warning("relayed association failed", why="; ".join(map(str, leaves(group))))
    finally:
        await near.aclose()
        relayed.told.set()
        relayed.over.set()


# --- both ---------------------------------------------------------------------------------------


async def _negotiated(
    association: SourceAssociation,
    request: AAssociateRQ,
    deadline: float,
    wait: float,
) -> Opened:
    with trio.move_on_at(deadline):
        ac = await scu.negotiate(association, request, deadline=inf)
        try:
            return Opened(association, request, ac, accepted_contexts(request, ac))
        except RemoteProtocolError:
            await association.abort()
            raise
    raise _slow(wait)


async def _release(association: SourceAssociation) -> None:
    """Release what is not over. One that does not answer in time is aborted by its closing."""
    if association.over:
        return
    try:
        with trio.move_on_after(LEAVING, shield=True):
            await scu.release(association)
    except (AssociationAborted, LocalProtocolError, RemoteProtocolError) as error:
        log.debug("not released", why=str(error))


def _slow(wait: float) -> SourceFailed:
    return SourceFailed(f"no association with it within {wait:g} s", Outcome.SLOW)


def _failed(error: RelayError, relayed: _Relayed | None = None) -> SourceFailed:
    """What `error`, that has ended the association, is to the federation."""
    cause = relayed.ending.why if relayed is not None and relayed.ending is not None else ""
    words = (relayed is not None and relayed.why) or str(error)
    match error:
        case AssociationRejected() if is_not_granted(cause) or NOTHING_GRANTED in str(error):
            outcome = Outcome.NOT_GRANTED
        case AssociationRejected(result=result):
            outcome = Outcome.UNREACHABLE if result == TRANSIENT else Outcome.REFUSED
        case PeerSilent():
            outcome, words = Outcome.SLOW, str(error)
        case AssociationAborted(source=source) if source != AbortSource.SERVICE_USER:
            outcome = Outcome.UNREACHABLE
        case _:
            outcome = Outcome.REFUSED
    return SourceFailed(words, outcome)
