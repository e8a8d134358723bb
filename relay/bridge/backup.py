"""A backup of a Bridge: one folder from which another machine can take its place.

    FOLDER/identity.key       who it is
    FOLDER/bridge.db          the network: Routers, publications, stores with their settings, people
    FOLDER/audit.db           what has happened, if there is an audit
    FOLDER/manifest.json      what there is of all this; written last

It is made beside the process and not by it, and is the same whether the Bridge runs, stands or has
crashed: SQLite gives each database as it is at one moment. Sealed chunks in the Bridge's own store
are not in it: they live for minutes.
"""

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import apsw
import attrs
import trio
from attrs.validators import deep_mapping, instance_of

import relay
from relay.audit.entries import DATABASE_FILE as AUDIT_FILE
from relay.backup import manifest
from relay.backup.folder import copy_file, identity_in, new_folder
from relay.backup.manifest import digest
from relay.bridge.schema import DATABASE_FILE
from relay.database import copy_database
from relay.errors import DatabaseError
from relay.identity import IDENTITY_FILE

# Of the folder's layout, and of what the manifest says: another one is another name.
FORMAT = "bridge-1"

NEEDED = frozenset({IDENTITY_FILE, DATABASE_FILE})

_TEXT = instance_of(str)
_COUNT = instance_of(int)


@attrs.frozen(slots=True, kw_only=True)
class Manifest:
    """Of which Bridge a backup is, when it was made (Unix seconds), and what is in it.

    `url` is where its Routers go; `routers` are those that are let in, `revoked` the others;
    `files` are SHA-256 in hexadecimal, by name.
    """

    made: int = attrs.field(validator=_COUNT)
    version: str = attrs.field(validator=_TEXT)
    url: str = attrs.field(validator=_TEXT)
    fingerprint: str = attrs.field(validator=_TEXT)
    routers: int = attrs.field(validator=_COUNT)
    revoked: int = attrs.field(validator=_COUNT)
    files: Mapping[str, str] = attrs.field(validator=deep_mapping(_TEXT, _TEXT, instance_of(dict)))

    def to_json(self) -> dict[str, Any]:
        """What the file holds, and scripts are told."""
        return {"format": FORMAT, **attrs.asdict(self)}

    @classmethod
    def read(cls, backup: Path) -> Self:
        """What the backup in this folder says of itself. Raises RelayError."""
        return manifest.read(backup, FORMAT, lambda value: cls(**value)._checked())

    def _checked(self) -> Self:
        """Raises ValueError if the files are not those of a Bridge: names are not to lead away."""
        if self.files.keys() - {AUDIT_FILE} != NEEDED:
            raise ValueError("files")
        return self


async def back_up(data_dir: Path, target: Path, *, url: str) -> Manifest:
    """Back the Bridge on `data_dir` up into the new folder `target`, all of it synced.

    `url` is told by the manifest. Raises RelayError; nothing is left of `target` then.
    """
    identity = identity_in(data_dir, NEEDED, "a Bridge")
    made = time.time()
    databases = [name for name in (DATABASE_FILE, AUDIT_FILE) if (data_dir / name).exists()]
    with new_folder(target):
        for name in databases:
            await copy_database(data_dir / name, target / name)
        await trio.to_thread.run_sync(copy_file, data_dir / IDENTITY_FILE, target / IDENTITY_FILE)
        routers, revoked = await trio.to_thread.run_sync(_count, target / DATABASE_FILE)
        made_of = Manifest(
            made=int(made),
            version=relay.__version__,
            url=url,
            fingerprint=identity.fingerprint,
            routers=routers,
            revoked=revoked,
            files={
                name: await trio.to_thread.run_sync(digest, target / name)
                for name in sorted({IDENTITY_FILE, *databases})
            },
        )
        await trio.to_thread.run_sync(manifest.write, target, made_of.to_json())
    return made_of


def _count(database: Path) -> tuple[int, int]:
    """Blocking: the Routers that are let in, and those that are not. Raises DatabaseError."""
    counted = "SELECT count(*) - count(revoked), count(revoked) FROM router"
    try:
        flags = apsw.SQLITE_OPEN_READONLY
        with closing(apsw.Connection(str(database), flags=flags)) as connection:
            routers, revoked = connection.execute(counted).get
            return routers, revoked
    except apsw.Error as error:
        raise DatabaseError(f"{database}: {error}") from error
