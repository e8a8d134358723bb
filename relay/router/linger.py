"""Linger: an association with a device stays open for a while after its release, for the next call.

There are devices that take one association at a time, and modalities that open one for each image:
they spend more time on associations than on images. Where a device's `linger` is more than 0, its
Router answers the caller's A-RELEASE-RQ itself and keeps the association with the device. The next
call of the same hospital that would propose the same to the device, byte for byte, takes it over
and gets the same A-ASSOCIATE-AC. To the device both are one association: it sees the end of a study
that much later.

Nothing is kept that could mix two calls up (relay.router.lasting), and nothing for a proposal that
names a user. What else ends a lingering association: its time, a call of another kind that waits
for its place, the device's own word, and whatever ends associations that run. It is released then,
as its caller released it.
"""

from collections.abc import Hashable

import attrs
import structlog
import trio

from relay.association import ABORT_LIMIT, TCPAssociation
from relay.dicom import dimse, pdu
from relay.dicom.dimse import CommandField, CommandReader, CommandSet
from relay.dicom.negotiation import UserIdentityRQ
from relay.dicom.pdu import PDV, AAbort, AAssociateAC, AAssociateRQ, AReleaseRP, AReleaseRQ, Atom
from relay.errors import AbortSource, AssociationAborted, LocalProtocolError, RemoteProtocolError
from relay.router.devices import Device
from relay.router.lasting import Lasting
from relay.router.places import Claim, Place, Places

log = structlog.get_logger()

# From an A-RELEASE-RQ to its end. The association waits 60 s for the answer by itself
# (relay.patience.Timeouts.release); this ends a device that goes on talking instead.
PARTING = 90.0


def kind_of(device: Device, peer: str, proposed: AAssociateRQ) -> Hashable | None:
    """What two calls must have in common to share an association with `device`: all of it.

    `peer` is whose they are. None where nothing is to be shared: the device has no `linger`, or the
    proposal names a user (PS3.7 §D.3.3.7).
    """
    named = any(item.type == UserIdentityRQ.TYPE for item in proposed.user_items)
    if named or not device.linger:
        return None
    return device.where, peer, pdu.encode(proposed)


@attrs.define(slots=True, eq=False)
class Kept:
    """An association with a device, and the place it takes, between two calls.

    The task of the call before watches over it until somebody has taken it `over`, or has left it.
    """

    association: TCPAssociation
    answer: AAssociateAC
    kind: Hashable
    place: Place | None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    given: bool = False  # to a call that may take it over
    taken: bool = False
    spoke: bool = False  # the device has said something meanwhile
    _free: trio.Event = attrs.field(factory=trio.Event)  # nobody reads from it any more
    _decided: trio.Event = attrs.field(factory=trio.Event)

    def abandoned(self, place: Place) -> None:
        """Who was given it does not want it: see `places.Keepsake`."""
        self.place = place
        self._decided.set()

    def over(self, place: Place) -> Lasting:
        """Take it over; `place` is the one that it came with."""
        place.kept = None
        self.taken = True
        self._decided.set()
        return Lasting(self.association, stay=True, answer=self.answer)

    async def ready(self) -> bool:
        """Whether it can be used, once nobody else reads from it; if not, it is ended here."""
        await self._free.wait()
        if not (self.spoke or self.association.over):
            return True
        await release(self.association, spoke=self.spoke)
        await self.association.aclose()
        return False

    async def watch(self, seconds: float) -> None:
        """Until the time is over, the device speaks, or `scope` is cancelled."""
        with self.scope:
            self.scope.deadline = trio.current_time() + seconds
            await self.association.wait_indication()
            self.spoke = True

    async def decided(self) -> None:
        """Return once whoever was given it has taken or left it, which is done without a wait."""
        self._free.set()
        if self.given:
            with trio.CancelScope(shield=True):
                await self._decided.wait()


