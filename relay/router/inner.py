"""An association inside this process: both ends of it, without a connection in between.

One part of the Router calls another as a device would (relay.router.federation). Atoms go over as
they are; the states are those of PS3.8 Table 9-10, so that a release may cross another here too.
What one end has sent has arrived at the other once that one takes it, as over TCP.
"""

from collections import deque
from collections.abc import Sequence

import attrs
import trio

from relay.association import TERMINAL
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
)
from relay.dicom.rejection import in_words
from relay.dicom.statemachine import AR_8, TRANSITIONS, Event, State
from relay.dicom.upperlayer import Role
from relay.errors import AbortReason, AbortSource, AssociationAborted, LocalProtocolError

# What may be on its way to one end before a PDV has to wait: as much as a connection's buffers
# take. Answers to a query are small, and go in dozens; a fragment of an image goes alone.
MAXIMUM_COMING = 64
MAXIMUM_COMING_BYTES = 256 * 1024

_SAID: dict[type[Atom], Event] = {
    AAssociateAC: Event.EVT7,
    AAssociateRJ: Event.EVT8,
    PDV: Event.EVT9,
    AReleaseRQ: Event.EVT11,
    AReleaseRP: Event.EVT14,
}
_HEARD: dict[type[Atom], Event] = {
    AAssociateRQ: Event.EVT6,
    AAssociateAC: Event.EVT3,
    AAssociateRJ: Event.EVT4,
    PDV: Event.EVT10,
    AReleaseRQ: Event.EVT12,
    AReleaseRP: Event.EVT13,
    AAbort: Event.EVT16,
}
_PROVIDER_ABORT = AAbort(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED)


def pair() -> "tuple[InnerAssociation, InnerAssociation]":
    """The requestor's end and the acceptor's; nothing was sent yet."""
    requestor, acceptor = InnerAssociation(Role.REQUESTOR), InnerAssociation(Role.ACCEPTOR)
    requestor._peer, acceptor._peer = acceptor, requestor
    return requestor, acceptor


