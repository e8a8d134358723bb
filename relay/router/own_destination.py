"""A device of this hospital as the destination of what another one moves by way of their Router.

An archive that knows only its Router stores there what the federation has it move, also for a
device next door. To `relay.router.moved` such a device is one more far end: an association with it
in the place of a tunnel, made when the first word of it is waited for.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import structlog
import trio

from relay.association import TCPAssociation
from relay.dicom.pdu import AAbort, AAssociateRQ, Atom
from relay.dicom.rejection import LOCAL_LIMIT_EXCEEDED, TEMPORARY_CONGESTION
from relay.errors import AbortReason, AbortSource, AssociationRejected, HandshakeError
from relay.router import contexts, reaching
from relay.router.devices import Device
from relay.router.live import LiveAssociation, Side, Work
from relay.router.node import Node
from relay.router.places import Claim

log = structlog.get_logger()

# For the connection to close: what was stored is answered, and nothing more is said.
LEAVING = 2.0


def own_claim(node: Node, device: Device) -> Claim:
    """What a call of this Router's own to `device`, one of ours, asks of its places."""
    return Claim(
        side=Side.CALLEE,
        device=device.ae_title,
        peer=node.identity.fingerprint,
        maximum=device.maximum_associations,
        shared=any(grant.ae_title == device.published for grant in node.grants),
    )


@attrs.frozen(slots=True)
class OwnCall:
    """A call of `holder` to `device` that passes through the Router of both."""

    node: Node
    holder: Device
    device: Device

    def entry(self) -> LiveAssociation:
        """What the register keeps of it: it ends when either device is another, or gone."""

        def still_permitted() -> bool:
            now = self.node.devices.get(self.device.ae_title)
            known = self.node.devices.get(self.holder.ae_title) is not None
            return known and now is not None and now.where == self.device.where

        return LiveAssociation(
            number=secrets.token_hex(6),
            side=Side.CALLER,
            device=self.holder.ae_title,
            calling=self.holder.ae_title,
            called=self.device.ae_title,
            peer=self.node.identity.fingerprint,
            still_permitted=still_permitted,
            work=Work.LOCAL,
        )

    @asynccontextmanager
    async def opened(self, request: AAssociateRQ) -> "AsyncIterator[OwnAssociation]":
        """The association, as if `request` was sent, for as long as the block lasts."""
        request = attrs.evolve(request, called=self.device.ae_title)
        if not self.holder.user_identity:
            request = contexts.without_user_identity(request)
        async with AsyncExitStack() as stack:
            yield OwnAssociation(self.node, self.device, request, stack)


class OwnAssociation:
    """The association with the device. What holds its place and connection goes to `stack`."""

    def __init__(
        self, node: Node, device: Device, request: AAssociateRQ, stack: AsyncExitStack
    ) -> None:
        self._node = node
        self._device = device
        self._request: AAssociateRQ | None = request
        self._stack = stack
        self._association: TCPAssociation | None = None
        self._why = ""

    @property
    def cause(self) -> str:
        """How it ended, in words for the log."""
        return self._association.cause if self._association is not None else self._why

    async def receive(self) -> Atom:
        """See `Association.receive`; the first is the answer, or why there is none."""
        if self._request is not None:
            request, self._request = self._request, None
            try:
                place = await self._node.places.take(
                    own_claim(self._node, self._device), self._device.place_wait, trio.sleep_forever
                )
                self._stack.enter_context(place)
                association = await reaching.connect(self._node, self._device)
            except AssociationRejected as error:
                return self._not_there(error, LOCAL_LIMIT_EXCEEDED)
            except HandshakeError as error:
                return self._not_there(error, TEMPORARY_CONGESTION)
            self._stack.push_async_callback(_close, association)
            self._association = association
            await association.send(request)
        if self._association is None:
            return AAbort(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED)
        return await self._association.receive()

    async def send(
        self, atom: Atom, *, compressible: bool = False, end_of_message: bool = True
    ) -> None:
        """See `Tunnel.send`: nothing is compressed within a hospital."""
        assert self._association is not None, "its answer was first"
        await self._association.send(atom, end_of_message=end_of_message)

    async def abort(
        self, source: int = AbortSource.SERVICE_USER, reason: int = AbortReason.NOT_SPECIFIED
    ) -> None:
        """See `Association.abort`."""
        self._request = None
        if self._association is not None:
            await self._association.abort(source, reason)

    async def aclose(self) -> None:
        """Nothing: the block of `OwnCall.opened` closes it."""

    def _not_there(self, error: Exception, answer: Atom) -> Atom:
        self._why = str(error)
        log.warning("move destination not reached", called=self._device.ae_title, why=self._why)
        return answer


async def _close(association: TCPAssociation) -> None:
    with trio.move_on_after(LEAVING, shield=True):
        await association.aclose()
