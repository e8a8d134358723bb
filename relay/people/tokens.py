"""API tokens: how a script or a monitor uses the REST without a password (RFC 6750)."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import apsw
import attrs

from relay.database import Database
from relay.errors import Refused
from relay.people.names import check_name
from relay.people.roles import Role
from relay.people.secret import digest, draw

# By which people, and what looks for secrets in files, know one.
PREFIX: Final = "relay_api_"
MAXIMUM_TOKENS: Final = 256
# How often a token's last use is written.
NOTE_EVERY: Final = 60


@attrs.define(slots=True, eq=False)
class APIToken:
    """What is kept of a token. Times are in Unix seconds; `used` is None until it was."""

    name: str
    digest: bytes = attrs.field(repr=False)
    role: Role
    created: int
    used: int | None = None
    noted: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "role": self.role.value,
            "created": self.created,
            "used": self.used,
        }


class APITokens:
    """All tokens, in memory and in the database. `clock` tells Unix seconds."""

    def __init__(
        self, database: Database, tokens: list[APIToken], clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._clock = clock
        self._tokens = {token.name: token for token in tokens}
        self._by_digest = {token.digest: token for token in tokens}

    @classmethod
    async def load(cls, database: Database, clock: Callable[[], float]) -> "APITokens":
        return cls(database, await database.run(_read), clock)

    def __iter__(self) -> Iterator[APIToken]:
        return iter(sorted(self._tokens.values(), key=lambda token: token.name))

    async def add(self, name: str, role: Role) -> str:
        """Make a token; returns it, which nobody can tell again.

        Raises Refused: 400 for what is no name, 409 for one that there is, or for too many.
        """
        name = check_name(name, "a token")
        if name in self._tokens:
            raise Refused(409, f"there is an API token {name!r} already: remove it first")
        if len(self._tokens) >= MAXIMUM_TOKENS:
            raise Refused(409, f"there are {MAXIMUM_TOKENS} API tokens: remove one first")
        secret = PREFIX + draw()
        token = APIToken(name, digest(secret), role, int(self._clock()))
        self._tokens[name] = token  # at once: another of this name is refused meanwhile
        try:
            await self._change(
                "INSERT INTO api_token (name, digest, role, created) VALUES (?, ?, ?, ?)",
                *(token.name, token.digest, role.value, token.created),
            )
        except BaseException:
            del self._tokens[name]
            raise
        self._by_digest[token.digest] = token
        return secret

    async def remove(self, name: str) -> None:
        """Forget a token: who has it is refused from now on. Raises Refused (404)."""
        token = self._tokens.pop(name, None)
        if token is None:
            raise Refused(404, f"no API token {name!r}; `relay person token list` shows them all")
        self._by_digest.pop(token.digest, None)
        try:
            await self._change("DELETE FROM api_token WHERE name = ?", name)
        except Exception:
            # As the database has it, to be tried again.
            self._tokens.setdefault(name, token)
            self._by_digest.setdefault(token.digest, token)
            raise

    async def find(self, authorization: str) -> APIToken | None:
        """The token in an Authorization header; None if there is none, or nobody knows it. It is
        looked up by the digest: how long that takes tells nothing of a token."""
        scheme, _, secret = authorization.strip().partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = self._by_digest.get(digest(secret.strip()))
        if token is None:
            return None
        token.used = now = int(self._clock())
        if now - token.noted >= NOTE_EVERY:
            token.noted = now
            await self._change("UPDATE api_token SET used = ? WHERE name = ?", now, token.name)
        return token

    async def _change(self, statement: str, *values: str | bytes | int) -> None:
        await self._database.run(lambda connection: connection.execute(statement, values).get)


def _read(connection: apsw.Connection) -> list[APIToken]:
    rows = connection.execute("SELECT name, digest, role, created, used FROM api_token")
    return [APIToken(name, kept, Role(role), *others) for name, kept, role, *others in rows]
