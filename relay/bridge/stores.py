"""The object stores that are set up: added, put in order and removed while the Bridge runs.

New sessions use the first store in use that works; a session stays on its store until
it is over and swept, and so long the store stays set up.
"""

import json
import math
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import apsw
import structlog
import trio

from relay.bridge.store import Store
from relay.bridge.watched import Health
from relay.database import Database
from relay.errors import ProviderError, Refused, RelayError
from relay.providers import Finding, Provider
from relay.providers.disk import DiskProvider
from relay.providers.registry import Host

log = structlog.get_logger()

# Seconds. Opening is reading settings and, for some, one request; closing is less.
OPEN_TIMEOUT = 30.0
CLOSE_TIMEOUT = 10.0
# Before the next try to open a store that did not.
RETRY_INTERVAL = 10.0
# Seven requests to a store and a listing, each with a deadline of its own.
CHECK_TIMEOUT = 50.0
# Between two tries to let go of a store that is leaving: its sessions take minutes to be swept.
LEAVING_INTERVAL = 15.0

MAXIMUM_STORES = 32
MAXIMUM_SETTINGS = 32
# A secret that is given as it is may be a key in PEM.
MAXIMUM_VALUE = 8 * 1024

DISK = "disk"

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_KEY = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Stores:
    """Made by `open_stores`. Methods for people raise Refused with words for them.

    `providers` are the open stores by name, and `in_use` the names of those for new sessions, the
    one to use first; both change as stores do.
    """

    def __init__(
        self,
        database: Database,
        host: Callable[[str], Host],
        nursery: trio.Nursery,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._host = host
        self._nursery = nursery
        self._clock = clock
        self._stores: dict[str, Store] = {}
        self._changing = trio.Lock()
        self._trying = trio.Lock()
        self.providers: dict[str, Provider] = {}
        self.in_use: list[str] = []

    @property
    def own(self) -> DiskProvider | None:
        """The store that this process serves itself, if it is set up."""
        for store in self._stores.values():
            if store.provider is not None and isinstance(store.provider.inner, DiskProvider):
                return store.provider.inner
        return None

    async def load(self) -> None:
        """Open what is set up; what does not open now is tried again.

        Raises RelayError if none of those in use opens: nothing would work, and why is plain.
        """
        rows = await self._database.run(
            lambda db: list(
                db.execute("SELECT name, kind, settings, in_use, leaving FROM provider")
            )
        )
        errors = []
        for name, kind, settings, place, leaving in rows:
            store = self._new(name, kind, json.loads(settings), place, bool(leaving))
            try:
                await self._start(store)
            except RelayError as error:
                errors.append(error)
                log.error("object store does not open", store=name, why=str(error))
                store.health.failed(str(error))
                store.health.failing = True
                self._nursery.start_soon(self._start_later, store)
            self._stores[name] = store
        if errors and not any(s.provider for s in self._stores.values() if s.place):
            raise errors[0]
        self._order()
        self._nursery.start_soon(self._let_go)

    # --- for people -----------------------------------------------------------------------------

    async def add(self, name: str, kind: str, settings: Mapping[str, str]) -> None:
        """Set up another store, not yet in use."""
        _check_names(name, settings)
        async with self._changing:
            self._check_free(name, kind)
            store = self._new(name, kind, settings)
            try:
                await self._start(store)
            except ProviderError as error:
                raise Refused(400, str(error)) from error
            row = name, kind, json.dumps(dict(settings))
            insert = "INSERT INTO provider (name, kind, settings, in_use) VALUES (?, ?, ?, 0)"
            try:
                with trio.CancelScope(shield=True):  # the row and what is open are one
                    await self._database.run(lambda db: db.execute(insert, row).fetchall())
            except RelayError:
                store.closing.set()
                raise
            self._stores[name] = store
            log.info("object store added", store=name, kind=kind)

    async def try_out(self, name: str, kind: str, settings: Mapping[str, str]) -> Sequence[Finding]:
        """What the check of such a store finds, before it is set up: nothing of it is kept."""
        _check_names(name, settings)
        self._check_free(name, kind)
        store = self._new(name, kind, settings)
        async with self._trying:
            try:
                with trio.fail_after(OPEN_TIMEOUT):
                    await self._nursery.start(store.hold, self._host(name), {})
            except trio.TooSlowError:
                raise Refused(504, f"object store {name} did not open in time") from None
            except ProviderError as error:
                raise Refused(400, str(error)) from error
            try:
                return await self._checked(store)
            finally:
                store.closing.set()
                with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                    await store.closed.wait()

    async def use(self, names: Sequence[str]) -> None:
        """Use these for new sessions, in this order: the first that works.

        What was not in use until now has to pass its check first.
        """
        if not names or len(set(names)) != len(names):
            raise Refused(400, "names: expected one object store or more, each of them once")
        async with self._changing:
            found = [self.find(name) for name in names]
            for store in found:
                if store.leaving:
                    raise Refused(409, f"object store {store.name} is being removed")
            # The disk is this process's own, and it need not be able to reach itself by its URL.
            await self._must_pass([s for s in found if not s.place and s.kind != DISK])
            places = {name: number for number, name in enumerate(names, start=1)}
            rows = [(places.get(name, 0), name) for name in self._stores]
            update = "UPDATE provider SET in_use = ? WHERE name = ?"
            with trio.CancelScope(shield=True):
                await self._database.run(lambda db: db.executemany(update, rows))
            for store in self._stores.values():
                store.place = places.get(store.name, 0)
            self._order()
            log.info("object stores in use", stores=list(names))

    async def remove(self, name: str) -> int:
        """Use the store for no new session, and let go of it once none rests on it.

        The number of sessions, open or not yet swept, that still do.
        """
        async with self._changing:
            store = self.find(name)
            if store.place and all(s is store or not s.place for s in self._stores.values()):
                raise Refused(
                    409, f"{name} is the only object store in use: put another in use first"
                )
            update = "UPDATE provider SET leaving = 1, in_use = 0 WHERE name = ?"
            with trio.CancelScope(shield=True):
                await self._database.run(lambda db: db.execute(update, (name,)).fetchall())
                store.leaving, store.place = True, 0
                self._order()
            return await self._forget(store)

    async def check(self, name: str) -> Sequence[Finding]:
        """What the store's own check finds."""
        return await self._checked(self.find(name))

    def find(self, name: str) -> Store:
        """The store of this name. Raises Refused (404)."""
        store = self._stores.get(name)
        if store is None:
            there = ", ".join(self._stores) or "none"
            raise Refused(404, f"no object store {name[:80]!r}; there is: {there}")
        return store

    def failing(self) -> list[str]:
        """The names of the stores that fail."""
        return sorted(store.name for store in self._stores.values() if store.health.failing)

    def failures(self) -> dict[str, int]:
        """How often each store has failed since the Bridge started."""
        return {store.name: store.health.failures for store in self._stores.values()}

    async def describe(self) -> list[dict[str, Any]]:
        """Every store, for people: those in use first, in their order."""
        counts = await self._database.run(
            lambda db: dict(db.execute("SELECT provider, count(*) FROM session GROUP BY provider"))
        )
        ordered = sorted(self._stores.values(), key=lambda s: (s.place or math.inf, s.name))
        return [
            {
                "name": s.name,
                "kind": s.kind,
                "in_use": s.place > 0,
                "place": s.place,
                "origin": s.origin,
                "leaving": s.leaving,
                "failing": s.health.failing,
                "worked": s.health.worked,
                "last_failure": s.health.last_failure,
                "failed_at": s.health.failed_at,
                "sessions": counts.get(s.name, 0),
            }
            for s in ordered
        ]

    # --- inside ---------------------------------------------------------------------------------

    def _check_free(self, name: str, kind: str) -> None:
        """Raise Refused (409) if there can be no new store of this name and kind."""
        if name in self._stores:
            raise Refused(
                409, f"there is an object store {name}: remove it first, or choose another name"
            )
        if len(self._stores) >= MAXIMUM_STORES:
            raise Refused(409, f"{MAXIMUM_STORES} object stores are set up: remove one")
        if kind == DISK and any(store.kind == DISK for store in self._stores.values()):
            raise Refused(409, "the Bridge's own disk is set up already, and there is only one")

    def _new(
        self,
        name: str,
        kind: str,
        settings: Mapping[str, str],
        place: int = 0,
        leaving: bool = False,
    ) -> Store:
        health = Health(name, self._clock, self._order)
        return Store(name, kind, settings, place, leaving, health)

    def _order(self) -> None:
        """Put those that work first. If none does, the first may all the same."""
        used = [store for store in self._stores.values() if store.place]
        used.sort(key=lambda store: (store.health.failing, store.place))
        self.in_use[:] = [store.name for store in used]

    async def _start(self, store: Store) -> None:
        """Open the store in a task of its own. Raises ProviderError, Refused."""
        try:
            with trio.fail_after(OPEN_TIMEOUT):
                await self._nursery.start(self._hold, store)
        except trio.TooSlowError:
            raise ProviderError(f"object store {store.name} did not open in time") from None

    async def _hold(
        self, store: Store, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await store.hold(self._host(store.name), self.providers, task_status=task_status)
        if not store.closing.is_set():
            store.health.failed(f"the code of {store.kind} ended by itself")
            store.health.failing = True
            self._order()
            self._nursery.start_soon(self._start_later, store)

    async def _start_later(self, store: Store) -> None:
        """Try to open a store until it does, or is to be closed."""
        while not store.closing.is_set():
            with trio.move_on_after(RETRY_INTERVAL):
                await store.closing.wait()
                break
            try:
                await self._start(store)
            except RelayError as error:
                store.health.failed(str(error))
            else:
                return
        store.closed.set()

    async def _checked(self, store: Store) -> Sequence[Finding]:
        if store.provider is None:
            return [Finding("open the store", False, store.health.last_failure or "not yet open")]
        with trio.move_on_after(CHECK_TIMEOUT):
            return await store.provider.check()
        raise Refused(504, f"object store {store.name} did not answer in {CHECK_TIMEOUT:g} s")

    async def _must_pass(self, stores: Sequence[Store]) -> None:
        """Check these stores, all in one store's time: a person waits. Raises Refused."""
        with trio.move_on_after(CHECK_TIMEOUT):
            for store in stores:
                for finding in await self.check(store.name):
                    if not finding.ok:
                        words = f"{finding.what}: {finding.advice}"
                        raise Refused(409, f"{store.name} does not pass its check: {words}")
            return
        raise Refused(504, f"no end of the checks in {CHECK_TIMEOUT:g} s: use one store at a time")

    async def _let_go(self) -> None:
        """Forget the stores that are leaving, each when its last session is swept."""
        while True:
            await trio.sleep(LEAVING_INTERVAL)
            async with self._changing:
                for store in [s for s in self._stores.values() if s.leaving]:
                    try:
                        await self._forget(store)
                    except RelayError as error:
                        log.error("object store not removed", store=store.name, why=str(error))

    async def _forget(self, store: Store) -> int:
        """Close the store and drop its row, unless sessions rest on it: how many do."""

        def write(db: apsw.Connection) -> int:
            resting = "SELECT count(*) FROM session WHERE provider = ?"
            count = int(db.execute(resting, (store.name,)).get)
            if not count:
                db.execute("DELETE FROM provider WHERE name = ?", (store.name,))
            return count

        resting = await self._database.run(write)
        if not resting:
            store.closing.set()
            with trio.move_on_after(CLOSE_TIMEOUT):
                await store.closed.wait()
            del self._stores[store.name]
            log.info("object store removed", store=store.name)
        return resting


@asynccontextmanager
async def open_stores(
    database: Database, host: Callable[[str], Host], *, clock: Callable[[], float]
) -> AsyncIterator[Stores]:
    """The stores of `database`, open for as long as the block lasts.

    `host` gives what the Bridge lends to the store of a name. Raises RelayError.
    """
    failed = None
    async with trio.open_nursery() as nursery:
        stores = Stores(database, host, nursery, clock=clock)
        try:
            await stores.load()
        except RelayError as error:
            failed = error
        else:
            yield stores
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed  # out here, where no nursery wraps it


def _check_names(name: str, settings: Mapping[str, str]) -> None:
    if not _NAME.fullmatch(name):
        raise Refused(400, "name: expected 1 to 32 of a-z, 0-9 and -")
    if len(settings) > MAXIMUM_SETTINGS:
        raise Refused(400, f"settings: expected at most {MAXIMUM_SETTINGS}")
    for key, value in settings.items():
        if not _KEY.fullmatch(key):
            raise Refused(400, f"settings: {key[:64]!r} is no setting's name")
        if not isinstance(value, str) or len(value) > MAXIMUM_VALUE:
            raise Refused(400, f"{key}: expected text of at most {MAXIMUM_VALUE} characters")
