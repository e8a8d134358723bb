"""A copy of a spool that is in use, made from outside of the process that uses it.

    queue.db, as it is at one moment -> the files of the items that its rows keep
                                     -> what became of those whose files went meanwhile

A reader of SQLite's write-ahead log keeps no writer waiting, and a file that has a row is whole and
never changes: so the Router goes on accepting, delivering and erasing, and is not even asked. Rows
come first: a row without a file would be a loss, but of a file without a row its slip says whether
it was in custody by then.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import attrs
import trio

from relay.database import BUSY_TIMEOUT_MS, copy_database, open_database
from relay.errors import DatabaseError, SpoolError
from relay.spool.carrying import Carried, Progress, carry
from relay.spool.items import KEPT
from relay.spool.rows import change_items
from relay.spool.schema import DATABASE_FILE, MIGRATIONS
from relay.spool.spool import FOLDER

# What changes of a row when its item is over.
_COLUMNS = ("state", "hold", "attempts", "doubtful", "status", "reason", "ended", "forgotten")
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM item WHERE id = ?"
_UPDATE = (
    f"UPDATE item SET {', '.join(f'{column} = ?' for column in _COLUMNS)} WHERE id = ?"
    " RETURNING batch"
)
_DELETE = "DELETE FROM item WHERE id = ? RETURNING batch"


@attrs.frozen(slots=True)
class BackedUp:
    """What became of the objects: `over` were delivered or discarded while the backup was made,
    and are so in the copy; of `lost` ones the spool itself has no file, or none that can be read.
    """

    carried: Carried
    over: int
    lost: int


async def copy_rows(data_dir: Path, target: Path) -> float:
    """Copy the spool's database, as it is now, to below `target`. Raises DatabaseError, SpoolError.

    Gives the time after that, in Unix seconds: what came before has a row in the copy, or a slip.

    `data_dir` is a Router's; `target` a new folder that is laid out like one.
    """
    try:
        (target / FOLDER).mkdir(mode=0o700)
    except OSError as error:
        raise SpoolError(f"{target / FOLDER}: {error.strerror}") from error
    await copy_database(data_dir / FOLDER / DATABASE_FILE, target / FOLDER / DATABASE_FILE)
    return time.time()


async def copy_objects(
    data_dir: Path, target: Path, progress: Progress, *, before: float
) -> BackedUp:
    """Bring the objects of the rows that were copied, and what was in custody `before` that time
    without one. Raises DatabaseError, SpoolError."""
    async with open_database(target / FOLDER / DATABASE_FILE, MIGRATIONS) as copy:
        carried = await carry(copy, data_dir / FOLDER, target / FOLDER, progress, before=before)
        over = 0
        if carried.missing:
            now = await trio.to_thread.run_sync(
                _rows_now, data_dir / FOLDER / DATABASE_FILE, carried.missing
            )
            over = await copy.run(partial(_note, now))
    return BackedUp(carried, over, len(carried.missing) - over)


def _rows_now(database: Path, items: Sequence[bytes]) -> dict[bytes, tuple[Any, ...] | None]:
    """What the rows of `items` say by now. A row says that an item is over before its file goes."""
    try:
        flags = apsw.SQLITE_OPEN_READONLY
        with closing(apsw.Connection(str(database), flags=flags)) as connection:
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            return {item: connection.execute(_SELECT, (item,)).fetchone() for item in items}
    except apsw.Error as error:
        raise DatabaseError(f"{database}: {error}") from error


def _note(now: dict[bytes, tuple[Any, ...] | None], connection: apsw.Connection) -> int:
    """Bring what is over up to date; how many there were."""
    over = 0
    for item, row in now.items():
        if row is None:  # so long a history that it is forgotten already
            over += change_items(connection, _DELETE, (item,))
        elif row[0] not in KEPT:
            over += change_items(connection, _UPDATE, (*row, item))
    return over
