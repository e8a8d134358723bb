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

from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from math import inf
from typing import Protocol

import attrs
import structlog
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
from relay.router.side import Passing, Side, Tunnel
from relay.router.traffic import Traffic

log = structlog.get_logger()

# From an A-RELEASE-RQ to its end on both hops. Longer than the 60 s that each hop's association
# waits by itself (relay.patience.Timeouts.release), so that this only ends what they do not see.
RELEASE_WAIT = 90.0


class DIMSEGuard(Protocol):
    """What decides on messages (relay.router.guard.Guard)."""

    def negotiated(self, answer: AAssociateAC) -> None: ...

    def outward(self, pdv: PDV) -> Verdict: ...

    def inward(self, pdv: PDV) -> Verdict: ...


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
    traffic: Traffic | None = None,
) -> Ending:
    """Join both until the association is over on both; closing them is the caller's.

    `tunnel` is the one of both that is over with the first A-RELEASE-RP in either direction.
    The acceptor's A-ASSOCIATE answer must come within `answer_wait` seconds; `answered` makes of it
    what the requestor gets. `traffic` shows what has passed. Cancelled, or after an error of its
    own, both are aborted; errors arrive in an exception group.
    """
    passage = _Passage(
        Side("requestor", requestor, tunnel if tunnel is requestor else None),
        Side("acceptor", acceptor, tunnel if tunnel is acceptor else None),
        guard,
        answered,
    )
    if traffic is not None:
        traffic.follow(*passage.sides)
    return await passage.run(answer_wait)


async def _pass_on(sink: Side, pdv: PDV, ends: bool) -> None:
    await sink.pass_on((Passing(pdv, ends),))


def _log_negotiated(answer: AAssociateAC) -> None:
    accepted = sum(result.accepted for result in answer.contexts)
    log.info("association negotiated", accepted=accepted, rejected=len(answer.contexts) - accepted)


def _passes_only(verdict: Verdict) -> bool:
    """Whether nothing is to be done but to let pass what does."""
    return verdict.before is None and verdict.speech is None and verdict.reply is None


def _passing(verdict: Verdict) -> list[Passing]:
    """What goes on by `verdict`, in order: a message ends with the last of it, or with none."""
    last = len(verdict.forward) - 1
    return [
        Passing(pdv, verdict.ends and number == last, verdict.compressible)
        for number, pdv in enumerate(verdict.forward)
    ]


class _Passage:
    """The two pumps and what they share."""

    def __init__(
        self,
        requestor: Side,
        acceptor: Side,
        guard: DIMSEGuard,
        answered: Callable[[AAssociateAC], AAssociateAC],
    ) -> None:
        self._requestor = requestor
        self._acceptor = acceptor
        self._sides: Sequence[Side] = (requestor, acceptor)
        self._guard = guard
        self._answered = answered
        self._established = False
        self._ending: Ending | None = None
        self._scope = trio.CancelScope()

    @property
    def sides(self) -> tuple[Side, Side]:
        """The requestor's and the acceptor's."""
        return self._requestor, self._acceptor

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

    async def _pump(self, source: Side, sink: Side, judge: Callable[[PDV], Verdict]) -> None:
        """Carry what `source` says to `sink` until either is over."""
        try:
            while not source.over and self._ending is None:
                await self._carry_all(await source.receive(), source, sink, judge)
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

    async def _carry_all(
        self,
        atoms: Sequence[Atom],
        source: Side,
        sink: Side,
        judge: Callable[[PDV], Verdict],
    ) -> None:
        """Carry what came at once; PDVs that go on one behind the other go on in one call."""
        passing: list[Passing] = []
        for atom in atoms:
            if source.over or self._ending is not None:
                break
            if isinstance(atom, PDV) and self._established and not source.wants_release:
                source.has_waited = False
                try:
                    verdict = judge(atom)
                except RemoteProtocolError:
                    await sink.pass_on(passing)
                    raise
                if _passes_only(verdict):
                    passing += _passing(verdict)
                    continue
                await sink.pass_on(passing)
                passing = []
                await self._obey(verdict, source, sink)
            else:
                await sink.pass_on(passing)
                passing = []
                await self._carry(atom, source, sink)
        await sink.pass_on(passing)

    async def _obey(self, verdict: Verdict, source: Side, sink: Side) -> None:
        """Do all that a verdict says."""
        if verdict.before is not None:
            await verdict.before()
        if verdict.speech is not None:
            await verdict.speech(partial(_pass_on, sink))
            source.has_waited = True
        await sink.pass_on(_passing(verdict))
        if verdict.reply is not None:
            await source.reply(verdict.reply)

    async def _carry(self, atom: Atom, source: Side, sink: Side) -> None:
        match atom:
            case AAssociateAC() if source is self._acceptor and not self._established:
                self._established = True
                self._scope.deadline = inf
                self._guard.negotiated(atom)
                _log_negotiated(atom)
                await sink.send(self._answered(atom))
            case AAssociateRJ() if source is self._acceptor and not self._established:
                self._finish(How.REJECTED, source.name, source.association.cause, atom)
                await sink.send(atom)
            case AReleaseRQ() if self._established and not source.wants_release:
                await self._release_asked(source, sink)
            case AReleaseRP() if source.asked_release:
                await self._release_answered(source, sink)
            case AAbort() if source.has_waited and not source.wants_release:
                # It has said its last before the other heard that, who may still release, or has
                # asked for it already: an A-RELEASE-RQ and this cross as others do.
                source.over = True
                if sink.wants_release:
                    await self._grant_release(sink, over=True)
                    self._finish_if_over()
                else:
                    self._scope.deadline = trio.current_time() + RELEASE_WAIT
            case AAbort():
                self._finish(How.ABORTED, source.name, source.association.cause, atom)
                await sink.association.abort(atom.source, atom.reason)
            case _:
                raise RemoteProtocolError(
                    f"{type(atom).__name__} out of turn", AbortReason.UNEXPECTED_PDU
                )

    async def _release_asked(self, source: Side, sink: Side) -> None:
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

    async def _answer_release(self, side: Side) -> None:
        """Both want the release: answer `side`, as far as it is our turn on that hop."""
        if side.asked_release and side is self._requestor:
            return  # the two crossed, and who requested the association answers first (Sta10)
        # Otherwise Sta11: its own A-RELEASE-RP is yet to come.
        await self._grant_release(side, over=not side.asked_release or side.tunnel is not None)

    async def _grant_release(self, side: Side, *, over: bool) -> None:
        # Before it is sent: the device may close, and its end be read, before we know that it was.
        side.over = over
        try:
            await side.send(AReleaseRP())
        except AssociationAborted:
            self._finish(How.ABORTED, side.name, side.association.cause)
            raise

    async def _release_answered(self, source: Side, sink: Side) -> None:
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
