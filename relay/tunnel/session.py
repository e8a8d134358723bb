"""A session: an association that crosses the cloud, seen from one of its two Routers.

`open_tunnel` (caller) and `accept_tunnel` (callee) give a TunnelAssociation, which offers the same
verbs as one over TCP, for notes too: what a session's purpose allows is for those who speak in it.
Behind it two flows and the tasks that keep the two ends in step, all in the nursery of the context
manager:

    send ----> CloudWriter --> port, store
    receive <- CloudReader <-- port, store
               Pulse <-------> port: Progress

How it ends: with a final chunk opened at either end, which whoever sealed it waits for; with an
End of the Bridge; or because the peer was not heard for `resume_window`. What the device is told
then is DESIGN §11's: A-ABORT by the provider, or A-ASSOCIATE-RJ where no A-ASSOCIATE-AC came yet.
"""

import math
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import structlog
import trio

from relay import tracing
from relay.dicom.pdu import PDV, AAbort, Atom
from relay.dicom.rejection import TEMPORARY_CONGESTION
from relay.errors import AbortReason, AbortSource, RelayError, RemoteProtocolError
from relay.signalling.client import Connected, Disconnected, SessionPort, SignallingClient
from relay.signalling.messages import (
    Announce,
    Answer,
    Direction,
    End,
    EndReason,
    InLine,
    Open,
    Progress,
    SessionMessage,
)
from relay.tunnel.allowance import Allowance
from relay.tunnel.flows import Flows, TunnelStatistics
from relay.tunnel.greeting import Greeting
from relay.tunnel.handshake import PendingOpening, Purpose, ReceivedOpening
from relay.tunnel.keys import Random
from relay.tunnel.pulse import ARRIVED, Pulse
from relay.tunnel.records import Note, Record
from relay.tunnel.store import ObjectClient
from relay.tunnel.verdict import LOST, end_reason, end_reason_of, rejection_of_end, words
from relay.tunnel.writer import Throttle

log = structlog.get_logger()

# A cancelled association still says its A-ABORT, and any its End, but no longer than this.
CANCELLED_LIMIT = 2.0
GOODBYE_LIMIT = 1.0

FAR_END = "the far end released, rejected or aborted"
NEAR_END = "this end released, rejected or aborted"


@attrs.frozen(slots=True, kw_only=True)
class TunnelTimeouts:
    """How long a session waits, in seconds; both below a device's own time-outs (DESIGN §5)."""

    # For the peer to be heard again, and for a chunk to be stored or fetched.
    resume_window: float = 20.0
    # As caller, from the opening to the far association's first word.
    answer: float = 25.0


