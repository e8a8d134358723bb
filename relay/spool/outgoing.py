"""What couriers ask of the rows, and what deliveries change in them."""

from collections.abc import Iterable, Sequence
from typing import Any

import apsw
import attrs

from relay.spool.items import KEPT, Batch, Change, Hold, Item, State
from relay.spool.rows import SELECT_BATCH, Rows, batch_of, mark_batches, marks


class Outgoing(Rows):
    """The items that are to be delivered. `run` is this run of the Router, counted from 1."""

    run: int

    # --- what is next -----------------------------------------------------------------------------

    async def destinations(self) -> list[str]:
        """The published titles for which anything waits."""
        rows = await self._rows(
            "SELECT called FROM tally WHERE state = ? AND items > 0", (State.WAITING,)
        )
        return [called for (called,) in rows]

    async def next_batch(self, called: str, busy: Iterable[int]) -> Batch | None:
        """The batch to `called` whose first attempts are next, but for the `busy` ones."""
        others = tuple(busy)
        rows = await self._rows(
            f"{SELECT_BATCH} WHERE called = ? AND done = 0 AND number NOT IN ({marks(others)})"
            " AND EXISTS (SELECT 1 FROM item WHERE item.batch = batch.number AND item.state = 1"
            " AND item.attempts = 0) ORDER BY priority, number LIMIT 1",
            (called, *others),
        )
        return batch_of(rows[0]) if rows else None

    async def firsts(self, batch: Batch, after: int, limit: int) -> list[Item]:
        """The first attempts of `batch` behind the item `after`, in order.

        They are doubtful if an earlier run has begun with the batch and did not live to end it.
        """
        items = await self._items(
            "WHERE batch = ? AND state = 1 AND attempts = 0 AND number > ? ORDER BY number LIMIT ?",
            (batch.number, after, limit),
        )
        if batch.run in (0, self.run):
            return items
        return [attrs.evolve(item, doubtful=True) for item in items]

    async def pairs(self, batch: Batch) -> frozenset[tuple[str, str]]:
        """The SOP classes and transfer syntaxes of what waits for its first attempt."""
        rows = await self._rows(
            "SELECT DISTINCT sop_class, transfer_syntax FROM item"
            " WHERE batch = ? AND state = 1 AND attempts = 0",
            (batch.number,),
        )
        return frozenset((sop_class, syntax) for sop_class, syntax in rows)

    async def due(self, called: str, now: float, limit: int) -> list[Item]:
        """What is to be tried again by now, the longest due first."""
        return await self._items(
            "WHERE called = ? AND state = 1 AND attempts > 0 AND due <= ? ORDER BY due LIMIT ?",
            (called, now, limit),
        )

    async def next_due(self, called: str) -> float | None:
        """When the next one is to be tried again, in Unix seconds."""
        found = await self._value(
            "SELECT min(due) FROM item WHERE called = ? AND state = 1 AND attempts > 0", (called,)
        )
        return None if found is None else float(found)

    # --- batches ----------------------------------------------------------------------------------

    async def batches(self, numbers: Iterable[int]) -> dict[int, Batch]:
        """The batches of these numbers."""
        wanted = tuple(set(numbers))
        rows = await self._rows(f"{SELECT_BATCH} WHERE number IN ({marks(wanted)})", wanted)
        return {batch.number: batch for batch in map(batch_of, rows)}

    async def begin_batch(self, batch: Batch) -> None:
        """Its first object is about to be sent: another run will know that it may have been."""
        if batch.run:
            return
        await self._execute("UPDATE batch SET run = ? WHERE number = ?", self.run, batch.number)
        batch.run = self.run

    async def close_batch(self, batch: Batch, now: float) -> None:
        """Its association is over: nothing more comes."""

        def close(connection: apsw.Connection) -> None:
            connection.execute("UPDATE batch SET closed = ? WHERE number = ?", (now, batch.number))
            mark_batches(connection, [batch.number])

        batch.closed = now
        if batch.number:
            await self._database.run(close)

    async def hold_batch(self, batch: Batch, hold: Hold, reason: str) -> None:
        """Nothing of this batch is sent any more until a person says so."""

        def change(connection: apsw.Connection) -> None:
            connection.execute(
                "UPDATE item SET state = 2, hold = ?, reason = ? WHERE batch = ? AND state = 1",
                (hold, reason, batch.number),
            )
            mark_batches(connection, [batch.number])

        await self._database.run(change)

    # --- what became of them ----------------------------------------------------------------------

    async def settle(self, changes: Sequence[Change]) -> set[int]:
        """Note what became of items, all in one transaction; those of which it is news.

        Some may not wait any more: a person discarded them under way, or another session of theirs
        held the batch. That stays so, but for two things that are true in any case: what is
        delivered is delivered, and what was sent may have been. It is no news of an item whose file
        is gone.
        """

        def note(connection: apsw.Connection) -> set[int]:
            noted, batches = set[int](), set[int]()
            for change in changes:
                found: Any = connection.execute(
                    "SELECT state, batch FROM item WHERE number = ?", (change.number,)
                ).fetchone()
                state = State(found[0]) if found is not None else State.DELIVERED
                if state is State.DELIVERED:
                    continue
                batches.add(found[1])
                if state is State.WAITING or change.state is State.DELIVERED:
                    _apply(connection, change)
                    if state in KEPT:
                        noted.add(change.number)
                elif state is State.HELD:
                    connection.execute(
                        "UPDATE item SET doubtful = max(doubtful, ?), attempts = max(attempts, ?)"
                        " WHERE number = ?",
                        (change.doubtful, change.attempts, change.number),
                    )
            mark_batches(connection, batches)
            return noted

        return await self._database.run(note)

    async def unforgotten(self, peer: bytes, limit: int) -> list[bytes]:
        """Items that `peer` was not told to forget though they are delivered."""
        rows = await self._rows(
            # CROSS: in this order, through the index of these items, which are few.
            "SELECT item.id FROM item CROSS JOIN batch ON batch.number = item.batch"
            " WHERE item.state = 4 AND item.forgotten = 0 AND batch.peer = ? LIMIT ?",
            (peer, limit),
        )
        return [item for (item,) in rows]

    async def forgotten(self, items: Sequence[bytes]) -> None:
        """The far Router was told that these need no receipt any more."""
        rows = [(item,) for item in items]
        await self._database.run(
            lambda connection: connection.executemany(
                "UPDATE item SET forgotten = 1 WHERE id = ?", rows
            )
        )


def _apply(connection: apsw.Connection, change: Change) -> None:
    connection.execute(
        "UPDATE item SET state = ?, hold = ?, due = ?, attempts = ?, doubtful = ?, alone = ?,"
        " status = ?, reason = ?, ended = ? WHERE number = ?",
        (
            change.state,
            change.hold,
            change.due,
            change.attempts,
            change.doubtful,
            change.alone,
            change.status,
            change.reason,
            change.ended,
            change.number,
        ),
    )
