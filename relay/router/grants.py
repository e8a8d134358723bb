"""Who may use what: permissions that this hospital gives to its peers. Default: none.

A grant names a peer's identity, a published device, services, and the calling AE titles it holds
for. It is enforced here, on the owner's Router, whatever the Bridge believes (DESIGN §3).
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import apsw
import attrs

from relay.database import Database
from relay.errors import Refused
from relay.identity import fingerprint
from relay.router import services
from relay.router.entries import ae_title
from relay.router.schema import change

# All grants go to the Bridge in one message, of at most 4096 rows and 256 KiB in all
# (relay.signalling.messages); a row's services may be long, so that bytes are counted too.
MAXIMUM_GRANTS = 4096
MAXIMUM_COPY = 192 * 1024
_ROW_OVERHEAD = 64  # identity, AE title, and msgpack's headers
ANY = "*"  # among the calling AE titles: whichever calls
MAXIMUM_CALLING = 256  # AE titles in one grant: a large hospital's workstations


@attrs.frozen(slots=True)
class Grant:
    """One permission. `calling` empty means any calling AE title."""

    grantee: bytes
    ae_title: str  # published
    services: frozenset[str]
    calling: frozenset[str] = frozenset()
    user_identity: bool = False  # whether the caller's user identity reaches the device
    id: int = attrs.field(default=0, eq=False)

    def covers(self, grantee: bytes, ae_title: str, calling: str) -> bool:
        """Whether it holds for this caller and device."""
        return (
            grantee == self.grantee
            and ae_title == self.ae_title
            and (not self.calling or calling in self.calling)
        )

    def to_json(self) -> dict[str, Any]:
        """For people; the grantee by its fingerprint."""
        return {
            "id": self.id,
            "peer": fingerprint(self.grantee),
            "ae_title": self.ae_title,
            "services": list(services.ordered(self.services)),
            "calling": sorted(self.calling) or [ANY],
            "user_identity": self.user_identity,
        }


@attrs.frozen(slots=True)
class Permission:
    """What all grants together allow one caller to do with one device."""

    services: frozenset[str] = frozenset()
    user_identity: bool = False

    def within(self, other: "Permission") -> bool:
        """Whether `other` allows all of this."""
        return self.services <= other.services and self.user_identity <= other.user_identity


class GrantTable:
    """All grants, kept in SQLite and looked up in memory. Made by `load`."""

    def __init__(self, database: Database, rows: Iterable[Grant]) -> None:
        self._database = database
        self._grants = {grant.id: grant for grant in rows}

    @classmethod
    async def load(cls, database: Database) -> "GrantTable":
        """The table as the database has it."""
        return cls(database, await database.run(_read))

    def __iter__(self) -> Iterator[Grant]:
        return iter(sorted(self._grants.values(), key=lambda grant: grant.id))

    def permission(self, grantee: bytes, ae_title: str, calling: str) -> Permission:
        """What this caller may do with the published device; nothing, unless granted."""
        covering = [g for g in self._grants.values() if g.covers(grantee, ae_title, calling)]
        return Permission(
            frozenset().union(*(grant.services for grant in covering)),
            any(grant.user_identity for grant in covering),
        )

    async def add(self, grant: Grant) -> Grant:
        """Keep `grant`; returns it with its id, or the one that says the same already.

        Raises Refused (400) for a grant of nothing, (409) when the table is full.
        """
        if not grant.services:
            raise Refused(400, "a grant names at least one service")
        for known in self._grants.values():
            if known == grant:
                return known
        if len(self._grants) >= MAXIMUM_GRANTS:
            raise Refused(409, f"this Router already has {MAXIMUM_GRANTS} grants")
        if sum(map(_size, self._grants.values())) + _size(grant) > MAXIMUM_COPY:
            raise Refused(409, "all grants together are longer than the Bridge can be told")
        number = await self._database.run(lambda connection: _insert(connection, grant))
        kept = attrs.evolve(grant, id=number)
        self._grants[number] = kept
        return kept

    async def remove(self, number: int) -> Grant:
        """Take a grant back. Raises Refused (404) if there is none of that number."""
        if number not in self._grants:
            raise Refused(404, f"no grant {number}; `relay grant list` shows them all")
        await self._database.run(change('DELETE FROM "grant" WHERE id = ?', number))
        return self._grants.pop(number)

    async def rename(self, before: str, after: str) -> None:
        """What is granted of the device that was published as `before` goes on as `after`."""
        await self._database.run(
            change('UPDATE "grant" SET ae_title = ? WHERE ae_title = ?', after, before)
        )
        for number, grant in self._grants.items():
            if grant.ae_title == before:
                self._grants[number] = attrs.evolve(grant, ae_title=after)

    def for_bridge(self) -> tuple[tuple[bytes, str, tuple[str, ...]], ...]:
        """The copy that the Bridge may have: without calling AE titles (DESIGN §3)."""
        merged: dict[tuple[bytes, str], frozenset[str]] = {}
        for grant in self._grants.values():
            key = (grant.grantee, grant.ae_title)
            merged[key] = merged.get(key, frozenset()) | grant.services
        return tuple(
            (grantee, title, services.ordered(words))
            for (grantee, title), words in sorted(merged.items())
        )


def parse_calling(words: Iterable[str]) -> frozenset[str]:
    """The calling AE titles of a grant as a person wrote them; empty for `*`.

    Raises Refused (400).
    """
    listed = list(words)
    if len(listed) > MAXIMUM_CALLING:
        raise Refused(400, f"{len(listed)} calling AE titles; at most {MAXIMUM_CALLING} fit")
    if not listed or ANY in listed:
        return frozenset()
    return frozenset(ae_title(word) for word in listed)


def _size(grant: Grant) -> int:
    return _ROW_OVERHEAD + sum(len(word) + 2 for word in grant.services)


def _read(connection: apsw.Connection) -> list[Grant]:
    rows = connection.execute(
        'SELECT grantee, ae_title, services, calling, user_identity, id FROM "grant"'
    )
    return [
        Grant(
            grantee,
            title,
            frozenset(words.split()),
            frozenset(json.loads(calling)),
            bool(user_identity),
            number,
        )
        for grantee, title, words, calling, user_identity, number in rows
    ]


def _insert(connection: apsw.Connection, grant: Grant) -> int:
    connection.execute(
        'INSERT INTO "grant" (grantee, ae_title, services, calling, user_identity)'
        " VALUES (?, ?, ?, ?, ?)",
        (
            grant.grantee,
            grant.ae_title,
            " ".join(services.ordered(grant.services)),
            json.dumps(sorted(grant.calling)),  # AE titles may contain spaces
            int(grant.user_identity),
        ),
    )
    return connection.last_insert_rowid()
