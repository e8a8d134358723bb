"""Stores objects at one destination, over an association that lasts as long as a request does.

    a device of ours             an association with it
    another hospital's device    one inside this process, whose other end is served as a call of the
                                 caller's own: what is queued for it is taken in, else it is relayed

Nobody knows what comes next in a request. What is of a new SOP class, or in a new transfer syntax,
needs an association anew, which is then for all that came so far.
"""

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import structlog
import trio

from relay import scu
from relay.dicom import negotiation
from relay.dicom.negotiation import MAXIMUM_CONTEXTS, AcceptedContext, accepted_contexts
from relay.dicom.pdu import AAssociateRJ, AAssociateRQ, Buffer
from relay.errors import (
    AbortSource,
    AssociationAborted,
    AssociationRejected,
    LocalProtocolError,
    Outcome,
    RelayError,
    RemoteProtocolError,
    SourceFailed,
    leaves,
)
from relay.router import inner
from relay.router.calling import call_out
from relay.router.dicomweb.asked import Asked
from relay.router.dicomweb.part10 import Meta
from relay.router.federation.opening import Proposed, SourceAssociation, open_source
from relay.router.federation.sources import Source
from relay.router.inner import InnerAssociation

log = structlog.get_logger()

# For an A-RELEASE-RP: what was stored is stored.
LEAVING = 2.0

# What is open to a destination: its association, and the contexts that it has accepted.
_Opened = tuple[SourceAssociation, list[AcceptedContext]]


class NotTakenError(RelayError):
    """The destination does not take the SOP class in this transfer syntax."""


class Storage:
    """The way to one destination. Made by `open_storage`.

    `away` is why nothing more can be stored, once that is so.
    """

    def __init__(self, one: Asked, title: str, nursery: trio.Nursery) -> None:
        self.away: SourceFailed | None = None
        self._one = one
        self._title = title
        self._seen: list[tuple[str, str]] = []  # pairs of SOP class and transfer syntax
        self._nursery = nursery
        self._leave = trio.Event()  # the association that there is
        self._left = trio.Event()
        self._left.set()
        self._association: SourceAssociation | None = None
        self._contexts: dict[tuple[str, str], AcceptedContext] = {}
        self._message_id = 0

    async def store(self, meta: Meta, data_set: AsyncIterable[Buffer]) -> int:
        """C-STORE of an object; the destination's status (PS3.4 Table B.2-1).

        Raises NotTakenError, and SourceFailed where the destination is away, or goes. Whatever
        `data_set` raises goes through, and nothing of the object is stored then.
        """
        pair = meta.sop_class, meta.transfer_syntax
        association = await self._ready(pair)
        context = self._contexts.get(pair)
        if context is None:
            raise NotTakenError(
                f"{self._title} does not take {pair[0]} in transfer syntax {pair[1]}"
            )
        self._message_id = self._message_id % 0xFFFF + 1
        try:
            return await scu.store(
                association,
                context,
                meta.sop_class,
                meta.sop_instance,
                data_set,
                message_id=self._message_id,
            )
        except (
            AssociationAborted,
            LocalProtocolError,
            RemoteProtocolError,
            trio.BusyResourceError,  # its end is being waited for in its own task
        ) as error:
            if not association.over:  # in the middle of a message it is not for a release
                await association.abort()
            await self.aclose()
            raise SourceFailed(str(error), Outcome.UNREACHABLE) from error
        except BaseException:
            # In the middle of a message: it must not be taken for the whole.
            await association.abort()
            raise

    async def aclose(self) -> None:
        """End the association, if there is one."""
        self._association = None
        self._leave.set()
        await self._left.wait()

    async def _keep(
        self,
        proposed: Sequence[Proposed],
        leave: trio.Event,
        left: trio.Event,
        task_status: trio.TaskStatus[_Opened],
    ) -> None:
        """Keep an association until it is to end, in a task of its own: what takes it away, such as
        that the device is changed, must not cancel the request. Raises SourceFailed before it is
        there."""
        begun = False
        try:
            async with _association(self._one, self._title, proposed) as opened:
                task_status.started(opened)
                begun = True
                await leave.wait()
        except SourceFailed as error:
            if not begun:
                raise
            # Whoever waited for something has heard that it is over.
            log.info("DICOMweb store's association ended", why=str(error))
        finally:
            left.set()

    async def _ready(self, pair: tuple[str, str]) -> SourceAssociation:
        if self.away is not None:
            raise self.away
        known = pair in self._seen
        if self._association is not None and known and not self._association.over:
            return self._association
        await self.aclose()
        if not known:
            self._seen = [*self._seen[1 - MAXIMUM_CONTEXTS :], pair]
        proposed = [(sop_class, (syntax,)) for sop_class, syntax in self._seen]
        leave, left = trio.Event(), trio.Event()
        try:
            association, accepted = await self._nursery.start(self._keep, proposed, leave, left)
        except SourceFailed as error:
            self.away = error
            raise
        self._association, self._leave, self._left = association, leave, left
        self._contexts = {(c.abstract_syntax, c.transfer_syntax): c for c in accepted}
        ready: SourceAssociation = association
        return ready


