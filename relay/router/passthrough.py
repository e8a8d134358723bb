"""Passthrough: two associations joined into one, each hop keeping its own state machine.

`requestor` has sent us an A-ASSOCIATE-RQ and waits for the answer, `acceptor` has been sent it: one
of both is a device, the other a tunnel. Whatever either says goes to the other as it was, but for
what the guard refuses. Both directions run from the start, since a device may abort while the far
one has not answered.

A release crosses as A-RELEASE-RQ and A-RELEASE-RP. When both devices ask for it at the same time,
an A-RELEASE-RQ can no longer be sent to who has sent one (Sta8 in PS3.8 Table 9-10): such a hop is
answered here. Where the two crossed on one hop, that hop goes through the collision of PS3.8 §9.2.3
(Sta9 to Sta12) by itself.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from math import inf
from typing import Protocol

import attrs
import trio

from relay.association import Association
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
)
from relay.dicom.rejection import TEMPORARY_CONGESTION
from relay.errors import (
    AbortReason,
    AbortSource,
    AssociationAborted,
    DatabaseError,
    LocalProtocolError,
    RemoteProtocolError,
)
from relay.router.direction import Verdict

# From an A-RELEASE-RQ to its end on both hops. Longer than the 60 s that each hop's association
# waits by itself (relay.patience.Timeouts.release), so that this only ends what they do not see.
RELEASE_WAIT = 90.0

# Refused commands whose answers wait for a message in the other direction to end. A device that
# sends more without reading does not wait for answers at all.
MAXIMUM_REPLIES = 64


class DIMSEGuard(Protocol):
    """What decides on messages (relay.router.guard.Guard)."""

    def negotiated(self, answer: AAssociateAC) -> None: ...

    def outward(self, pdv: PDV) -> Verdict: ...

    def inward(self, pdv: PDV) -> Verdict: ...


class Tunnel(Association, Protocol):
    """What a tunnel can be told beside the atom (relay.tunnel.session)."""

    async def send(
        self, atom: Atom, *, compressible: bool = False, end_of_message: bool = True
    ) -> None:
        """`compressible`: of an uncompressed data set. `end_of_message`: its last fragment."""


class How(Enum):
    """How a joined association ended."""

    REJECTED = "rejected"
    RELEASED = "released"
    ABORTED = "aborted"


@attrs.frozen(slots=True)
class Ending:
    """How it ended, by whom ("requestor", "acceptor" or "router"), and what had passed.

    `numbers` are those of the A-ASSOCIATE-RJ or A-ABORT. Bytes are those of all PDVs.
    """

    how: How
    by: str
    why: str = ""
    numbers: tuple[int, ...] = ()
    bytes_outward: int = 0
    bytes_inward: int = 0


async def join(
    requestor: Association,
    acceptor: Association,
    guard: DIMSEGuard,
    *,
    tunnel: Tunnel,
    answer_wait: float,
    answered: Callable[[AAssociateAC], AAssociateAC] = lambda answer: answer,
) -> Ending:
    """Join both until the association is over on both; closing them is the caller's.

    `tunnel` is the one of both that is over with the first A-RELEASE-RP in either direction.
    The acceptor's A-ASSOCIATE answer must come within `answer_wait` seconds; `answered` makes of it
    what the requestor gets. Cancelled, or after an error of its own, both are aborted; errors
    arrive in an exception group.
    """
    passage = _Passage(
        _Side("requestor", requestor, tunnel if tunnel is requestor else None),
        _Side("acceptor", acceptor, tunnel if tunnel is acceptor else None),
        guard,
        answered,
    )
    return await passage.run(answer_wait)


class _Side:
    """One of the two associations, with what is on its way to it."""

    def __init__(self, name: str, association: Association, tunnel: Tunnel | None) -> None:
        self.name = name
        self.association = association
        self.tunnel = tunnel  # the same, where it is one
        self.wants_release = False  # it has sent an A-RELEASE-RQ
        self.asked_release = False  # it has been sent one
        self.over = False
        self.has_waited = False  # for what it said last to go on in its time
        self.bytes_sent = 0
        self._lock = trio.Lock()
        self._message_open = False
        self._replies: deque[PDV] = deque()

    async def send(self, atom: Atom) -> None:
        async with self._lock:
            await self.association.send(atom)
            if isinstance(atom, AAssociateAC):  # what it allows may have been asked, and refused
                await self._send_replies()

    async def pass_on(self, pdv: PDV, *, compressible: bool, ends: bool) -> None:
        """Send what the guard lets pass; between two messages, also the replies that wait."""
        async with self._lock:
            self._message_open = True
            await self._send_pdv(pdv, compressible, ends)
            self._message_open = not ends
            await self._send_replies()

    async def reply(self, pdv: PDV) -> None:
        """Send an answer of the guard's between two messages: now, or when this one has ended.

        Never waits for who is sending now: that may be held up by the very device that waits for us
        to read. Whoever holds the lock sends the replies too.
        """
        if len(self._replies) >= MAXIMUM_REPLIES:
            raise RemoteProtocolError(f"more than {MAXIMUM_REPLIES} refused requests in a row")
        self._replies.append(pdv)
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            return
        try:
            await self._send_replies()
        finally:
            self._lock.release()

    async def _send_replies(self) -> None:
        # After an A-RELEASE-RQ we have nothing more to say there (PS3.8 §7.2.2.1).
        while self._replies and not self._message_open and not self.asked_release:
            await self._send_pdv(self._replies.popleft(), False, True)

    async def _send_pdv(self, pdv: PDV, compressible: bool, end_of_message: bool) -> None:
        self.bytes_sent += len(pdv.fragment)
        if self.tunnel is None:
            await self.association.send(pdv, end_of_message=end_of_message)
        else:
            await self.tunnel.send(pdv, compressible=compressible, end_of_message=end_of_message)


async def _pass_on(sink: _Side, pdv: PDV, ends: bool) -> None:
    await sink.pass_on(pdv, compressible=False, ends=ends)


class _Passage:
    """The two pumps and what they share."""

    def __init__(
        self,
        requestor: _Side,
        acceptor: _Side,
        guard: DIMSEGuard,
        answered: Callable[[AAssociateAC], AAssociateAC],
    ) -> None:
        self._requestor = requestor
        self._acceptor = acceptor
        self._sides: Sequence[_Side] = (requestor, acceptor)
        self._guard = guard
        self._answered = answered
        self._established = False
        self._ending: Ending | None = None
        self._scope = trio.CancelScope()

    async def run(self, answer_wait: float) -> Ending:
        self._scope.deadline = trio.current_time() + answer_wait
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(
                        self._pump, self._requestor, self._acceptor, self._guard.outward
                    )
                    nursery.start_soon(
                        self._pump, self._acceptor, self._requestor, self._guard.inward
                    )
            if self._ending is None:
                await self._give_up()
        finally:
            if self._ending is None:
                await self._abort_both()
        assert self._ending is not None, "both pumps ended, and neither said why"
        return attrs.evolve(
            self._ending,
            bytes_outward=self._acceptor.bytes_sent,
            bytes_inward=self._requestor.bytes_sent,
        )

    async def _pump(self, source: _Side, sink: _Side, judge: Callable[[PDV], Verdict]) -> None:
        """Carry what `source` says to `sink` until either is over."""
        try:
            while not source.over:
                atom = await source.association.receive()
                if not source.over:
                    await self._carry(atom, source, sink, judge)
                if self._ending is not None:
                    break
        except AssociationAborted:
            # The sink is gone. Its own words on it may still be unread: the other pump has them.
            pass
        except RemoteProtocolError as error:
            # What it sent cannot be: it is the one to be told what was wrong (PS3.8 §9.3.8).
            self._finish(How.ABORTED, "router", f"{source.name}: {error}")
            await source.association.abort(AbortSource.SERVICE_PROVIDER, error.abort_reason)
            await sink.association.abort(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED)
        except DatabaseError as error:
            # What was to be on the disk first is not: the message has not passed, and both hear it.
            self._finish(How.ABORTED, "router", str(error))
            await self._abort_both()
        if self._ending is not None:
            self._scope.cancel()

    async def _carry(
        self, atom: Atom, source: _Side, sink: _Side, judge: Callable[[PDV], Verdict]
    ) -> None:
        match atom:
            case PDV() if self._established and not source.wants_release:
                source.has_waited = False
                verdict = judge(atom)
                if verdict.before is not None:
                    await verdict.before()
                if verdict.speech is not None:
                    await verdict.speech(partial(_pass_on, sink))
                    source.has_waited = True
                for pdv in verdict.forward:
                    ends = verdict.ends and pdv is verdict.forward[-1]
                    await sink.pass_on(pdv, compressible=verdict.compressible, ends=ends)
                if verdict.reply is not None:
                    await source.reply(verdict.reply)
            case AAssociateAC() if source is self._acceptor and not self._established:
                self._established = True
                self._scope.deadline = inf
                self._guard.negotiated(atom)
                await sink.send(self._answered(atom))
            case AAssociateRJ() if source is self._acceptor and not self._established:
                self._finish(How.REJECTED, source.name, source.association.cause, atom)
                await sink.send(atom)
            case AReleaseRQ() if self._established and not source.wants_release:
                await self._release_asked(source, sink)
            case AReleaseRP() if source.asked_release:
                await self._release_answered(source, sink)
            case AAbort() if source.has_waited and not source.wants_release:
                # It has said its last before the other heard that, who may still release.
                source.over = True
                self._scope.deadline = trio.current_time() + RELEASE_WAIT
            case AAbort():
                self._finish(How.ABORTED, source.name, source.association.cause, atom)
                await sink.association.abort(atom.source, atom.reason)
            case _:
                raise RemoteProtocolError(
                    f"{type(atom).__name__} out of turn", AbortReason.UNEXPECTED_PDU
                )

    async def _release_asked(self, source: _Side, sink: _Side) -> None:
        source.wants_release = True
        self._scope.deadline = trio.current_time() + RELEASE_WAIT
        if sink.over:
            await self._grant_release(source, over=True)
            self._finish_if_over()
            return
        if sink.wants_release:
            for side in (sink, source):
                await self._answer_release(side)
            self._finish_if_over()
            return
        try:
            await sink.send(AReleaseRQ())
        except LocalProtocolError:
            # Its own A-RELEASE-RQ has arrived and waits to be read: a collision in a moment.
            return
        sink.asked_release = True

    async def _answer_release(self, side: _Side) -> None:
        """Both want the release: answer `side`, as far as it is our turn on that hop."""
        if side.asked_release and side is self._requestor:
            return  # the two crossed, and who requested the association answers first (Sta10)
        # Otherwise Sta11: its own A-RELEASE-RP is yet to come.
        await self._grant_release(side, over=not side.asked_release or side.tunnel is not None)

    async def _grant_release(self, side: _Side, *, over: bool) -> None:
        # Before it is sent: the device may close, and its end be read, before we know that it was.
        side.over = over
        try:
            await side.send(AReleaseRP())
        except AssociationAborted:
            self._finish(How.ABORTED, side.name, side.association.cause)
            raise

    async def _release_answered(self, source: _Side, sink: _Side) -> None:
        source.over = True
        if source.wants_release:
            if source is self._requestor and source.tunnel is None:
                await source.send(AReleaseRP())  # Sta12
        else:
            await self._grant_release(sink, over=True)
        self._finish_if_over()

    def _finish_if_over(self) -> None:
        if all(side.over for side in self._sides):
            first = self._requestor if self._requestor.wants_release else self._acceptor
            self._finish(How.RELEASED, first.name)

    def _finish(
        self, how: How, by: str, why: str = "", atom: AAssociateRJ | AAbort | None = None
    ) -> None:
        """Note the ending; the first one counts. Its last word is still to be sent."""
        if self._ending is None:
            numbers = attrs.astuple(atom) if atom is not None else ()
            self._ending = Ending(how, by, why, numbers)

    async def _give_up(self) -> None:
        """Time is up, or both associations were lost at once."""
        if not self._scope.cancelled_caught:
            self._finish(How.ABORTED, "router", "both associations were lost")
        elif self._established:
            self._finish(How.ABORTED, "router", f"not released within {RELEASE_WAIT:g} s")
        else:
            self._finish(How.REJECTED, "router", "the far association was not answered in time")
            with suppress(AssociationAborted):
                await self._requestor.send(TEMPORARY_CONGESTION)
        await self._abort_both()

    async def _abort_both(self) -> None:
        with trio.CancelScope(shield=True):  # each takes two seconds at most
            async with trio.open_nursery() as nursery:
                for side in self._sides:
                    nursery.start_soon(
                        side.association.abort,
                        AbortSource.SERVICE_PROVIDER,
                        AbortReason.NOT_SPECIFIED,
                    )
