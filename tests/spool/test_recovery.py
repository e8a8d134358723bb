"""What the start makes of what the run before left: nothing that was answered is lost, or twice."""

import errno
import hashlib
import shutil
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import attrs
import msgpack
import pytest

from relay.errors import DatabaseError, SpoolError
from relay.spool import objects as objects_module
from relay.spool import recovery, slips
from relay.spool.files import Files
from relay.spool.items import Batch, Change, Hold, Item, Priority, Selection, State
from relay.spool.objects import NAMES, Objects
from relay.spool.schema import DATABASE_FILE
from relay.spool.slips import Slip
from relay.spool.spool import FOLDER, Spool, open_spool
from relay.spool.table import ItemTable, begin_epoch
from relay.spool.vault import SpoolKey
from tests.spool.disks import Disk
from tests.spool.rows import a_batch
from tests.spool.stock import accept, become, content, crash, stock

NOW = 100.0

Logs = list[MutableMapping[str, Any]]


@asynccontextmanager
async def running(
    data_dir: Path,
    *,
    key: Path | None = None,
    files: Callable[[Path], Files] = Files,
) -> AsyncIterator[Spool]:
    data_dir.mkdir(exist_ok=True)
    async with open_spool(
        data_dir, key=key, space=2**40, reserve=0, files=files, clock=lambda: NOW
    ) as spool:
        yield spool


async def accepted(spool: Spool, count: int, batch: Batch, first: int = 1) -> list[Item]:
    """Objects that are answered, one after the other, and have no row."""
    return [
        await accept(spool, batch, b"object %d" % number, accepted=float(number))
        for number in range(first, first + count)
    ]


async def items(spool: Spool) -> list[Item]:
    return await spool.items.select(Selection())


def files_of(data_dir: Path) -> set[str]:
    return {path.name for path in (data_dir / FOLDER).glob("*/*")}


def path_of(data_dir: Path, item: Item) -> Path:
    return data_dir / FOLDER / item.stored.name


def same(items: list[Item]) -> list[Item]:
    """Without their numbers, which a row gives them."""
    return [attrs.evolve(item, number=0, batch=0) for item in items]


def lines(logs: Logs, words: str) -> Logs:
    return [line for line in logs if words in line["event"]]


# --- in custody without a row ---------------------------------------------------------------------


async def test_what_had_no_row_has_it_at_the_next_start(tmp_path: Path, logs: Logs) -> None:
    async with running(tmp_path / "a") as spool:
        one, two = a_batch("ONE", priority=Priority.HIGH), a_batch("TWO", calling="MR")
        taken = [
            (await accepted(spool, 1, batch, number))[0]
            for number, batch in enumerate((one, two, one, two, two), 1)
        ]
        assert spool.custody.waits
        crashed = crash(tmp_path / "a", tmp_path / "b")
    async with running(crashed) as spool:
        found = await items(spool)
        assert same(found) == taken
        assert {item.state for item in found} == {State.WAITING}
        assert [await content(spool, item) for item in found] == [
            b"object %d" % number for number in range(1, 6)
        ]
        numbers = [item.batch for item in found]
        assert numbers == [numbers[0], numbers[1], numbers[0], numbers[1], numbers[1]]
        batches = await spool.items.batches(set(numbers))
        for batch, number in ((one, numbers[0]), (two, numbers[1])):
            wanted = attrs.evolve(batch, number=number, closed=NOW)
            assert attrs.asdict(batches[number]) == attrs.asdict(wanted)
        assert spool.objects.space.used == sum(item.size for item in taken)
        assert files_of(crashed) == {item.id.hex() for item in taken}
        # It goes out as it would have.
        first = await spool.items.next_batch("ONE", ())
        assert first is not None
        assert same(await spool.items.firsts(first, 0, 9)) == taken[0:3:2]
    (line,) = lines(logs, "taken over from the last run")
    assert line["objects"] == 5


