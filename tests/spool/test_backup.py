"""A spool is copied while it is used: each row with its file, and what is over is over."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from relay.errors import DatabaseError, ObjectDamaged
from relay.spool import carrying
from relay.spool.backup import BackedUp, copy_objects, copy_rows
from relay.spool.items import Item, Selection, State
from relay.spool.schema import DATABASE_FILE
from relay.spool.spool import FOLDER, Spool
from tests.spool.rows import a_batch
from tests.spool.stock import accept, become, content, keep, opened, stock


def nothing(done: int, total: int) -> None:
    """No progress is shown."""


async def back_up(
    data_dir: Path, target: Path, progress: Callable[[int, int], None] = nothing
) -> BackedUp:
    target.mkdir()
    before = await copy_rows(data_dir, target)
    backed_up = await copy_objects(data_dir, target, progress, before=before)
    key = data_dir / "spool.key"
    (target / "spool.key").write_bytes(key.read_bytes())
    return backed_up


async def ticked() -> None:
    """A file that is written now is a later one: it has the time of the system's last tick."""
    await trio.sleep(0.05)


async def states(spool: Spool) -> dict[bytes, State]:
    return {item.id: item.state for item in await spool.items.select(Selection())}


async def check(target: Path) -> dict[bytes, State]:
    """Each item of the copy that is kept has its object; the states."""
    async with opened(target) as spool:
        for item in await spool.items.select(Selection()):
            if item.state in (State.WAITING, State.HELD, State.FAILED):
                assert (await content(spool, item)).startswith(b"object ")
        return await states(spool)


async def test_a_spool_that_is_used_is_copied_as_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as spool:
        items = await stock(spool, 5)
        await become(spool, items[:1], State.DELIVERED)
        await become(spool, items[1:2], State.FAILED)
        done = await back_up(tmp_path / "a", tmp_path / "b")
        expected = await states(spool)
    assert (done.carried.objects, done.over, done.lost) == (4, 0, 0)
    assert await check(tmp_path / "b") == expected
    assert sorted(path.name for path in (tmp_path / "b" / FOLDER).glob("queue*")) == [DATABASE_FILE]


async def test_what_a_crash_left_in_the_log_is_in_the_copy(tmp_path: Path) -> None:
    """The process is gone: its commits are in queue.db-wal still."""
    crashed = tmp_path / "crashed"
    async with opened(tmp_path / "a") as spool:
        await stock(spool, 5)
        log = tmp_path / "a" / FOLDER / f"{DATABASE_FILE}-wal"
        assert log.stat().st_size
        copy_tree(tmp_path / "a", crashed)
    await back_up(crashed, tmp_path / "b")
    assert set((await check(tmp_path / "b")).values()) == {State.WAITING}


