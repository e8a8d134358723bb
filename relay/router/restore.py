"""A Router laid down from its backup, to take the place of the one that the backup was made of.

The HPKE keys are left out: which openings the Router has answered since the backup it does not
know, and they must open no more. So are people's sign-ins, and links by which they choose a
password: since the backup they may have been ended, and used.
"""

from datetime import UTC, datetime
from pathlib import Path

import attrs
import trio

from relay.backup.folder import copy_file, finish, laying_down
from relay.database import open_database
from relay.errors import RelayError
from relay.identity import IDENTITY_FILE
from relay.router.manifest import Manifest
from relay.router.schema import DATABASE_FILE, MIGRATIONS, change
from relay.spool.carrying import Progress
from relay.spool.restore import RestoredSpool, restore_spool
from relay.spool.spool import FOLDER as SPOOL_FOLDER
from relay.spool.vault import load_spool_key

# What opens a door by itself.
_CLOSED = ("hpke_key", "sign_in", "one_time_link")


@attrs.frozen(slots=True)
class Restored:
    """What was restored, and how its queue stands."""

    manifest: Manifest
    spool: RestoredSpool


async def restore(
    backup: Path,
    data_dir: Path,
    *,
    key: Path | None,
    progress: Progress = lambda done, total: None,
) -> Restored:
    """Lay the Router of `backup` down in `data_dir`, which is empty or not there yet.

    `key` is the file with the spool key, None the one in `data_dir`. Raises RelayError; nothing is
    left in `data_dir` then.
    """
    manifest = Manifest.read(backup)
    await trio.to_thread.run_sync(manifest.verify, backup)
    if key is None and not manifest.has_spool_key:
        raise RelayError(
            f"{backup}: its spool key was kept elsewhere: name it as spool_key in the"
            " configuration (if it is lost, a new one: the objects in the queue are lost with it)"
        )
    with laying_down(data_dir, "a Router"):
        (data_dir / SPOOL_FOLDER).mkdir(mode=0o700)
        for name in sorted(manifest.files.keys() - {IDENTITY_FILE}):
            await trio.to_thread.run_sync(copy_file, backup / name, data_dir / name)
        async with open_database(data_dir / DATABASE_FILE, MIGRATIONS) as database:
            for table in _CLOSED:
                await database.run(change(f"DELETE FROM {table}"))
        spool = await restore_spool(
            backup,
            data_dir,
            key_name=load_spool_key(data_dir, key).name,
            reason=_reason(manifest),
            progress=progress,
        )
        await trio.to_thread.run_sync(finish, backup, data_dir, SPOOL_FOLDER)
    return Restored(manifest, spool)


def _reason(manifest: Manifest) -> str:
    made = datetime.fromtimestamp(manifest.made, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"it may have been delivered since the backup of {made}, which this Router comes from"
