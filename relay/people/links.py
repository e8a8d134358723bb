"""One-time links: how somebody without a password comes to one.

The first of all is made at the start of a process that knows nobody, and printed on its console:
who opens it becomes the first administrator. The others are for a person who is here.
"""

import hmac
from collections.abc import Callable
from typing import Final

import apsw
import attrs

from relay.database import Database
from relay.people.secret import LINK_SIZE, digest, draw

# Long enough to be sent by mail and opened tomorrow morning.
LIFE: Final = 24 * 3600


@attrs.frozen(slots=True)
class _Link:
    person: str
    expires: float


class Links:
    """`clock` tells Unix seconds."""

    def __init__(
        self, database: Database, links: dict[bytes, _Link], clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._clock = clock
        self._links = links
        # In memory alone: the next start makes and prints another.
        self._first: tuple[bytes, float] | None = None

    @classmethod
    async def load(cls, database: Database, clock: Callable[[], float]) -> "Links":
        return cls(database, await database.run(_read), clock)

    def make_first(self) -> str:
        """The code by which the first administrator comes in; the one before holds no more."""
        code = draw(LINK_SIZE)
        self._first = (digest(code), self._clock() + LIFE)
        return code

    def forget_first(self) -> None:
        """There is an administrator now."""
        self._first = None

    def is_first(self, code: str) -> bool:
        """Whether this is the code of the first administrator."""
        if self._first is None:
            return False
        kept, expires = self._first
        return hmac.compare_digest(kept, digest(code)) and self._clock() < expires

    async def make(self, person: str) -> str:
        """A code by which `person` chooses a password; one made before holds no more."""
        code = draw(LINK_SIZE)
        kept, expires = digest(code), int(self._clock()) + LIFE

        def insert(connection: apsw.Connection) -> None:
            connection.execute("DELETE FROM one_time_link WHERE person = ?", (person,))
            connection.execute(
                "INSERT INTO one_time_link (digest, person, expires) VALUES (?, ?, ?)",
                (kept, person, expires),
            )

        await self._database.run(insert)
        self.drop(person)
        self._links[kept] = _Link(person, expires)
        return code

    def find(self, code: str) -> str | None:
        """Whose link this is, if it still holds."""
        link = self._links.get(digest(code))
        return link.person if link is not None and self._clock() < link.expires else None

    async def take(self, code: str) -> str | None:
        """As `find`; it holds no more. Of two who come at once, one gets it."""
        person = self.find(code)
        if person is not None:
            await self.withdraw(person)
        return person

    async def withdraw(self, person: str) -> None:
        """The link of `person`, if there is one, holds no more."""
        self.drop(person)

        def delete(connection: apsw.Connection) -> None:
            connection.execute("DELETE FROM one_time_link WHERE person = ?", (person,))

        await self._database.run(delete)

    def drop(self, person: str) -> None:
        """As `withdraw`, where the database has forgotten it already."""
        self._links = {kept: link for kept, link in self._links.items() if link.person != person}


def _read(connection: apsw.Connection) -> dict[bytes, _Link]:
    rows = connection.execute("SELECT digest, person, expires FROM one_time_link")
    return {kept: _Link(person, expires) for kept, person, expires in rows}
