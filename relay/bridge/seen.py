"""When each Router was last connected: kept in memory, and in the database from time to time.

The hub is asked who is there, instead of telling when somebody comes: a Bridge that is started anew
gets all its Routers at once, and must not write a row for each of them then.
"""

from collections.abc import Callable, Collection, Iterable
from typing import NoReturn

import structlog
import trio

from relay.database import Database
from relay.errors import RelayError

log = structlog.get_logger()

# Seconds. As exactly as a person wants to know it, and at most this is lost with a crash.
LOOK_INTERVAL = 30.0


class LastSeen:
    """`connected` gives the Routers that are there now, `clock` Unix seconds."""

    def __init__(
        self,
        database: Database,
        connected: Callable[[], Collection[bytes]],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._connected = connected
        self._clock = clock
        self._seen: dict[bytes, int] = {}

    async def load(self) -> None:
        """Take up what was known when the Bridge stopped."""
        rows = await self._database.run(
            lambda db: list(
                db.execute("SELECT identity, last_seen FROM router WHERE last_seen IS NOT NULL")
            )
        )
        self._seen = dict(rows)

    def all(self) -> dict[bytes, int]:
        """When each Router that was ever connected was last seen, in Unix seconds."""
        return self._seen | dict.fromkeys(self._connected(), int(self._clock()))

    async def run(self) -> NoReturn:
        """Look who is there, for as long as the Bridge runs."""
        while True:
            await trio.sleep(LOOK_INTERVAL)
            await self.look()

    async def look(self) -> None:
        """Note who is connected now, and write it down."""
        here = self._connected()
        if not here:
            return
        now = int(self._clock())
        self._seen.update(dict.fromkeys(here, now))
        try:
            await self._write(now, here)
        except RelayError as error:
            # Only what people see of it is less exact: everything else goes on.
            log.error("last connections not noted", why=str(error))

    async def _write(self, now: int, routers: Iterable[bytes]) -> None:
        update = "UPDATE router SET last_seen = ? WHERE identity = ?"
        rows = [(now, router) for router in routers]
        await self._database.run(lambda db: db.executemany(update, rows))
