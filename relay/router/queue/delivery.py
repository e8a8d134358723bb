"""The near end of a delivery session: many objects in one flow, each answered on its own.

    Errand -> Item, C-STORE-RQ, data set -> tunnel -> (far Router, device)
    Result -> ledger -> (rows, files) -> Forget

Sending does not wait for answers: a session is bounded by bandwidth and not by distance. Where it
breaks, the ledger (relay.router.queue.ledger) knows what was sent and not answered.
"""

from collections.abc import Sequence
from contextlib import aclosing

import structlog
import trio

from relay.dicom import negotiation
from relay.dicom.commandset import CommandSet
from relay.dicom.dimse import Tag
from relay.dicom.negotiation import accepted_contexts
from relay.dicom.pdu import PDV, AAbort, AAssociateAC, AReleaseRP, AReleaseRQ
from relay.dicom.status import means_stored
from relay.dicom.uids import UNCOMPRESSED_TRANSFER_SYNTAXES
from relay.errors import (
    AbortSource,
    AssociationAborted,
    AssociationRejected,
    ObjectDamaged,
    RelayError,
    RemoteProtocolError,
    leaves,
)
from relay.router import passthrough
from relay.router.live import number
from relay.router.outgoing import OutgoingCall, live_entry, prepare, tunnel
from relay.router.queue.errand import Errand, Firsts
from relay.router.queue.ledger import How, Ledger, Report
from relay.router.queue.operations import window_of
from relay.router.queue.state import Queue
from relay.router.queue.statuses import Verdict, judge_rejection
from relay.router.refusals import explained
from relay.router.traffic import Traffic
from relay.scu import negotiated
from relay.signalling.messages import EndReason
from relay.spool.items import Item
from relay.tunnel import notes
from relay.tunnel.chunks import SMALL_OBJECT
from relay.tunnel.handshake import Purpose
from relay.tunnel.notes import Outcome
from relay.tunnel.records import Note, Record
from relay.tunnel.session import TunnelAssociation

log = structlog.get_logger()

# From the opening to the device's answer: a place of it, a connection, its own time to accept, each
# as long as the far Router waits where nothing else is set. Longer than for a call, since no device
# waits here; the far Router says no itself before that.
ANSWER_WAIT = 60.0

# Without a Result that is owed, and without a byte that it takes. The far Router waits
# 300 s for its device, and then says so: this only ends what says nothing at all.
RESULT_WAIT = 360.0

# From the last object's Result to the far device's release.
RELEASE_WAIT = 90.0

# Items of which the far Router is told, between two objects, that it may forget them: fewer would
# take more room in the chunks of small objects than they do in its database.
FORGET_AT_LEAST = 64


async def deliver(queue: Queue, errand: Errand) -> Report:
    """Carry `errand` to its device, as far as it goes. What it changes is in the rows by then."""
    node, batch = queue.node, errand.batch
    page: list[Item] | None = None
    if batch.number:  # else its first object is still coming
        page = await errand.next_page()
        if not page:
            return Report(How.DONE)
    # One association brings no more than 128 pairs; what retries have beyond waits its turn.
    pairs = sorted(await errand.pairs())[: negotiation.MAXIMUM_CONTEXTS]
    contexts = negotiation.propose([(sop_class, (syntax,)) for sop_class, syntax in pairs])
    request = negotiation.request(batch.called, batch.calling, contexts)
    try:
        call = prepare(node, None, request, batch.called, purpose=Purpose.DELIVERY)
    except AssociationRejected as error:
        # Said by this Router alone, from what the Bridge shows now: it may be another's tomorrow.
        return Report(How.TROUBLE, str(error))
    if call.peer != batch.peer:
        return Report(How.MOVED, f"{batch.called} belongs to another hospital than it did")
    ledger = Ledger(queue, batch, errand.stop)
    session = _Session(queue, errand, call, ledger, page)
    try:
        with node.live.hold(live_entry(node, call)) as entry:
            session.traffic = entry.traffic
            throttle = queue.throttle.take
            with ledger.seen_by(entry.witness):
                async with tunnel(node, call, answer=ANSWER_WAIT, throttle=throttle) as far:
                    await session.run(far)
            entry.ending = _ending(ledger)
    except* RelayError as group:
        ledger.trouble(str(next(leaves(group))))
    finally:
        with trio.CancelScope(shield=True):
            await ledger.close()
    report = ledger.report()
    log.info(
        "delivery ended",
        association=number(call.pending.session),
        called=batch.called,
        calling=batch.calling,
        batch=batch.number,
        sent=ledger.sent,
        delivered=report.delivered,
        how=report.how.value,
        why=report.reason,
    )
    return report


def _ending(ledger: Ledger) -> passthrough.Ending:
    """How the association went, as people see it of any other."""
    report = ledger.report()
    if report.how is How.DONE:
        return passthrough.Ending(passthrough.How.RELEASED, "requestor")
    how = passthrough.How.ABORTED if ledger.sent else passthrough.How.REJECTED
    return passthrough.Ending(how, "acceptor", report.reason)


