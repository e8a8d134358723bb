"""The Router's own keys: its identity in a file, its HPKE keys in the database.

The identity is the Router: whoever has the file is it. HPKE keys come and go: a new one with each
start (a Router that was restored from a backup cannot know it, DESIGN §3) and every thirty days,
each valid for ninety, all kept until then.
"""

import apsw
import attrs

from relay.database import Database
from relay.identity import Identity, KeyStatement
from relay.router.schema import change, next_serial
from relay.tunnel.keys import HPKEKeyPair

DAY = 24 * 3600
LIFETIME = 90 * DAY
ROTATION = 30 * DAY

# A Router that is restarted by a watchdog over and over keeps no more old keys than this. Callers
# learn the newest one within a second; an opening that is on its way uses the last or the one
# before.
MAXIMUM_KEYS = 64


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
        """Whether it is time for a new key; also after one that a wrong clock dated ahead."""
        created = self._keys[-1].created
        return not created <= now < created + ROTATION

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