class TunnelAssociation:
    """An `Association` whose far half runs in another Router; see `open_tunnel`, `accept_tunnel`.

    `cause` says in words how it ended, for the log.
    """

    def __init__(
        self,
        client: SignallingClient,
        objects: ObjectClient,
        session: bytes,
        greeting: Greeting,
        *,
        peer: bytes,
        allowance: Allowance,
        timeouts: TunnelTimeouts,
        throttle: Throttle | None = None,
        bulk: bool = False,
    ) -> None:
        self.session = session
        self.cause = ""
        self._greeting = greeting
        self._timeouts = timeouts
        self._totals = allowance.totals
        self._port: SessionPort = client.attach(self.session)
        self._pulse = Pulse(
            self._say,
            self._outstanding,
            window=timeouts.resume_window,
            connected=client.connected,
        )
        self._flows = Flows(
            client,
            self._port,
            objects,
            self._pulse,
            peer=peer,
            writes=(
                Direction.CALLER_TO_CALLEE if greeting.is_caller else Direction.CALLEE_TO_CALLER
            ),
            allowance=allowance,
            resume_window=timeouts.resume_window,
            throttle=throttle,
            bulk=bulk,
        )
        self._writer, self._reader = self._flows.writer, self._flows.reader
        self._verdict: EndReason | None = None  # how it ended: what the Bridge is told
        self._greeted = -math.inf  # when the first word was said
        self._spoken = trio.Event()  # the Bridge knows of the session
        self._work = trio.CancelScope()
        self._ended = trio.Event()  # and said so

    def __repr__(self) -> str:
        return f"<TunnelAssociation {self._name} {self.cause or 'open'}>"

    @property
    def _name(self) -> str:
        return tracing.number(self.session)

    @property
    def ended_for(self) -> EndReason | None:
        """Why the session ended; FINISHED: by what was said in it, or in answer to its opening."""
        return self._verdict

    # --- an association's verbs ------------------------------------------------------------------

    async def receive(self) -> Atom:
        """The next atom that the far device, or its Router, sent.

        Whatever happens to the tunnel comes as an A-ABORT, or as an A-ASSOCIATE-RJ where nothing
        was received yet. Raises LocalProtocolError after a terminal atom, RemoteProtocolError where
        the far Router sent a note: between two devices there are none.
        """
        record = await self.receive_record()
        if isinstance(record, Note):
            why = "a note in the session of an association"
            raise RemoteProtocolError(why, AbortReason.UNEXPECTED_PDU)
        return record

    async def receive_some(self) -> Sequence[Atom]:
        """As `receive`, all that one chunk brought: one atom at least, a terminal one last."""
        atoms: list[Atom] = []
        for record in await self.receive_records():
            if isinstance(record, Note):
                why = "a note in the session of an association"
                raise RemoteProtocolError(why, AbortReason.UNEXPECTED_PDU)
            atoms.append(record)
        return atoms

    async def receive_records(self) -> Sequence[Record]:
        """As `receive_some`, where the far Router may also send notes."""
        return await self._reader.receive_some()

    async def receive_record(self) -> Record:
        """As `receive`, where the far Router may also send notes: in delivery and knowledge."""
        return await self._reader.receive()

    async def send(
        self, record: Record, *, compressible: bool = False, end_of_message: bool = True
    ) -> None:
        """Send `record`; waits while as much as the window holds is on its way.

        `compressible`: a fragment in an uncompressed transfer syntax; whoever sends many objects
        leaves it off for those below chunks.SMALL_OBJECT. `end_of_message` False: more follows at
        once that should share its chunk (the data set, behind a command's last fragment; the
        C-STORE-RQ, behind its Item).
        Raises AssociationAborted if the association is over, LocalProtocolError if a final record
        was sent.
        """
        if self._reader.finished:
            self._writer.end(FAR_END)
        await self._writer.send(record, compressible=compressible, end_of_message=end_of_message)

    async def wait_room(self) -> None:
        """Return when `send` would not wait, or would raise."""
        if self._reader.finished:
            self._writer.end(FAR_END)
        await self._writer.wait_room()

    async def send_all(
        self, pdvs: Sequence[PDV], *, compressible: bool = False, end_of_message: bool = True
    ) -> None:
        """As `send` of each of `pdvs` in turn; `end_of_message`: a message ends with one of them.

        Where a message is some hundred bytes, what each call costs is most of what there is to do.
        """
        if self._reader.finished:
            self._writer.end(FAR_END)
        await self._writer.send_all(pdvs, compressible=compressible, end_of_message=end_of_message)

    async def abort(
        self,
        source: int = AbortSource.SERVICE_USER,
        reason: int = AbortReason.NOT_SPECIFIED,
    ) -> None:
        """Send an A-ABORT, dropping what is not sealed yet; withdraw where nobody answered yet.

        Returns at once: the context manager waits for the far end to have it. Never raises.
        """
        if self._verdict is not None or self._writer.closing or self._reader.finished:
            return
        atom = AAbort(source, reason)
        self.cause = self.cause or "aborted by this Router or its device"
        if self._greeting.stands:
            self._writer.abort(atom)
            self._reader.end(atom)
        else:
            self._end(self.cause, EndReason.FINISHED, atom)

    async def aclose(self) -> None:
        """Abort the association if it is not over; the context manager frees everything."""
        await self.abort(AbortSource.SERVICE_PROVIDER)

    def statistics(self) -> TunnelStatistics:
        """Counts since the session began."""
        return self._flows.statistics()

    # --- how it runs and ends --------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> "AsyncIterator[TunnelAssociation]":
        """The association, while its tasks run. Leaving it ends the session; see `_leave`."""
        failure: Exception | None = None
        self._totals.begun(self.statistics)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run)
                try:
                    yield self
                except Exception as error:
                    # Raised again outside, where the nursery does not wrap it.
                    failure = error
                finally:
                    await self._leave()
        finally:
            self._flows.close()
            self._port.detach()
            self._totals.over(self.statistics, self._verdict)
        if failure is not None:
            raise failure

    async def _leave(self) -> None:
        """End what is not over by an A-ABORT, and wait until the far end has the final chunk."""
        try:
            await self._conclude(self._timeouts.resume_window)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self._conclude(CANCELLED_LIMIT)
            raise

    async def _conclude(self, limit: float) -> None:
        await self.abort(AbortSource.SERVICE_PROVIDER)
        with trio.move_on_after(limit):
            await self._ended.wait()
        self._end("the far Router did not take the end of the association", EndReason.EXPIRED)
        await self._ended.wait()

    async def _run(self) -> None:
        # Not cancelled from outside: what was begun is ended by `_leave`, within its limits.
        with trio.CancelScope(shield=True), tracing.about(self._name):
            try:
                with self._work:
                    await self._converse()
            except* RelayError as group:
                self._fail(group)
            finally:
                with trio.move_on_after(GOODBYE_LIMIT):
                    await self._say_goodbye()
                self._ended.set()

    async def _converse(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pulse.run)
            nursery.start_soon(self._listen)
            nursery.start_soon(self._prepare)
            if self._greeting.is_caller:
                nursery.start_soon(self._limit_wait)
            keys = await self._greeting.wait_standing()
            self._pulse.begin()
            nursery.start_soon(self._await_final)
            await self._flows.run(keys)
            self._end(FAR_END, EndReason.FINISHED, None)

    def _end(self, cause: str, reason: EndReason, atom: Atom | None = LOST) -> None:
        """The session is over. `atom` is given next; None: what was received is still given.

        Once the peer's final chunk is opened nothing takes back what it holds: the peer says End as
        soon as it hears of that, which may be before our own tasks have ended.
        """
        if self._verdict is not None:
            return
        if self._reader.finished:
            cause, reason, atom = FAR_END, EndReason.FINISHED, None
        self._verdict = reason
        self.cause = self.cause or cause
        if atom is LOST and self._greeting.is_caller and not self._reader.begun:
            atom = rejection_of_end(reason)
        if atom is not None:
            self._reader.end(atom)
        self._writer.end(self.cause)
        self._work.cancel()

    def _fail(self, group: BaseExceptionGroup[RelayError]) -> None:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, RelayError)
        reason = end_reason_of(error)
        if not self._reader.finished:
            log.warning("session lost", association=self._name, why=str(error), reason=reason.name)
        self._end(str(error), reason)

    async def _say_goodbye(self) -> None:
        if (withdrawal := self._greeting.withdrawal()) is not None:
            await self._port.send(withdrawal)
        elif self._reader.finished:
            await self._port.send(self._flows.progress())
        await self._port.aclose(self._verdict or EndReason.FINISHED)

    # --- tasks -----------------------------------------------------------------------------------

    async def _limit_wait(self) -> None:
        with trio.move_on_after(self._timeouts.answer) as scope:
            await self._reader.wait_begun()
        if not scope.cancelled_caught:
            return
        self.cause = self.cause or f"no answer within {self._timeouts.answer:g} s"
        if self._greeting.stands:
            self._writer.abort(LOST)
            self._reader.end(TEMPORARY_CONGESTION)
        else:
            self._end(self.cause, EndReason.EXPIRED, TEMPORARY_CONGESTION)

    async def _prepare(self) -> None:
        await self._spoken.wait()
        await self._flows.prepare()

    async def _await_final(self) -> None:
        await self._writer.wait_final_opened()
        self._end(NEAR_END, EndReason.FINISHED)

    async def _listen(self) -> None:
        while self._verdict is None:
            message = await self._port.receive()
            if not isinstance(message, Connected | Disconnected):
                self._pulse.heard()
            self._take(message)

    def _take(self, message: SessionMessage | Connected | Disconnected) -> None:
        match message:
            case Connected():
                self._totals.resumes += 1
                self._writer.reconnected()
                self._pulse.connected()
            case Disconnected():
                self._pulse.disconnected()
            case InLine() | Announce():
                self._greeting.hear()
                self._reader.announced(message)
            case Progress():
                if self._flows.take_progress(message):
                    self._pulse.want_again()
                # A caller speaks before it has the answer, but can open nothing then.
                if self._writer.begun:
                    self._greeting.hear()
            case End(reason=number):
                reason = end_reason(number)
                # Who opened our final chunk says that and this in one breath.
                expected = reason is EndReason.FINISHED and self._writer.closing
                cause = f"ended by the Bridge or the far Router: {words(reason)}"
                self._end(NEAR_END if expected else cause, reason)
            case _:
                declined = self._greeting.take(message)
                if declined is not None:
                    self._end(declined.cause, EndReason.FINISHED, declined.atom)

    def _outstanding(self) -> bool:
        return self._flows.outstanding or not self._greeting.heard

    async def _say(self) -> bool:
        now = trio.current_time()
        if not self._greeting.heard and now - self._greeted > ARRIVED:
            # It may have been lost on a connection of the peer; who has it ignores the repetition.
            # Progress goes right behind it: the credit that the peer's first words need.
            self._greeted = now
            await self._port.send(self._greeting.first)
        said = await self._port.send(self._flows.progress())
        if said:
            self._spoken.set()
        return said


