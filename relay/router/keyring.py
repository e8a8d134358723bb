"""The Router's own keys: its identity in a file, its HPKE keys in the database.

The identity is the Router: whoever has the file is it. HPKE keys come and go: a new one with each
start (a Router that was restored from a backup cannot know it, DESIGN §3) and every thirty days,
each valid for ninety, all kept until then.
"""

import os
from pathlib import Path

import apsw
import attrs

from relay.database import Database
from relay.errors import IdentityError
from relay.identity import Identity, KeyStatement
from relay.router.schema import change, next_serial
from relay.tunnel.keys import HPKEKeyPair

IDENTITY_FILE = "identity.key"

DAY = 24 * 3600
LIFETIME = 90 * DAY
ROTATION = 30 * DAY

# A Router that is restarted by a watchdog over and over keeps no more old keys than this. Callers
# learn the newest one within a second; an opening that is on its way uses the last or the one
# before.
MAXIMUM_KEYS = 64


def load_identity(data_dir: Path) -> Identity:
    """The identity in `data_dir`, made (mode 0600) at the first start.

    Raises IdentityError for a file that is none, or that others may read.
    """
    path = data_dir / IDENTITY_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_identity(path)
    identity = Identity.generate()
    with open(descriptor, "wb") as file:
        file.write(identity.seed.hex().encode("ascii") + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return identity


def _read_identity(path: Path) -> Identity:
    if path.stat().st_mode & 0o077:
        raise IdentityError(f"{path}: others may read it; chmod 600 it, if nobody has")
    try:
        return Identity.from_seed(bytes.fromhex(path.read_text("ascii").strip()))
    except (ValueError, IdentityError):
        raise IdentityError(f"{path}: not an identity; restore it from a backup") from None


@attrs.frozen(slots=True, eq=False, repr=False)
class _Key:
    pair: HPKEKeyPair
    serial: int
    created: int
    expires: int


class Keyring:
    """The HPKE keys that still open, the newest of them the one to be published."""

    def __init__(self, database: Database, identity: Identity, keys: list[_Key]) -> None:
        self._database = database
        self._identity = identity
        self._keys = keys  # the newest last

    @classmethod
    async def load(cls, database: Database, identity: Identity, now: int) -> "Keyring":
        """The keys of the database and a new one. `now` is Unix seconds."""
        keyring = cls(database, identity, await database.run(_read))
        await keyring.renew(now)
        return keyring

    @property
    def pairs(self) -> dict[bytes, HPKEKeyPair]:
        """All key pairs that still open, by key id."""
        return {key.pair.key_id: key.pair for key in self._keys}

    def due(self, now: int) -> bool:
        """Whether it is time for a new key."""
        return now >= self._keys[-1].created + ROTATION

    def statement(self, network: bytes) -> bytes:
        """The signed statement of the newest key."""
        newest = self._keys[-1]
        return KeyStatement(network, newest.pair.public, newest.serial, newest.expires).sign(
            self._identity
        )

    async def renew(self, now: int) -> None:
        """Make a new key, and forget those that are over."""
        key = _Key(
            HPKEKeyPair.generate(),
            await next_serial(self._database, "hpke key serial", now),
            now,
            now + LIFETIME,
        )
        await self._database.run(
            change(
                "INSERT INTO hpke_key (serial, secret, created, expires) VALUES (?, ?, ?, ?)",
                key.serial,
                key.pair.seed,
                key.created,
                key.expires,
            )
        )
        kept = [*(old for old in self._keys if old.expires > now), key][-MAXIMUM_KEYS:]
        await self._database.run(change("DELETE FROM hpke_key WHERE serial < ?", kept[0].serial))
        self._keys = kept


def _read(connection: apsw.Connection) -> list[_Key]:
    rows = connection.execute(
        "SELECT secret, serial, created, expires FROM hpke_key ORDER BY serial"
    )
    return [
        _Key(HPKEKeyPair.from_seed(secret), serial, created, expires)
        for secret, serial, created, expires in rows
    ]
