"""The chain on the disk: added to, never changed, and what is changed all the same shows."""

from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path

import apsw
import attrs
import pytest
import trio

from relay.audit import entries
from relay.audit.codes import Kind
from relay.audit.entries import MIGRATIONS, Filter, Finding, verify
from relay.audit.events import Query
from relay.database import Database, open_database
from relay.errors import DatabaseError
from relay.spool.vault import SpoolKey
from tests.audit.samples import IMPLICIT, STUDY, TRANSFER, FakeSeal, alert, kinds


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "audit.db", MIGRATIONS) as database:
        yield database


async def add(database: Database, *events: object) -> int:
    pairs = [(event, event.encode()) for event in events]
    return await database.run(partial(entries.append, events=pairs))


async def check(database: Database, noted: tuple[int, bytes] | None = None) -> Finding:
    return await trio.to_thread.run_sync(verify, database.path, noted)


async def tamper(database: Database, statement: str) -> Finding:
    """Change the file behind Relay's back, as somebody with a shell would; what shows then."""
    with closing(apsw.Connection(str(database.path))) as connection:
        for trigger in ("entry_added", "entry_stays", "entry_kept"):
            connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        connection.execute(statement).fetchall()
    return await check(database)


async def test_entries_are_numbered_and_chained(database: Database) -> None:
    assert await add(database, *kinds()) == len(kinds())
    assert await add(database, alert("one more")) == len(kinds()) + 1
    finding = await check(database)
    assert finding.fault == ""
    assert (finding.first, finding.last, finding.entries) == (1, 15, 15)
    assert [e.event for e in await database.run(lambda db: entries.following(db, 14))] == [
        attrs.evolve(alert("one more"), at=pytest.approx(alert("").at, abs=5))
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET event = x'00' WHERE number = 3",
        "UPDATE entry SET hash = zeroblob(32)",
        "DELETE FROM entry WHERE number = 3",
        "DELETE FROM entry",
        "INSERT OR REPLACE INTO entry SELECT number, 0, kind, event, hash FROM entry",
    ],
)
async def test_entries_cannot_be_changed(database: Database, statement: str) -> None:
    await add(database, *kinds())
    with pytest.raises(DatabaseError, match="only added to"):
        await database.run(lambda db: db.execute(statement).fetchall())
    assert (await check(database)).fault == ""


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE entry SET event = x'00' WHERE number = 3", "entry 3 was changed, or one before"),
        ("UPDATE entry SET hash = zeroblob(32) WHERE number = 14", "entry 14 was changed"),
        ("DELETE FROM entry WHERE number = 7", "entry 7 is missing"),
        ("DELETE FROM entry WHERE number < 4", "entry 1 is missing"),
        ("DELETE FROM entry WHERE number > 9", "entries 10 to 14 are missing at the end"),
        ("DELETE FROM entry", "entries 1 to 14 are missing at the end"),
    ],
)
async def test_what_is_changed_all_the_same_shows(
    database: Database, statement: str, fault: str
) -> None:
    await add(database, *kinds())
    finding = await tamper(database, statement)
    assert finding.fault.startswith(fault)


async def test_an_entry_that_is_changed_with_its_hash_shows_in_the_next(
    database: Database,
) -> None:
    await add(database, *kinds())
    second = await database.run(lambda db: entries.one(db, 2))
    assert second is not None
    digest = entries.chained(second.hash, 3, b"{}")
    finding = await tamper(
        database,
        f"UPDATE entry SET event = x'{b'{}'.hex()}', hash = x'{digest.hex()}' WHERE number = 3",
    )
    assert finding.fault == "entry 4 was changed, or one before it"


async def test_a_chain_made_anew_shows_by_a_hash_noted_elsewhere(database: Database) -> None:
    await add(database, *kinds())
    before = await check(database)
    noted = (before.last, before.head)
    assert (await check(database, noted)).fault == ""
    await add(database, alert("later"))
    assert (await check(database, noted)).fault == ""
    await tamper(database, "DELETE FROM entry")
    await database.run(lambda db: db.execute("DELETE FROM party").fetchall())
    await database.run(lambda db: db.execute("DELETE FROM sqlite_sequence").fetchall())
    await add(database, *kinds()[1:], alert("nothing was here"))
    assert (await check(database)).fault == ""
    finding = await check(database, noted)
    assert finding.fault == "entry 14 has another hash than was noted"
    beyond = await check(database, (99, bytes(32)))
    assert beyond.fault == "entry 99, whose hash was noted, is missing"


