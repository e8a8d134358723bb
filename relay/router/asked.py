"""What this hospital has asked of others, until it is granted or a person here forgets it.

The other hospital answers by granting, or not at all (relay.router.asks): what still waits is what
it grants nothing of. That is the Bridge's word (Directory.granted), enough to show people.
"""

from collections.abc import Callable
from typing import Any

import apsw
import attrs

from relay.database import Database
from relay.errors import Refused
from relay.identity import fingerprint
from relay.router import services
from relay.router.schema import change

# What is granted of a published AE title (Directory.granted).
Granted = Callable[[str], frozenset[str]]


@attrs.frozen(slots=True)
class Asked:
    """What was asked of `owner` for its `ae_title`, as the network knows it; `at` Unix seconds."""

    owner: bytes
    ae_title: str
    services: frozenset[str]
    at: int

    def waiting(self, granted: Granted) -> frozenset[str]:
        """What of it is not granted."""
        return self.services - granted(self.ae_title)

    def to_json(self, granted: Granted) -> dict[str, Any]:
        """For people."""
        return {
            "peer": fingerprint(self.owner),
            "ae_title": self.ae_title,
            "services": list(services.ordered(self.services)),
            "waiting": list(services.ordered(self.waiting(granted))),
            "asked": self.at,
        }


class AskedTable:
    """The asks of this hospital's own, one for each AE title: the last takes the others' place."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, asked: Asked) -> None:
        """Keep what was asked just now."""
        await self._database.run(
            change(
                "INSERT OR REPLACE INTO asked (ae_title, owner, services, at) VALUES (?, ?, ?, ?)",
                asked.ae_title,
                asked.owner,
                " ".join(services.ordered(asked.services)),
                asked.at,
            )
        )

    async def waiting(self, granted: Granted) -> list[Asked]:
        """What is not granted in full, the last asked first."""
        return [asked for asked in await self._database.run(_read) if asked.waiting(granted)]

    async def settle(self, granted: Granted) -> None:
        """Forget what is granted: if that is taken back later, nothing waits for an answer."""
        for asked in await self._database.run(_read):
            if not asked.waiting(granted):
                await self._forget(asked.ae_title)

    async def remove(self, ae_title: str) -> None:
        """A person waits for it no more. Raises Refused (404)."""
        if all(asked.ae_title != ae_title for asked in await self._database.run(_read)):
            raise Refused(404, f"nothing that was asked of {ae_title!r} waits")
        await self._forget(ae_title)

    async def _forget(self, ae_title: str) -> None:
        await self._database.run(change("DELETE FROM asked WHERE ae_title = ?", ae_title))


def _read(connection: apsw.Connection) -> list[Asked]:
    rows = connection.execute("SELECT owner, ae_title, services, at FROM asked ORDER BY at DESC")
    return [Asked(owner, title, frozenset(words.split()), at) for owner, title, words, at in rows]
