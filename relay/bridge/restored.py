"""Whether this Bridge was restored from a backup, and nobody has yet seen to what that has undone.

What was changed after the backup is as it was before: a Router that was revoked is let in again,
somebody who was removed can sign in. That cannot be known here, so it is said until an
administrator says that it is set right.
"""

from typing import Self

import apsw
import attrs
import structlog

from relay.database import Database

log = structlog.get_logger()


@attrs.frozen(slots=True)
class Restoration:
    """When the backup was made, and when it was restored, in Unix seconds."""

    made: int
    at: int


def note(connection: apsw.Connection, restoration: Restoration) -> None:
    """For use inside a transaction: this database comes from a backup."""
    connection.execute("DELETE FROM restored")
    connection.execute(
        "INSERT INTO restored (made, at) VALUES (?, ?)", (restoration.made, restoration.at)
    )


@attrs.define(slots=True, eq=False)
class Restored:
    """The restoration that is not confirmed, if there is one. Made by `load`."""

    _database: Database
    unconfirmed: Restoration | None

    @classmethod
    async def load(cls, database: Database) -> Self:
        """Raises DatabaseError."""
        row = await database.run(lambda db: db.execute("SELECT made, at FROM restored").fetchone())
        found = None if row is None else Restoration(*row)
        if found is not None:
            log.warning(
                "restored from a backup",
                made=found.made,
                why="what was revoked or removed since is back: see to it, and confirm that on the"
                " page or by `relay restore --confirm`",
            )
        return cls(database, found)

    async def confirm(self) -> None:
        """What the backup had undone is set right; harmless where there is nothing to confirm."""
        await self._database.run(lambda db: db.execute("DELETE FROM restored").fetchall())
        self.unconfirmed = None
        log.info("restoration confirmed")
