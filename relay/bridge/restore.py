"""A Bridge laid down from its backup, to take the place of the one that the backup was made of.

Routers know it by its identity, and tell it anew what they publish and grant. What only the Bridge
knew of the time since the backup is gone: whom it revoked, whom it let in, who was removed. So what
opens doors by itself is closed (invitations, sign-ins, links), and the rest is said until somebody
has seen to it (relay.bridge.restored).
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import attrs
import trio

from relay.backup import manifest as manifests
from relay.backup.folder import copy_file, finish, laying_down
from relay.bridge.backup import Manifest
from relay.bridge.registry import Registry
from relay.bridge.restored import Restoration, note
from relay.bridge.schema import DATABASE_FILE, MIGRATIONS
from relay.database import Database, open_database
from relay.identity import IDENTITY_FILE, fingerprint
from relay.signalling.messages import EndReason

Rows = list[tuple[str, str]]


@attrs.frozen(slots=True, kw_only=True)
class Restored:
    """What was restored: the Routers that are let in, and who may administer them, by their names.

    `withdrawn` invitations were open; `revoked` are the names of the Routers that were shut out
    with it.
    """

    manifest: Manifest
    routers: Sequence[tuple[str, str]]
    people: Sequence[tuple[str, str]]
    tokens: Sequence[tuple[str, str]]
    withdrawn: int
    revoked: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            **self.manifest.to_json(),
            "routers": [{"fingerprint": f, "name": name} for f, name in self.routers],
            "people": [{"name": name, "role": role} for name, role in self.people],
            "tokens": [{"name": name, "role": role} for name, role in self.tokens],
            "withdrawn": self.withdrawn,
            "revoked": list(self.revoked),
        }


async def restore(backup: Path, data_dir: Path, *, revoke: Sequence[str] = ()) -> Restored:
    """Lay the Bridge of `backup` down in `data_dir`, which is empty or not there yet.

    `revoke` are fingerprints of Routers that were revoked since. Raises RelayError; nothing is left
    in `data_dir` then.
    """
    manifest = Manifest.read(backup)
    await trio.to_thread.run_sync(manifests.verify, backup, manifest.files)
    with laying_down(data_dir, "a Bridge"):
        for name in sorted(manifest.files.keys() - {IDENTITY_FILE}):
            await trio.to_thread.run_sync(copy_file, backup / name, data_dir / name)
        async with open_database(data_dir / DATABASE_FILE, MIGRATIONS) as database:
            now = int(time.time())
            withdrawn = await database.run(lambda db: _close(db, Restoration(manifest.made, now)))
            revoked = await _revoke(database, revoke)
            routers, people, tokens = await database.run(_listed)
        await trio.to_thread.run_sync(finish, backup, data_dir)
    return Restored(
        manifest=manifest,
        routers=routers,
        people=people,
        tokens=tokens,
        withdrawn=withdrawn,
        revoked=revoked,
    )


def _close(db: apsw.Connection, restoration: Restoration) -> int:
    """Close what would open a door by itself, and note the rest; how many invitations were open."""
    # An invitation that was used since would let in a second one.
    withdrawn = len(db.execute("DELETE FROM invitation WHERE used IS NULL RETURNING id").fetchall())
    db.execute("UPDATE invitation SET code = NULL")
    # Sign-ins may have been ended since, and links used.
    db.execute("DELETE FROM sign_in")
    db.execute("DELETE FROM one_time_link")
    # No Router holds these sessions any more; what they left in a store is swept.
    db.execute(
        "UPDATE session SET ended = ?, reason = ? WHERE ended IS NULL",
        (restoration.at, int(EndReason.EXPIRED)),
    )
    note(db, restoration)
    return withdrawn


async def _revoke(database: Database, fingerprints: Sequence[str]) -> list[str]:
    """Shut these Routers out, and give their names. Raises Refused for one that is unknown."""
    network = await database.run(
        lambda db: db.execute("SELECT value FROM setting WHERE name = 'network'").get
    )
    registry = Registry(database, network, clock=time.time)
    routers = [await registry.find_router(fingerprint) for fingerprint in fingerprints]
    for router in routers:
        await registry.revoke(router)
    names = {row["fingerprint"]: row["name"] for row in await registry.list_routers()}
    return [names[fingerprint(router)] for router in routers]


def _listed(db: apsw.Connection) -> tuple[Rows, Rows, Rows]:
    """Who comes in again: Routers by fingerprint and name, people and tokens by name and role."""
    routers = db.execute("SELECT identity, name FROM router WHERE revoked IS NULL ORDER BY name")
    return (
        [(fingerprint(identity), name) for identity, name in routers],
        list(db.execute("SELECT name, role FROM person ORDER BY name")),
        list(db.execute("SELECT name, role FROM api_token ORDER BY name")),
    )
