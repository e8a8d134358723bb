"""The spool's database: what is kept, for whom, and how its delivery stands.

It is a file of its own beside the objects: its commits wait for the disk as they must, and nothing
else of the Router waits behind them.
"""

from relay.spool.index import INDEX_SCHEMA
from relay.spool.receipts import RECEIPTS_SCHEMA

DATABASE_FILE = "queue.db"

MIGRATIONS = (
    """
    CREATE TABLE setting (
        name TEXT PRIMARY KEY,
        value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- The objects of one association that came in. `run` is the run of the Router in which the
    -- first of them was sent, 0 before; `done`: it is closed, and none waits to be sent first.
    CREATE TABLE batch (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        peer BLOB NOT NULL,
        called TEXT NOT NULL,
        calling TEXT NOT NULL,
        device TEXT NOT NULL,
        priority INTEGER NOT NULL,
        opened REAL NOT NULL,
        closed REAL,
        run INTEGER NOT NULL DEFAULT 0,
        done INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX batch_open ON batch (number) WHERE closed IS NULL;
    CREATE INDEX batch_waiting ON batch (called, priority, number) WHERE done = 0;
    CREATE INDEX batch_calling ON batch (calling);

    CREATE TABLE item (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL UNIQUE,
        batch INTEGER NOT NULL REFERENCES batch,
        called TEXT NOT NULL,
        state INTEGER NOT NULL,
        hold INTEGER NOT NULL DEFAULT 0,
        due REAL NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        doubtful INTEGER NOT NULL DEFAULT 0,
        alone INTEGER NOT NULL DEFAULT 0,
        status INTEGER,
        reason TEXT NOT NULL DEFAULT '',
        sop_class TEXT NOT NULL,
        sop_instance TEXT NOT NULL,
        transfer_syntax TEXT NOT NULL,
        command BLOB NOT NULL,
        length INTEGER NOT NULL,
        sha256 BLOB NOT NULL,
        key BLOB NOT NULL,
        key_name BLOB NOT NULL,
        folder INTEGER NOT NULL,
        size INTEGER NOT NULL,
        accepted REAL NOT NULL,
        ended REAL,
        forgotten INTEGER NOT NULL DEFAULT 0,
        study TEXT NOT NULL
    ) STRICT;
    -- First attempts, in their order; then what waits for its time; what people look for; and what
    -- is asked at the start, of the kept, and at the end, of those that are over.
    CREATE INDEX item_batch ON item (batch, state, attempts, number);
    CREATE INDEX item_due ON item (called, due) WHERE state = 1 AND attempts > 0;
    CREATE INDEX item_state ON item (called, state, number);
    CREATE INDEX item_kept ON item (folder, id, state) WHERE state < 4;
    CREATE INDEX item_over ON item (ended) WHERE state > 3;
    CREATE INDEX item_unforgotten ON item (called) WHERE state = 4 AND forgotten = 0;
    CREATE INDEX item_study ON item (study, number);
    CREATE INDEX item_instance ON item (sop_instance);

    -- Counts, kept by the triggers below: exact, and there at once however long the queue is.
    CREATE TABLE tally (
        called TEXT NOT NULL,
        state INTEGER NOT NULL,
        items INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (called, state)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER item_added AFTER INSERT ON item BEGIN
        INSERT INTO tally VALUES (new.called, new.state, 1, new.size)
            ON CONFLICT DO UPDATE SET items = items + 1, bytes = bytes + excluded.bytes;
    END;
    CREATE TRIGGER item_moved AFTER UPDATE OF state ON item WHEN old.state <> new.state BEGIN
        UPDATE tally SET items = items - 1, bytes = bytes - old.size
            WHERE called = old.called AND state = old.state;
        INSERT INTO tally VALUES (new.called, new.state, 1, new.size)
            ON CONFLICT DO UPDATE SET items = items + 1, bytes = bytes + excluded.bytes;
    END;
    CREATE TRIGGER item_removed AFTER DELETE ON item BEGIN
        UPDATE tally SET items = items - 1, bytes = bytes - old.size
            WHERE called = old.called AND state = old.state;
    END;

    -- Requests for storage commitment, each with what of its objects waits still. `sealed` is the
    -- data set, and empty once `ended` is set.
    CREATE TABLE commitment (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL UNIQUE,
        peer BLOB NOT NULL,
        called TEXT NOT NULL,
        calling TEXT NOT NULL,
        device TEXT NOT NULL,
        uid TEXT NOT NULL,
        transfer_syntax TEXT NOT NULL,
        command BLOB NOT NULL,
        sha256 BLOB NOT NULL,
        key BLOB NOT NULL,
        sealed BLOB NOT NULL,
        accepted REAL NOT NULL,
        stage INTEGER NOT NULL,
        since REAL NOT NULL,
        due REAL NOT NULL,
        attempts INTEGER NOT NULL,
        reason TEXT NOT NULL,
        ended REAL
    ) STRICT;
    CREATE UNIQUE INDEX commitment_open ON commitment (device, called, uid) WHERE ended IS NULL;
    CREATE INDEX commitment_ended ON commitment (ended) WHERE ended IS NOT NULL;
    CREATE TABLE commitment_item (
        commitment INTEGER NOT NULL,
        item INTEGER NOT NULL,
        PRIMARY KEY (commitment, item)
    ) STRICT, WITHOUT ROWID;

    -- Destinations whose delivery a person, or the device's own answer, has stopped.
    CREATE TABLE pause (
        called TEXT PRIMARY KEY,
        by_person INTEGER NOT NULL,
        reason TEXT NOT NULL,
        since REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    """
    + RECEIPTS_SCHEMA,
    INDEX_SCHEMA,
    """
    -- They were SHA-256 alone; since then a digest says its kind (relay.digest).
    ALTER TABLE item RENAME COLUMN sha256 TO digest;
    ALTER TABLE receipt RENAME COLUMN sha256 TO digest;
    """,
)
