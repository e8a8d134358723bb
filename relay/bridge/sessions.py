"""Sessions: who speaks with whom, the slots of their chunks, and the signed URLs of those.

Open sessions are kept in memory as well, since the hub asks for one with every message; the
database is the truth that survives a restart. Of the keys inside a session's opening the Bridge
knows nothing: they are sealed.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apsw
import attrs

from relay.bridge.admission import OpeningRates, authorise, check_counts
from relay.bridge.objects import EndedSession, object_name
from relay.database import Database
from relay.errors import Refused
from relay.identity import fingerprint
from relay.providers import Provider, ReadsAhead, SignedRequest
from relay.signalling.hub import SessionRefused, SignedRow
from relay.signalling.messages import MAXIMUM_SLOTS, Direction, EndReason, Open

# Slots of one direction: 4 TiB in chunks of 4 MiB, so that no sweep has no end.
MAXIMUM_SLOT = 2**20
# How far beyond the slots signed so far a request may begin; they are used in order.
SLOTS_AHEAD = 4 * MAXIMUM_SLOTS
# Slots of each direction that the database is told of before they are signed: a transaction for
# every batch that a Router asks for took 2% of the Bridge's processor time, and one waits for it.
SLOTS_COUNTED = 64
# Slots of which one Progress says that they are opened, and the next one the rest: a session has
# far fewer under way, and a lie makes no more work than that.
OPENED_AT_ONCE = 256
# A sealed chunk at most: 4 MiB of records with header and tag.
MAXIMUM_OBJECT = 4 * 1024 * 1024 + 64

# Seconds. A PUT URL is given out ahead, so it has to wait; a GET URL is for use now, and is signed
# again for the asking. A DELETE follows the GET, when the chunk has been opened in its turn.
PUT_LIFETIME = 300
GET_LIFETIME = 60
DELETE_LIFETIME = 300


@attrs.define(slots=True, eq=False)
class Session:
    """One open session.

    `slots` counts the slots signed so far, by direction, `opened` those whose objects were opened;
    `counted` is what the database knows, which is no less than `slots`, and what they are after a
    restart.
    """

    id: bytes
    caller: bytes
    callee: bytes
    called: str
    name_key: bytes = attrs.field(repr=False)
    provider: str
    created: int
    authorised: bool = False
    answered: bool = False
    slots: list[int] = attrs.Factory(lambda: [0, 0])
    counted: list[int] = attrs.Factory(lambda: [SLOTS_COUNTED, SLOTS_COUNTED])
    opened: list[int] = attrs.Factory(lambda: [0, 0])

    @property
    def ends(self) -> tuple[bytes, bytes]:
        return self.caller, self.callee

    def object_name(self, direction: Direction, slot: int) -> str:
        return object_name(self.name_key, direction, slot)


class Sessions:
    """The sessions of one network. `clock` gives Unix seconds, `monotonic` seconds for rates.

    `providers` are the object stores by name, the first of `in_use` the one for new sessions.
    `on_signed` learns the name of each object that a Router may put.
    """

    def __init__(
        self,
        database: Database,
        providers: Mapping[str, Provider],
        *,
        in_use: Sequence[str],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        on_signed: Callable[[str, bytes], None] = lambda name, router: None,
    ) -> None:
        self._database = database
        self._providers = providers
        self._in_use = in_use
        self._clock = clock
        self._on_signed = on_signed
        self._open: dict[bytes, Session] = {}
        self._of: dict[bytes, set[bytes]] = {}
        self._rates = OpeningRates(monotonic)

    async def load(self) -> None:
        """Take up the sessions that were open when the Bridge stopped."""
        rows = await self._database.run(
            lambda db: list(
                db.execute(
                    "SELECT id, caller, callee, called, name_key, provider, created,"
                    " answer IS NOT NULL, outward, inward FROM session WHERE ended IS NULL"
                )
            )
        )
        for *fields, answered, outward, inward in rows:
            session = Session(*fields)
            session.authorised = True
            session.answered = bool(answered)
            session.slots, session.counted = [outward, inward], [outward, inward]
            # What was opened before is deleted, or is left to the sweeper.
            far = SLOTS_AHEAD + SLOTS_COUNTED
            session.opened = [max(0, counted - far) for counted in session.counted]
            self._keep(session)

    # --- opening and ending ---------------------------------------------------------------------

    async def open(self, caller: bytes, message: Open, *, callee_connected: bool) -> None:
        """Authorise the session and keep it. Raises SessionRefused with the reason."""
        callee = message.router
        self._rates.check(caller)
        if not callee_connected:
            raise SessionRefused(EndReason.CALLEE_OFFLINE)
        self._check_counts(caller, callee)
        session = Session(
            message.session,
            caller,
            callee,
            message.called,
            secrets.token_bytes(32),
            self._provider_in_use(),
            int(self._clock()),
        )

        def write(db: apsw.Connection) -> None:
            authorise(db, caller, callee, session.called)
            known = db.execute("SELECT 1 FROM session WHERE id = ?", (session.id,)).fetchone()
            if known:
                raise SessionRefused(EndReason.UNKNOWN_SESSION, "that session is over")
            db.execute(
                "INSERT INTO session (id, caller, callee, called, opening, name_key, provider,"
                " created, outward, inward) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    session.id,
                    caller,
                    callee,
                    session.called,
                    message.opening,
                    session.name_key,
                    session.provider,
                    session.created,
                    *session.counted,
                ),
            )

        # Listed before it is allowed: a revocation that comes right behind must find it.
        self._keep(session)
        try:
            await self._database.run(write)
        except BaseException:
            self._drop(session.id)
            raise
        if self._open.get(session.id) is not session:
            raise SessionRefused(EndReason.REVOKED)
        session.authorised = True

    async def answered(self, session: bytes, answer: bytes) -> None:
        """Keep the callee's answer; harmless the second time."""
        held = self._open.get(session)
        if held is None or held.answered:
            return
        held.answered = True
        await self._database.run(
            lambda db: db.execute(
                "UPDATE session SET answer = ? WHERE id = ? AND answer IS NULL", (answer, session)
            ).fetchall()
        )

    async def end(self, session: bytes, reason: EndReason) -> EndedSession | None:
        """The session is over; what is to be swept, or None if it was over before."""
        # Forgotten first: from here on no URL is signed for it.
        held = self._drop(session)
        if held is None:
            return None
        now = int(self._clock())
        slots = (held.slots[0], held.slots[1])
        await self._database.run(
            lambda db: db.execute(
                "UPDATE session SET ended = ?, reason = ?, outward = ?, inward = ? WHERE id = ?",
                (now, int(reason), *slots, session),
            ).fetchall()
        )
        return EndedSession(held.id, held.provider, held.name_key, slots, now, held.created)

    async def ended(self) -> list[EndedSession]:
        """Sessions that are over and not yet forgotten, the oldest first."""
        rows = await self._database.run(
            lambda db: list(
                db.execute(
                    "SELECT id, provider, name_key, outward, inward, ended, created FROM session"
                    " WHERE ended IS NOT NULL ORDER BY ended"
                )
            )
        )
        return [
            EndedSession(identity, provider, name_key, (outward, inward), ended, created)
            for identity, provider, name_key, outward, inward, ended, created in rows
        ]

    async def forget(self, session: bytes) -> None:
        """Drop the row of an ended session: it has had its last sweep."""
        await self._database.run(
            lambda db: db.execute(
                "DELETE FROM session WHERE id = ? AND ended IS NOT NULL", (session,)
            ).fetchall()
        )

    # --- looking --------------------------------------------------------------------------------

    def ends(self, session: bytes) -> tuple[bytes, bytes] | None:
        """(caller, callee) of an open session."""
        held = self._open.get(session)
        return held.ends if held is not None else None

    def of(self, router: bytes) -> list[bytes]:
        """The open sessions of which the Router is an end."""
        return list(self._of.get(router, ()))

    def all(self) -> list[Session]:
        """Every open session."""
        return list(self._open.values())

    async def no_longer_granted(self, router: bytes) -> list[bytes]:
        """The open sessions of which the Router is an end, and that would not be opened now."""
        held = [self._open[session] for session in self._of.get(router, ())]

        def read(db: apsw.Connection) -> list[bytes]:
            gone = []
            for session in held:
                try:
                    authorise(db, session.caller, session.callee, session.called)
                except SessionRefused:
                    gone.append(session.id)
            return gone

        return await self._database.run(read) if held else []

    def describe(self) -> list[dict[str, Any]]:
        """Every open session, for people."""
        return [
            {
                "session": s.id.hex(),
                "caller": fingerprint(s.caller),
                "callee": fingerprint(s.callee),
                "called": s.called,
                "provider": s.provider,
                "created": s.created,
                "answered": s.answered,
                "slots": list(s.slots),
            }
            for s in sorted(self._open.values(), key=lambda s: (s.created, s.id))
        ]

    # --- signed URLs ----------------------------------------------------------------------------

    async def put_urls(
        self, router: bytes, session: bytes, direction: Direction, first: int, count: int
    ) -> list[SignedRow]:
        """Signed PUTs of the slots from `first` on.

        Raises Refused: 404 for a session that is not this Router's, 400 for slots out of turn.
        """
        held = self._held(session)
        if router != held.ends[direction]:
            raise Refused(403, "that direction is written by the other end")
        end = first + count
        if first > held.slots[direction] + SLOTS_AHEAD or end > MAXIMUM_SLOT:
            raise Refused(400, "slots out of turn")
        if end > held.slots[direction]:
            await self._count_slots(held, direction, end)
        provider = self._provider(held)
        rows = []
        for slot in range(first, end):
            name = held.object_name(direction, slot)
            self._on_signed(name, router)
            rows.append(
                _row(
                    await provider.sign_put(name, size_limit=MAXIMUM_OBJECT, lifetime=PUT_LIFETIME)
                )
            )
        self._held(session)  # ended meanwhile: what was signed must not get out
        return rows

    async def read_urls(
        self, session: bytes, direction: Direction, slot: int
    ) -> tuple[SignedRow, SignedRow | None]:
        """Signed GET and DELETE of a slot; no DELETE where `opened` has it deleted.

        Raises Refused for one that was never signed.
        """
        held = self._held(session)
        if slot >= held.slots[direction]:
            raise Refused(400, "no such slot")
        provider = self._provider(held)
        name = held.object_name(direction, slot)
        get = await provider.sign_get(name, lifetime=GET_LIFETIME)
        delete = None
        if not isinstance(provider, ReadsAhead):
            delete = _row(await provider.sign_delete(name, lifetime=DELETE_LIFETIME))
        self._held(session)
        return _row(get), delete

    async def ahead_urls(
        self, session: bytes, direction: Direction, first: int, count: int
    ) -> list[tuple[SignedRow, SignedRow | None]]:
        """Signed GETs that may come before their objects of `count` slots; `opened` deletes those.

        None where the store cannot have a reader wait. Raises Refused.
        """
        held = self._held(session)
        if first > held.slots[direction] + SLOTS_AHEAD or first + count > MAXIMUM_SLOT:
            raise Refused(400, "slots out of turn")
        provider = self._provider(held)
        if not isinstance(provider, ReadsAhead):
            return []
        reader = held.ends[direction.other]
        rows: list[tuple[SignedRow, SignedRow | None]] = []
        for slot in range(first, first + count):
            name = held.object_name(direction, slot)
            get = await provider.sign_get_ahead(name, lifetime=GET_LIFETIME, reader=reader)
            rows.append((_row(get), None))
        self._held(session)
        return rows

    def opened(
        self, session: bytes, direction: Direction, slots: int, at_most: int = OPENED_AT_ONCE
    ) -> tuple[str, list[str]]:
        """The direction's reader has opened what lay in its slots from 0 on, so many.

        Gives the store and the names, `at_most` so many and each once, of the objects in it that
        are to be deleted now; the next call gives those that were too many. None for a
        store that Routers are given signed DELETEs of. Whatever the reader says, the objects are
        its own: no other end reads them.
        """
        held = self._open.get(session)
        if held is None or not isinstance(self._providers.get(held.provider), ReadsAhead):
            return "", []
        first = held.opened[direction]
        end = min(slots, held.slots[direction], first + min(at_most, OPENED_AT_ONCE))
        if end <= first:
            return "", []
        held.opened[direction] = end
        return held.provider, [held.object_name(direction, slot) for slot in range(first, end)]

    # --- inside ---------------------------------------------------------------------------------

    async def _count_slots(self, held: Session, direction: Direction, end: int) -> None:
        # In memory first: a sweep that begins meanwhile must know of them.
        held.slots[direction] = max(held.slots[direction], end)
        if end <= held.counted[direction]:
            return
        counted = end + SLOTS_COUNTED
        column = "outward" if direction is Direction.CALLER_TO_CALLEE else "inward"
        await self._database.run(
            lambda db: db.execute(
                f"UPDATE session SET {column} = max({column}, ?) WHERE id = ?", (counted, held.id)
            ).fetchall()
        )
        held.counted[direction] = max(held.counted[direction], counted)

    def _keep(self, session: Session) -> None:
        self._open[session.id] = session
        for router in session.ends:
            self._of.setdefault(router, set()).add(session.id)

    def _drop(self, session: bytes) -> Session | None:
        held = self._open.pop(session, None)
        if held is not None:
            for router in held.ends:
                self._of[router].discard(session)
        return held

    def _held(self, session: bytes) -> Session:
        held = self._open.get(session)
        if held is None or not held.authorised:
            raise Refused(404, "unknown session")
        return held

    def _provider(self, session: Session) -> Provider:
        provider = self._providers.get(session.provider)
        if provider is None:
            raise Refused(503, f"object store {session.provider} is not set up here any more")
        return provider

    def _provider_in_use(self) -> str:
        name = next(iter(self._in_use), None)
        if name is None:
            raise SessionRefused(EndReason.STORE_UNAVAILABLE, "no object store is set up")
        return name

    def _check_counts(self, caller: bytes, callee: bytes) -> None:
        opened = sum(self._open[s].caller == caller for s in self._of.get(caller, ()))
        check_counts(opened, max(len(self._of.get(router, ())) for router in (caller, callee)))


def _row(request: SignedRequest) -> SignedRow:
    return request.method, request.url, request.headers, request.expires
