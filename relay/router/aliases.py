"""By which local AE titles the devices here know those of other hospitals.

The network's titles are unique, a hospital's own are not: where the title that another hospital
publishes is taken here, or where a device here can be told only a certain one, an alias gives it a
local title (DESIGN §4). One to one, so that a name always leads back to where it came from. Rows
live in SQLite and in memory; a change takes effect with the next association.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import apsw
import attrs

from relay.database import Database
from relay.errors import Refused
from relay.router.entries import Entry, ae_title
from relay.router.schema import change

# Each one stands for a device of another hospital that people here call by hand: more than anybody
# would type, and little enough to look through.
MAXIMUM_ALIASES = 1024


@attrs.frozen(slots=True)
class Alias:
    """The title `published` of another hospital is `local` to the devices here."""

    local: str
    published: str

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Alias":
        """An alias as a person describes it.

        Raises Refused (400) naming the field that does not hold.
        """
        alias = Entry(entry, "alias")
        alias.only([field.name for field in attrs.fields(cls)])
        return cls(ae_title(alias.text("local")), ae_title(alias.text("published")))

    def to_json(self) -> dict[str, Any]:
        """The same description."""
        return attrs.asdict(self)


class AliasTable:
    """All aliases, kept in SQLite and looked up in memory. Made by `load`."""

    def __init__(self, database: Database, rows: Iterable[Alias]) -> None:
        self._database = database
        self._by_local: dict[str, Alias] = {}
        self._by_published: dict[str, Alias] = {}
        for alias in rows:
            self._keep(alias)

    @classmethod
    async def load(cls, database: Database) -> "AliasTable":
        """The table as the database has it."""
        return cls(database, await database.run(_read))

    def __iter__(self) -> Iterator[Alias]:
        return iter(sorted(self._by_local.values(), key=lambda alias: alias.local))

    def local_of(self, published: str) -> str | None:
        """The local title of what the network knows as `published`; None without an alias."""
        alias = self._by_published.get(published)
        return alias.local if alias is not None else None

    def published_of(self, local: str) -> str | None:
        """What devices here mean by `local`, as the network knows it; None without an alias."""
        alias = self._by_local.get(local)
        return alias.published if alias is not None else None

    async def put(self, alias: Alias) -> bool:
        """Keep `alias`; returns whether it is new.

        Raises Refused (409) when another one has either of its titles, or the table is full.
        """
        taken = self._by_local.get(alias.local) or self._by_published.get(alias.published)
        if taken == alias:
            return False
        if taken is not None:
            raise Refused(
                409,
                f"{taken.local!r} is here for {taken.published!r} already:"
                f" `relay alias remove {taken.local}` first",
            )
        if len(self._by_local) >= MAXIMUM_ALIASES:
            raise Refused(409, f"this Router already has {MAXIMUM_ALIASES} aliases")
        await self._database.run(
            change(
                "INSERT INTO alias (local, published) VALUES (?, ?)", alias.local, alias.published
            )
        )
        self._keep(alias)
        return True

    async def remove(self, local: str) -> Alias:
        """Forget the alias of this local title, and return it. Raises Refused (404)."""
        alias = self._by_local.get(local)
        if alias is None:
            raise Refused(404, f"no alias {local!r}; `relay alias list` shows them all")
        await self._database.run(change("DELETE FROM alias WHERE local = ?", local))
        del self._by_local[alias.local], self._by_published[alias.published]
        return alias

    def _keep(self, alias: Alias) -> None:
        self._by_local[alias.local] = alias
        self._by_published[alias.published] = alias


def _read(connection: apsw.Connection) -> list[Alias]:
    return [Alias(*row) for row in connection.execute("SELECT local, published FROM alias")]
