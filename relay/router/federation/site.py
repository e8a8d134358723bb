"""The part of one device in a search: a C-FIND as service class user, with every wait bounded.

    describe ‖ associate -> C-FIND-RQ -> answers … -> its last word

From the beginning to its first answer a device has `site_wait` seconds, and as long from each
answer to the next. After a C-CANCEL, of the caller's or of ours since it has too much to say, it
has some seconds to end (PS3.4 §C.4.1.3.2), and is left then.
"""

from collections.abc import Awaitable, Callable, Sequence
from math import inf

import attrs
import structlog
import trio

from relay.association import Association, receive_some
from relay.dicom import dimse
from relay.dicom.dimse import CommandField, CommandReader, CommandSet, Status, is_pending
from relay.dicom.negotiation import AcceptedContext
from relay.dicom.pdu import PDV, AAbort, Atom
from relay.errors import (
    AbortReason,
    AbortSource,
    AssociationAborted,
    Outcome,
    PeerSilent,
    RelayError,
    RemoteProtocolError,
    SourceFailed,
)
from relay.router.devices import Device
from relay.router.federation.attributes import TRANSFER_SYNTAXES
from relay.router.federation.federation import Federation
from relay.router.federation.identifiers import (
    Answered,
    NotTheIssuer,
    Query,
    Unrepresentable,
    take_answer,
)
from relay.router.federation.models import NotOfTheModel, by_model, models_of
from relay.router.federation.opening import open_source
from relay.router.federation.sources import Description, Source
from relay.scu import MAXIMUM_IDENTIFIER

log = structlog.get_logger()

# For a device to end after a C-CANCEL, which it may also not heed.
CANCEL_WAIT = 5.0

# For one search at one device, whatever it says meanwhile: nobody waits for a list of studies
# longer than this, and a device must not hold its place in line for hours with an answer a minute.
LONGEST_SEARCH = 600.0

# Answers that are taken in without letting anybody else do something: less than a millisecond.
ANSWERS_AT_ONCE = 8

# Beyond its time for a first answer: what it was slow with may have more to say of it by then.
GRACE = 0.2

# Of the one operation on each association.
MESSAGE_ID = 1

# What takes an answer, with the status that it came with; False: there is no room for it.
Take = Callable[[Answered, int], Awaitable[bool]]


@attrs.frozen(slots=True)
class Said:
    """How the part of one device ended. The words are for people, and name no patient."""

    source: Source
    outcome: Outcome
    words: str = ""


