"""The audit: nobody waits for it, nothing is lost, and what is too old goes."""

import threading
import time
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from relay.audit import audit as module
from relay.audit.audit import Audit, AuditFull, open_audit
from relay.audit.codes import Kind
from relay.audit.entries import MIGRATIONS, Filter
from relay.audit.events import Query
from relay.database import Database, open_database
from relay.errors import DatabaseError
from tests.audit.samples import SOURCE, TRANSFER, FakeSeal, alert, kinds, recorded, running


async def events(audit: Audit) -> list[object]:
    entries = await audit.latest(Filter(), 100)
    return [audit.event_of(entry) for entry in reversed(entries)]


async def test_what_is_recorded_is_on_the_disk_a_moment_later(tmp_path: Path) -> None:
    async with running(tmp_path) as audit:
        for event in kinds():
            audit.record(event)
        assert audit.statistics().waiting == len(kinds())
        with trio.fail_after(10):
            while audit.statistics().last < len(kinds()):
                await audit.changed.park()
        told = [getattr(event, "kind", None) for event in await events(audit)]
        assert told == [event.kind for event in kinds()]
        assert audit.statistics().waiting == 0
        assert (await audit.verify()).fault == ""


async def test_what_waits_at_the_end_is_written(tmp_path: Path) -> None:
    async with open_audit(tmp_path, lambda: SOURCE) as audit:
        audit.record(kinds()[0])
    async with open_audit(tmp_path, lambda: SOURCE) as audit:
        assert audit.statistics().last == 1
        assert len(await events(audit)) == 1


async def test_a_group_is_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = 0
    append = module.entries.append

    def counted(*arguments: object, **named: object) -> int:
        nonlocal commits
        commits += 1
        return append(*arguments, **named)

    monkeypatch.setattr(module.entries, "append", counted)
    async with running(tmp_path) as audit:
        for _ in range(module.GROUP):
            audit.record(kinds()[0])
        with trio.fail_after(10):
            while audit.statistics().last < module.GROUP:
                await audit.changed.park()
    assert commits <= 2


async def test_refusals_alike_are_counted_and_told(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(tmp_path) as audit:
        for _ in range(1000):
            audit.record(alert("no grant"))
        await trio.sleep(100)
        await audit.flush()
        whys = [getattr(event, "why", None) for event in await events(audit)]
        assert whys == ["", "999 more like this one in 60 s"]


class Failing:
    """A database whose disk takes nothing until it is mended."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.broken = True

    async def run(self, fn):
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise DatabaseError("disk full")
        return self.database.run_here(fn)  # no thread, which the clock would not wait for


async def test_a_disk_that_fails_loses_nothing_and_holds_new_work_back(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_WAITING", 20)
    async with (
        open_database(tmp_path / "audit.db", MIGRATIONS) as database,
        trio.open_nursery() as nursery,
    ):
        failing = Failing(database)
        audit = Audit(failing, lambda: SOURCE)  # type: ignore[arg-type]
        nursery.start_soon(audit.run)
        await audit.room()
        for _ in range(30):
            audit.record(kinds()[0])
        with pytest.raises(AuditFull):
            await audit.room()
        assert audit.statistics().failures > 0
        failing.broken = False
        await audit.room()
        await audit.flush()
        assert (audit.statistics().last, audit.statistics().lost) == (30, 0)
        nursery.cancel_scope.cancel()


async def test_what_memory_cannot_hold_is_counted_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_KEPT", 5)
    async with open_audit(tmp_path, lambda: SOURCE) as audit:
        for _ in range(7):
            audit.record(kinds()[0])
        assert (audit.statistics().waiting, audit.statistics().lost) == (5, 2)


async def test_what_is_too_old_goes(tmp_path: Path) -> None:
    async with open_audit(tmp_path, lambda: SOURCE, days=30) as audit:
        now = time.time()
        old = [attrs.evolve(alert(str(n)), at=now - 31 * 86_400) for n in range(5)]
        await recorded(audit, *old, alert("new"))
        assert await audit.sweep() == 5
        assert [e.number for e in await audit.latest(Filter(), 10)] == [6]
        assert await audit.latest(Filter(parties=["CT_1"]), 10)
        assert (await audit.verify()).fault == ""
        assert await audit.sweep() == 0


async def test_the_oldest_go_where_the_space_is_used_up(tmp_path: Path) -> None:
    async with open_audit(tmp_path, lambda: SOURCE, space=2_000_000) as audit:
        event = kinds()[4]
        for _ in range(10):
            await recorded(audit, *([event] * module.GROUP))
        assert await audit.sweep() > 0
        first = (await audit.following(0, 1))[0].number
        assert 1 < first < 5000
        assert (await audit.verify()).fault == ""


async def test_what_a_query_asked_for_is_sealed_on_the_disk(tmp_path: Path) -> None:
    event = TRANSFER.asked("1.2", Query(b"DOE^JANE", "1.2.840.10008.1.2"))
    async with open_audit(tmp_path, lambda: SOURCE, seal=FakeSeal()) as audit:
        await recorded(audit, event)
        assert await events(audit) == [event]
    assert b"DOE^JANE".hex().encode() not in (tmp_path / "audit.db").read_bytes()


async def test_an_entry_that_was_changed_is_told_as_such(tmp_path: Path) -> None:
    async with open_audit(tmp_path, lambda: SOURCE) as audit:
        await recorded(audit, kinds()[0])
        (entry,) = await audit.following(0, 1)
        event = audit.event_of(attrs.evolve(entry, raw=b"{}"))
        assert event.kind is Kind.ALERT
        assert event.subjects[0].details[0][1] == "entry 1 of the audit was changed on the disk"


async def test_verifying_says_what_is_wrong(tmp_path: Path) -> None:
    async with open_audit(tmp_path, lambda: SOURCE) as audit:
        await recorded(audit, *kinds())
        whole = await audit.verify()
        assert (whole.fault, whole.entries) == ("", len(kinds()))
        wrong = await audit.verify((3, bytes(32)))
        assert wrong.fault == "entry 3 has another hash than was noted"


async def test_a_long_search_holds_no_writing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest, going, enough = module.entries.latest, threading.Event(), threading.Event()

    def slow(*given: Any) -> list[module.Entry]:
        going.set()
        assert enough.wait(20)
        return latest(*given)

    monkeypatch.setattr(module.entries, "latest", slow)
    async with open_audit(tmp_path, lambda: SOURCE) as audit, trio.open_nursery() as nursery:
        nursery.start_soon(audit.latest, Filter(), 1)
        await trio.to_thread.run_sync(going.wait, 10)
        with trio.fail_after(10):
            await recorded(audit, *kinds())
        assert audit.statistics().last == len(kinds())
        enough.set()