async def test_numbers_of_entries_that_were_removed_are_missed(database: Database) -> None:
    await add(database, *kinds())
    await tamper(database, "DELETE FROM entry WHERE number > 9")
    assert await add(database, alert("goes on")) == 15
    assert (await check(database)).fault == "entry 10 is missing"


async def test_the_sweep_takes_the_oldest_and_the_chain_goes_on(database: Database) -> None:
    await add(database, *kinds())
    before = await check(database)
    assert await database.run(partial(entries.sweep, until=4)) == 4
    finding = await check(database)
    assert (finding.fault, finding.first, finding.last) == ("", 5, 14)
    assert finding.head == before.head
    assert await database.run(partial(entries.sweep, until=99)) == 10
    assert await add(database, alert("after")) == 15
    finding = await check(database)
    assert (finding.fault, finding.entries) == ("", 1)
    # A hash that was noted of what is swept by now says nothing any more, and no fault.
    assert (await check(database, (2, bytes(32)))).fault == ""


async def test_a_file_that_is_none_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"none\.db: "):
        verify(tmp_path / "none.db")


async def test_what_is_old_is_what_is_before_all_that_is_not(database: Database) -> None:
    times = [100.0, 5000.0, 200.0, 300.0, 6000.0]
    await add(database, *(attrs.evolve(alert("x"), at=at) for at in times))
    assert await database.run(lambda db: entries.older_than(db, 1000.0)) == 1
    assert await database.run(lambda db: entries.older_than(db, 5500.0)) == 4
    assert await database.run(lambda db: entries.older_than(db, 9000.0)) == 5
    assert await database.run(lambda db: entries.older_than(db, 50.0)) == 0


async def test_entries_are_found_by_what_they_are_and_whom_they_concern(
    database: Database,
) -> None:
    await add(database, *kinds())

    async def numbers(which: Filter, limit: int = 100) -> list[int]:
        found = await database.run(lambda db: entries.latest(db, which, limit))
        return [entry.number for entry in found]

    assert await numbers(Filter()) == [*range(14, 0, -1)]
    assert await numbers(Filter(), 3) == [14, 13, 12]
    assert await numbers(Filter(before=4)) == [3, 2, 1]
    assert await numbers(Filter(kind=Kind.TRANSFER)) == [6, 5]
    assert await numbers(Filter(parties=["anna"])) == [14, 13, 12, 11]
    assert await numbers(Filter(parties=["CT_1", "PACS_NORD"], kind=Kind.BEGIN)) == [4, 3]
    assert await numbers(Filter(parties=["CT_1' OR 1=1 --"])) == []
    assert await numbers(Filter(since=2e10)) == []
    assert await numbers(Filter(until=2e10, before=2)) == [1]


async def test_the_size_is_that_of_what_there_is(database: Database) -> None:
    empty = await database.run(entries.size)
    await add(database, *(alert("x" * 400) for _ in range(1000)))
    full = await database.run(entries.size)
    await database.run(partial(entries.sweep, until=1000))
    assert full > 400_000 > await database.run(entries.size) >= empty


def test_a_query_is_sealed_and_opens_with_its_key_alone() -> None:
    event = TRANSFER.asked("1.2", Query(b"PatientName", IMPLICIT))
    key, other = SpoolKey(bytes(32)), SpoolKey(bytes(31) + b"1")
    kept = entries.sealed(event, key)
    assert b"PatientName".hex().encode() not in kept.encode()
    assert entries.opened(kept, key) == event
    assert entries.opened(kept, other) == kept
    assert entries.opened(kept, None) == kept
    assert entries.sealed(event, None).subjects[0].query == Query(b"", IMPLICIT)
    assert entries.sealed(TRANSFER.ended(STUDY, []), FakeSeal()).subjects[0].query is None