async def test_it_comes_into_the_batch_that_it_came_in(tmp_path: Path) -> None:
    batch = a_batch(opened=1.25)
    async with running(tmp_path / "a") as spool:
        before = await accepted(spool, 2, batch)
        await spool.custody.flush()
        other = a_batch(opened=1.5)
        others = await accepted(spool, 1, other, 3)
        await spool.custody.flush()
        after = await accepted(spool, 2, batch, 4)
        crashed = crash(tmp_path / "a", tmp_path / "b")
    async with running(crashed) as spool:
        found = await items(spool)
        assert same(found) == before + others + after
        assert [item.batch for item in found] == [
            *[batch.number] * 2, other.number, *[batch.number] * 2,
        ]  # fmt: skip
        assert [item.number for item in found] == [1, 2, 3, 4, 5]


async def test_also_where_all_else_of_that_was_delivered(tmp_path: Path) -> None:
    """Such a batch was done, and is not any more."""
    batch = a_batch()
    async with running(tmp_path / "a") as spool:
        await accepted(spool, 1, batch)
        await spool.custody.flush()
        await become(spool, await items(spool), State.DELIVERED)
        (left,) = await accepted(spool, 1, batch, 2)
        crashed = crash(tmp_path / "a", tmp_path / "b")
    async with running(crashed) as spool:
        again = await spool.items.next_batch("PACS", ())
        assert again is not None
        assert (again.number, again.closed) == (batch.number, NOW)
        assert same(await spool.items.firsts(again, 0, 9)) == [left]


async def test_nothing_is_taken_over_twice(tmp_path: Path, logs: Logs) -> None:
    async with running(tmp_path / "a") as spool:
        taken = await accepted(spool, 3, a_batch())
        crash(tmp_path / "a", tmp_path / "b")
    async with running(tmp_path / "b") as spool:
        found = await items(spool)
        assert same(found) == taken
        crash(tmp_path / "b", tmp_path / "c")
    for _ in range(2):
        async with running(tmp_path / "c") as spool:
            assert await items(spool) == found
            assert spool.objects.space.used == sum(item.size for item in taken)
    assert len(lines(logs, "taken over from the last run")) == 1


@pytest.mark.parametrize("after", ["recover", "clear"])
async def test_nor_where_a_start_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    monkeypatch.setattr(objects_module, "FOLDER_FILES", NAMES)
    async with running(tmp_path / "a") as spool:
        for _ in range(NAMES - 2):
            await spool.objects.begin()
        taken = await accepted(spool, 4, a_batch())
        assert {item.folder for item in taken} == {1, 2}
        crashed = crash(tmp_path / "a", tmp_path / "b")
    clear = Objects.clear

    async def cut_off(self: Objects, folder: int, names: list[str]) -> None:
        if after == "clear":
            await clear(self, folder, names)
        raise SpoolError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "clear", cut_off)
        with pytest.raises(SpoolError, match="the power went"):
            async with running(crashed):
                pass
    async with running(crashed) as spool:
        found = await items(spool)
        assert same(found) == taken
        assert len({item.batch for item in found}) == 1


async def test_what_is_handed_in_as_it_ends_has_its_row(tmp_path: Path, logs: Logs) -> None:
    async with running(tmp_path) as spool:
        taken = await accepted(spool, 3, a_batch())
    async with running(tmp_path) as spool:
        assert same(await items(spool)) == taken
    assert not lines(logs, "taken over")


