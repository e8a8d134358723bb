"""A spool from a backup: all of it held as doubtful, and nothing of it lost."""

from pathlib import Path

from relay.spool.backup import copy_objects, copy_rows
from relay.spool.items import Change, Hold, Selection, State
from relay.spool.restore import RestoredSpool, restore_spool
from relay.spool.schema import DATABASE_FILE
from relay.spool.spool import FOLDER
from relay.spool.vault import load_spool_key
from tests.spool.rows import a_batch
from tests.spool.stock import accept, become, content, crash, opened, stock

REASON = "from a backup"


def nothing(done: int, total: int) -> None:
    """No progress is shown."""


async def moved(tmp_path: Path, *, key_name: bytes | None = None) -> RestoredSpool:
    """What is in the spool of `tmp_path`/a, by a backup to `tmp_path`/c."""
    source, backup, target = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    backup.mkdir()
    before = await copy_rows(source, backup)
    await copy_objects(source, backup, nothing, before=before)
    (target / FOLDER).mkdir(parents=True)
    rows = (backup / FOLDER / DATABASE_FILE).read_bytes()
    (target / FOLDER / DATABASE_FILE).write_bytes(rows)
    key = load_spool_key(source, None)
    (target / "spool.key").write_bytes(key.secret)
    return await restore_spool(
        backup, target, key_name=key_name or key.name, reason=REASON, progress=nothing
    )


async def test_what_was_kept_is_doubtful_and_waits_for_a_person(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as spool:
        items = await stock(spool, 6)
        await become(spool, items[:1], State.DELIVERED)
        await become(spool, items[1:2], State.FAILED, "refused")
        hold = Change(number=items[2].number, state=State.HELD, hold=Hold.NOT_ACCEPTED, attempts=0)
        await spool.items.settle([hold])
    restored = await moved(tmp_path)
    assert (restored.epoch, restored.doubtful, restored.failed, restored.locked) == (1, 4, 1, 0)
    assert restored.carried.objects == 5
    async with opened(tmp_path / "c") as spool:
        assert await spool.items.destinations() == []
        held = await spool.items.select(Selection(state=State.HELD))
        assert [item.id for item in held] == [item.id for item in items[2:]]
        assert {(item.hold, item.doubtful, item.reason) for item in held} == {
            (Hold.DOUBTFUL, True, REASON)
        }
        assert [await content(spool, item) for item in held] == [
            b"object %d" % number for number in range(2, 6)
        ]
        (failed,) = await spool.items.select(Selection(state=State.FAILED))
        assert (failed.id, failed.reason, failed.attempted) == (items[1].id, "refused", True)
        # The device's word lets nothing go that a person has not seen.
        assert not await spool.items.release("PACS", "CT", items[2].pair)
        await spool.items.retry(Selection(state=State.HELD))
        (batch,) = (await spool.items.batches([items[2].batch])).values()
        again = await spool.items.firsts(batch, 0, 10)
        assert [item.id for item in again] == [item.id for item in items[2:]]
        assert all(item.attempted for item in again)


async def test_what_had_no_row_when_it_was_backed_up_is_doubtful_too(tmp_path: Path) -> None:
    async with opened(tmp_path / "live") as spool:
        noted = await stock(spool, 2)
        batch = a_batch()
        taken = [
            await accept(spool, batch, b"object %d" % number, accepted=10.0 + number)
            for number in (2, 3)
        ]
        crash(tmp_path / "live", tmp_path / "a")
    restored = await moved(tmp_path)
    assert (restored.carried.objects, restored.carried.unnoted) == (2, 2)
    for _ in range(2):
        async with opened(tmp_path / "c") as spool:
            held = await spool.items.select(Selection())
            assert [item.id for item in held] == [item.id for item in noted + taken]
            assert {(item.state, item.hold, item.doubtful) for item in held} == {
                (State.HELD, Hold.DOUBTFUL, True)
            }
            assert [await content(spool, item) for item in held] == [
                b"object %d" % number for number in range(4)
            ]
            assert await spool.items.destinations() == []


async def test_each_restore_is_another_epoch(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as spool:
        await stock(spool, 1)
    assert (await moved(tmp_path)).epoch == 1
    again = tmp_path / "again"
    again.mkdir()
    (tmp_path / "c").rename(again / "a")
    assert (await moved(again)).epoch == 2


async def test_without_its_key_it_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as spool:
        await stock(spool, 3)
    assert (await moved(tmp_path, key_name=b"another!")).locked == 3


async def test_a_file_that_is_not_in_the_backup_becomes_a_dead_letter(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as spool:
        items = await stock(spool, 3)
    (tmp_path / "a" / FOLDER / items[0].stored.name).unlink()
    restored = await moved(tmp_path)
    assert restored.carried.missing == [items[0].id]
    async with opened(tmp_path / "c") as spool:
        (failed,) = await spool.items.select(Selection(state=State.FAILED))
        assert failed.id == items[0].id
        assert "lost" in failed.reason
