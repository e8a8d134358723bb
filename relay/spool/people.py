"""What people ask of the rows, and do with items: list, count, retry, discard, pause."""

from functools import partial
from typing import Any

import apsw
import attrs

from relay.spool.items import Hold, Item, Pause, Selection, State, Tally
from relay.spool.rows import (
    SELECT,
    Rows,
    change_items,
    condition,
    item_of,
    mark_batches,
    marks,
)
from relay.spool.segments import StoredObject

# One answer to a person, and one transaction of a person's change: objects are accepted meanwhile.
PAGE = 1000

_STUDY = (
    "study",
    "called",
    "accepted",
    "delivered",
    "failed",
    "waiting",
    "discarded",
    "since",
    "until",
)


class People(Rows):
    """The items as people see them."""

    # --- asking -----------------------------------------------------------------------------------

    async def counts(self) -> list[Tally]:
        """How many items of each destination are in each state."""
        rows = await self._rows("SELECT called, state, items, bytes FROM tally WHERE items > 0")
        return [Tally(called, State(state), items, size) for called, state, items, size in rows]

    async def oldest(self, called: str) -> float | None:
        """When the oldest item that waits for `called` was accepted, in Unix seconds."""
        found = await self._value(
            "SELECT accepted FROM item WHERE called = ? AND state = ? ORDER BY number LIMIT 1",
            (called, State.WAITING),
        )
        return None if found is None else float(found)

    async def last(self) -> int:
        """The number of the item that was accepted last; 0 if there is none."""
        return int(await self._value("SELECT ifnull(max(number), 0) FROM item"))

    async def select(
        self, selection: Selection, limit: int = PAGE, *, latest: bool = False
    ) -> list[Item]:
        """The items that are meant, at most `limit` of them, in the order of acceptance; `latest`:
        the other way round."""
        where, values = condition(selection)
        order = "DESC" if latest else "ASC"
        # Numbers first: where they must be sorted, whole rows are not.
        rows = await self._read(
            f"{SELECT} WHERE number IN (SELECT item.number FROM item {where}"
            f" ORDER BY item.number {order} LIMIT ?) ORDER BY number {order}",
            (*values, limit),
        )
        return [item_of(row) for row in rows]

    async def count(self, selection: Selection) -> dict[State, int]:
        """How many of the items that are meant are in each state."""
        if selection == Selection(called=selection.called, state=selection.state):
            return await self._tallied(selection)
        where, values = condition(selection)
        rows = await self._read(
            f"SELECT item.state, count(*) FROM item {where} GROUP BY item.state", values
        )
        return {State(state): count for state, count in rows}

    async def _tallied(self, selection: Selection) -> dict[State, int]:
        counts: dict[State, int] = {}
        for tally in await self.counts():
            if selection.called in (None, tally.called) and selection.state in (None, tally.state):
                counts[tally.state] = counts.get(tally.state, 0) + tally.items
        return counts

    async def studies(self, selection: Selection, limit: int = PAGE) -> list[dict[str, Any]]:
        """Counts by study and destination, the latest study first."""
        where, values = condition(selection)
        rows = await self._read(
            "SELECT item.study, item.called, count(*), sum(item.state = 4),"
            " sum(item.state = 3), sum(item.state IN (1, 2)), sum(item.state = 5),"
            f" min(item.accepted), max(item.ended), max(item.number) FROM item {where}"
            # The latest studies are found in their index: only these studies' rows are read.
            f" AND item.study IN (SELECT item.study FROM item {where} GROUP BY item.study"
            " ORDER BY max(item.number) DESC LIMIT ?)"
            " GROUP BY item.study, item.called ORDER BY 10 DESC LIMIT ?",
            (*values, *values, limit, limit),
        )
        return [dict(zip(_STUDY, row, strict=False)) for row in rows]

    async def held(self) -> list[tuple[str, str, Hold, tuple[str, str], int]]:
        """What is held, by kind: called, calling, why, SOP class with transfer syntax, how many."""
        rows = await self._rows(
            "SELECT item.called, batch.calling, hold, sop_class, transfer_syntax, count(*)"
            " FROM item JOIN batch ON batch.number = item.batch"
            " WHERE item.called IN (SELECT called FROM tally WHERE state = 2 AND items > 0)"
            " AND item.state = 2 GROUP BY 1, 2, 3, 4, 5"
        )
        return [
            (called, calling, Hold(hold), (sop_class, syntax), count)
            for called, calling, hold, sop_class, syntax, count in rows
        ]

    # --- doing ------------------------------------------------------------------------------------

    async def retry(self, selection: Selection) -> int:
        """Let what has failed, is held, or waits for its time be tried now; how many there were.

        What was never tried goes with its batch, in its order; the rest without one. What is locked
        with another spool key stays so.
        """
        changed = 0
        while True:
            numbers = await self._database.run(partial(_retry, selection))
            changed += len(numbers)
            if len(numbers) < PAGE:
                return changed
            selection = attrs.evolve(selection, after=numbers[-1])

    async def release(self, called: str, calling: str, pair: tuple[str, str]) -> int:
        """What was held because the device did not take its kind waits again; how many."""

        def change(connection: apsw.Connection) -> int:
            return change_items(
                connection,
                "UPDATE item SET state = 1, hold = 0, due = 0, reason = '' WHERE called = ?"
                " AND state = 2 AND hold = ? AND sop_class = ? AND transfer_syntax = ? AND EXISTS"
                " (SELECT 1 FROM batch WHERE batch.number = item.batch AND batch.calling = ?)"
                " RETURNING batch",
                (called, Hold.NOT_ACCEPTED, *pair, calling),
            )

        return await self._database.run(change)

    async def discard(self, selection: Selection, reason: str, now: float) -> list[StoredObject]:
        """Give up on the next PAGE of what is meant; what their files are, to be removed."""

        def change(connection: apsw.Connection) -> list[StoredObject]:
            where, values = condition(selection)
            rows = connection.execute(
                f"{SELECT} {where} AND item.state < 4 ORDER BY item.number LIMIT ?",
                (*values, PAGE),
            ).fetchall()
            items = [item_of(row) for row in rows]
            connection.executemany(
                "UPDATE item SET state = ?, hold = 0, reason = ?, ended = ? WHERE number = ?",
                [(State.DISCARDED, reason, now, item.number) for item in items],
            )
            mark_batches(connection, (item.batch for item in items))
            return [item.stored for item in items]

        return await self._database.run(change)

    # --- pauses -----------------------------------------------------------------------------------

    async def pauses(self) -> list[Pause]:
        """The destinations that get nothing."""
        rows = await self._rows(
            "SELECT called, by_person, reason, since FROM pause ORDER BY called"
        )
        return [Pause(called, bool(by), reason, since) for called, by, reason, since in rows]

    async def pause(self, pause: Pause) -> None:
        """Stop a destination. A person's word stays over the device's."""
        await self._execute(
            "INSERT INTO pause VALUES (?, ?, ?, ?) ON CONFLICT (called) DO UPDATE SET"
            " by_person = excluded.by_person, reason = excluded.reason, since = excluded.since"
            " WHERE excluded.by_person >= pause.by_person",
            *attrs.astuple(pause),
        )

    async def resume(self, called: str) -> bool:
        """Let a destination go on; whether it was stopped."""

        def change(connection: apsw.Connection) -> bool:
            connection.execute("DELETE FROM pause WHERE called = ?", (called,))
            return bool(connection.changes())

        return await self._database.run(change)


def _retry(selection: Selection, connection: apsw.Connection) -> list[int]:
    """Retry a page; its items' numbers, in order."""
    where, values = condition(selection)
    rows = connection.execute(
        f"SELECT item.number, item.batch FROM item {where} AND (item.state IN (2, 3)"
        " OR (item.state = 1 AND item.attempts > 0)) AND item.hold <> ?"
        " ORDER BY item.number LIMIT ?",
        (*values, Hold.LOCKED, PAGE),
    ).fetchall()
    numbers: list[Any] = [number for number, _ in rows]
    connection.execute(
        # Why it failed stays to be read; why it was held is over.
        "UPDATE item SET reason = iif(state = 2, '', reason), state = 1, hold = 0, due = 0,"
        f" ended = NULL WHERE number IN ({marks(numbers)})",
        numbers,
    )
    mark_batches(connection, (batch for _, batch in rows))
    return numbers