async def test_a_start_that_fails_in_a_later_page_has_the_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    monkeypatch.setattr(recovery, "PAGE", 2)
    async with running(tmp_path / "a") as spool:
        taken = await accepted(spool, 7, a_batch())
        crashed = crash(tmp_path / "a", tmp_path / "b")
    recover, pages = ItemTable.recover, []

    async def cut_off(self: ItemTable, items: Sequence[tuple[Batch, Item]], now: float) -> None:
        pages.append(len(items))
        if len(pages) == 3:
            raise DatabaseError("the power went")
        await recover(self, items, now)

    with monkeypatch.context() as patch:
        patch.setattr(ItemTable, "recover", cut_off)
        with pytest.raises(DatabaseError, match="the power went"):
            async with running(crashed):
                pass
    assert pages == [2, 2, 2]
    with closing(apsw.Connection(str(crashed / FOLDER / DATABASE_FILE))) as connection:
        found = connection.execute("SELECT id FROM item ORDER BY number").fetchall()
        assert found == [(item.id,) for item in taken[:4]]
    async with running(crashed) as spool:
        rows = await items(spool)
        assert same(rows) == taken
        assert len({item.batch for item in rows}) == 1
        assert spool.objects.space.used == sum(item.size for item in taken)
    (line,) = lines(logs, "taken over from the last run")
    assert line["objects"] == 3


async def test_where_the_database_is_lost_all_that_waited_comes_back(tmp_path: Path) -> None:
    """To be sent by a person: what was sent already is not known any more."""
    async with running(tmp_path) as spool:
        old = await stock(spool, 3)
        await become(spool, old[:1], State.DELIVERED)
        gone = await spool.items.discard(Selection(numbers=(old[1].number,)), "no", 5.0)
        await spool.objects.remove(gone)
    async with running(tmp_path) as spool:
        batch = a_batch("OTHER")
        taken = [old[2], *await accepted(spool, 3, batch, 10)]
    for path in (tmp_path / FOLDER).glob(f"{DATABASE_FILE}*"):
        path.unlink()
    for _ in range(2):
        async with running(tmp_path) as spool:
            found = await items(spool)
            assert [item.id for item in found] == [item.id for item in taken]
            assert {(item.state, item.hold, item.doubtful) for item in found} == {
                (State.HELD, Hold.DOUBTFUL, True)
            }
            assert len({item.batch for item in found}) == 2
            assert {await content(spool, item) for item in found} >= {b"object 2", b"object 10"}
            assert spool.objects.space.used == sum(item.size for item in taken)
    async with running(tmp_path) as spool:
        assert await spool.items.next_batch("OTHER", ()) is None
        assert await spool.items.retry(Selection(called="OTHER")) == 3
        assert await spool.items.next_batch("OTHER", ()) is not None


# --- what an earlier program has taken in ---------------------------------------------------------


async def test_its_slips_said_sha_256_and_are_held_to_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Slip.encode
    said = [b"object 1", b"another one's"]
    left = list(said)

    def older(self: Slip, key: SpoolKey) -> bytes:
        slip = encode(self, key)
        text = msgpack.unpackb(key.open_slip(slip[: -slips._END.size], self.item.id))
        del text["item"]["digest"]
        text["item"]["sha256"] = hashlib.sha256(left.pop(0)).digest()
        sealed = key.seal_slip(msgpack.packb(text), self.item.id)
        return sealed + key.name + len(sealed).to_bytes(4, "big") + slips.MARK

    with monkeypatch.context() as patch:
        patch.setattr(Slip, "encode", older)
        async with running(tmp_path / "a") as spool:
            await accepted(spool, 2, a_batch())
            crashed = crash(tmp_path / "a", tmp_path / "b")
    async with running(crashed) as spool:
        found = await items(spool)
    assert [item.state for item in found] == [State.WAITING, State.FAILED]
    assert [item.digest for item in found] == [hashlib.sha256(one).digest() for one in said]


# --- what is not in custody, or not any more ------------------------------------------------------