class InnerAssociation:
    """An `Association` and `Gathering` (relay.association) to the other end of its `pair`."""

    def __init__(self, role: Role) -> None:
        self.cause = ""
        self._peer = self
        self._acceptor = role is Role.ACCEPTOR
        self._state = State.STA2 if self._acceptor else State.STA1
        self._begun = self._acceptor
        self._request: AAssociateRQ | None = None  # that the acceptor has heard
        self._coming = deque[Atom]()
        self._coming_bytes = 0
        self._ended = False  # the terminal atom has been taken
        self._sending = trio.Lock()
        self._news = trio.lowlevel.ParkingLot()  # for who waits here in receive() or send()

    def __repr__(self) -> str:
        return f"<InnerAssociation {self._state.name}>"

    @property
    def over(self) -> bool:
        """Nothing more can be sent; there may still be something to receive."""
        return self._state is State.STA13 or (self._begun and self._state is State.STA1)

    # --- receiving --------------------------------------------------------------------------------

    async def wait_indication(self) -> Atom:
        """The atom that the next `receive()` gives, left in its place."""
        if self._ended:
            raise LocalProtocolError(f"receive() after the end of the association ({self.cause})")
        if not self._begun:
            raise LocalProtocolError("receive() before the A-ASSOCIATE-RQ was sent")
        await trio.lowlevel.checkpoint()
        while not self._coming and not self.over:
            await self._news.park()
        return _PROVIDER_ABORT if self.over else self._coming[0]

    async def receive(self) -> Atom:
        """See `Association.receive`."""
        await self.wait_indication()
        return self._take()

    async def receive_some(self) -> Sequence[Atom]:
        """See `Gathering.receive_some`."""
        await self.wait_indication()
        atoms = [self._take()]
        while self._coming and not self._ended:
            atoms.append(self._take())
        return atoms

    def _take(self) -> Atom:
        """The first of what is coming, and it has arrived."""
        if self.over:  # by this end's own word: what still comes is not heard (AA-6)
            self._ended = True
            return _PROVIDER_ABORT
        atom = self._coming.popleft()
        if isinstance(atom, PDV):
            self._coming_bytes -= len(atom.fragment)
            self._peer._news.unpark_all()
            return atom
        action = TRANSITIONS[_HEARD[type(atom)], self._state]
        outcome = action.outcome
        if action is AR_8 and self._acceptor and action.other is not None:
            outcome = action.other
        self._state = outcome.next_state
        self._ended = isinstance(atom, TERMINAL)
        match atom:
            case AAssociateRQ():
                self._request = atom
            case AAssociateRJ():
                self._note(f"rejected: {in_words(atom)}")
            case AReleaseRP():
                self._note("released")
            case AAbort(source, reason):
                self._note(f"aborted: source {source}, reason {reason}")
        self._wake()
        return atom

    # --- sending ----------------------------------------------------------------------------------

    async def send(self, atom: Atom, *, end_of_message: bool = True) -> None:
        """See `Association.send`."""
        match atom:
            case PDV():
                await self.send_all((atom,), end_of_message=end_of_message)
            case AAbort(source, reason):
                await self.abort(source, reason)
            case _:
                async with self._sending:  # behind the PDVs that are being sent
                    self._say(atom)

    async def send_all(self, pdvs: Sequence[PDV], *, end_of_message: bool = True) -> None:
        """See `Gathering.send_all`. Nothing is kept here: whoever awaits it is told at once."""
        async with self._sending:
            for pdv in pdvs:
                self._check(pdv)
                while self._peer._is_full and not self.over and not self._peer.over:
                    await self._news.park()
                self._say(pdv)

    def _say(self, atom: Atom) -> None:
        self._check(atom)
        match atom:
            case AAssociateRQ():
                # AE-1, AE-2: the connection that those wait for is there.
                self._begun, self._state = True, State.STA5
            case AAssociateAC() if self._request is not None:
                self._state = TRANSITIONS[Event.EVT7, self._state].outcome.next_state
                # PS3.8 §9.3.3: it repeats the titles of its request.
                atom = attrs.evolve(
                    atom, called=self._request.called, calling=self._request.calling
                )
            case PDV():
                self._peer._coming_bytes += len(atom.fragment)
            case _:
                self._state = TRANSITIONS[_SAID[type(atom)], self._state].outcome.next_state
        if self.over:
            self._note("released" if isinstance(atom, AReleaseRP) else "rejected here")
        self._peer._coming.append(atom)
        self._wake()

    def _check(self, atom: Atom) -> None:
        """Raise AssociationAborted, or LocalProtocolError where the state does not allow `atom`."""
        if self.over or (self._begun and self._peer.over and isinstance(atom, PDV)):
            raise AssociationAborted(
                AbortSource.SERVICE_PROVIDER,
                AbortReason.NOT_SPECIFIED,
                f"association ended: {self.cause or self._peer.cause}",
            )
        if isinstance(atom, AAssociateRQ):
            allowed = not self._begun
        else:
            allowed = (_SAID[type(atom)], self._state) in TRANSITIONS
        if not allowed:
            raise LocalProtocolError(f"{type(atom).__name__} in {self._state.value}")

    @property
    def _is_full(self) -> bool:
        return len(self._coming) >= MAXIMUM_COMING or self._coming_bytes >= MAXIMUM_COMING_BYTES

    def _wake(self) -> None:
        self._news.unpark_all()
        self._peer._news.unpark_all()

    # --- the end ----------------------------------------------------------------------------------

    async def abort(
        self, source: int = AbortSource.SERVICE_USER, reason: int = AbortReason.NOT_SPECIFIED
    ) -> None:
        """See `Association.abort`."""
        if self.over:
            return
        self._note(f"aborted here: source {source}, reason {reason}")
        self._begun, self._state = True, State.STA13
        self._peer._coming.append(AAbort(source, reason))
        self._wake()

    async def aclose(self) -> None:
        """See `Association.aclose`."""
        await self.abort()
        self._coming.clear()
        self._coming_bytes = 0

    def _note(self, cause: str) -> None:
        """Keep why the association ended: the first cause is the cause."""
        self.cause = self.cause or cause