@asynccontextmanager
async def open_tunnel(
    client: SignallingClient,
    objects: ObjectClient,
    pending: PendingOpening,
    *,
    allowance: Allowance,
    timeouts: TunnelTimeouts | None = None,
    throttle: Throttle | None = None,
) -> AsyncIterator[TunnelAssociation]:
    """The caller's end of the session that `pending` opens; the request is on its way already.

    `receive` first gives A-ASSOCIATE-AC, A-ASSOCIATE-RJ or A-ABORT. Each chunk waits for `throttle`
    until a final record is sent; a wait is cancelled then. Leaving the block without a final record
    aborts the association. Leaving takes until the far end has what ends it: the resume window at
    the most, 2 s when cancelled. Raises SignallingError if too many sessions are held.
    """
    header = pending.header
    first = Open(
        pending.session, header.callee, header.called, pending.opening, pending.sealed_request
    )
    association = TunnelAssociation(
        client,
        objects,
        pending.session,
        Greeting(pending, first),
        peer=header.callee,
        allowance=allowance,
        timeouts=timeouts or TunnelTimeouts(),
        throttle=throttle,
        bulk=header.purpose == Purpose.DELIVERY,
    )
    async with association.running():
        yield association


@asynccontextmanager
async def accept_tunnel(
    client: SignallingClient,
    objects: ObjectClient,
    received: ReceivedOpening,
    *,
    allowance: Allowance,
    timeouts: TunnelTimeouts | None = None,
    random: Random = secrets.token_bytes,
    throttle: Throttle | None = None,
) -> AsyncIterator[TunnelAssociation]:
    """The callee's end of a session that a caller opened; the answer goes out at once.

    The request is `received.request`; what is sent first answers it. Else as `open_tunnel`.
    """
    answer, keys = received.answer(random)
    association = TunnelAssociation(
        client,
        objects,
        received.session,
        Greeting(received, Answer(received.session, answer), keys),
        peer=received.caller,
        allowance=allowance,
        timeouts=timeouts or TunnelTimeouts(),
        throttle=throttle,
        bulk=received.purpose is Purpose.DELIVERY,
    )
    async with association.running():
        yield association