class Site:
    """Asks one device. `settled` is told how it ended as soon as that is known: what comes after
    is clearing up, and nobody waits for it."""

    def __init__(
        self,
        federation: Federation,
        caller: Device | None,
        source: Source,
        query: Query,
        *,
        maximum: int,
        take: Take,
        settled: Callable[[Said], None],
    ) -> None:
        self._federation = federation
        self._caller = caller
        self._source = source
        self._query = query
        self._maximum = maximum
        self._take = take
        self._settled: Callable[[Said], None] | None = settled
        self._wait = federation.settings.site_wait
        self._scope = trio.CancelScope()  # all of it
        self._first = trio.CancelScope()  # the wait for its first word
        self._receiving = trio.CancelScope()
        self.is_own = source.device is not None
        self.begun = trio.Event()  # the C-FIND-RQ is out, or it has ended before
        self.over = trio.Event()  # it has said its last
        self._began = inf
        self._asked = False  # the C-FIND-RQ is out
        self._cancelled = False  # the caller wants no more
        self._told = False  # a C-CANCEL is out
        self._until = inf  # for its last word
        self._capped = ""  # why no more is taken of it
        self._lacks = False  # keys that it could not be asked for
        self._answers = self._taken = self._unreadable = 0

    async def run(self) -> None:
        """Ask it, and release what that took. Never raises what is the device's fault."""
        self._began = trio.current_time()
        self._until = self._began + LONGEST_SEARCH
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._time_out)
                try:
                    await self._ask()
                except SourceFailed as error:
                    if error.outcome is Outcome.NOT_GRANTED:
                        self._federation.sources.not_granted(self._caller, self._source)
                    self._settle(error.outcome, str(error))
                except RelayError as error:
                    self._settle(Outcome.UNREACHABLE, str(error))
                nursery.cancel_scope.cancel()

    @property
    def pace(self) -> float | None:
        """Seconds that it takes for such a query, as far as is known."""
        return self._federation.paces.of(self._source.published, self._query.kind)

    def cancel(self) -> None:
        """The caller wants no more (C-CANCEL)."""
        self._cancelled = True
        if not self._asked:
            self._settle(Outcome.CANCELLED)
            self._scope.cancel()
        elif not self._told:
            self._receiving.cancel()

    def _settle(self, outcome: Outcome, words: str = "") -> None:
        self._first.cancel()
        self.begun.set()
        self.over.set()
        if self._settled is not None:
            settled, self._settled = self._settled, None
            settled(Said(self._source, outcome, words))

    async def _time_out(self) -> None:
        """Leave a device that has not said anything in time, whatever is being waited for."""
        with self._first:
            await trio.sleep(self._wait + GRACE)
            words = f"no answer within {self._wait:g} s"
            if self._source.known:
                self._federation.states.failed(self._source.published, words)
            self._settle(Outcome.SLOW, words)
            self._scope.cancel()

    # --- asking -----------------------------------------------------------------------------------

    async def _ask(self) -> None:
        described = _Describing(self._federation, self._caller, self._source)
        if self._query.asks_issuer:
            # Whether it is asked at all depends on that.
            await described.run()
            try:
                self._query.check_issuer(described.description)
            except NotTheIssuer as error:
                self._not_asked(Outcome.COMPLETE if error.known else Outcome.UNABLE, error)
                return
        failure: RelayError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(described.run)
            try:
                await self._open(described)
            except RelayError as error:
                failure = error  # raised again outside, where the nursery does not wrap it
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def _not_asked(self, outcome: Outcome, error: RelayError) -> None:
        log.info("federation's source not asked", called=self._source.title, why=str(error))
        self._settle(outcome, str(error))

    async def _open(self, described: "_Describing") -> None:
        finds = [model.find for model in models_of(self._query)]
        proposed = [(find, TRANSFER_SYNTAXES) for find in finds]
        async with open_source(self._federation, self._caller, self._source, proposed) as opened:
            context = opened.context(*finds)
            await described.done.wait()
            description = described.description
            try:
                asked = by_model(self._query, context.abstract_syntax)
                identifier = asked.for_source(description, context.transfer_syntax)
            except (Unrepresentable, NotTheIssuer, NotOfTheModel) as error:
                self._not_asked(Outcome.UNABLE, error)
                return
            self._lacks = not self._query.wanted <= asked.wanted
            try:
                await self._find(opened.association, context, identifier, description)
            except RemoteProtocolError:
                await opened.association.abort()
                raise

    async def _find(
        self,
        association: Association,
        context: AcceptedContext,
        identifier: bytes,
        description: Description,
    ) -> None:
        """C-FIND, to its final response (PS3.7 §9.1.2)."""
        request = dimse.request(CommandField.C_FIND_RQ, MESSAGE_ID, context.abstract_syntax)
        command = PDV(context.id, True, True, request.encode())
        await association.send(command, end_of_message=False)
        await association.send(PDV(context.id, False, True, identifier))
        self._asked = True
        self.begun.set()
        messages = _Messages(context.id)
        while True:
            for atom in await self._receive(association, context):
                message = messages.feed(atom, association.cause)
                if message is None:
                    continue
                response, data_set = message
                if not is_pending(response.status):
                    self._end(response.status)
                    return
                await self._answer(response.status, data_set, context, description)
                if self._capped and not self._told:
                    await self._tell(association, context)

    async def _answer(
        self, status: int, data_set: bytes, context: AcceptedContext, description: Description
    ) -> None:
        if not self._answers:
            self._first.cancel()
        self._answers += 1
        if self._told or self._cancelled:
            return
        if self._taken == self._maximum:
            self._capped = f"it has more than {self._maximum} answers"
            return
        self._taken += 1
        if self._taken % ANSWERS_AT_ONCE == 2:
            # One read may bring a thousand: the caller waits for the first, and whoever sets up the
            # next association for his turn.
            await trio.lowlevel.checkpoint()
        try:
            answered = take_answer(
                self._query,
                data_set,
                context.transfer_syntax,
                self._source.title,
                description,
                self._federation.settings.ae_title,
            )
        except ValueError:
            self._unreadable += 1
            return
        if self._lacks:
            status = Status.PENDING_WITHOUT_OPTIONAL_KEYS
        if answered is not None and not await self._take(answered, status):
            self._capped = "it has more answers than this Router can hold now"

    def _end(self, status: int) -> None:
        """Its final response has come."""
        if self._capped:
            self._settle(Outcome.CAPPED, self._capped)
        elif self._cancelled:
            self._settle(Outcome.CANCELLED)
        elif status != Status.SUCCESS:
            self._settle(Outcome.REFUSED, f"its C-FIND ends with status {status:04X}H")
        elif self._unreadable:
            self._settle(Outcome.REFUSED, f"{self._unreadable} of its answers cannot be read")
        else:
            took = trio.current_time() - self._began
            self._federation.paces.note(self._source.published, self._query.kind, took)
            self._settle(Outcome.COMPLETE)

    # --- one word after the other -----------------------------------------------------------------

    async def _receive(self, association: Association, context: AcceptedContext) -> Sequence[Atom]:
        """What comes next. Raises PeerSilent, after an A-ABORT, if nothing does in time."""
        while True:
            if self._cancelled and not self._told:
                await self._tell(association, context)
            now = trio.current_time()
            self._receiving = trio.CancelScope(deadline=min(now + self._wait, self._until))
            if now < self._until:
                with self._receiving:
                    return await receive_some(association)
                if self._cancelled and not self._told:
                    continue
            words = f"no final response within {CANCEL_WAIT:g} s of its C-CANCEL"
            if self._capped:
                self._settle(Outcome.CAPPED, self._capped)
            elif self._told:
                self._settle(Outcome.CANCELLED)
            else:
                longest = trio.current_time() >= self._until
                wait = LONGEST_SEARCH if longest else self._wait
                words = f"no {'final' if longest else 'further'} answer within {wait:g} s"
                self._settle(Outcome.SLOW, words)
            await association.abort()
            raise PeerSilent(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED, words)

    async def _tell(self, association: Association, context: AcceptedContext) -> None:
        """C-CANCEL (PS3.7 §9.3.2.3), for the caller or since it has more than is taken."""
        self._told = True
        self._until = trio.current_time() + CANCEL_WAIT
        cancel = dimse.request(CommandField.C_CANCEL_RQ, MESSAGE_ID)
        with trio.move_on_after(CANCEL_WAIT):
            await association.send(PDV(context.id, True, True, cancel.encode()))