async def test_what_was_not_answered_goes(tmp_path: Path, logs: Logs) -> None:
    async with running(tmp_path / "a") as spool:
        (kept,) = await accepted(spool, 1, a_batch())
        half, whole = await spool.objects.begin(), await spool.objects.begin()
        await half.write(bytes(3 * 2**20))
        await whole.write(b"whole")
        await whole.finish()
        (path_of(tmp_path / "a", kept).parent / "junk").write_bytes(b"junk")
        crashed = crash(tmp_path / "a", tmp_path / "b")
    async with running(crashed) as spool:
        assert files_of(crashed) == {kept.id.hex()}
        assert same(await items(spool)) == [kept]
        assert spool.objects.space.used == kept.size
    (line,) = lines(logs, "no object was accepted in")
    assert line["files"] == NAMES - 1 + 1


@pytest.mark.parametrize("cut", [1, 8, 20, 100])
async def test_nor_is_what_was_cut_off_as_it_was_written(tmp_path: Path, cut: int) -> None:
    async with running(tmp_path / "a") as spool:
        one, two = await accepted(spool, 2, a_batch())
        crashed = crash(tmp_path / "a", tmp_path / "b")
    path = path_of(crashed, one)
    path.write_bytes(path.read_bytes()[:-cut])
    async with running(crashed) as spool:
        assert same(await items(spool)) == [two]
        assert files_of(crashed) == {two.id.hex()}


async def test_what_its_row_says_counts(tmp_path: Path, logs: Logs) -> None:
    """It has changed since its slip was written."""
    async with running(tmp_path / "a") as spool:
        delivered, discarded, failed, held = await stock(spool, 4)
        await spool.items.settle(
            [
                Change(number=delivered.number, state=State.DELIVERED, attempts=1, ended=5.0),
                Change(number=failed.number, state=State.FAILED, attempts=2, ended=6.0),
                Change(number=held.number, state=State.HELD, attempts=0, hold=Hold.MOVED),
            ]
        )
        await spool.items.discard(Selection(numbers=(discarded.number,)), "not wanted", 5.0)
        before = await items(spool)
        crashed = crash(tmp_path / "a", tmp_path / "b")
    async with running(crashed) as spool:
        assert await items(spool) == before
        assert files_of(crashed) == {failed.id.hex(), held.id.hex()}
        assert spool.objects.space.used == failed.size + held.size
    assert not lines(logs, "taken over")


async def test_a_file_that_comes_back_long_after_is_not_sent_again(tmp_path: Path) -> None:
    """Its row is forgotten by then: its slip is of a run that all was settled of."""
    async with running(tmp_path) as spool:
        await stock(spool, 1)
    async with running(tmp_path) as spool:
        (item,) = await items(spool)
        path = path_of(tmp_path, item)
        shutil.copy(path, tmp_path / "copy")
        await become(spool, [item], State.DELIVERED)
        await spool.items.forgotten([item.id])
        assert await spool.items.expire(1e10) == 1
    path.parent.mkdir(exist_ok=True)
    shutil.copy(tmp_path / "copy", path)
    async with running(tmp_path) as spool:
        assert await items(spool) == []
        assert files_of(tmp_path) == set()


# --- another key ----------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> list[Path]:
    found = [tmp_path / name for name in ("one.key", "two.key")]
    for number, key in enumerate(found):
        key.write_bytes(bytes([number]) * 32)
    return found


async def test_what_is_locked_with_another_key_waits_for_that(
    tmp_path: Path, keys: list[Path], logs: Logs
) -> None:
    async with running(tmp_path / "a", key=keys[0]) as spool:
        taken = await accepted(spool, 2, a_batch())
        crashed = crash(tmp_path / "a", tmp_path / "b")
    later: list[Item] = []
    for run in (2, 3):
        async with running(crashed, key=keys[1]) as spool:
            assert (spool.items.run, spool.items.settled) == (run, 1)
            assert same(await items(spool)) == later
            later += await accepted(spool, 1, a_batch("LATER"), 10 * run)
            assert {item.id.hex() for item in taken} <= files_of(crashed)
    found = lines(logs, "objects without rows locked with another spool key")
    assert [(line["objects"], line["log_level"]) for line in found] == [(2, "error")] * 2
    async with running(crashed, key=keys[0]) as spool:
        rows = await items(spool)
        assert same([item for item in rows if item.called == "PACS"]) == taken
        assert [await content(spool, item) for item in rows if item.called == "PACS"] == [
            b"object 1",
            b"object 2",
        ]
        assert {item.hold for item in rows if item.called == "LATER"} == {Hold.LOCKED}
        assert spool.items.settled == 4
        assert spool.objects.space.used == sum(item.size for item in taken + later)
    assert len(lines(logs, "objects without rows locked")) == 2


