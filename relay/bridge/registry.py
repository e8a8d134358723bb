"""Who is in the network, what they publish, and a copy of what they grant each other."""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any

import apsw
import attrs

from relay.database import Database
from relay.errors import IdentityError, Refused
from relay.identity import KeyStatement, Publication, fingerprint
from relay.signalling.hub import GrantedRow, GrantRow, ListedRow, RouterRow


@attrs.frozen(slots=True)
class Change:
    """What a Router's message changed for the others: rows of Listing and Directory messages."""

    of: bytes
    listed: tuple[ListedRow, ...] = ()
    routers: tuple[RouterRow, ...] = ()
    publications: tuple[bytes, ...] = ()
    gone_routers: tuple[bytes, ...] = ()
    gone_titles: tuple[str, ...] = ()
    # Not a row of either: Routers that have to do with others than before, or to whom others may
    # grant something else.
    grantees: frozenset[bytes] = frozenset()
    refusals: tuple[str, ...] = ()


class Registry:
    """Routers, publications and grants of one network. `clock` gives Unix seconds."""

    def __init__(self, database: Database, network: bytes, *, clock: Callable[[], float]) -> None:
        self._database = database
        self._network = network
        self._clock = clock

    # --- what the hub asks ----------------------------------------------------------------------

    async def admit(self, router: bytes) -> None:
        """Return if this Router is enrolled and not revoked; else raise Refused (403)."""
        await self._database.run(lambda db: check_enrolled(db, router))

    async def listing(self) -> list[ListedRow]:
        """All Routers that are not revoked, with what they publish."""

        def read(db: apsw.Connection) -> list[ListedRow]:
            published = defaultdict[bytes, list[tuple[str, tuple[str, ...]]]](list)
            for owner, title, services in db.execute(
                "SELECT owner, ae_title, services FROM publication ORDER BY ae_title"
            ):
                published[owner].append((title, _services(services)))
            routers = db.execute("SELECT identity, name FROM router WHERE revoked IS NULL")
            return [(router, name, tuple(published[router])) for router, name in routers]

        return await self._database.run(read)

    async def concerns(self, router: bytes) -> frozenset[bytes]:
        """The Router itself, whom it grants anything, and who grants it anything."""
        rows = await self._rows(
            'SELECT grantee FROM "grant" WHERE owner = ?1'
            ' UNION SELECT owner FROM "grant" WHERE grantee = ?1',
            router,
        )
        return frozenset([router, *(identity for (identity,) in rows)])

    async def rows(self, routers: Collection[bytes]) -> tuple[list[RouterRow], list[bytes]]:
        """Those of these Routers that are not revoked, and their publication statements."""

        def read(db: apsw.Connection) -> tuple[list[RouterRow], list[bytes]]:
            rows: list[RouterRow] = []
            statements: list[bytes] = []
            for router in routers:
                rows += db.execute(
                    "SELECT identity, name, key_statement FROM router"
                    " WHERE identity = ? AND revoked IS NULL",
                    (router,),
                )
                statements += (
                    statement
                    for (statement,) in db.execute(
                        "SELECT statement FROM publication WHERE owner = ?", (router,)
                    )
                )
            return rows, statements

        return await self._database.run(read)

    async def owner(self, ae_title: str) -> bytes | None:
        """Who publishes this AE title."""
        rows = await self._rows("SELECT owner FROM publication WHERE ae_title = ?", ae_title)
        return rows[0][0] if rows else None

    async def publish_key(self, router: bytes, statement: bytes) -> Change:
        """Keep the Router's HPKE key. Raises IdentityError, or Refused for an older serial.

        Every Router says its key on each connection: where it is the one that is known, nothing is
        written, and there is nothing to tell.
        """
        owner, key = KeyStatement.open(statement, self._network)
        if owner != router:
            raise IdentityError("the HPKE key is another Router's")

        def write(db: apsw.Connection) -> Change:
            check_enrolled(db, router)
            held = db.execute("SELECT key_statement FROM router WHERE identity = ?", (router,)).get
            if held == statement:
                return Change(router)
            _raise_serial(db, router, "", key.serial, "HPKE key")
            db.execute(
                "UPDATE router SET key_statement = ? WHERE identity = ?", (statement, router)
            )
            [row] = db.execute(
                "SELECT identity, name, key_statement FROM router WHERE identity = ?", (router,)
            )
            return Change(router, routers=(row,))

        return await self._database.run(write)

    async def publish(self, router: bytes, statements: Sequence[bytes]) -> Change:
        """These are all that the Router publishes. What is refused stays as it was."""

        def write(db: apsw.Connection) -> Change:
            check_enrolled(db, router)
            new: list[bytes] = []
            kept: set[str] = set()
            refusals: list[str] = []
            for statement in statements:
                try:
                    title, changed = self._publish_one(db, router, statement)
                except _TitleRefused as error:
                    kept.add(error.ae_title)
                    refusals.append(str(error))
                except IdentityError as error:
                    refusals.append(str(error))
                else:
                    kept.add(title)
                    if changed:
                        new.append(statement)
            gone = tuple(
                title
                for (title,) in db.execute(
                    "SELECT ae_title FROM publication WHERE owner = ?", (router,)
                )
                if title not in kept
            )
            db.executemany(
                "DELETE FROM publication WHERE ae_title = ?", [(title,) for title in gone]
            )
            return Change(
                router,
                listed=(_listed(db, router),) if new or gone else (),
                publications=tuple(new),
                gone_titles=gone,
                grantees=_grantees(db, router) if new or gone else frozenset(),
                refusals=tuple(refusals),
            )

        return await self._database.run(write)

    def _publish_one(
        self, db: apsw.Connection, router: bytes, statement: bytes
    ) -> tuple[str, bool]:
        """(AE title, whether anything changed)."""
        owner, publication = Publication.open(statement, self._network)
        title = publication.ae_title
        if owner != router:
            raise IdentityError(f"{title}: signed by another Router")
        held = db.execute(
            "SELECT owner, name, statement FROM publication"
            " JOIN router ON identity = owner WHERE ae_title = ?",
            (title,),
        ).fetchone()
        if held is not None and held[0] != router:
            raise _TitleRefused(
                title,
                f"{title} is published by {held[1]} already: publish it under another title, one"
                " that is unique in the network, with `relay device add … --as AE_TITLE`",
            )
        if held is not None and held[2] == statement:
            return title, False
        try:
            _raise_serial(db, router, title, publication.serial, title)
        except Refused as error:
            raise _TitleRefused(title, str(error)) from error
        db.execute(
            "INSERT OR REPLACE INTO publication VALUES (?, ?, ?, ?, ?)",
            (title, router, json.dumps(publication.services), publication.serial, statement),
        )
        return title, True

    async def grants(self, router: bytes, rows: Sequence[GrantRow]) -> Change:
        """These are all grants of the Router, in place of those before.

        Every Router says them on each connection: where nothing is new, nothing is written.
        """
        # Two grants of one device to one hospital, for different calling AE titles, look the same
        # without them: here they are one, with the services of both. United before anything is
        # written: thousands for one device must not hold up the database.
        united: dict[tuple[bytes, str], set[str]] = {}
        for grantee, title, services in rows:
            united.setdefault((grantee, title), set()).update(services)
        values = {
            (router, grantee, title, json.dumps(sorted(services)))
            for (grantee, title), services in united.items()
        }

        def write(db: apsw.Connection) -> Change:
            check_enrolled(db, router)
            held = db.execute(
                'SELECT owner, grantee, ae_title, services FROM "grant" WHERE owner = ?', (router,)
            )
            if set(held) == values:
                return Change(router)
            before = _grantees(db, router)
            db.execute('DELETE FROM "grant" WHERE owner = ?', (router,))
            db.executemany('INSERT INTO "grant" VALUES (?, ?, ?, ?)', values)
            return Change(router, grantees=before | _grantees(db, router) | {router})

        return await self._database.run(write)

    async def granted(self, router: bytes) -> list[GrantedRow]:
        """What others grant the Router of what they publish: owner, AE title, services."""
        rows = await self._rows(
            'SELECT g.owner, g.ae_title, g.services, p.services FROM "grant" AS g'
            " JOIN publication AS p ON p.ae_title = g.ae_title AND p.owner = g.owner"
            " WHERE g.grantee = ? ORDER BY g.ae_title",
            router,
        )
        usable = []
        for owner, title, granted, published in rows:
            if services := _usable(granted, published):
                usable.append((owner, title, services))
        return usable

    # --- what people ask ------------------------------------------------------------------------

    async def revoke(self, router: bytes) -> Change:
        """Shut the Router out for good; its publications and grants are gone with it.

        Raises Refused (404) if there is none. Harmless the second time.
        """
        now = int(self._clock())

        def write(db: apsw.Connection) -> Change:
            if not db.execute("SELECT 1 FROM router WHERE identity = ?", (router,)).fetchone():
                raise Refused(404, f"no Router {fingerprint(router)} is enrolled")
            db.execute(
                "UPDATE router SET revoked = ? WHERE identity = ? AND revoked IS NULL",
                (now, router),
            )
            titles = tuple(
                row[0]
                for row in db.execute(
                    "DELETE FROM publication WHERE owner = ? RETURNING ae_title", (router,)
                )
            )
            grantees = _grantees(db, router)
            db.execute('DELETE FROM "grant" WHERE owner = ? OR grantee = ?', (router, router))
            return Change(router, gone_routers=(router,), gone_titles=titles, grantees=grantees)

        return await self._database.run(write)

    async def find_router(self, named: str) -> bytes:
        """The identity whose fingerprint this is. Raises Refused (404)."""
        for (identity,) in await self._rows("SELECT identity FROM router"):
            if fingerprint(identity) == named.strip().lower():
                return bytes(identity)
        raise Refused(404, f"no Router {named} is enrolled: see `relay router list`")

    async def list_routers(self) -> list[dict[str, Any]]:
        """Every Router that ever enrolled, with what it publishes."""
        rows = await self._rows(
            "SELECT identity, name, enrolled, revoked,"
            " (SELECT json_group_array(ae_title) FROM publication WHERE owner = identity)"
            " FROM router ORDER BY name, identity"
        )
        return [
            {
                "fingerprint": fingerprint(identity),
                "name": name,
                "enrolled": enrolled,
                "revoked": revoked is not None,
                "ae_titles": sorted(json.loads(titles)),
            }
            for identity, name, enrolled, revoked, titles in rows
        ]

    async def list_publications(self) -> list[dict[str, Any]]:
        """Every published AE title."""
        rows = await self._rows(
            "SELECT ae_title, owner, name, services, serial FROM publication"
            " JOIN router ON identity = owner ORDER BY ae_title"
        )
        return [
            {
                "ae_title": title,
                "router": fingerprint(owner),
                "name": name,
                "services": json.loads(services),
                "serial": serial,
            }
            for title, owner, name, services, serial in rows
        ]

    async def list_grants(self) -> list[dict[str, Any]]:
        """Who may use what, as far as the Bridge is told."""
        rows = await self._rows(
            "SELECT owner, grantee, ae_title, services"
            ' FROM "grant" ORDER BY ae_title, owner, grantee'
        )
        return [
            {
                "owner": fingerprint(owner),
                "grantee": fingerprint(grantee),
                "ae_title": title,
                "services": json.loads(services),
            }
            for owner, grantee, title, services in rows
        ]

    async def _rows(self, query: str, *values: bytes | str) -> list[tuple[Any, ...]]:
        return await self._database.run(lambda db: list(db.execute(query, values)))


