"""Who may use DICOMweb: bearer tokens (RFC 6750), of which only a hash is kept.

A token stands for a person's or program's right to use this Router. It calls as the Router itself,
or as the device that it names, with what is granted to that.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from typing import Any, Final

import apsw
import attrs

from relay.database import Database
from relay.errors import Refused
from relay.router.schema import change

# 128 random bits: nobody guesses one, so that a fast hash of it is as good as a slow one.
TOKEN_SIZE: Final = 16
_PREFIX = "relay_"  # by which people, and what looks for secrets in files, know one

# Each request is compared with all of them.
MAXIMUM_TOKENS: Final = 256

_NAME = re.compile(r"[!-~](?:[ -~]{0,62}[!-~])?")


@attrs.frozen(slots=True)
class Token:
    """What is kept of a token. `device`: the local AE title as which it calls; empty: the Router.

    `created` is in Unix seconds.
    """

    name: str
    digest: bytes = attrs.field(repr=False)
    device: str = ""
    created: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "device": self.device or None, "created": self.created}


class TokenTable:
    """All tokens, in memory and in the database."""

    def __init__(self, database: Database, tokens: list[Token]) -> None:
        self._database = database
        self._tokens = {token.name: token for token in tokens}

    @classmethod
    async def load(cls, database: Database) -> "TokenTable":
        return cls(database, await database.run(_read))

    def __iter__(self) -> Iterator[Token]:
        return iter(sorted(self._tokens.values(), key=lambda token: token.name))

    async def add(self, name: str, device: str, now: int) -> str:
        """Make a token of this name; returns it, which nobody can tell again.

        Raises Refused: 400 for what is no name, 409 for one that there is, or for too many.
        """
        if not _NAME.fullmatch(name):
            raise Refused(400, "a token's name is 1 to 64 printable ASCII characters")
        if name in self._tokens:
            raise Refused(409, f"there is a token {name!r}: `relay token remove` it first")
        if len(self._tokens) >= MAXIMUM_TOKENS:
            raise Refused(409, f"there are {MAXIMUM_TOKENS} tokens: remove one first")
        secret = _PREFIX + secrets.token_urlsafe(TOKEN_SIZE)
        token = Token(name, _digest(secret), device, now)
        self._tokens[name] = token  # at once: another one of this name is refused meanwhile
        try:
            await self._database.run(
                change(
                    "INSERT INTO token (name, digest, device, created) VALUES (?, ?, ?, ?)",
                    *attrs.astuple(token),
                )
            )
        except BaseException:
            del self._tokens[name]
            raise
        return secret

    async def remove(self, name: str) -> None:
        """Forget a token: who has it is refused from now on. Raises Refused (404)."""
        if name not in self._tokens:
            raise Refused(404, f"no token {name!r}; `relay token list` shows them all")
        token = self._tokens.pop(name)
        try:
            await self._database.run(change("DELETE FROM token WHERE name = ?", name))
        except Exception:
            # As the database has it, to be tried again. Not where it is cancelled: it may be done.
            self._tokens.setdefault(name, token)
            raise

    def find(self, authorization: str) -> Token | None:
        """The token in an Authorization header; None if there is none, or nobody knows it.

        Takes as long for one that is almost right as for any.
        """
        scheme, _, secret = authorization.strip().partition(" ")
        if scheme.lower() != "bearer":
            return None
        digest = _digest(secret.strip())
        found = None
        for token in self._tokens.values():
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _read(connection: apsw.Connection) -> list[Token]:
    rows = connection.execute("SELECT name, digest, device, created FROM token")
    return [Token(*row) for row in rows]
