"""Receipts: what a device of ours has stored, so that no object is given to it a second time.

The far end of a delivery writes a receipt before it tells the near Router what the device said. If
that word is lost on the way, the near Router asks, or sends the object again: the receipt answers
it, and the device sees nothing. Only what leaves the object with the device has a receipt; after
any other answer it must see the object again.

A receipt is kept until the origin has said that it knows, and HORIZON longer.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import apsw
import attrs
import trio

from relay.database import Database
from relay.dicom.status import means_stored
from relay.errors import DatabaseError

# Receipts are told apart by who sent the object: an identity's public key, and the item's id.
# `until` is a Unix time. As it was at first: `sha256` is `digest` by now (relay.spool.schema).
RECEIPTS_SCHEMA = """
    CREATE TABLE receipt (
        origin BLOB NOT NULL,
        item BLOB NOT NULL,
        sha256 BLOB NOT NULL,
        status INTEGER NOT NULL,
        comment TEXT NOT NULL,
        until INTEGER NOT NULL,
        PRIMARY KEY (origin, item)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX receipt_until ON receipt (until);
"""

DAY = 86_400

# After the origin's word that it knows. It covers an origin that comes back with the database of
# some days ago, before its people have looked through what it calls doubtful.
HORIZON = 7 * DAY

# Without that word: an origin that was silent for so long has lost its queue, or is gone.
UNCLAIMED = 90 * DAY

# Of one origin, some 200 MB. What a large hospital sends in a week stays within it; more than that
# is an origin that never says that it knows. It gets no new session then, and no receipt is dropped
# before its time: that would give a device an object twice.
MAXIMUM_RECEIPTS = 1_000_000

# Rows of one transaction of `expire`: nothing else is written meanwhile.
PAGE = 5_000

# Bytes of the filter that tells most items without a receipt from all others. With a million
# receipts three items of a thousand are looked up in vain, with ten million every fifth.
FILTER_SIZE = 4 * 1024 * 1024

# Of so many it is made before the Router is ready, within a third of a second; of more it is made
# when receipts are first looked at for what has expired.
FILTERED_AT_THE_START = 100_000

# How many receipts the filter may hold beside those that there are: they have expired.
MAXIMUM_STALE = 1_000_000

# What the origin has said that it knows, and waits for a commit that is due anyway.
MAXIMUM_FORGETS = 4_096


@attrs.frozen(slots=True)
class Receipt:
    """The device has stored the item `item` of `origin`, whose data set has this digest.

    `status` and `comment` are those of its C-STORE-RSP.
    """

    origin: bytes = attrs.field(repr=False)
    item: bytes
    digest: bytes = attrs.field(repr=False)
    status: int
    comment: str = attrs.field(default="", repr=False)


@attrs.frozen(slots=True)
class Conflict:
    """There is a receipt for this item, but of another object."""


def needs_receipt(status: int) -> bool:
    """Whether a C-STORE-RSP with this status leaves the object with the device.

    Not so 0111: the device has one of that name, perhaps another, and a person may want it sent
    again once that is removed.
    """
    return means_stored(status)


class Filter:
    """Which items surely have no receipt: a Bloom filter over their ids, which are random bits.

    An object that is new, as nearly all are, need not wait for the disk that others' receipts are
    on their way to. Whoever draws its ids otherwise has only its own looked up more often.
    """

    def __init__(self) -> None:
        self.held = 0
        self._bits = bytearray(FILTER_SIZE)

    def add(self, item: bytes) -> None:
        """`item` may have a receipt from now on."""
        self.held += 1
        for bit in self._places(item):
            self._bits[bit >> 3] |= 1 << (bit & 7)

    def __contains__(self, item: bytes) -> bool:
        return all(self._bits[bit >> 3] & (1 << (bit & 7)) for bit in self._places(item))

    @staticmethod
    def _places(item: bytes) -> tuple[int, int]:
        bits, half = 8 * FILTER_SIZE, len(item) // 2
        return int.from_bytes(item[:half]) % bits, int.from_bytes(item[half:]) % bits


class ReceiptTable:
    """The table `receipt`. Made by `load`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: Counter[bytes] = Counter()
        self._filter: Filter | None = None  # until it is made every item may have a receipt
        self._next_filter: Filter | None = None  # while it is made

    @classmethod
    async def load(cls, database: Database) -> "ReceiptTable":
        """Raises DatabaseError."""
        table = cls(database)
        table._counts = await database.run(_counts)
        if len(table) <= FILTERED_AT_THE_START:
            await table._make_filter()
        return table

    async def _make_filter(self) -> None:
        """Make the filter anew, from all that there is."""
        self._next_filter = Filter()
        after = (b"", b"")

        def read(connection: apsw.Connection) -> list[tuple[bytes, bytes]]:
            rows = connection.execute(
                "SELECT origin, item FROM receipt WHERE (origin, item) > (?, ?)"
                " ORDER BY origin, item LIMIT ?",
                (*after, PAGE),
            )
            return [(origin, item) for origin, item in rows]

        while page := await self._database.run(read):
            for _, item in page:
                self._next_filter.add(item)
            after = page[-1]
        self._filter, self._next_filter = self._next_filter, None

    def _may_have(self, item: bytes) -> bool:
        return self._filter is None or item in self._filter

    def __len__(self) -> int:
        """Receipts of all origins."""
        return self._counts.total()

    def has_room(self, origin: bytes) -> bool:
        """Whether more objects of `origin` may be given to devices."""
        return self._counts[origin] < MAXIMUM_RECEIPTS

    async def find(
        self, origin: bytes, asked: Sequence[tuple[bytes, bytes]]
    ) -> dict[bytes, Receipt | Conflict]:
        """What is known of items of `origin`, each asked for with its digest; by item.

        Raises DatabaseError.
        """

        likely = [(item, digest) for item, digest in asked if self._may_have(item)]
        if not likely:
            return {}

        def look(connection: apsw.Connection) -> dict[bytes, Receipt | Conflict]:
            found: dict[bytes, Receipt | Conflict] = {}
            for item, digest in likely:
                rows = connection.execute(
                    "SELECT digest, status, comment FROM receipt WHERE origin = ? AND item = ?",
                    (origin, item),
                )
                for known, status, comment in rows:
                    same = known == digest
                    found[item] = (
                        Receipt(origin, item, digest, status, comment) if same else Conflict()
                    )
            return found

        return await self._database.run(look)

    async def write(
        self, receipts: Sequence[Receipt], forgets: Sequence[tuple[bytes, bytes]], now: int
    ) -> None:
        """Keep `receipts`, and note that their origins know of the items `forgets`, at once.

        An item that has a receipt already keeps that. Raises DatabaseError: then nothing is kept.
        """
        for receipt in receipts:
            for each in (self._filter, self._next_filter):
                if each is not None:
                    each.add(receipt.item)
        # Whoever forgets what it makes up is no burden to the disk, which all devices wait for.
        until = now + HORIZON
        told = [(until, origin, item, until) for origin, item in forgets if self._may_have(item)]
        if not (receipts or told):
            await trio.lowlevel.checkpoint()
            return

        def change(connection: apsw.Connection) -> list[bytes]:
            added = []
            for receipt in receipts:
                connection.execute(
                    "INSERT INTO receipt (origin, item, digest, status, comment, until)"
                    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (*attrs.astuple(receipt), now + UNCLAIMED),
                )
                if connection.changes():
                    added.append(receipt.origin)
            connection.executemany(
                "UPDATE receipt SET until = ? WHERE origin = ? AND item = ? AND until > ?", told
            )
            return added

        self._counts.update(await self._database.run(change))

    async def expire(self, now: int) -> int:
        """Drop what need not be kept any more; how many there were. Raises DatabaseError."""

        def drop(connection: apsw.Connection) -> list[bytes]:
            return [
                origin
                for (origin,) in connection.execute(
                    "DELETE FROM receipt WHERE (origin, item) IN"
                    " (SELECT origin, item FROM receipt WHERE until <= ? ORDER BY until LIMIT ?)"
                    " RETURNING origin",
                    (now, PAGE),
                )
            ]

        dropped = 0
        while True:
            page = await self._database.run(drop)
            self._counts.subtract(page)
            dropped += len(page)
            if len(page) < PAGE:
                break
        if self._filter is None or self._filter.held > len(self) + MAXIMUM_STALE:
            await self._make_filter()
        return dropped


def _counts(connection: apsw.Connection) -> Counter[bytes]:
    rows = connection.execute("SELECT origin, count(*) FROM receipt GROUP BY origin")
    return Counter({origin: count for origin, count in rows})


@attrs.define(slots=True, eq=False)
class _Group:
    """Receipts that are committed together."""

    receipts: list[Receipt] = attrs.Factory(list)
    error: str = ""


class Recorder:
    """The receipts of all sessions, written in groups, and which items are in a session's hands.

    While one group is on its way to the disk the next one gathers, so that a disk's sync is shared
    by all devices that answer at that time.
    """

    def __init__(self, table: ReceiptTable) -> None:
        self.table = table
        self.groups = 0
        self._gathering = _Group()
        self._writing = trio.Lock()
        self._forgets: dict[tuple[bytes, bytes], None] = {}
        self._in_hand: dict[tuple[bytes, bytes], trio.Event] = {}

    async def keep(self, receipts: Iterable[Receipt], now: int) -> None:
        """Return once `receipts` are durable. Raises DatabaseError: then they are not.

        A cancelled caller gets its cancellation only then: the device has the objects.
        """
        group = self._gathering
        group.receipts.extend(receipts)
        with trio.CancelScope(shield=True):
            async with self._writing:
                if group is self._gathering:  # nobody who came before has taken it along
                    self._gathering = _Group()
                    await self._write(group, now)
        if group.error:
            raise DatabaseError(group.error)

    async def _write(self, group: _Group, now: int) -> None:
        forgets = tuple(self._forgets)
        if not (group.receipts or forgets):
            return
        try:
            await self.table.write(group.receipts, forgets, now)
        except DatabaseError as error:
            group.error = str(error)
            return
        self.groups += 1
        for known in forgets:
            self._forgets.pop(known, None)

    async def forget(self, origin: bytes, items: Iterable[bytes], now: int) -> None:
        """`origin` knows of these. Written with the next receipts, or by `flush`.

        Raises DatabaseError, if so many wait that they are written here.
        """
        await trio.lowlevel.checkpoint()
        self._forgets.update(dict.fromkeys((origin, item) for item in items))
        if len(self._forgets) >= MAXIMUM_FORGETS:
            await self.flush(now)

    async def flush(self, now: int) -> None:
        """Return once what was forgotten by now is written. Raises DatabaseError."""
        await self.keep((), now)

    async def take(self, origin: bytes, item: bytes) -> None:
        """Have an item in hand, until `free`: waits while another session has it.

        That one's near Router may be away while the device still works on the object.
        """
        await self.wait_free(origin, (item,))
        self._in_hand[origin, item] = trio.Event()

    def free(self, origin: bytes, item: bytes) -> None:
        """What became of it is recorded, or will not be."""
        self._in_hand.pop((origin, item)).set()

    async def wait_free(self, origin: bytes, items: Iterable[bytes]) -> None:
        """Return once nobody has one of these in hand."""
        for item in items:
            while (freed := self._in_hand.get((origin, item))) is not None:
                await freed.wait()
