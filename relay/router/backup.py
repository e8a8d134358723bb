"""A backup of a Router: one folder from which another machine can take its place.

    FOLDER/identity.key, spool.key           who it is; the spool key only if it lies in data_dir
    FOLDER/router.db, spool/queue.db         devices, peers, grants; what waits for whom
    FOLDER/spool/NNNNNNNN/ITEM               the objects that queue.db keeps
    FOLDER/audit.db                          what has happened, if there is an audit
    FOLDER/manifest.json                     what there is of all this; written last

It is made beside the process and not by it: that one may be allowed to write in its data_dir alone,
and has other things to do; and it is the same whether the Router runs, stands or has crashed.
"""

import time
from contextlib import closing
from pathlib import Path

import apsw
import trio

import relay
from relay.audit.entries import DATABASE_FILE as AUDIT_FILE
from relay.backup.folder import copy_file, identity_in, new_folder
from relay.backup.manifest import digest
from relay.database import copy_database
from relay.errors import DatabaseError
from relay.identity import IDENTITY_FILE
from relay.router.manifest import NEEDED, Manifest
from relay.router.schema import DATABASE_FILE, get_setting
from relay.spool.backup import copy_objects, copy_rows
from relay.spool.carrying import Progress
from relay.spool.vault import KEY_FILE as SPOOL_KEY_FILE


async def back_up(
    data_dir: Path,
    target: Path,
    *,
    ae_title: str,
    key_apart: bool,
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Back the Router on `data_dir` up into the new folder `target`, all of it synced.

    `ae_title` is told by the manifest; `key_apart`: the spool key is not the one in `data_dir`, and
    no part of the backup. Raises RelayError; nothing is left of `target` then.
    """
    identity = identity_in(data_dir, NEEDED, "a Router")
    made = time.time()
    with new_folder(target):
        # First what promises were made for, then what they were made with.
        before = await copy_rows(data_dir, target)
        await copy_database(data_dir / DATABASE_FILE, target / DATABASE_FILE)
        copied = [IDENTITY_FILE] if key_apart else [IDENTITY_FILE, SPOOL_KEY_FILE]
        for name in copied:
            await trio.to_thread.run_sync(copy_file, data_dir / name, target / name)
        if await trio.to_thread.run_sync((data_dir / AUDIT_FILE).exists):
            await copy_database(data_dir / AUDIT_FILE, target / AUDIT_FILE)
            copied.append(AUDIT_FILE)
        spool = await copy_objects(data_dir, target, progress, before=before)
        files = {
            name: await trio.to_thread.run_sync(digest, target / name)
            for name in sorted({*NEEDED, *copied})
        }
        manifest = Manifest(
            made=int(made),
            version=relay.__version__,
            ae_title=ae_title,
            name=await trio.to_thread.run_sync(_hospital, target / DATABASE_FILE),
            fingerprint=identity.fingerprint,
            objects=spool.carried.objects,
            bytes=spool.carried.size,
            linked=spool.carried.linked,
            copied=spool.carried.copied,
            over=spool.over,
            lost=spool.lost,
            damaged=spool.carried.damaged,
            files=files,
        )
        manifest.write(target)
    return manifest


def _hospital(database: Path) -> str:
    """By which name the Router is enrolled; empty if it is not."""
    try:
        flags = apsw.SQLITE_OPEN_READONLY
        with closing(apsw.Connection(str(database), flags=flags)) as connection:
            return (get_setting(connection, "name") or b"").decode()
    except apsw.Error as error:
        raise DatabaseError(f"{database}: {error}") from error
