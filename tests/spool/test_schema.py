"""The schema: tallies are exact whatever is done, and rows are what they are declared to be."""

import random
from collections import Counter
from pathlib import Path

import apsw
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.database import open_database
from relay.errors import DatabaseError
from relay.spool.items import Change, Hold, Item, Selection, State
from relay.spool.rows import insert_batch
from relay.spool.schema import MIGRATIONS
from relay.spool.table import HISTORY, begin_epoch
from tests.spool.rows import CT, IMPLICIT, KEY, Rows, a_batch, an_item, open_rows


async def check(rows: Rows) -> None:
    """Tallies are what counting gives; batches are done when they are."""
    counted = await rows.table._rows(
        "SELECT called, state, count(*), sum(size) FROM item GROUP BY called, state"
    )
    tallies = await rows.table.counts()
    assert sorted((t.called, int(t.state), t.items, t.bytes) for t in tallies) == sorted(counted)
    wrong = await rows.value(
        "SELECT count(*) FROM batch WHERE done <> (closed IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM item WHERE batch = batch.number AND state = 1 AND attempts = 0))"
    )
    assert wrong == 0


async def act(rows: Rows, source: random.Random, known: list[Item]) -> None:
    """Something that happens to a queue."""
    table, now = rows.table, source.random() * 3 * HISTORY
    called = source.choice("ABC")
    some = source.sample(known, min(len(known), 5))
    match source.randrange(13):
        case 0 | 1 | 2:
            batch = await rows.batch(called, calling=source.choice(("CT", "MR")))
            size, key_name = source.randrange(1000), source.choice((KEY, b"another!"))
            known += await rows.add(batch, source.randrange(1, 6), size=size, key_name=key_name)
            if source.random() < 0.7:
                await table.close_batch(batch, now)
        case 3 | 4:
            changes = [
                Change(
                    number=item.number,
                    state=source.choice((State.WAITING, State.FAILED, State.DELIVERED, State.HELD)),
                    hold=source.choice((Hold.NONE, Hold.NOT_ACCEPTED)),
                    attempts=source.randrange(3),
                    ended=now,
                )
                for item in some
            ]
            await table.settle(changes)
        case 5:
            await table.retry(Selection(called=called))
        case 6:
            await table.discard(Selection(called=called, after=source.randrange(20)), "", now)
        case 7:
            await table.release(called, "CT", (CT, IMPLICIT))
        case 8:
            await table.lock(source.choice((KEY, b"another!")), "locked")
        case 9:
            await table.lost([item.id for item in some[:2]], "lost", now)
        case 10:
            for batch in (await table.batches({item.batch for item in some})).values():
                await table.hold_batch(batch, Hold.MOVED, "moved")
        case 11:
            await table.expire(now)
        case 12 if source.random() < 0.2:
            await rows.database.run(lambda connection: begin_epoch(connection, "restored"))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25)
async def test_tallies_are_exact_whatever_is_done(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    source = random.Random(seed)
    async with open_rows(tmp_path_factory.mktemp("rows")) as rows:
        known: list[Item] = []
        for _ in range(30):
            await act(rows, source, known)
            await check(rows)


async def test_what_is_done_at_random_leads_to_every_state(tmp_path: Path) -> None:
    """Or the test above would show nothing."""
    source, seen = random.Random(1), Counter[State]()
    async with open_rows(tmp_path) as rows:
        known: list[Item] = []
        for _ in range(200):
            await act(rows, source, known)
            seen.update(tally.state for tally in await rows.table.counts())
        assert set(seen) == set(State)
        assert await rows.value("SELECT count(*) FROM item") < len(known)  # some were forgotten


async def test_a_type_that_is_not_the_columns_is_refused(rows: Rows) -> None:
    batch = await rows.batch()
    with pytest.raises(DatabaseError, match="cannot store TEXT"):
        await rows.add(batch, length="many")


async def test_a_batch_with_items_cannot_go(rows: Rows) -> None:
    batch = await rows.batch()
    await rows.add(batch)
    with pytest.raises(DatabaseError, match="FOREIGN KEY"):
        await rows.table._execute("DELETE FROM batch WHERE number = ?", batch.number)


async def test_what_was_kept_by_sha_256_stays_so(tmp_path: Path) -> None:
    async with open_database(tmp_path / "queue.db", MIGRATIONS[:2]) as database:

        def fill(connection: apsw.Connection) -> None:
            values = {**attrs.asdict(an_item()), "batch": insert_batch(connection, a_batch())}
            values["sha256"] = b"s" * 32
            del values["number"], values["digest"]
            columns, places = ", ".join(values), ", ".join("?" * len(values))
            connection.execute(
                f"INSERT INTO item ({columns}) VALUES ({places})", tuple(values.values())
            )
            connection.execute("INSERT INTO receipt VALUES (x'01', x'02', x'03', 0, '', 9)")

        await database.run(fill)
    async with open_rows(tmp_path) as rows:
        (item,) = await rows.table.select(Selection())
        assert item.digest == b"s" * 32
        assert await rows.value("SELECT digest FROM receipt") == b"\x03"
        await check(rows)


async def test_the_schema_is_there_again_after_reopening(tmp_path: Path) -> None:
    async with open_rows(tmp_path) as rows:
        await rows.add(await rows.batch(), 3)
    async with open_database(tmp_path / "queue.db", MIGRATIONS) as database:
        count = await database.run(lambda c: c.execute("SELECT count(*) FROM item").get)
    assert count == 3
