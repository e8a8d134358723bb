"""What the hub does with each message of one Router.

Session messages go to the session's other end unread; requests are answered by the Bridge. Nothing
here waits for another Router: what goes to one is put into its outbox.
"""

from collections.abc import Awaitable, Sequence
from typing import TypeVar

import structlog
import trio

from relay.errors import Refused, RelayError, SignallingError
from relay.signalling.allowance import Allowance
from relay.signalling.backend import Backend, SessionRefused
from relay.signalling.exchange import Connection, Exchange
from relay.signalling.limits import (
    MESSAGES_AT_ONCE,
    MESSAGES_PER_SECOND,
    NOTICES_AT_ONCE,
    NOTICES_PER_SECOND,
    REMEMBERED_UNKNOWN,
    TOLERATED_REQUESTS,
    Timeouts,
)
from relay.signalling.messages import (
    MAXIMUM_PUBLICATIONS,
    Ahead,
    AheadURLs,
    Announce,
    Answer,
    Ask,
    Direction,
    Done,
    End,
    EndReason,
    Grants,
    Held,
    InLine,
    Look,
    Message,
    Open,
    Present,
    Progress,
    Publish,
    PublishKey,
    Refuse,
    Resign,
    Resigned,
    Seek,
    Slots,
    SlotURLs,
    Withdraw,
    encode,
)
from relay.signalling.recent import Recent
from relay.tracing import number

log = structlog.get_logger()

T = TypeVar("T")
PassedOn = Answer | Refuse | Withdraw | InLine | Announce | Progress
Request = PublishKey | Publish | Grants | Slots | Resign | Ahead | Ask | Seek | Look

# Reasons that a Router may give for an end; others are the Bridge's to give.
_ROUTERS_REASONS = frozenset(
    {
        EndReason.FINISHED,
        EndReason.LIMIT_REACHED,
        EndReason.PEER_FORGOT,
        EndReason.PROTOCOL_VIOLATION,
        EndReason.EXPIRED,
        EndReason.STORE_UNAVAILABLE,
    }
)