async def test_what_is_over_goes_whatever_its_key(
    tmp_path: Path, keys: list[Path], logs: Logs
) -> None:
    """Its row says so."""
    async with running(tmp_path / "a", key=keys[0]) as spool:
        await stock(spool, 2)
        over, left = await items(spool)
        await spool.items.settle(
            [Change(number=over.number, state=State.DELIVERED, attempts=1, ended=5.0)]
        )
        crashed = crash(tmp_path / "a", tmp_path / "b")
    async with running(crashed, key=keys[1]) as spool:
        assert files_of(crashed) == {left.id.hex()}
        assert spool.items.settled == 2
    assert not lines(logs, "objects without rows locked")


# --- another release ------------------------------------------------------------------------------


async def test_what_another_release_has_said_waits_for_one_that_understands_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    async with running(tmp_path / "a") as spool:
        taken = await accepted(spool, 2, a_batch())
        crashed = crash(tmp_path / "a", tmp_path / "b")
    with monkeypatch.context() as patch:
        # It has one column more in its rows.
        patch.setattr(slips, "_ITEM", (*slips._ITEM, "doubtful"))
        for _ in range(2):
            async with running(crashed) as spool:
                assert await items(spool) == []
                assert {item.id.hex() for item in taken} <= files_of(crashed)
                assert spool.items.settled == 1
    found = [line for line in logs if line["event"] == "object damaged"]
    assert {line["why"] for line in found} == {"its slip cannot be read: 'doubtful'"}
    assert len(found) == 4
    async with running(crashed) as spool:
        assert same(await items(spool)) == taken
        assert spool.items.settled == 4
        assert spool.objects.space.used == sum(item.size for item in taken)