@asynccontextmanager
async def open_storage(one: Asked, title: str) -> AsyncIterator[Storage]:
    """The way to the destination `title`, of this hospital or, by its name here, of another."""
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        storage = Storage(one, title, nursery)
        try:
            yield storage
        except Exception as error:
            failure = error  # raised again outside, where the nursery does not wrap it
        await storage.aclose()
    if failure is not None:
        raise failure


def _association(
    one: Asked, title: str, proposed: Sequence[Proposed]
) -> AbstractAsyncContextManager[_Opened]:
    device = one.federation.node.devices.get(title)
    if device is None:
        return _to_another_hospital(one, title, proposed)
    return _to_ours(one, Source(title, device.published, "", device, False), proposed)


@asynccontextmanager
async def _to_ours(
    one: Asked, source: Source, proposed: Sequence[Proposed]
) -> AsyncIterator[_Opened]:
    async with open_source(one.federation, one.caller, source, proposed, transfers=True) as opened:
        yield opened.association, list(opened.accepted.values())


@asynccontextmanager
async def _to_another_hospital(
    one: Asked, title: str, proposed: Sequence[Proposed]
) -> AsyncIterator[_Opened]:
    calling = one.federation.node.ae_title if one.caller is None else one.caller.ae_title
    request = negotiation.request(title, calling, negotiation.propose(proposed))
    association, near = inner.pair()
    causes: list[str] = []
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve, one, near, request, causes)
        try:
            ac = await scu.negotiate(association, request)
            yield association, list(accepted_contexts(request, ac).values())
            await _release(association)
        except (AssociationAborted, AssociationRejected, RemoteProtocolError) as error:
            outcome = Outcome.UNREACHABLE
            if isinstance(error, AssociationRejected):
                outcome = Outcome.REFUSED
            failure = SourceFailed("; ".join(causes) or str(error), outcome)
        except Exception as error:
            # Raised again outside, where the nursery does not wrap it.
            failure = error
        finally:
            await association.aclose()
            nursery.cancel_scope.deadline = trio.current_time() + LEAVING
    if failure is not None:
        raise failure


async def _serve(
    one: Asked, near: InnerAssociation, request: AAssociateRQ, causes: list[str]
) -> None:
    """Serve the other end as a call of the caller's own (relay.router.calling)."""
    node = one.federation.node
    try:
        await near.receive()
        await call_out(node, near, one.caller, request, one.service.queue)
    except* AssociationRejected as group:
        error = next(leaves(group))
        causes.append(str(error))
        node.refusals.note(request.calling, request.called, str(error))
        with suppress(AssociationAborted, LocalProtocolError):  # it has left meanwhile
            await near.send(AAssociateRJ(error.result, error.source, error.reason))
    except* RelayError as group:
        words = "; ".join(map(str, leaves(group)))
        causes.append(words)
        log.warning("association aborted", calling=request.calling, why=words)
        await near.abort(AbortSource.SERVICE_PROVIDER)
    finally:
        await near.aclose()


async def _release(association: InnerAssociation) -> None:
    if association.over:
        return
    with (
        suppress(AssociationAborted, LocalProtocolError, RemoteProtocolError),
        trio.move_on_after(LEAVING, shield=True),
    ):
        await scu.release(association)
