"""What the hub asks of the Bridge, and what changes tell the hub in return."""

from collections import Counter
from collections.abc import Collection, Sequence

import structlog
import trio

from relay.bridge.opened import OpenedObjects
from relay.bridge.registry import Change, Registry
from relay.bridge.sessions import Sessions
from relay.bridge.sweeper import Sweeper
from relay.errors import RelayError
from relay.identity import fingerprint
from relay.signalling.hub import GrantedRow, GrantRow, Hub, ListedRow, RouterRow, SignedRow
from relay.signalling.messages import Direction, EndReason, Open
from relay.tracing import number

log = structlog.get_logger()

# A session of which an end has not been connected for so long is over: no Router resumes after its
# resume window, which is far shorter, and a Router that is gone for good must not keep it.
ABANDONED_AFTER = 3600.0
# An opening that nobody answered: the callee may have been given it while it went away.
UNANSWERED_AFTER = 300.0
# How often both are looked for.
EXPIRY_INTERVAL = 30.0


class BridgeBackend:
    """`relay.signalling.backend.Backend` over registry, sessions and sweeper.

    `hub` is set right after it has been made, since each needs the other.
    """

    hub: Hub

    def __init__(
        self, registry: Registry, sessions: Sessions, sweeper: Sweeper, opened: OpenedObjects
    ) -> None:
        self._registry = registry
        self._sessions = sessions
        self._sweeper = sweeper
        self._opened = opened
        # Since the Bridge started, for whoever counts.
        self.begun = 0
        self.over = Counter[EndReason]()

    # --- Routers --------------------------------------------------------------------------------

    async def admit(self, router: bytes) -> None:
        await self._registry.admit(router)

    async def publish_key(self, router: bytes, statement: bytes) -> Sequence[str]:
        return await self._tell(await self._registry.publish_key(router, statement))

    async def publish(self, router: bytes, statements: Sequence[bytes]) -> Sequence[str]:
        change = await self._registry.publish(router, statements)
        await self._end_ungranted(router)
        return await self._tell(change)

    async def grants(self, router: bytes, rows: Sequence[GrantRow]) -> Sequence[str]:
        change = await self._registry.grants(router, rows)
        await self._end_ungranted(router)
        return await self._tell(change)

    async def granted(self, router: bytes) -> Sequence[GrantedRow]:
        return await self._registry.granted(router)

    async def listing(self) -> Sequence[ListedRow]:
        return await self._registry.listing()

    async def concerns(self, router: bytes) -> frozenset[bytes]:
        return await self._registry.concerns(router)

    async def rows(self, routers: Collection[bytes]) -> tuple[Sequence[RouterRow], Sequence[bytes]]:
        return await self._registry.rows(routers)

    async def owner(self, ae_title: str) -> bytes | None:
        return await self._registry.owner(ae_title)

    async def enrolled(self, router: RouterRow) -> None:
        """A Router has come into the network: tell the others."""
        identity, name, _ = router
        await self._tell(Change(identity, listed=((identity, name, ()),), routers=(router,)))

    async def revoke(self, router: bytes) -> None:
        """Shut a Router out: no more admission, socket closed, sessions ended, others told."""
        change = await self._registry.revoke(router)
        await self.hub.revoke(router)
        await self._tell(change)
        log.warning("router revoked", router=fingerprint(router))

    # --- sessions -------------------------------------------------------------------------------

    async def open(self, caller: bytes, message: Open) -> None:
        connected = message.router in self.hub.connected()
        await self._sessions.open(caller, message, callee_connected=connected)
        self.begun += 1
        log.info(
            "session begun",
            association=number(message.session),
            caller=fingerprint(caller),
            callee=fingerprint(message.router),
            called=message.called,
        )

    async def answered(self, session: bytes, answer: bytes) -> None:
        log.info("session answered", association=number(session))
        await self._sessions.answered(session, answer)

    async def ended(self, session: bytes, reason: EndReason) -> None:
        ended = await self._sessions.end(session, reason)
        if ended is not None:
            self._sweeper.ended(ended)
            self.over[reason] += 1
            log.info(
                "session ended",
                association=number(session),
                reason=reason.name,
                slots=ended.slots,
                seconds=ended.ended - ended.created,
            )

    def ends(self, session: bytes) -> tuple[bytes, bytes] | None:
        return self._sessions.ends(session)

    async def sessions_of(self, router: bytes) -> Sequence[bytes]:
        return self._sessions.of(router)

    async def put_urls(
        self, router: bytes, session: bytes, direction: Direction, first: int, count: int
    ) -> Sequence[SignedRow]:
        return await self._sessions.put_urls(router, session, direction, first, count)

    async def read_urls(
        self, session: bytes, direction: Direction, slot: int
    ) -> tuple[SignedRow, SignedRow | None]:
        return await self._sessions.read_urls(session, direction, slot)

    async def ahead_urls(
        self, session: bytes, direction: Direction, first: int, count: int
    ) -> Sequence[tuple[SignedRow, SignedRow | None]]:
        return await self._sessions.ahead_urls(session, direction, first, count)

    def opened(self, session: bytes, direction: Direction, slots: int) -> None:
        # What there is no room for is asked for again by the next Progress, or swept at the end.
        if room := self._opened.room(session):
            self._opened.add(session, *self._sessions.opened(session, direction, slots, room))

    async def expire(self) -> None:
        """End sessions that nobody will come back to, for as long as the Bridge runs."""
        seen: dict[bytes, float] = {}
        started = trio.current_time()
        unanswered: dict[bytes, float] = {}
        while True:
            now = trio.current_time()
            seen.update(dict.fromkeys(self.hub.connected(), now))
            sessions = self._sessions.all()
            waiting = {s.id: unanswered.get(s.id, now) for s in sessions if not s.answered}
            unanswered = waiting
            for session in sessions:
                gone = any(now - seen.get(e, started) > ABANDONED_AFTER for e in session.ends)
                if gone or now - waiting.get(session.id, now) > UNANSWERED_AFTER:
                    await self._end(session.id, EndReason.EXPIRED)
            await trio.sleep(EXPIRY_INTERVAL)

    # --- inside ---------------------------------------------------------------------------------

    async def _tell(self, change: Change) -> Sequence[str]:
        await self.hub.directory_changed(
            change.of,
            listed=change.listed,
            routers=change.routers,
            publications=change.publications,
            gone_routers=change.gone_routers,
            gone_titles=change.gone_titles,
        )
        # After the directory: what is listed by then is what the grants are of.
        await self.hub.granted_changed(change.grantees)
        return change.refusals

    async def _end_ungranted(self, router: bytes) -> None:
        """End those sessions of the Router that would not be opened now."""
        for session in await self._sessions.no_longer_granted(router):
            await self._end(session, EndReason.REVOKED)

    async def _end(self, session: bytes, reason: EndReason) -> None:
        try:
            await self.hub.end_session(session, reason)
        except RelayError as error:
            # The other sessions must end all the same.
            log.error("session not ended", association=number(session), why=str(error))