async def test_what_is_over_goes_whatever_was_said_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    async with running(tmp_path / "a") as spool:
        await stock(spool, 2)
        over, left = await items(spool)
        await spool.items.settle(
            [Change(number=over.number, state=State.DELIVERED, attempts=1, ended=5.0)]
        )
        crashed = crash(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(slips, "_ITEM", (*slips._ITEM, "doubtful"))
    async with running(crashed) as spool:
        assert files_of(crashed) == {left.id.hex()}
        assert spool.items.settled == 2
    assert not lines(logs, "object damaged")


# --- damage ---------------------------------------------------------------------------------------


def flipped(at: int, raw: bytes) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [partial(flipped, 0), partial(flipped, 20), lambda raw: raw[5:], lambda raw: raw[24:]],
)
async def test_one_of_which_only_a_part_is_there_is_a_dead_letter(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    async with running(tmp_path / "a") as spool:
        whole, damaged, other = await accepted(spool, 3, a_batch())
        crashed = crash(tmp_path / "a", tmp_path / "b")
    path = path_of(crashed, damaged)
    path.write_bytes(damage(path.read_bytes()))
    for _ in range(2):
        async with running(crashed) as spool:
            found = await items(spool)
            assert same([found[0], found[2]]) == [whole, other]
            assert found[1].id == damaged.id
            assert (found[1].state, found[1].ended) == (State.FAILED, NOW)
            assert "which has only a part: send it again" in found[1].reason
            assert len({item.batch for item in found}) == 1
            assert spool.objects.space.used == sum(item.size for item in found)
            assert path.exists()


async def test_a_slip_that_is_not_what_was_written_is_said(tmp_path: Path, logs: Logs) -> None:
    async with running(tmp_path / "a") as spool:
        one, two = await accepted(spool, 2, a_batch())
        crashed = crash(tmp_path / "a", tmp_path / "b")
    path = path_of(crashed, one)
    path.write_bytes(flipped(one.size + 30, path.read_bytes()))
    async with running(crashed) as spool:
        assert same(await items(spool)) == [two]
        assert files_of(crashed) == {two.id.hex()}
    (line,) = lines(logs, "object damaged")
    assert (line["name"], line["log_level"]) == (one.stored.name, "error")
    assert "not as it was written" in line["why"]


async def test_one_in_the_place_of_another_is_not_taken_for_it(tmp_path: Path) -> None:
    async with running(tmp_path / "a") as spool:
        one, two = await accepted(spool, 2, a_batch())
        crashed = crash(tmp_path / "a", tmp_path / "b")
    shutil.copy(path_of(crashed, two), path_of(crashed, one))
    async with running(crashed) as spool:
        assert same(await items(spool)) == [two]


def failing(operation: str, number: int) -> Callable[[Path], Disk]:
    """A disk on which this fails."""

    def made(root: Path) -> Disk:
        disk = Disk(root)
        disk.fail[operation] = number
        return disk

    return made


@pytest.mark.parametrize("operation", ["open", "read"])
async def test_a_disk_that_does_not_read_now_ends_the_start_and_nothing_else(
    tmp_path: Path, operation: str
) -> None:
    async with running(tmp_path / "a") as spool:
        taken = await accepted(spool, 2, a_batch())
        crashed = crash(tmp_path / "a", tmp_path / "b")

    with pytest.raises(SpoolError, match="cannot be read: Too many open files"):
        async with running(crashed, files=failing(operation, errno.ENFILE)):
            pass
    async with running(crashed) as spool:
        assert same(await items(spool)) == taken


@pytest.mark.parametrize("operation", ["open", "read"])
async def test_what_the_disk_does_not_give_back_stays_for_a_start_that_can_read_it(
    tmp_path: Path, operation: str, logs: Logs
) -> None:
    async with running(tmp_path / "a") as spool:
        taken = await accepted(spool, 2, a_batch())
        crashed = crash(tmp_path / "a", tmp_path / "b")

    async with running(crashed, files=failing(operation, errno.EIO)) as spool:
        assert await items(spool) == []
    said = [line for line in logs if line["event"] == "object damaged"]
    assert {line["why"] for line in said} == {"its file cannot be read: Input/output error"}
    async with running(crashed) as spool:
        assert same(await items(spool)) == taken


# --- after a restore ------------------------------------------------------------------------------


async def test_what_is_from_before_a_restore_is_a_persons_to_send(tmp_path: Path) -> None:
    async with running(tmp_path / "a") as spool:
        taken = await accepted(spool, 2, a_batch())
        crashed = crash(tmp_path / "a", tmp_path / "b")
    connection = apsw.Connection(str(crashed / FOLDER / DATABASE_FILE))
    assert begin_epoch(connection, "a restore") == 1
    connection.close()
    async with running(crashed) as spool:
        found = await items(spool)
        assert [item.id for item in found] == [item.id for item in taken]
        assert {(item.state, item.hold, item.doubtful) for item in found} == {
            (State.HELD, Hold.DOUBTFUL, True)
        }
        assert "may have been delivered already" in found[0].reason
        assert await spool.items.next_batch("PACS", ()) is None
        assert await spool.items.retry(Selection()) == 2
        batch = await spool.items.next_batch("PACS", ())
        assert batch is not None
        assert all(item.attempted for item in await spool.items.firsts(batch, 0, 9))
        # What comes now is of this epoch.
        (new,) = await accepted(spool, 1, a_batch("NEW"), 7)
        crash(crashed, tmp_path / "c")
    async with running(tmp_path / "c") as spool:
        (again,) = await spool.items.select(Selection(called="NEW"))
        assert same([again]) == [new]