class _Messages:
    """Puts the C-FIND-RSPs together that come on one context."""

    def __init__(self, context_id: int) -> None:
        self._reader = CommandReader({context_id})
        self._command: CommandSet | None = None
        self._data_set = bytearray()

    def feed(self, atom: Atom, cause: str) -> tuple[CommandSet, bytes] | None:
        """The response that `atom` completes, and its data set.

        Raises AssociationAborted or RemoteProtocolError.
        """
        if isinstance(atom, AAbort):
            raise AssociationAborted(atom.source, atom.reason, cause)
        if not isinstance(atom, PDV):
            raise RemoteProtocolError(f"{type(atom).__name__} out of turn")
        command = self._reader.feed(atom)
        if command is not None:
            if (
                command.command_field != CommandField.C_FIND_RSP
                or command.message_id_responded_to != MESSAGE_ID
            ):
                raise RemoteProtocolError(f"command field {command.command_field:04X}H out of turn")
            self._command = command
        elif not atom.is_command:
            self._data_set += atom.fragment
            if self._reader.data_set_length > MAXIMUM_IDENTIFIER:
                raise RemoteProtocolError(f"response longer than {MAXIMUM_IDENTIFIER} bytes")
        if self._reader.message_open or self._command is None:
            return None
        message = self._command, bytes(self._data_set)
        self._command = None
        self._data_set.clear()
        return message


class _Describing:
    """What the device's hospital says of it, asked for while the association is made."""

    def __init__(self, federation: Federation, caller: Device | None, source: Source) -> None:
        self.description = Description()
        self.done = trio.Event()
        self._federation = federation
        self._caller = caller
        self._source = source

    async def run(self) -> None:
        if not self.done.is_set():
            sources = self._federation.sources
            self.description = await sources.describe(self._source, self._caller)
            self.done.set()
