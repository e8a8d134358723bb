"""The entries on the disk: only added to, each chained to the one before it.

The hash of an entry is SHA-256 over the hash of the entry before, its number and its event; so a
changed or missing entry shows in all that follow. Triggers refuse every change but the sweep's,
which takes the oldest entries and keeps the hash from which the chain goes on. Somebody who may
write the file can make a whole new chain: what shows that is a number and hash noted elsewhere,
which `verify` is given, or the collector's copy.

It is a file of its own: its commits wait for the disk, and nothing else of Relay waits with them.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import apsw
import attrs

from relay.audit.codes import Kind
from relay.audit.events import AuditEvent, Query
from relay.errors import DatabaseError, RelayError

DATABASE_FILE = "audit.db"

MIGRATIONS = (
    """
    CREATE TABLE entry (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        event BLOB NOT NULL,
        hash BLOB NOT NULL
    ) STRICT;
    CREATE INDEX entry_at ON entry (at);
    CREATE INDEX entry_kind ON entry (kind, number);

    -- By whom an entry is looked for: AE titles, people, fingerprints.
    CREATE TABLE party (
        name TEXT NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (name, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX party_number ON party (number);

    -- `before`: the last entry that the sweep has taken, from whose hash the chain goes on.
    -- `sent`: the last one that the collector has.
    CREATE TABLE position (
        name TEXT PRIMARY KEY,
        number INTEGER NOT NULL,
        hash BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO position VALUES ('before', 0, zeroblob(32)), ('sent', 0, x'');

    CREATE TRIGGER entry_added BEFORE INSERT ON entry
        WHEN new.number <= (SELECT max(number) FROM entry) BEGIN
        SELECT raise(ABORT, 'the audit is only added to');
    END;
    CREATE TRIGGER entry_stays BEFORE UPDATE ON entry BEGIN
        SELECT raise(ABORT, 'the audit is only added to');
    END;
    CREATE TRIGGER entry_kept BEFORE DELETE ON entry
        WHEN old.number > (SELECT number FROM position WHERE name = 'before') BEGIN
        SELECT raise(ABORT, 'the audit is only added to');
    END;
    """,
)

# Entries that are read at once: in between, what is added meanwhile is written.
PAGE = 500

# Entries that one transaction of the sweep takes.
SWEEP = 1000


class Seal(Protocol):
    """Encrypts what a query asked for (relay.spool.vault.SpoolKey)."""

    def wrap(self, key: bytes, item: bytes) -> bytes: ...

    def unwrap(self, wrapped: bytes, item: bytes) -> bytes: ...


# What a sealed query belongs to: it opens as nothing else.
SEALED_FOR = b"audit query"


@attrs.frozen(slots=True)
class Entry:
    """One entry. `raw` is its event as it is kept."""

    number: int
    raw: bytes = attrs.field(repr=False)
    hash: bytes = attrs.field(repr=False)

    @property
    def event(self) -> AuditEvent:
        """Raises ValueError if somebody has changed it."""
        return AuditEvent.decode(self.raw)


@attrs.frozen(slots=True, kw_only=True)
class Filter:
    """Which entries are meant: those of all that is given. Times are Unix seconds.

    `party` are names that must all be in it.
    """

    kind: Kind | None = None
    since: float | None = None
    until: float | None = None
    parties: Sequence[str] = ()
    before: int | None = None

    def condition(self) -> tuple[str, list[Any]]:
        """The SQL of it, and its values."""
        words: list[str] = []
        values: list[Any] = []

        def add(word: str, value: Any) -> None:
            if value is not None:
                words.append(word)
                values.append(value)

        add("kind = ?", self.kind and self.kind.word)
        add("at >= ?", self.since)
        add("at < ?", self.until)
        add("number < ?", self.before)
        for name in self.parties:
            add("number IN (SELECT number FROM party WHERE name = ?)", name)
        return (f"WHERE {' AND '.join(words)}" if words else ""), values


@attrs.frozen(slots=True)
class Finding:
    """What `verify` has found: `fault` is empty if the chain is whole.

    `first` and `last` are the numbers that there are, `head` the hash of the last one.
    """

    first: int
    last: int
    head: bytes
    entries: int
    fault: str = ""


def chained(before: bytes, number: int, raw: bytes) -> bytes:
    """The hash of an entry."""
    return hashlib.sha256(before + number.to_bytes(8, "big") + raw).digest()


# --- writing: each of these is for use inside a transaction ---------------------------------------


def append(connection: apsw.Connection, events: Sequence[tuple[AuditEvent, bytes]]) -> int:
    """Add these events, each with its bytes; the number of the last one."""
    last, before = _head(connection)
    # Of entries that somebody has removed the numbers are not used again: they are missed.
    number = max(last, drawn(connection))
    for event, raw in events:
        number += 1
        before = chained(before, number, raw)
        connection.execute(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?)",
            (number, event.at, event.kind.word, raw, before),
        )
        connection.executemany(
            "INSERT INTO party VALUES (?, ?)", [(name, number) for name in event.parties]
        )
    return number


def _head(connection: apsw.Connection) -> tuple[int, bytes]:
    found = connection.execute("SELECT number, hash FROM entry ORDER BY number DESC LIMIT 1")
    return found.fetchone() or position(connection, "before")


def position(connection: apsw.Connection, name: str) -> tuple[int, bytes]:
    """Where it stands."""
    row = connection.execute("SELECT number, hash FROM position WHERE name = ?", (name,)).fetchone()
    assert row is not None, "the first migration has put it there"
    return row[0], row[1]


def put_position(connection: apsw.Connection, name: str, number: int, hash: bytes = b"") -> None:
    """Where it stands from now on."""
    connection.execute(
        "UPDATE position SET number = ?, hash = ? WHERE name = ?", (number, hash, name)
    )


def sweep(connection: apsw.Connection, until: int) -> int:
    """Take the oldest entries up to the number `until`, at most SWEEP of them; how many."""
    rows: list[Any] = connection.execute(
        "SELECT number, hash FROM entry WHERE number <= ? ORDER BY number LIMIT ?", (until, SWEEP)
    ).fetchall()
    if not rows:
        return 0
    last, hash = rows[-1]
    put_position(connection, "before", last, hash)
    connection.execute("DELETE FROM party WHERE number <= ?", (last,))
    connection.execute("DELETE FROM entry WHERE number <= ?", (last,))
    return len(rows)


def older_than(connection: apsw.Connection, at: float) -> int:
    """The last entry before the first one that is not older than `at`, in Unix seconds."""
    # From the oldest on, and not by the index of times, which would have to be read to its end.
    kept = connection.execute(
        "SELECT number FROM entry WHERE +at >= ? ORDER BY number LIMIT 1", (at,)
    ).get
    if kept is not None:
        return int(kept) - 1
    return int(connection.execute("SELECT ifnull(max(number), 0) FROM entry").get)


def size(connection: apsw.Connection) -> int:
    """How many bytes the entries take on the disk, with what they are looked for by."""
    pages = connection.pragma("page_count") - connection.pragma("freelist_count")
    return int(pages * connection.pragma("page_size"))


# --- reading --------------------------------------------------------------------------------------


def latest(connection: apsw.Connection, which: Filter, limit: int) -> list[Entry]:
    """Those that are meant, the latest first."""
    where, values = which.condition()
    rows = connection.execute(
        f"SELECT number, event, hash FROM entry {where} ORDER BY number DESC LIMIT ?",
        (*values, limit),
    )
    return [Entry(*row) for row in rows]


def following(connection: apsw.Connection, number: int, limit: int = PAGE) -> list[Entry]:
    """Those behind `number`, in their order."""
    rows = connection.execute(
        "SELECT number, event, hash FROM entry WHERE number > ? ORDER BY number LIMIT ?",
        (number, limit),
    )
    return [Entry(*row) for row in rows]


def one(connection: apsw.Connection, number: int) -> Entry | None:
    """The entry of this number."""
    row = connection.execute(
        "SELECT number, event, hash FROM entry WHERE number = ?", (number,)
    ).fetchone()
    return Entry(*row) if row else None


def drawn(connection: apsw.Connection) -> int:
    """The highest number that was ever given: SQLite keeps it by itself."""
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entry'")
    return int(found.get or 0)


def verify(path: Path, noted: tuple[int, bytes] | None = None) -> Finding:
    """Blocking: go through the chain in the database at `path`, as it is at one moment.

    `noted` is the number and hash of an entry, kept elsewhere. Over a connection of its own, so
    that what happens meanwhile is written. Raises DatabaseError.
    """
    try:
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            connection.execute("BEGIN")
            return _verify(connection, noted)
    except apsw.Error as error:
        raise DatabaseError(f"{path}: {error}") from error


def _verify(connection: apsw.Connection, noted: tuple[int, bytes] | None) -> Finding:
    base, before = position(connection, "before")
    number, count, fault = base, 0, ""
    is_noted = noted is None or noted[0] <= base  # what the sweep has taken says nothing any more
    rows: Any = connection.execute("SELECT number, event, hash FROM entry ORDER BY number")
    for found, raw, digest in rows:
        if found != number + 1:
            fault = f"entry {number + 1} is missing"
            break
        if chained(before, found, raw) != digest:
            fault = f"entry {found} was changed, or one before it"
            break
        number, before, count = found, digest, count + 1
        if not is_noted and noted is not None and noted[0] == found:
            is_noted = True
            if noted[1] != digest:
                fault = f"entry {found} has another hash than was noted"
                break
    last = drawn(connection)
    if not fault and last > number:
        fault = f"entries {number + 1} to {last} are missing at the end"
    if not fault and not is_noted and noted is not None:
        fault = f"entry {noted[0]}, whose hash was noted, is missing"
    return Finding(base + 1, number, before, count, fault)


# --- queries, which may name patients -------------------------------------------------------------


def sealed(event: AuditEvent, seal: Seal | None) -> AuditEvent:
    """`event` with the contents of its queries encrypted; without a `seal`, left out."""
    return _with_queries(event, lambda query: _closed(query, seal))


def opened(event: AuditEvent, seal: Seal | None) -> AuditEvent:
    """`event` as it was; what does not open stays sealed."""
    return _with_queries(event, lambda query: _open(query, seal))


def _closed(query: Query, seal: Seal | None) -> Query:
    if not query.content:
        return query
    if seal is None:
        return attrs.evolve(query, content=b"")
    return attrs.evolve(query, content=seal.wrap(query.content, SEALED_FOR), sealed=True)


def _open(query: Query, seal: Seal | None) -> Query:
    if not query.sealed or seal is None:
        return query
    try:
        content = seal.unwrap(query.content, SEALED_FOR)
    except RelayError:
        return query  # with another key than this one: it is shown as left out
    return attrs.evolve(query, content=content, sealed=False)


def _with_queries(event: AuditEvent, change: Callable[[Query], Query]) -> AuditEvent:
    if all(subject.query is None for subject in event.subjects):
        return event
    return attrs.evolve(
        event,
        subjects=[
            attrs.evolve(subject, query=change(subject.query)) if subject.query else subject
            for subject in event.subjects
        ],
    )
