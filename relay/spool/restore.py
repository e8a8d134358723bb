"""A backup's spool, laid down for a Router that goes on from there: it begins a new epoch.

What was kept when the backup was made may have been delivered since. So nothing of it is sent by
itself: it is held as doubtful until a person discards it or has it tried again; then the far Router
is asked first, whose receipts answer for as long as relay.spool.receipts says.
"""

from functools import partial
from pathlib import Path

import apsw
import attrs

from relay.database import open_database
from relay.errors import SpoolError
from relay.spool.carrying import Carried, Progress, carry
from relay.spool.items import State
from relay.spool.schema import DATABASE_FILE, MIGRATIONS
from relay.spool.spool import FOLDER
from relay.spool.table import begin_epoch


@attrs.frozen(slots=True)
class RestoredSpool:
    """What a spool holds after its restore, in objects.

    `doubtful` ones are held, `failed` are dead letters; of both, `locked` are under another spool
    key than the Router's, and `carried.missing` have no file.
    """

    carried: Carried
    epoch: int
    doubtful: int
    failed: int
    locked: int


async def restore_spool(
    backup: Path, data_dir: Path, *, key_name: bytes, reason: str, progress: Progress
) -> RestoredSpool:
    """Lay the objects of `backup` down for the rows that are in `data_dir` by now, as doubtful.

    `key_name` is that of the spool key that the Router is to have; `reason` says in words why items
    are held. Raises DatabaseError, SpoolError.
    """
    try:
        async with open_database(data_dir / FOLDER / DATABASE_FILE, MIGRATIONS) as database:
            carried = await carry(database, backup / FOLDER, data_dir / FOLDER, progress)
            epoch = await database.run(partial(begin_epoch, reason=reason))
            doubtful, failed, locked = await database.run(partial(_count, key_name))
    except OSError as error:
        raise SpoolError(f"{data_dir / FOLDER}: {error.strerror}") from error
    return RestoredSpool(carried, epoch, doubtful, failed, locked)


def _count(key_name: bytes, connection: apsw.Connection) -> tuple[int, int, int]:
    row = connection.execute(
        "SELECT ifnull(sum(state = ?), 0), ifnull(sum(state = ?), 0), ifnull(sum(key_name <> ?), 0)"
        " FROM item WHERE state < 4",
        (State.HELD, State.FAILED, key_name),
    ).fetchone()
    assert row is not None  # an aggregate always has a row
    doubtful, failed, locked = row
    return int(doubtful), int(failed), int(locked)
