"""What other hospitals have asked of this one, until a person answers.

A request for a grant travels sealed, so that the Bridge learns only who asks whom
(relay.tunnel.ask); nothing comes of it until somebody here makes the grant.
"""

import hashlib
from typing import Any

import apsw
import attrs

from relay.database import Database
from relay.errors import Refused
from relay.identity import fingerprint
from relay.router import services
from relay.router.grants import ANY, parse_calling
from relay.router.schema import change
from relay.tunnel.ask import GrantRequest

# Asks of one peer that wait for a person; more are refused, so that a peer cannot fill our disk.
MAXIMUM_WAITING = 64


@attrs.frozen(slots=True)
class Ask:
    """A request for services of the published device `ae_title`. `calling` empty: any."""

    asker: bytes
    ae_title: str
    services: frozenset[str]
    calling: frozenset[str] = frozenset()
    note: str = ""
    id: int = 0
    received: int = 0  # Unix seconds

    @classmethod
    def from_request(cls, asker: bytes, request: GrantRequest) -> "Ask":
        """What `asker` wrote. Raises Refused (400) for what no grant could give."""
        return cls(
            asker,
            request.ae_title,
            services.parse(request.services),
            parse_calling(request.calling),
            # Shown on terminals: a note must not be able to move the cursor.
            "".join(character for character in request.note if character.isprintable()),
        )

    def to_request(self) -> GrantRequest:
        """What travels. Raises IdentityError if it is more than one message holds."""
        return GrantRequest(
            self.ae_title, services.ordered(self.services), tuple(sorted(self.calling)), self.note
        )

    def to_json(self) -> dict[str, Any]:
        """For people."""
        return {
            "id": self.id,
            "peer": fingerprint(self.asker),
            "ae_title": self.ae_title,
            "services": list(services.ordered(self.services)),
            "calling": sorted(self.calling) or [ANY],
            "note": self.note,
            "received": self.received,
        }


class AskTable:
    """What others have asked, until a person answers. Each ask is kept once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, ask: Ask, sealed: bytes, now: int) -> None:
        """Keep an ask that arrived. Raises Refused (429) if its asker has too many waiting."""
        digest = hashlib.sha256(sealed).digest()

        def insert(connection: apsw.Connection) -> bool:
            waiting = connection.execute(
                "SELECT count(*) FROM ask WHERE asker = ?", (ask.asker,)
            ).get
            if waiting >= MAXIMUM_WAITING:
                return False
            connection.execute(
                "INSERT OR IGNORE INTO ask"
                " (digest, asker, ae_title, services, calling, note, received)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    digest,
                    ask.asker,
                    ask.ae_title,
                    " ".join(services.ordered(ask.services)),
                    "\\".join(sorted(ask.calling)),  # the one character no AE title holds
                    ask.note,
                    now,
                ),
            )
            return True

        if not await self._database.run(insert):
            raise Refused(429, f"{MAXIMUM_WAITING} asks of this peer wait already")

    async def all(self) -> list[Ask]:
        """All that wait, the oldest first."""
        return await self._database.run(_read)

    async def get(self, number: int) -> Ask:
        """One of them. Raises Refused (404)."""
        for ask in await self.all():
            if ask.id == number:
                return ask
        raise Refused(404, f"no ask {number}; `relay grant list` shows those that wait")

    async def remove(self, number: int) -> None:
        """It has been answered, one way or the other. Raises Refused (404)."""
        await self.get(number)
        await self._database.run(change("DELETE FROM ask WHERE id = ?", number))


def _read(connection: apsw.Connection) -> list[Ask]:
    rows = connection.execute(
        "SELECT id, asker, ae_title, services, calling, note, received FROM ask ORDER BY id"
    )
    return [
        Ask(
            asker,
            title,
            frozenset(words.split()),
            frozenset(calling.split("\\")) if calling else frozenset(),
            note,
            number,
            received,
        )
        for number, asker, title, words, calling, note, received in rows
    ]