def copy_tree(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        new = target / path.relative_to(source)
        if path.is_dir():
            new.mkdir(parents=True)
        elif not path.name.endswith("-shm"):
            new.write_bytes(path.read_bytes())


async def test_what_goes_meanwhile_is_over_in_the_copy_and_what_comes_is_not_in_it(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "a") as spool:
        items = await stock(spool, 6)
        batch = items[0].batch

        async def meanwhile() -> None:
            await become(spool, items[:2], State.DELIVERED, "stored")
            gone = await spool.items.discard(Selection(numbers=(items[2].number,)), "no", 5.0)
            await spool.objects.remove(gone)
            await stock(spool, 2)

        # Between the rows and the objects.
        (tmp_path / "b").mkdir()
        before = await copy_rows(tmp_path / "a", tmp_path / "b")
        await ticked()
        await meanwhile()
        done = await copy_objects(tmp_path / "a", tmp_path / "b", nothing, before=before)
        (tmp_path / "b" / "spool.key").write_bytes((tmp_path / "a" / "spool.key").read_bytes())
    assert (done.carried.objects, done.over, done.lost) == (3, 3, 0)
    found = await check(tmp_path / "b")
    wanted = [State.DELIVERED] * 2 + [State.DISCARDED] + [State.WAITING] * 3
    assert [found.pop(item.id) for item in items] == wanted
    assert not found
    async with opened(tmp_path / "b") as spool:
        delivered = (await spool.items.select(Selection(state=State.DELIVERED)))[0]
        assert (delivered.reason, delivered.ended, delivered.batch) == ("stored", 4.0, batch)
        assert {t.state: t.items for t in await spool.items.counts()} == {
            State.DELIVERED: 2,
            State.DISCARDED: 1,
            State.WAITING: 3,
        }


async def test_what_has_no_row_yet_is_in_the_copy_by_its_slip(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as spool:
        noted = await stock(spool, 3)
        batch = a_batch()
        taken = [await accept(spool, batch, b"object %d" % number) for number in (7, 8, 9)]
        assert spool.custody.waits
        done = await back_up(tmp_path / "a", tmp_path / "b")
        assert spool.custody.waits  # it is not even asked
    assert (done.carried.objects, done.carried.unnoted, done.over, done.lost) == (3, 3, 0, 0)
    found = await check(tmp_path / "b")
    assert found == {item.id: State.WAITING for item in noted + taken}


async def test_what_is_accepted_after_its_rows_were_copied_is_not(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as spool:
        (tmp_path / "b").mkdir()
        early = await accept(spool, a_batch(), b"object 1")
        before = await copy_rows(tmp_path / "a", tmp_path / "b")
        await ticked()
        await accept(spool, a_batch(), b"object 2")
        done = await copy_objects(tmp_path / "a", tmp_path / "b", nothing, before=before)
        assert done.carried.unnoted == 1
    async with opened(tmp_path / "b", key=tmp_path / "a" / "spool.key") as copy:
        assert list(await states(copy)) == [early.id]


async def test_what_gets_its_row_meanwhile_is_in_it_all_the_same(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as spool:
        (tmp_path / "b").mkdir()
        taken = [await accept(spool, a_batch(), b"object %d" % number) for number in (1, 2)]
        before = await copy_rows(tmp_path / "a", tmp_path / "b")
        await spool.custody.flush()
        (first, _) = await spool.items.select(Selection())
        await become(spool, [first], State.DELIVERED)
        done = await copy_objects(tmp_path / "a", tmp_path / "b", nothing, before=before)
        assert done.carried.unnoted == 1
    async with opened(tmp_path / "b", key=tmp_path / "a" / "spool.key") as copy:
        assert list(await states(copy)) == [taken[1].id]


async def test_what_was_forgotten_meanwhile_is_not_in_the_copy(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as spool:
        items = await stock(spool, 2)
        (tmp_path / "b").mkdir()
        before = await copy_rows(tmp_path / "a", tmp_path / "b")
        await become(spool, items[:1], State.DELIVERED)
        await spool.items.forgotten([items[0].id])
        assert await spool.items.expire(1e10) == 1
        done = await copy_objects(tmp_path / "a", tmp_path / "b", nothing, before=before)
    assert (done.over, done.lost) == (1, 0)
    async with opened(tmp_path / "b", key=tmp_path / "a" / "spool.key") as copy:
        assert list(await states(copy)) == [items[1].id]


async def test_a_file_that_the_spool_has_lost_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as spool:
        items = await stock(spool, 3)
        (tmp_path / "a" / FOLDER / items[1].stored.name).unlink()
        done = await back_up(tmp_path / "a", tmp_path / "b")
    assert (done.carried.objects, done.over, done.lost) == (2, 0, 1)
    async with opened(tmp_path / "b") as copy:
        assert (await states(copy))[items[1].id] is State.FAILED
        with pytest.raises(ObjectDamaged):
            await content(copy, items[1])


async def test_while_objects_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several backups under load: in each one every object that is kept is whole."""
    monkeypatch.setattr(carrying, "PAGE", 5)
    async with opened(tmp_path / "a") as spool, trio.open_nursery() as nursery:
        known: list[Item] = []

        async def arrive() -> None:
            batch = a_batch()
            while True:
                known.append(await keep(spool, batch, b"object %d" % len(known)))

        async def leave() -> None:
            gone = 0
            while True:
                await trio.lowlevel.checkpoint()
                if len(known) - gone > 20:
                    await become(spool, known[gone : gone + 5], State.DELIVERED)
                    gone += 5

        for task in (arrive, arrive, leave):
            nursery.start_soon(task)
        acknowledged = set[bytes]()
        for number in range(4):
            while len(known) < 40 * (number + 1):
                await trio.lowlevel.checkpoint()
            acknowledged = {item.id for item in known}
            target = tmp_path / f"b{number}"
            done = await back_up(tmp_path / "a", target)
            assert done.lost == 0
            assert acknowledged <= (await check(target)).keys()
        nursery.cancel_scope.cancel()


async def test_damaged_rows_are_no_backup(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as spool:
        await stock(spool, 40)
    database = tmp_path / "a" / FOLDER / DATABASE_FILE
    raw = bytearray(database.read_bytes())
    raw[4096 : 4096 * 12] = bytes(4096 * 11)
    database.write_bytes(raw)
    (tmp_path / "b").mkdir()
    with pytest.raises(DatabaseError, match=r"queue\.db"):
        await copy_rows(tmp_path / "a", tmp_path / "b")
