"""Items and batches as rows: nothing is lost between the two."""

import attrs
import pytest

from relay.errors import DatabaseError
from relay.spool.items import Batch, Hold, Item, Priority, Selection, State
from relay.spool.rows import (
    condition,
    insert_batch,
    insert_item,
    mark_batches,
    marks,
)
from tests.spool.rows import Rows, a_batch, an_item


async def test_an_item_is_read_as_it_was_written(rows: Rows) -> None:
    batch = await rows.batch()
    item = an_item(
        state=State.HELD,
        hold=Hold.LOCKED,
        due=1.5,
        attempts=3,
        doubtful=True,
        alone=True,
        status=0xA700,
        reason="a reason",
        ended=9.25,
        batch=99,
    )
    number = await rows.database.run(lambda c: insert_item(c, item, batch.number))
    assert await rows.item(item) == attrs.evolve(item, number=number, batch=batch.number)
    found = await rows.item(item)
    assert isinstance(found.state, State)
    assert isinstance(found.hold, Hold)
    assert (found.doubtful, found.alone) == (True, True)


async def test_a_batch_is_read_as_it_was_written(rows: Rows) -> None:
    batch = a_batch(priority=Priority.LOW, closed=3.0, opened=1.25)
    number = await rows.database.run(lambda c: insert_batch(c, batch))
    found = (await rows.table.batches([number]))[number]
    batch.number = number
    assert attrs.asdict(found) == attrs.asdict(batch)
    assert found.priority is Priority.LOW


async def test_an_item_belongs_to_a_batch_and_is_there_once(rows: Rows) -> None:
    item = an_item()
    with pytest.raises(DatabaseError, match="FOREIGN KEY"):
        await rows.database.run(lambda c: insert_item(c, item, 1))
    batch = await rows.batch()
    await rows.database.run(lambda c: insert_item(c, item, batch.number))
    with pytest.raises(DatabaseError, match="UNIQUE"):
        await rows.database.run(lambda c: insert_item(c, item, batch.number))


@pytest.mark.parametrize(
    ("closed", "changes", "done"),
    [
        (None, {"state": State.DELIVERED}, False),
        (3.0, {"state": State.DELIVERED}, True),
        (3.0, {"state": State.HELD}, True),
        (3.0, {"attempts": 1}, True),
        (3.0, {}, False),
        (3.0, {"doubtful": True}, False),
    ],
)
async def test_a_batch_is_done_when_nothing_of_it_is_to_be_sent_first(
    rows: Rows, closed: float | None, changes: dict[str, object], done: bool
) -> None:
    batch = await rows.batch(closed=closed)
    await rows.add(batch, **changes)
    assert await rows.done(batch) is done
    await rows.database.run(lambda c: mark_batches(c, [batch.number, batch.number]))
    assert await rows.done(batch) is done


def test_a_selection_always_has_a_condition() -> None:
    assert condition(Selection()) == ("WHERE item.number > ?", (0,))
    where, values = condition(
        Selection(
            called="A", calling="B", study="1", state=State.HELD, numbers=(7, 8), after=5, until=9
        )
    )
    assert where.count("?") == len(values)
    assert {"A", "B", "1", 5, 7, 8, 9, State.HELD} == set(values)


def test_there_is_a_mark_for_each_value() -> None:
    assert [marks(range(n)) for n in range(3)] == ["", "?", "?, ?"]


async def test_rows_have_what_items_and_batches_have(rows: Rows) -> None:
    async def columns(table: str) -> set[str]:
        found = await rows.table._rows(f"SELECT name FROM pragma_table_info('{table}')")
        return {name for (name,) in found}

    assert {field.name for field in attrs.fields(Item)} == await columns("item") - {"forgotten"}
    assert {field.name for field in attrs.fields(Batch)} == await columns("batch")
