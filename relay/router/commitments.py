"""Storage commitments whose reports are awaited (PS3.4 Annex J), kept over restarts.

The report comes hours later, as an association in the other direction, and names the request by its
Transaction UID (0008,1195). The requestor's Router lets in only what its device has asked for
(DESIGN §3). The owner's Router has to know as well whose a report is where its device shows all
other hospitals' devices under one calling AE title (DESIGN §4).
"""

from collections import Counter
from collections.abc import Iterable

import apsw
import attrs

from relay.database import Database
from relay.router.schema import change

# For a report to come: archives that write to tape take days. After it: a report may come again
# where its answer was lost.
LIFETIME = 30 * 86400
LIFETIME_REPORTED = 86400

# One row is some hundred bytes: a large hospital's modalities for a month. At most so many of them
# are of one device that asks here, or of one peer that asks us: the others can still ask then.
MAXIMUM_COMMITMENTS = 65536
MAXIMUM_SHARE = 16384


@attrs.frozen(slots=True)
class Commitment:
    """One request. `device` is ours, by its local AE title; `remote` the peer's, as published.

    `asked_here`: our device asked for it; else the remote one did.
    """

    transaction_uid: str
    asked_here: bool
    device: str
    peer: bytes
    remote: str


class CommitmentTable:
    """All that are awaited, kept in SQLite and looked up in memory. Made by `load`."""

    def __init__(self, database: Database, rows: Iterable[tuple[Commitment, int]]) -> None:
        self._database = database
        self._expires = dict(rows)
        # By peer and device: an opening asks whether there is any.
        self._awaited: Counter[tuple[bytes, str]] = Counter()
        # By device and Transaction UID: a report asks whose it is.
        self._origins: dict[tuple[str, str], Commitment] = {}
        self._asked_by: Counter[str | bytes] = Counter()
        for commitment in self._expires:
            self._index(commitment)

    @classmethod
    async def load(cls, database: Database) -> "CommitmentTable":
        """The table as the database has it."""
        return cls(database, await database.run(_read))

    def __len__(self) -> int:
        return len(self._expires)

    def awaited(self, peer: bytes, device: str) -> bool:
        """Whether our `device` awaits any report from `peer`."""
        return self._awaited[peer, device] > 0

    def known(self, commitment: Commitment) -> bool:
        """Whether exactly this is awaited."""
        return commitment in self._expires

    def origin(self, device: str, transaction_uid: str) -> Commitment | None:
        """Who asked our `device` for this transaction."""
        return self._origins.get((device, transaction_uid))

    def has_room(self, commitment: Commitment, now: int) -> bool:
        """Whether this one can be kept as well; `keep` forgets those that are over."""
        if commitment in self._expires:
            return True
        asker = _asker(commitment)
        if len(self._expires) < MAXIMUM_COMMITMENTS and self._asked_by[asker] < MAXIMUM_SHARE:
            return True
        lasting = [c for c, expires in self._expires.items() if expires > now]
        share = sum(_asker(other) == asker for other in lasting)
        return len(lasting) < MAXIMUM_COMMITMENTS and share < MAXIMUM_SHARE

    async def keep(self, commitment: Commitment, now: int) -> None:
        """Await the report of `commitment`; it is on the disk when this returns.

        Raises DatabaseError.
        """
        await self._expire(now)
        await self._put(commitment, now + LIFETIME)

    async def reported(self, commitment: Commitment, now: int) -> None:
        """The report has come; it may come again for a while."""
        if self._expires.get(commitment, 0) > now + LIFETIME_REPORTED:
            await self._put(commitment, now + LIFETIME_REPORTED)

    async def _put(self, commitment: Commitment, expires: int) -> None:
        row = attrs.astuple(commitment)
        await self._database.run(
            change("INSERT OR REPLACE INTO commitment VALUES (?, ?, ?, ?, ?, ?)", *row, expires)
        )
        if commitment not in self._expires:
            self._index(commitment)
        self._expires[commitment] = expires

    async def _expire(self, now: int) -> None:
        over = [commitment for commitment, expires in self._expires.items() if expires <= now]
        if not over:
            return
        await self._database.run(change("DELETE FROM commitment WHERE expires <= ?", now))
        for commitment in over:
            if self._expires.get(commitment, now + 1) <= now:  # not kept anew meanwhile
                del self._expires[commitment]
                self._unindex(commitment)

    def _index(self, commitment: Commitment) -> None:
        self._asked_by[_asker(commitment)] += 1
        if commitment.asked_here:
            self._awaited[commitment.peer, commitment.device] += 1
        else:
            # Of two at the same moment the first: the border refuses whoever comes later.
            self._origins.setdefault((commitment.device, commitment.transaction_uid), commitment)

    def _unindex(self, commitment: Commitment) -> None:
        self._asked_by[_asker(commitment)] -= 1
        if commitment.asked_here:
            self._awaited[commitment.peer, commitment.device] -= 1
        elif self.origin(commitment.device, commitment.transaction_uid) == commitment:
            del self._origins[commitment.device, commitment.transaction_uid]


def _asker(commitment: Commitment) -> str | bytes:
    """Who asked: a device of ours, or a peer."""
    return commitment.device if commitment.asked_here else commitment.peer


def _read(connection: apsw.Connection) -> list[tuple[Commitment, int]]:
    rows = connection.execute(
        "SELECT transaction_uid, asked_here, device, peer, remote, expires FROM commitment"
    )
    return [
        (Commitment(uid, bool(asked), device, peer, remote), expires)
        for uid, asked, device, peer, remote, expires in rows
    ]
