"""The sweeper: no object outlives its session for long.

A session's objects are deleted when it ends, and again when nothing can arrive any more: after the
last PUT URL's life plus the longest upload. Objects that belong to no session at all (the database
was restored) go by age. One task does all of it, so there is never more than one sweep. A paused
session is not touched: only an ended one is swept.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

import structlog
import trio

from relay.bridge.blobs import TRANSFER_TIMEOUT
from relay.bridge.objects import EndedSession, object_names
from relay.bridge.sessions import PUT_LIFETIME, Sessions
from relay.errors import RelayError
from relay.providers import Provider

log = structlog.get_logger()

# From a session's end until its last sweep. The margin is for clouds whose clocks are not ours.
LAST_SWEEP_AFTER = PUT_LIFETIME + TRANSFER_TIMEOUT + 60
# Objects deleted in one call: what S3's DeleteObjects takes.
BATCH = 1000
# Older objects of no session are orphans. Far beyond any session's first sweep.
ORPHAN_AGE = 3600
ORPHAN_INTERVAL = 3600
# After a failure of a store, before it is tried again.
PAUSE = 10.0
# A store that takes longer for one batch is down.
BATCH_TIMEOUT = 60.0

# Names that Relay gives, to chunks and in a check. A bucket may hold other people's things.
_OURS = re.compile(r"[0-9a-f]{2}/[0-9a-f]{62}|probe/[0-9a-f]{32}")


class Sweeper:
    """Sweeps until cancelled. `clock` gives Unix seconds.

    `on_deleted` learns the names that are gone, and whether they will not come again.
    """

    def __init__(
        self,
        sessions: Sessions,
        providers: Mapping[str, Provider],
        *,
        clock: Callable[[], float],
        on_deleted: Callable[[Sequence[str], bool], None] = lambda names, last: None,
        last_sweep_after: float = LAST_SWEEP_AFTER,
    ) -> None:
        self._sessions = sessions
        self._providers = providers
        self._clock = clock
        self._on_deleted = on_deleted
        self._last_sweep_after = last_sweep_after
        self._first: dict[bytes, EndedSession] = {}
        self._last: dict[bytes, EndedSession] = {}
        self._woken = trio.Event()
        self._orphans_due = 0.0
        # Since the Bridge started: objects asked to be deleted (most are gone by then), and tries
        # that failed.
        self.swept = 0
        self.failures = 0

    @property
    def waiting(self) -> int:
        """Sessions that are over and not swept for the first time yet: a store that fails has them
        wait."""
        return len(self._first)

    def ended(self, session: EndedSession) -> None:
        """This session is over: sweep it now, and once more when nothing can come."""
        self._first[session.id] = session
        self._woken.set()

    async def run(self) -> None:
        """Sweep what ended before the last stop, and then whatever ends."""
        for session in await self._sessions.ended():
            self.ended(session)
        while True:
            self._woken = trio.Event()
            try:
                pause = await self._sweep_due()
            except RelayError as error:
                # A full disk, for one: sweeping is what will make room.
                log.error("sweep failed", why=str(error))
                pause = PAUSE
            with trio.move_on_after(pause):
                await self._woken.wait()

    async def _sweep_due(self) -> float:
        """Do what is due; the seconds until more is."""
        # A store that failed is not asked again for each session: it would hold up the others.
        down: set[str] = set()
        for session in list(self._first.values()):
            if session.provider in down:
                continue
            if await self._sweep(session, last=False):
                self._last[session.id] = self._first.pop(session.id)
            else:
                down.add(session.provider)
        for session in list(self._last.values()):
            if self._clock() < session.ended + self._last_sweep_after:
                break  # in the order in which they ended: tens of thousands at a busy Bridge
            if session.provider in down:
                continue
            if await self._sweep(session, last=True):
                await self._sessions.forget(session.id)
                del self._last[session.id]
            else:
                down.add(session.provider)
        if self._clock() >= self._orphans_due:
            self._orphans_due = self._clock() + ORPHAN_INTERVAL
            await self._sweep_orphans()
        if down:
            return PAUSE
        due = next((session.ended for session in self._last.values()), math.inf)
        due = min(due + self._last_sweep_after, self._orphans_due)
        # At least a little: a clock that was set back must not make this loop spin.
        return max(0.05, due - self._clock())

    async def _sweep(self, session: EndedSession, *, last: bool) -> bool:
        """Delete all that the session may have put; False if the store failed."""
        provider = self._providers.get(session.provider)
        if provider is None:
            # It stays set up while a session rests on it, so that it is to come back.
            log.warning("sweep failed", provider=session.provider, why="the store is not open")
            return False
        names = session.object_names()
        while batch := list(islice(names, BATCH)):
            if not await self._delete(provider, batch):
                return False
            self._on_deleted(batch, last)
        return True

    async def _sweep_orphans(self) -> None:
        for provider in list(self._providers.values()):
            try:
                orphans = await self._orphans(provider)
            except RelayError as error:
                log.warning("sweep failed", provider=provider.name, why=str(error))
                continue
            if orphans and await self._delete(provider, orphans):
                log.info("orphans swept", provider=provider.name, objects=len(orphans))

    async def _orphans(self, provider: Provider) -> list[str]:
        """Names of old objects of no session; at most a batch, the rest comes next time."""
        horizon = self._clock() - ORPHAN_AGE
        old: list[str] = []
        with trio.move_on_after(BATCH_TIMEOUT):
            async for stored in provider.list(""):
                if stored.modified < horizon and _OURS.fullmatch(stored.name):
                    old.append(stored.name)
        if not old:
            return []
        known = await trio.to_thread.run_sync(_names, list(self._keys()))
        return [name for name in old if name not in known][:BATCH]

    def _keys(self) -> Iterable[tuple[bytes, tuple[int, int]]]:
        for session in self._sessions.all():
            yield session.name_key, (session.slots[0], session.slots[1])
        for ended in (*self._first.values(), *self._last.values()):
            yield ended.name_key, ended.slots

    async def _delete(self, provider: Provider, names: Sequence[str]) -> bool:
        with trio.move_on_after(BATCH_TIMEOUT):
            try:
                await provider.delete(names)
                self.swept += len(names)
                return True
            except RelayError as error:
                self.failures += 1
                log.warning("sweep failed", provider=provider.name, why=str(error))
                return False
        self.failures += 1
        log.warning("sweep failed", provider=provider.name, why="no answer in time")
        return False


def _names(keys: Sequence[tuple[bytes, tuple[int, int]]]) -> set[str]:
    return {name for key, slots in keys for name in object_names(key, slots)}
