"""Who is signed in: a random secret in a browser's cookie, whose digest is kept here.

A sign-in ends IDLE seconds after the last request with it, LIFE after it began, when its person
ends it, and when that person's password, role or being here changes.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import apsw
import attrs

from relay.database import Database
from relay.people.secret import digest, draw

# NIST SP 800-63B §4.2.3: no longer than 12 hours, or 30 minutes without a request.
LIFE: Final = 12 * 3600
IDLE: Final = 30 * 60
# How often a sign-in's last use is written: a restart forgets no more of it.
NOTE_EVERY: Final = 60
# Of one person; when one more begins, the one that was used longest ago ends.
MAXIMUM_OF_ONE: Final = 16
# Of what a browser says that it is: enough to know it by.
MAXIMUM_AGENT: Final = 200


@attrs.define(slots=True, eq=False)
class SignIn:
    """One browser of a person. Times are in Unix seconds."""

    digest: bytes = attrs.field(repr=False)
    person: str
    address: str
    agent: str
    created: int
    seen: int
    noted: int = 0

    @property
    def id(self) -> str:
        """By which its person may end it; it signs nobody in."""
        return self.digest.hex()[:16]

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "person": self.person,
            "address": self.address,
            "agent": self.agent,
            "created": self.created,
            "seen": self.seen,
        }


class SignIns:
    """All sign-ins, in memory and in the database. `clock` tells Unix seconds."""

    def __init__(self, database: Database, live: list[SignIn], clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._live = {sign_in.digest: sign_in for sign_in in live}

    @classmethod
    async def load(cls, database: Database, clock: Callable[[], float]) -> "SignIns":
        sign_ins = cls(database, await database.run(_read), clock)
        await sign_ins.end_expired()
        return sign_ins

    def of(self, person: str) -> Iterator[SignIn]:
        """Those of a person, the one that was used last first."""
        live = (s for s in self._live.values() if s.person == person and self._holds(s))
        return iter(sorted(live, key=lambda s: s.seen, reverse=True))

    async def begin(self, person: str, address: str, agent: str) -> str:
        """Returns the secret for the cookie."""
        await self.end_expired()
        for oldest in list(self.of(person))[MAXIMUM_OF_ONE - 1 :]:
            await self.end(oldest)
        secret = draw()
        now = int(self._clock())
        sign_in = SignIn(digest(secret), person, address, agent[:MAXIMUM_AGENT], now, now, now)

        def insert(connection: apsw.Connection) -> None:
            connection.execute(
                "INSERT INTO sign_in (digest, person, address, agent, created, seen)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (sign_in.digest, person, address, sign_in.agent, now, now),
            )

        await self._database.run(insert)
        self._live[sign_in.digest] = sign_in
        return secret

    def find(self, secret: str) -> SignIn | None:
        """The sign-in of this cookie, if it still holds. It is looked up by the digest: how long
        that takes tells nothing of a secret."""
        sign_in = self._live.get(digest(secret))
        return sign_in if sign_in is not None and self._holds(sign_in) else None

    def holds(self, sign_in: SignIn) -> bool:
        """Whether it has not ended."""
        return sign_in.digest in self._live and self._holds(sign_in)

    async def use(self, sign_in: SignIn) -> None:
        """There was a request of this sign-in's person."""
        sign_in.seen = now = int(self._clock())
        if now - sign_in.noted < NOTE_EVERY:
            return
        sign_in.noted = now

        def note(connection: apsw.Connection) -> None:
            connection.execute(
                "UPDATE sign_in SET seen = ? WHERE digest = ?", (now, sign_in.digest)
            )

        await self._database.run(note)

    async def end(self, *sign_ins: SignIn) -> None:
        """From now on they sign nobody in."""
        for sign_in in sign_ins:
            self._live.pop(sign_in.digest, None)
        rows = [(sign_in.digest,) for sign_in in sign_ins]
        if rows:
            await self._database.run(
                lambda connection: (
                    connection.executemany("DELETE FROM sign_in WHERE digest = ?", rows).get
                )
            )

    async def end_all_of(self, person: str, but: SignIn | None = None) -> None:
        """End those of a person, `but` one."""
        await self.end(
            *(s for s in list(self._live.values()) if s.person == person and s is not but)
        )

    async def end_expired(self) -> None:
        """Forget those whose time is over."""
        await self.end(*(s for s in list(self._live.values()) if not self._holds(s)))

    def _holds(self, sign_in: SignIn) -> bool:
        now = self._clock()
        return now < sign_in.seen + IDLE and now < sign_in.created + LIFE


def _read(connection: apsw.Connection) -> list[SignIn]:
    rows = connection.execute("SELECT digest, person, address, agent, created, seen FROM sign_in")
    return [SignIn(*row) for row in rows]