class _Session:
    """One session, while it lasts: what is said, and what is heard."""

    def __init__(
        self,
        queue: Queue,
        errand: Errand,
        call: OutgoingCall,
        ledger: Ledger,
        page: list[Item] | None,
    ) -> None:
        self.traffic = Traffic()
        self._queue = queue
        self._spool = queue.spool
        self._errand = errand
        self._batch = errand.batch
        self._call = call
        self._ledger = ledger
        self._page = page  # the first one; None: it is not there yet
        self._proposed = frozenset(
            (context.abstract_syntax, context.transfer_syntaxes[0])
            for context in call.request.contexts
        )
        self._contexts: dict[tuple[str, str], int] = {}
        self._asked: dict[bytes, Item] | None = None  # by a Question without its Answers
        self._known: frozenset[bytes] = frozenset()  # what the last Answers were about
        self._open: bytes | None = None  # the item that is not out to its end
        self._released = False  # A-RELEASE-RQ is said
        self._ended = False  # the far Router has said so: nothing follows but A-RELEASE-RP

    async def run(self, far: TunnelAssociation) -> None:
        """Send and take answers until all is said. Raises RelayErrors, in a group or alone."""
        try:
            answer = await negotiated(far, deadline=ANSWER_WAIT)
        except AssociationRejected as error:
            self._rejected(far, error)
            return
        self._negotiated(answer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, far)
            nursery.start_soon(self._ledger.run)
            try:
                await self._receive(far)
            except RemoteProtocolError as error:
                await far.abort(AbortSource.SERVICE_PROVIDER, error.abort_reason)
                raise
            nursery.cancel_scope.cancel()

    def _rejected(self, far: TunnelAssociation, error: AssociationRejected) -> None:
        judgement = judge_rejection(error.result, error.source, error.reason)
        said_there = far.ended_for in (None, EndReason.FINISHED)
        pause = judgement.verdict is Verdict.PAUSE and said_there
        why = judgement.reason if pause else self._why(far.cause) or judgement.reason
        self._ledger.trouble(why, How.PAUSE if pause else How.TROUBLE)

    def _why(self, cause: str) -> str:
        peer, request = self._call.route.peer, self._call.request
        return explained(cause, peer.name, self._batch.called, request.calling) or cause

    def _negotiated(self, answer: AAssociateAC) -> None:
        accepted = accepted_contexts(self._call.request, answer).values()
        log.info("association negotiated", accepted=len(accepted))
        self._contexts = {(c.abstract_syntax, c.transfer_syntax): c.id for c in accepted}
        self._ledger.window = window_of(answer)

    # --- what is said -----------------------------------------------------------------------------

    async def _send(self, far: TunnelAssociation) -> None:
        try:
            await self._speak(far)
        except AssociationAborted:
            # The far end has said its last word, which may be unread, and says why.
            await trio.sleep_forever()

    async def _speak(self, far: TunnelAssociation) -> None:
        ledger, items = self._ledger, self._spool.items
        ledger.add_known(await items.unforgotten(self._batch.peer, notes.MAXIMUM_ROWS))
        await self._forget(far)
        page = self._page if self._page is not None else await self._errand.next_page()
        if page and isinstance(self._errand, Firsts):
            await items.begin_batch(self._batch)
        while page and not self._errand.stopped:
            answered = await self._ask(far, [item for item in page if item.attempted])
            for item in page:
                await ledger.room()
                if self._errand.stopped:
                    break
                if item.id not in answered:
                    await self._send_item(far, item)
                await self._forget(far, FORGET_AT_LEAST)
            page = await self._errand.next_page()
        await ledger.balanced()
        await self._forget(far)
        self._released = True
        await far.send(AReleaseRQ())

    async def _ask(self, far: TunnelAssociation, items: Sequence[Item]) -> frozenset[bytes]:
        """Which of these, sent before or maybe so, the far side has an answer of already."""
        if not items:
            return frozenset()
        self._asked = {item.id: item for item in items}
        asked = tuple(notes.Asked(item.id, item.digest) for item in items)
        await far.send(notes.encode(notes.Question(asked)))
        while self._asked is not None:
            await self._ledger.changed.park()
        return self._known

    async def _send_item(self, far: TunnelAssociation, item: Item) -> None:
        context = self._contexts.get(item.pair)
        content = self._errand.content(item)
        if context is not None and content is not None:
            await self._begin_item(far, context, item)
            await self._send_segment(far, context, item, content, last=True)
        elif context is not None:
            await self._send_object(far, context, item)
        elif item.pair in self._proposed:
            await self._ledger.not_accepted(item)

    async def _send_object(self, far: TunnelAssociation, context: int, item: Item) -> None:
        begun = False
        left = item.length
        try:
            async with (
                self._spool.objects.reading(item.stored) as reader,
                aclosing(reader.segments()) as segments,
            ):
                async for segment in segments:
                    if not begun:
                        begun = True
                        await self._begin_item(far, context, item)
                    left -= len(segment)
                    await self._send_segment(far, context, item, segment, last=not left)
                    if left:
                        await far.wait_room()  # the next is not to wait in memory, 8 MiB of eight
        except ObjectDamaged as error:
            log.error("object damaged", item=item.id.hex(), why=str(error))
            self._ledger.damaged(item, str(error))
            if begun:
                raise  # the far side has half of it, and only the end of the session says so

    async def _send_segment(
        self, far: TunnelAssociation, context: int, item: Item, segment: bytes, *, last: bool
    ) -> None:
        compressible = (
            item.transfer_syntax in UNCOMPRESSED_TRANSFER_SYNTAXES and item.length >= SMALL_OBJECT
        )
        if last:
            self._open = None
        self.traffic.count(len(segment))
        self.traffic.objects += last
        pdv = PDV(context, False, last, segment)
        await far.send(pdv, compressible=compressible, end_of_message=last)

    async def _begin_item(self, far: TunnelAssociation, context: int, item: Item) -> None:
        self._open = item.id
        self._ledger.begin(item)
        message_id = self._ledger.sent & 0x7FFF or 1
        command = CommandSet.decode(item.command).evolve({Tag.MESSAGE_ID: message_id})
        said = notes.Item(item.id, item.digest, item.length)
        await far.send(notes.encode(said), end_of_message=False)
        await far.send(PDV(context, True, True, command.encode()), end_of_message=False)

    async def _forget(self, far: TunnelAssociation, at_least: int = 1) -> None:
        """Tell the far Router of what no answer is needed any more, if it is so much."""
        known = self._ledger.take_known(at_least)
        for first in range(0, len(known), notes.MAXIMUM_ROWS):
            told = known[first : first + notes.MAXIMUM_ROWS]
            await far.send(notes.encode(notes.Forget(tuple(told))), end_of_message=at_least == 1)
            await self._ledger.told(told)

    # --- what is heard ----------------------------------------------------------------------------

    async def _receive(self, far: TunnelAssociation) -> None:
        while True:
            match await self._next_record(far):
                case Note() as note:
                    self._take(notes.decode(note))
                case AReleaseRP():
                    if self._released:
                        self._ledger.done()
                    elif self._ledger.how is None:
                        self._ledger.trouble("the far Router ended the session")
                    return
                case AAbort():
                    raise AssociationAborted(0, 0, far.cause or "the far Router aborted")
                case record:
                    raise RemoteProtocolError(f"{type(record).__name__} out of turn")

    async def _next_record(self, far: TunnelAssociation) -> Record:
        while True:
            before = far.statistics().writer
            limit = RELEASE_WAIT if self._released else RESULT_WAIT
            with trio.move_on_after(limit):
                return await far.receive_record()
            owed = self._ledger.outstanding or self._asked or self._released
            # Whatever else it says meanwhile is no reason to wait: only what it takes is.
            if owed and far.statistics().writer == before:
                what = "release" if self._released else "result"
                raise AssociationAborted(0, 0, f"no {what} within {limit:g} s")

    def _take(self, message: notes.Message) -> None:
        if self._ended:
            raise RemoteProtocolError(f"{type(message).__name__} behind the end")
        match message:
            case notes.Result(outcome=Outcome.REFUSED, status=status) if means_stored(
                status, sent_before=True
            ):
                raise RemoteProtocolError("a refusal whose status is that of a stored object")
            case notes.Result(id=id_, outcome=outcome, status=status):
                item = self._ledger.outstanding.get(id_)
                if item is None or id_ == self._open:
                    raise RemoteProtocolError("a result of what was not sent")
                self._ledger.answered(item, outcome, status)
            case notes.Answers(rows=rows):
                self._take_answers(rows)
            case notes.Ended(by=by, words=words):
                self._ended = True
                self._ledger.device_ended(by, words)
            case _:
                raise RemoteProtocolError(f"{type(message).__name__} out of turn")
        self._ledger.changed.unpark_all()

    def _take_answers(self, rows: Sequence[notes.Answer]) -> None:
        asked, self._known = self._asked, frozenset(row.id for row in rows)
        if asked is None or len(self._known) != len(rows) or not self._known <= asked.keys():
            raise RemoteProtocolError("an answer about what was not asked")
        for row in rows:
            if row.outcome not in (Outcome.ANSWERED, Outcome.CONFLICT):
                raise RemoteProtocolError("an answer that says no more than that it was sent")
            self._ledger.answered(asked[row.id], row.outcome, row.status)
            self._queue.statistics.duplicates_avoided += row.outcome is Outcome.ANSWERED
        self._asked = None
