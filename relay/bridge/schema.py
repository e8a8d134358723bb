"""The Bridge's database: its tables, and the settings that a network is made of."""

import secrets
from pathlib import Path

import attrs
import trio

from relay.database import Database
from relay.errors import IdentityError
from relay.identity import IDENTITY_FILE, Identity, load_identity
from relay.people.schema import PEOPLE

DATABASE_FILE = "bridge.db"

MIGRATIONS = (
    """
    CREATE TABLE setting (
        name TEXT PRIMARY KEY,
        value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE router (
        identity BLOB PRIMARY KEY,
        name TEXT NOT NULL,
        invited_as TEXT NOT NULL,
        key_statement BLOB NOT NULL,
        enrolled INTEGER NOT NULL,
        revoked INTEGER
    ) STRICT, WITHOUT ROWID;

    -- The code is needed to check the MAC of an enrolment, so it stands here until it is used.
    CREATE TABLE invitation (
        id BLOB PRIMARY KEY,
        name TEXT NOT NULL,
        code BLOB,
        created INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        used INTEGER,
        router BLOB REFERENCES router
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE publication (
        ae_title TEXT PRIMARY KEY,
        owner BLOB NOT NULL REFERENCES router,
        services TEXT NOT NULL,
        serial INTEGER NOT NULL,
        statement BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX publication_owner ON publication (owner);

    -- The largest serial seen, of a publication or (subject '') of the HPKE key: it outlives them.
    CREATE TABLE serial (
        owner BLOB NOT NULL REFERENCES router,
        subject TEXT NOT NULL,
        serial INTEGER NOT NULL,
        PRIMARY KEY (owner, subject)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE "grant" (
        owner BLOB NOT NULL REFERENCES router,
        grantee BLOB NOT NULL,
        ae_title TEXT NOT NULL,
        services TEXT NOT NULL,
        PRIMARY KEY (owner, grantee, ae_title)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE provider (
        name TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        settings TEXT NOT NULL,
        in_use INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO provider VALUES ('disk', 'disk', '{}', 1);

    -- `outward` and `inward` say how many slots were signed from caller to callee and back. A row
    -- whose `ended` is set waits for its last sweep.
    CREATE TABLE session (
        id BLOB PRIMARY KEY,
        caller BLOB NOT NULL REFERENCES router,
        callee BLOB NOT NULL REFERENCES router,
        called TEXT NOT NULL,
        opening BLOB NOT NULL,
        answer BLOB,
        name_key BLOB NOT NULL,
        provider TEXT NOT NULL REFERENCES provider,
        outward INTEGER NOT NULL DEFAULT 0,
        inward INTEGER NOT NULL DEFAULT 0,
        created INTEGER NOT NULL,
        ended INTEGER,
        reason INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX session_ended ON session (ended) WHERE ended IS NOT NULL;
    """,
    # A Router is called what its invitation says; before, it could name itself.
    """
    UPDATE router SET name = invited_as;
    ALTER TABLE router DROP COLUMN invited_as;
    """,
    # in_use is now a store's turn among those for new sessions, from 1; 0 where it is not in use.
    # A store that is leaving goes when no session rests on it any more.
    """
    ALTER TABLE provider ADD COLUMN leaving INTEGER NOT NULL DEFAULT 0;
    """,
    # What is granted to a Router is looked up whenever its owner changes anything.
    """
    CREATE INDEX grant_grantee ON "grant" (grantee);
    """,
    # When a Router was last connected; null where it never was, or not since this is noted.
    """
    ALTER TABLE router ADD COLUMN last_seen INTEGER;
    """,
    PEOPLE,
    # One row, in a Bridge that comes from a backup (relay.bridge.restored).
    """
    CREATE TABLE restored (
        made INTEGER NOT NULL,
        at INTEGER NOT NULL
    ) STRICT;
    """,
)


@attrs.frozen(slots=True)
class Network:
    """What makes this network this one: its id, its Bridge, and the Bridge's secret."""

    network: bytes
    bridge: bytes
    secret: bytes = attrs.field(repr=False)


async def load_network(database: Database, data_dir: Path) -> tuple[Identity, Network]:
    """The Bridge's identity and its network; both are drawn at the first start.

    Raises IdentityError if the identity is not the one of this database: no Router would know it.
    """
    stored = await database.run(lambda db: dict(db.execute("SELECT name, value FROM setting")))
    path = data_dir / IDENTITY_FILE
    if "bridge" in stored and not await trio.to_thread.run_sync(path.exists):
        raise IdentityError(
            f"{path} is missing, and {database.path} belongs to it: restore it from a backup"
        )
    identity = load_identity(data_dir)
    if "bridge" not in stored:
        stored = {
            "network": secrets.token_bytes(16),
            "bridge": identity.public,
            "secret": secrets.token_bytes(32),
        }
        rows = list(stored.items())
        await database.run(lambda db: db.executemany("INSERT INTO setting VALUES (?, ?)", rows))
    if stored["bridge"] != identity.public:
        raise IdentityError(
            f"{database.path} belongs to another Bridge than {path}: restore both from one backup"
        )
    return identity, Network(**stored)