class Lingering:
    """The associations of all devices that linger now."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._kept: list[Kept] = []  # the oldest first
        self._stopped = False
        places.on_waiting = self._make_way

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, claim: Claim) -> Place | None:
        """The place of a lingering association of the claim's kind; `Place.kept` is that."""
        for kept in reversed(self._kept):
            if kept.kind == claim.proposal and not kept.association.over:
                assert kept.place is not None, "it lingers in its place"
                self._kept.remove(kept)
                kept.given = True
                place, kept.place = kept.place.hand_on(kept), None
                kept.scope.cancel()
                return place
        return None

    async def stay(self, place: Place, device: Lasting, seconds: float) -> None:
        """Keep `device`, which its caller has released, until another call has it or it is over.

        Then `place` is free. Cancelled it is released all the same, within two seconds.
        """
        claim = place.claim
        assert claim.proposal is not None, "it was meant to stay"
        assert device.answer is not None, "it was accepted, since it was released"
        kept = Kept(device.let_go(), device.answer, claim.proposal, place.hand_on())
        try:
            if self._goes_to_who_is_next(kept) or self._stopped:
                await trio.lowlevel.checkpoint()
            else:
                self._kept.append(kept)
                await kept.watch(seconds)
        finally:
            if kept in self._kept:
                self._kept.remove(kept)
            await kept.decided()
            if not kept.taken:
                await self._part(kept, claim)

    def _goes_to_who_is_next(self, kept: Kept) -> bool:
        """Whether somebody waits for this place: who would propose the same has it at once."""
        assert kept.place is not None, "it has just been given its place"
        following = self._places.after(kept.place)
        if following is not None and following.proposal == kept.kind:
            place, kept.place, kept.given = kept.place, None, True
            self._places.hand_to_next(place, kept)
        return following is not None

    async def _part(self, kept: Kept, claim: Claim) -> None:
        log.info("lingering association ends", device=claim.device, peer=claim.peer)
        try:
            await release(kept.association, spoke=kept.spoke)
        finally:
            try:
                await kept.association.aclose()
            finally:
                if kept.place is not None:
                    kept.place.free()

    def _make_way(self, claim: Claim) -> None:
        """A call waits: one that lingers in a place that it could have gives that up.

        If it lingers since the call was looked at, and is of its kind, it goes to the call itself.
        """
        able = [
            kept
            for kept in self._kept
            if kept.place is not None and self._places.frees(kept.place, claim)
        ]
        if able:
            kept = next((one for one in able if one.kind == claim.proposal), able[0])
            self._kept.remove(kept)
            self._goes_to_who_is_next(kept)
            kept.scope.cancel()

    def end_all(self) -> None:
        """The Router stops: what lingers is released, and nothing lingers any more."""
        self._stopped = True
        for kept in self._kept:
            kept.scope.cancel()


async def release(association: TCPAssociation, *, spoke: bool) -> None:
    """Release an association that nobody uses (PS3.8 §7.2). Whoever closes it ends what is left.

    `spoke`: the device has said something, which is heard first; a request of its own is answered
    with 0110H (processing failure), so that it tries elsewhere. Cancelled, two seconds are left.
    """
    parting = _Parting(association)
    try:
        with trio.move_on_after(PARTING):
            await parting.run(spoke)
    except trio.Cancelled:
        with trio.move_on_after(ABORT_LIMIT, shield=True):
            await parting.run(spoke)
        raise


class _Parting:
    """The end of an association that nobody uses; `run` goes on where it was cancelled."""

    def __init__(self, association: TCPAssociation) -> None:
        self._association = association
        self._reader = CommandReader()
        self._asked = False
        self._command: CommandSet | None = None

    async def run(self, spoke: bool) -> None:
        try:
            if spoke and not self._asked:
                await self._hear()
            while not self._association.over:
                if not self._asked:
                    await self._association.send(AReleaseRQ())
                    self._asked = True
                await self._take(await self._association.receive())
        except (AssociationAborted, LocalProtocolError) as error:
            log.info("lingering association was over", why=str(error))
        except RemoteProtocolError as error:
            log.info("lingering association aborted", why=str(error))
            await self._association.abort(AbortSource.SERVICE_PROVIDER, error.abort_reason)

    async def _hear(self) -> None:
        """What the device has to say: one message, or its own end of the association."""
        await self._take(await self._association.receive())
        while self._reader.message_open and not self._association.over:
            await self._take(await self._association.receive())

    async def _take(self, atom: Atom) -> None:
        match atom:
            case AReleaseRQ():
                await self._association.send(AReleaseRP())
            case PDV():
                await self._refuse(atom)
            case AAbort() | AReleaseRP() | _:
                pass  # over

    async def _refuse(self, pdv: PDV) -> None:
        self._command = self._reader.feed(pdv) or self._command
        command = self._command
        if command is None or self._reader.message_open or self._asked:
            return  # after an A-RELEASE-RQ we have nothing more to say (PS3.8 §7.2.2.1)
        self._command = None
        if not command.is_response and command.command_field != CommandField.C_CANCEL_RQ:
            response = dimse.response_to(command, dimse.Status.PROCESSING_FAILURE)
            await self._association.send(PDV(pdv.context_id, True, True, response.encode()))
