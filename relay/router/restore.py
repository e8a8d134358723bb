"""A Router laid down from its backup, to take the place of the one that the backup was made of.

Until all of it is there the identity is an empty file: a Router that is started too early, or after
a restore that was cut short, finds no identity and does not run. The HPKE keys are left out: which
openings the Router has answered since the backup it does not know, and they must open no more.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import attrs
import trio

from relay.database import open_database
from relay.errors import RelayError
from relay.identity import IDENTITY_FILE
from relay.router.backup import copy_file
from relay.router.manifest import Manifest
from relay.router.schema import DATABASE_FILE, MIGRATIONS, change
from relay.spool.carrying import Progress
from relay.spool.files import Files
from relay.spool.restore import RestoredSpool, restore_spool
from relay.spool.spool import FOLDER as SPOOL_FOLDER
from relay.spool.vault import load_spool_key


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
    with _laying_down(data_dir):
        (data_dir / SPOOL_FOLDER).mkdir(mode=0o700)
        for name in sorted(manifest.files.keys() - {IDENTITY_FILE}):
            await trio.to_thread.run_sync(copy_file, backup / name, data_dir / name)
        async with open_database(data_dir / DATABASE_FILE, MIGRATIONS) as database:
            await database.run(change("DELETE FROM hpke_key"))
        spool = await restore_spool(
            backup,
            data_dir,
            key_name=load_spool_key(data_dir, key).name,
            reason=_reason(manifest),
            progress=progress,
        )
        await trio.to_thread.run_sync(_finish, backup, data_dir)
    return Restored(manifest, spool)


def _reason(manifest: Manifest) -> str:
    made = datetime.fromtimestamp(manifest.made, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"it may have been delivered since the backup of {made}, which this Router comes from"


@contextmanager
def _laying_down(data_dir: Path) -> Iterator[None]:
    """`data_dir`, as nobody's until the end of the block; if that fails, as it was before."""
    try:
        was_there = data_dir.exists()
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if names := os.listdir(data_dir):
            raise RelayError(_occupied(data_dir, names))
        data_dir.chmod(0o700)
        Files(data_dir).create(IDENTITY_FILE).close()
    except OSError as error:
        raise RelayError(f"{data_dir}: {error.strerror}") from error
    try:
        yield
    except OSError as error:
        _clear(data_dir, itself=not was_there)
        raise RelayError(f"{error.filename or data_dir}: {error.strerror}") from error
    except BaseException:
        _clear(data_dir, itself=not was_there)
        raise


def _occupied(data_dir: Path, names: list[str]) -> str:
    identity = data_dir / IDENTITY_FILE
    if not identity.exists():
        return f"{data_dir} is not empty ({min(names)}): a Router is restored into a new data_dir"
    if identity.stat().st_size:
        return f"{data_dir} has a Router already: a Router is restored into a new data_dir"
    return (
        f"{data_dir} has a restore that was cut short: remove what is in there, and restore again"
    )


def _clear(data_dir: Path, *, itself: bool) -> None:
    """Remove what was laid down, as far as that goes: what is left says `_occupied`."""
    if itself:
        shutil.rmtree(data_dir, ignore_errors=True)
        return
    # The identity last: an empty one keeps a Router from starting on half of itself.
    for path in sorted(data_dir.iterdir(), key=lambda path: path.name == IDENTITY_FILE):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _finish(backup: Path, data_dir: Path) -> None:
    """Blocking: put the identity in its place, with everything else on the disk before it."""
    files, new = Files(data_dir), data_dir / f"{IDENTITY_FILE}.new"
    files.sync_folder(SPOOL_FOLDER)
    copy_file(backup / IDENTITY_FILE, new)
    _hand_over(data_dir)
    os.rename(new, data_dir / IDENTITY_FILE)
    files.sync_folder("")
    Files(data_dir.absolute().parent).sync_folder("")


def _hand_over(data_dir: Path) -> None:
    """Give all of it to the owner of the folder, if root restores for the user that runs Relay."""
    owner = data_dir.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    for folder, folders, names in os.walk(data_dir):
        for name in (*folders, *names):
            os.chown(Path(folder, name), owner.st_uid, owner.st_gid, follow_symlinks=False)
