"""The Router's database: its tables, its settings, and serial numbers that only rise."""

from collections.abc import Callable
from typing import cast

import apsw

from relay.database import Database
from relay.people.schema import PEOPLE

DATABASE_FILE = "router.db"

MIGRATIONS = (
    """
    CREATE TABLE setting (
        name TEXT PRIMARY KEY,
        value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE device (
        ae_title TEXT PRIMARY KEY,
        published TEXT NOT NULL UNIQUE,
        host TEXT NOT NULL,
        port INTEGER NOT NULL,
        services TEXT NOT NULL,
        maximum_associations INTEGER NOT NULL,
        answer_wait REAL NOT NULL,
        resume_window REAL NOT NULL,
        check_address INTEGER NOT NULL,
        user_identity INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE peer (
        identity BLOB PRIMARY KEY,
        name TEXT NOT NULL,
        verified INTEGER NOT NULL,
        key_statement BLOB NOT NULL,
        key_serial INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE binding (
        ae_title TEXT PRIMARY KEY,
        identity BLOB NOT NULL,
        serial INTEGER NOT NULL,
        claimant BLOB,
        claimant_serial INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE "grant" (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        grantee BLOB NOT NULL,
        ae_title TEXT NOT NULL,
        services TEXT NOT NULL,
        calling TEXT NOT NULL,
        user_identity INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE ask (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        digest BLOB NOT NULL UNIQUE,
        asker BLOB NOT NULL,
        ae_title TEXT NOT NULL,
        services TEXT NOT NULL,
        calling TEXT NOT NULL,
        note TEXT NOT NULL,
        received INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE opening (
        hash BLOB PRIMARY KEY,
        expires INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX opening_expires ON opening (expires);

    CREATE TABLE hpke_key (
        serial INTEGER PRIMARY KEY,
        secret BLOB NOT NULL,
        created INTEGER NOT NULL,
        expires INTEGER NOT NULL
    ) STRICT;
    """,
    """
    ALTER TABLE device ADD COLUMN tls INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE device ADD COLUMN tls_name TEXT NOT NULL DEFAULT '';
    ALTER TABLE device ADD COLUMN move_via TEXT NOT NULL DEFAULT 'device';
    ALTER TABLE device ADD COLUMN present_as TEXT NOT NULL DEFAULT '';
    ALTER TABLE device ADD COLUMN place_wait REAL NOT NULL DEFAULT 5;
    ALTER TABLE device ADD COLUMN linger REAL NOT NULL DEFAULT 0;

    -- By which local AE title another hospital's published one goes here.
    CREATE TABLE alias (
        local TEXT PRIMARY KEY,
        published TEXT NOT NULL UNIQUE
    ) STRICT, WITHOUT ROWID;

    -- Storage commitments whose reports are awaited: of a device of ours from a peer's
    -- (`asked_here` 1), and of a peer's device from one of ours.
    CREATE TABLE commitment (
        transaction_uid TEXT NOT NULL,
        asked_here INTEGER NOT NULL,
        device TEXT NOT NULL,
        peer BLOB NOT NULL,
        remote TEXT NOT NULL,
        expires INTEGER NOT NULL,
        PRIMARY KEY (transaction_uid, asked_here, device, peer, remote)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE device ADD COLUMN split INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE device ADD COLUMN declares TEXT NOT NULL DEFAULT '';

    -- How what goes to another hospital's device goes; calling '' is any of ours.
    CREATE TABLE destination (
        called TEXT NOT NULL,
        calling TEXT NOT NULL,
        mode TEXT NOT NULL,
        mixed TEXT NOT NULL,
        priority TEXT NOT NULL,
        PRIMARY KEY (called, calling)
    ) STRICT, WITHOUT ROWID;

    -- What another hospital's device takes of one of ours, as its Router says; both titles as they
    -- are published. `refused`: what the device did not take at a delivery, all the same.
    CREATE TABLE knowledge_held (
        called TEXT NOT NULL,
        calling TEXT NOT NULL,
        peer BLOB NOT NULL,
        serial INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        split INTEGER NOT NULL,
        window INTEGER NOT NULL,
        commitment INTEGER NOT NULL,
        pairs BLOB NOT NULL,
        refused BLOB NOT NULL,
        PRIMARY KEY (called, calling)
    ) STRICT, WITHOUT ROWID;

    -- What a device of ours takes of whoever calls it as `seen`; `basis` is what of its row that
    -- was found out by.
    CREATE TABLE knowledge_own (
        device TEXT NOT NULL,
        seen TEXT NOT NULL,
        serial INTEGER NOT NULL,
        made INTEGER NOT NULL,
        basis TEXT NOT NULL,
        window INTEGER NOT NULL,
        commitment INTEGER NOT NULL,
        pairs BLOB NOT NULL,
        PRIMARY KEY (device, seen)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE device ADD COLUMN federation INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE device ADD COLUMN issuer TEXT NOT NULL DEFAULT '';
    ALTER TABLE device ADD COLUMN character_set TEXT NOT NULL DEFAULT '';
    ALTER TABLE device ADD COLUMN get_via_move INTEGER NOT NULL DEFAULT 0;
    """,
    """
    -- Who may use DICOMweb; `digest` is SHA-256 of the token. As which device it calls: '' is the
    -- Router itself.
    CREATE TABLE token (
        name TEXT PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        device TEXT NOT NULL,
        created INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    PEOPLE,
    """
    -- What this hospital has asked of others, by the AE title as it is published.
    CREATE TABLE asked (
        ae_title TEXT PRIMARY KEY,
        owner BLOB NOT NULL,
        services TEXT NOT NULL,
        at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
)


def change(
    statement: str, *values: str | int | float | bytes | None
) -> Callable[[apsw.Connection], None]:
    """One statement that changes rows, to be run as a transaction of its own."""

    def run(connection: apsw.Connection) -> None:
        connection.execute(statement, values)

    return run


def get_setting(connection: apsw.Connection, name: str) -> bytes | None:
    """The setting `name`, or None. For use inside a transaction."""
    return cast(
        bytes | None,
        connection.execute("SELECT value FROM setting WHERE name = ?", (name,)).get,
    )


def put_setting(connection: apsw.Connection, name: str, value: bytes) -> None:
    """Set the setting `name`. For use inside a transaction."""
    connection.execute(
        "INSERT INTO setting (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )


async def next_serial(database: Database, name: str, now: int) -> int:
    """The next serial number of the series `name`.

    The larger of the last one plus 1 and Unix seconds (DESIGN §3): it also rises past what a
    Router had used before its database was restored from a backup.
    """

    def draw(connection: apsw.Connection) -> int:
        last = get_setting(connection, name)
        serial = max(now, int.from_bytes(last or b"", "big") + 1)
        put_setting(connection, name, serial.to_bytes(8, "big"))
        return serial

    return await database.run(draw)
