"""The durable memory of openings: none is answered twice, also across a restart (DESIGN §3)."""

import apsw

from relay.database import Database
from relay.tunnel.handshake import REPLAY_MEMORY


async def remember(database: Database, opening_hash: bytes, now: int) -> bool:
    """Whether this opening is new; from now on it is not. `now` is Unix seconds."""

    def insert(connection: apsw.Connection) -> bool:
        connection.execute("DELETE FROM opening WHERE expires < ?", (now,))
        connection.execute(
            "INSERT OR IGNORE INTO opening (hash, expires) VALUES (?, ?)",
            (opening_hash, now + REPLAY_MEMORY),
        )
        return connection.changes() == 1

    return await database.run(insert)