def _listed(db: apsw.Connection, router: bytes) -> ListedRow:
    """The Router's row in the listing."""
    name = db.execute("SELECT name FROM router WHERE identity = ?", (router,)).get
    published = db.execute(
        "SELECT ae_title, services FROM publication WHERE owner = ? ORDER BY ae_title", (router,)
    )
    return router, name, tuple((title, _services(services)) for title, services in published)


# Far more than differ in a network: hospitals publish and grant in a dozen ways.
@lru_cache(maxsize=256)
def _services(published: str) -> tuple[str, ...]:
    return tuple(json.loads(published))


# As above.
@lru_cache(maxsize=256)
def _usable(granted: str, published: str) -> tuple[str, ...]:
    """What is granted of what is published, in the order in which the owner publishes it.

    One tuple for all rows that say the same: each connected Router's rows are kept, and with words
    of their own they were 25 KiB where a Router is granted 32 titles.
    """
    allowed = frozenset(json.loads(granted))
    return tuple(service for service in json.loads(published) if service in allowed)


class _TitleRefused(IdentityError):
    """A publication is refused, and the Router's AE title stays as it was."""

    def __init__(self, ae_title: str, message: str) -> None:
        super().__init__(message)
        self.ae_title = ae_title


def _grantees(db: apsw.Connection, owner: bytes) -> frozenset[bytes]:
    """To whom this Router grants anything."""
    rows = db.execute('SELECT DISTINCT grantee FROM "grant" WHERE owner = ?', (owner,))
    return frozenset(grantee for (grantee,) in rows)


def check_enrolled(db: apsw.Connection, router: bytes) -> None:
    """Raise Refused (403) unless this Router is enrolled and not revoked."""
    row = db.execute("SELECT revoked FROM router WHERE identity = ?", (router,)).fetchone()
    if row is None:
        raise Refused(403, f"Router {fingerprint(router)} is not enrolled")
    if row[0] is not None:
        raise Refused(403, f"Router {fingerprint(router)} is revoked")


def _raise_serial(db: apsw.Connection, owner: bytes, subject: str, serial: int, what: str) -> None:
    """Remember the serial; raise Refused (409) for one smaller than what was seen."""
    held = db.execute(
        "SELECT serial FROM serial WHERE owner = ? AND subject = ?", (owner, subject)
    ).fetchone()
    if held is not None and serial < held[0]:
        raise Refused(409, f"{what}: serial {serial} is older than {held[0]}, which was seen here")
    db.execute("INSERT OR REPLACE INTO serial VALUES (?, ?, ?)", (owner, subject, serial))
