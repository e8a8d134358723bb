"""The spool of one Router: its folder, its database, and what they hold, opened and put in order.

data_dir/spool/queue.db            rows
data_dir/spool/NNNNNNNN/ITEM       objects
data_dir/spool.key                 the key they are locked with, unless it is kept elsewhere
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import structlog
import trio

from relay.database import open_database
from relay.errors import SpoolError
from relay.spool.custody import Custody
from relay.spool.files import Files
from relay.spool.index import StudyIndex
from relay.spool.objects import Objects
from relay.spool.receipts import ReceiptTable, Recorder
from relay.spool.recovery import reconcile
from relay.spool.schema import DATABASE_FILE, MIGRATIONS
from relay.spool.space import Space
from relay.spool.syncs import KernelSyncs, Syncs
from relay.spool.table import ItemTable
from relay.spool.transactions import TransactionTable
from relay.spool.vault import load_spool_key
from relay.workers import Workers

log = structlog.get_logger()

FOLDER = "spool"

_LOCKED = "it is locked with another spool key than the one that this Router has now"


@attrs.frozen(slots=True, kw_only=True)
class Spool:
    """What a Router keeps for others. `clock` gives Unix seconds."""

    items: ItemTable
    objects: Objects
    custody: Custody
    receipts: ReceiptTable
    recorder: Recorder
    transactions: TransactionTable
    index: StudyIndex
    clock: Callable[[], float] = time.time


@asynccontextmanager
async def open_spool(
    data_dir: Path,
    *,
    key: Path | None = None,
    space: int,
    reserve: int,
    files: Callable[[Path], Files] = Files,
    syncs: Callable[[Workers], Syncs] = KernelSyncs,
    vfs: str = "",
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Spool]:
    """Open the spool under `data_dir`, or make it, and bring rows and files together.

    `key` is the file with the spool key, None the one in `data_dir`; `space` and `reserve` are as
    relay.spool.space.Space has them; `files`, `syncs` and `vfs` are for tests that take the disk
    away.
    Raises SpoolError or DatabaseError if that cannot be done.
    """
    folder = data_dir / FOLDER
    try:
        files(data_dir).make_folder(FOLDER)
    except OSError as error:
        raise SpoolError(f"{folder}: {error.strerror}") from error
    disk = files(folder)
    spool_key = load_spool_key(data_dir, key)
    async with open_database(folder / DATABASE_FILE, MIGRATIONS, vfs=vfs) as database:
        now = clock()
        items = await ItemTable.load(database, now)
        objects = Objects(disk, spool_key, Space(disk, space, reserve), syncs)
        await reconcile(items, objects, now)
        locked = await items.lock(spool_key.name, _LOCKED)
        if locked:
            log.error("objects locked with another spool key", objects=locked)
        receipts = await ReceiptTable.load(database)
        custody = Custody(
            database, objects.space, spool_key, run_number=items.run, epoch=items.epoch
        )
        try:
            yield Spool(
                items=items,
                objects=objects,
                custody=custody,
                receipts=receipts,
                recorder=Recorder(receipts),
                transactions=TransactionTable(database, spool_key),
                index=StudyIndex(database, spool_key),
                clock=clock,
            )
        finally:
            with trio.CancelScope(shield=True):
                await custody.flush()
            await objects.close()