class Dispatcher:
    """One Router's messages, in the order in which they came; requests beside them."""

    def __init__(
        self,
        exchange: Exchange,
        backend: Backend,
        connection: Connection,
        nursery: trio.Nursery,
        timeouts: Timeouts,
    ) -> None:
        self._exchange = exchange
        self._backend = backend
        self._connection = connection
        self._router = connection.router
        self._nursery = nursery
        self._timeouts = timeouts
        self._messages = Allowance(MESSAGES_PER_SECOND, MESSAGES_AT_ONCE, trio.current_time)
        self._notices = Allowance(NOTICES_PER_SECOND, NOTICES_AT_ONCE, trio.current_time)
        self._requests = 0
        # What writes to the registry: one at a time, so that a Router that sends a hundred keeps
        # the registry from no other.
        self._writing = trio.Lock()
        self._told_unknown = Recent(REMEMBERED_UNKNOWN)

    async def dispatch(self, message: Message, frame: bytes) -> None:
        """Do what `message` says. Raises SignallingError if the Router may not say it."""
        if (delay := self._messages.delay()) > 0:
            await trio.sleep(delay)
        match message:
            case Answer() | Refuse() | Withdraw() | InLine() | Announce() | Progress():
                await self._pass_on(message, frame)
            case (
                PublishKey()
                | Publish()
                | Grants()
                | Slots()
                | Resign()
                | Ahead()
                | Ask()
                | Seek()
                | Look()
            ):
                if self._requests == TOLERATED_REQUESTS:
                    raise SignallingError(f"more than {TOLERATED_REQUESTS} requests at once")
                self._requests += 1
                self._nursery.start_soon(self._answer, message)
            case Open():
                await self._open(message)
            case End():
                await self._end(message, frame)
            case Held():
                await self._held(message)
            case _:
                raise SignallingError(f"{type(message).__name__} is not a Router's to send")

    # --- sessions --------------------------------------------------------------------------------

    async def _held(self, message: Held) -> None:
        if self._connection.ready:
            raise SignallingError("Held came twice")
        held = frozenset(message.sessions)
        known = frozenset(await self._ask(self._backend.sessions_of(self._router)))
        for session in known - held:
            await self._ask(self._exchange.end_session(session, EndReason.PEER_FORGOT))
        for session in held - known:
            self._unknown(session)
        self._exchange.make_ready(self._connection)
        log.info("router ready", router=self._connection.name, sessions=len(held & known))

    async def _open(self, message: Open) -> None:
        session, callee = message.session, message.router
        ends = self._backend.ends(session)
        if callee == self._router or ends not in (None, (self._router, callee)):
            # Another's session goes on: only the one who tried is told.
            self._exchange.tell_end(self._router, session, EndReason.PROTOCOL_VIOLATION)
            return
        if ends is None:
            try:
                await self._ask(self._backend.open(self._router, message))
            except RelayError as error:
                reason = EndReason.STORE_UNAVAILABLE
                if isinstance(error, SessionRefused):
                    reason = error.reason
                elif isinstance(error, Refused):
                    reason = EndReason.NOT_GRANTED
                log.info(
                    "session refused",
                    association=number(session),
                    router=self._connection.name,
                    reason=reason.name,
                    why=str(error),
                )
                self._exchange.tell_end(self._router, session, reason)
                return
        target = self._exchange.ready(callee)
        if target is None:
            if ends is None:
                await self._refuse(session, EndReason.CALLEE_OFFLINE)
            # An opening that is said again, perhaps after our own restart: the callee may be about
            # to come back with its answer; if it is not, it will say that it does not hold this.
            return
        passed_on = Open(session, self._router, message.called, message.opening, message.request)
        if not target.outbox.put(session, passed_on, encode(passed_on)):
            await self._refuse(session, EndReason.LIMIT_REACHED)

    async def _refuse(self, session: bytes, reason: EndReason) -> None:
        await self._ask(self._backend.ended(session, reason))
        self._exchange.tell_end(self._router, session, reason)

    async def _end(self, message: End, frame: bytes) -> None:
        session = message.session
        ends = self._backend.ends(session)
        if ends is None or self._router not in ends:
            return  # both ends may say so at once; an answer would make a loop
        reason = EndReason.PEER_FORGOT
        if message.reason in _ROUTERS_REASONS:
            reason = EndReason(message.reason)
        await self._ask(self._backend.ended(session, reason))
        other = ends[1] if ends[0] == self._router else ends[0]
        if (target := self._exchange.ready(other)) is not None:
            passed_on = End(session, reason)
            # Behind what waits already: the last of a session's data must not be lost.
            if not target.outbox.put(session, passed_on, encode(passed_on)):
                self._exchange.tell_end(other, session, reason)

    async def _pass_on(self, message: PassedOn, frame: bytes) -> None:
        session = message.session
        ends = self._backend.ends(session)
        if ends is None or self._router not in ends:
            self._unknown(session)
            return
        caller, callee = ends
        is_caller = self._router == caller
        if isinstance(message, Withdraw) if not is_caller else isinstance(message, Answer | Refuse):
            await self._violated(session, f"{type(message).__name__} from the wrong end")
            return
        if isinstance(message, Answer):
            await self._ask(self._backend.answered(session, message.answer))
        target = self._exchange.ready(callee if is_caller else caller)
        if target is not None:
            if isinstance(message, Announce):
                direction = _written_by(is_caller)
                try:
                    get, delete = await self._ask(
                        self._backend.read_urls(session, direction, message.slot)
                    )
                except RelayError as error:
                    log.warning("no signed URLs", association=number(session), why=str(error))
                    await self._ask(
                        self._exchange.end_session(session, EndReason.STORE_UNAVAILABLE)
                    )
                    return
                message = Announce(
                    session=session,
                    chunk=message.chunk,
                    count=message.count,
                    slot=message.slot,
                    size=message.size,
                    get=(get,),
                    delete=() if delete is None else (delete,),
                )
                frame = encode(message)
            if not target.outbox.put(session, message, frame):
                await self._violated(session, "more is sent than the credit allows")
                return
        if isinstance(message, Progress) and message.slots:
            self._backend.opened(session, _written_by(is_caller).other, message.slots)
        if isinstance(message, Refuse | Withdraw):
            await self._ask(self._backend.ended(session, EndReason.FINISHED))

    async def _violated(self, session: bytes, what: str) -> None:
        log.warning(
            "session breaks the protocol",
            association=number(session),
            router=self._connection.name,
            what=what,
        )
        await self._ask(self._exchange.end_session(session, EndReason.PROTOCOL_VIOLATION))

    def _unknown(self, session: bytes) -> None:
        if self._told_unknown.add(session):
            self._exchange.tell_end(self._router, session, EndReason.UNKNOWN_SESSION)

    async def _ask(self, answer: Awaitable[T]) -> T:
        """Wait for the registry, but not for ever: this Router's messages queue up behind it."""
        with trio.move_on_after(self._timeouts.backend):
            return await answer
        raise SignallingError(f"the registry did not answer for {self._timeouts.backend:g} s")

    # --- requests --------------------------------------------------------------------------------

    async def _answer(self, message: Request) -> None:
        try:
            reply = await self._ask(self._carry_out(message))
        except RelayError as error:
            log.info(
                "request refused",
                request=type(message).__name__,
                router=self._connection.name,
                why=str(error),
            )
            reply = _done(message.request, [str(error)])
        self._requests -= 1
        self._connection.tell(encode(reply))

    async def _carry_out(self, message: Request) -> Message:
        backend, router = self._backend, self._router
        if not isinstance(message, Slots | Resign | Ahead) and not self._notices.take():
            raise Refused(429, "too many publications, asks and looks; try again in a minute")
        match message:
            case PublishKey(request, statement):
                async with self._writing:
                    return _done(request, await backend.publish_key(router, statement))
            case Publish(request, statements):
                async with self._writing:
                    return _done(request, await backend.publish(router, statements))
            case Grants(request, rows):
                async with self._writing:
                    return _done(request, await backend.grants(router, rows))
            case Slots(request, session, first, count):
                writes = _written_by(self._is_caller(session))
                puts = await backend.put_urls(router, session, writes, first, count)
                return SlotURLs(request, session, first, tuple(puts))
            case Resign(request, session, slot):
                reads = _written_by(self._is_caller(session)).other
                get, delete = await backend.read_urls(session, reads, slot)
                return Resigned(request, session, (get,), () if delete is None else (delete,))
            case Ahead(request, session, first, count):
                reads = _written_by(self._is_caller(session)).other
                urls = await backend.ahead_urls(session, reads, first, count)
                gets = tuple(get for get, _ in urls)
                deletes = tuple(delete for _, delete in urls if delete is not None)
                return AheadURLs(request, session, first, gets, deletes)
            case Ask():
                return self._pass_ask(message)
            case Seek(request, ae_title):
                await self._exchange.seek(self._connection, ae_title)
                return Done(request, ())
            case Look(request):
                return Present(request, self._exchange.present())

    def _pass_ask(self, message: Ask) -> Done:
        target = self._exchange.ready(message.router)
        if target is None:
            raise Refused(503, "that Router is not connected; ask again later")
        passed_on = Ask(message.request, self._router, message.sealed)
        # In the turn of its sender, so that one who asks much holds up no session.
        if not target.outbox.put(self._router, passed_on, encode(passed_on)):
            raise Refused(503, "too much waits for that Router; ask again later")
        return Done(message.request, ())

    def _is_caller(self, session: bytes) -> bool:
        ends = self._backend.ends(session)
        if ends is None or self._router not in ends:
            raise Refused(404, "unknown session")
        return ends[0] == self._router


def _written_by(caller: bool) -> Direction:
    return Direction.CALLER_TO_CALLEE if caller else Direction.CALLEE_TO_CALLER


def _done(request: int, refusals: Sequence[str]) -> Done:
    return Done(request, tuple(line[:512] for line in refusals[:MAXIMUM_PUBLICATIONS]))
