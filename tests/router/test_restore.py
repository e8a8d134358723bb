"""A Router out of a folder: into nothing but an empty place, and all of it or nothing."""

import json
import os
import shutil
from pathlib import Path

import pytest

from relay.backup.manifest import digest
from relay.database import open_database
from relay.errors import DatabaseError, IdentityError, RelayError
from relay.identity import load_identity
from relay.people.people import People
from relay.people.roles import Role
from relay.router import restore as module
from relay.router.backup import back_up
from relay.router.keyring import Keyring
from relay.router.membership import load
from relay.router.restore import Restored, restore
from relay.router.schema import DATABASE_FILE, MIGRATIONS, next_serial
from relay.spool.items import Hold, Selection, State
from relay.spool.restore import RestoredSpool
from tests.router.backups import MEMBERSHIP, NOW, make_router
from tests.spool.stock import content, opened


@pytest.fixture
async def backup(tmp_path: Path) -> Path:
    """Of a Router with three objects in its queue."""
    await make_router(tmp_path / "old", objects=3)
    target = tmp_path / "backup"
    await back_up(tmp_path / "old", target, ae_title="RELAY_A", key_apart=False)
    return target


async def put_back(backup: Path, data_dir: Path) -> Restored:
    return await restore(backup, data_dir, key=None)


async def test_the_router_is_there_again(backup: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    restored = await put_back(backup, new)
    assert (restored.spool.doubtful, restored.spool.failed, restored.spool.locked) == (3, 0, 0)
    assert load_identity(new).public == load_identity(tmp_path / "old").public
    async with open_database(new / DATABASE_FILE, MIGRATIONS) as database:
        assert await load(database) == MEMBERSHIP
    async with opened(new) as spool:
        items = await spool.items.select(Selection())
        assert {(item.state, item.hold) for item in items} == {(State.HELD, Hold.DOUBTFUL)}
        assert all("since the backup of 20" in item.reason for item in items)
        assert await content(spool, items[2]) == b"object 2"
    for path in (new, *new.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


async def test_the_backup_can_be_used_again(backup: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in backup.rglob("*") if path.is_file()}
    for name in ("one", "two"):
        await put_back(backup, tmp_path / name)
        shutil.rmtree(tmp_path / name)
    assert {p: p.read_bytes() for p in backup.rglob("*") if p.is_file()} == before


async def test_no_opening_to_an_earlier_key_opens_again(backup: Path, tmp_path: Path) -> None:
    """The memory of what was answered is that of the backup: replays are kept out by a new key."""

    async def keys(data_dir: Path) -> set[bytes]:
        async with open_database(data_dir / DATABASE_FILE, MIGRATIONS) as database:
            keyring = await Keyring.load(database, load_identity(data_dir), NOW + 10)
            return set(keyring.pairs)

    await put_back(backup, tmp_path / "new")
    assert len(await keys(tmp_path / "new")) == 1
    assert not await keys(tmp_path / "new") & await keys(tmp_path / "old")


async def test_nobody_is_signed_in_by_it(tmp_path: Path) -> None:
    """Sign-ins may have been ended since the backup, and links used: neither holds again."""
    await make_router(tmp_path / "old", objects=0)

    async def people(data_dir: Path, add: bool = False) -> tuple[bool, list[str], bool]:
        async with open_database(data_dir / DATABASE_FILE, MIGRATIONS) as database:
            loaded = await People.load(database)
            if add:
                await loaded.persons.add("Ada", Role.ADMINISTRATOR, "a hash", NOW)
                await loaded.sign_ins.begin("Ada", "10.0.0.1", "")
                await loaded.links.make("Ada")
            signed_in = [*loaded.sign_ins.of("Ada")] != []
            loaded.close()
            left = await database.run(lambda db: db.execute("SELECT 1 FROM one_time_link").get)
            return signed_in, [person.name for person in loaded.persons], left is not None

    assert await people(tmp_path / "old", add=True) == (True, ["Ada"], True)
    await back_up(tmp_path / "old", tmp_path / "backup", ae_title="RELAY_A", key_apart=False)
    await put_back(tmp_path / "backup", tmp_path / "new")
    assert await people(tmp_path / "new") == (False, ["Ada"], False)


async def test_serial_numbers_go_on_above_those_used_since(backup: Path, tmp_path: Path) -> None:
    async def draw(data_dir: Path, now: int) -> int:
        async with open_database(data_dir / DATABASE_FILE, MIGRATIONS) as database:
            return await next_serial(database, "publication serial", now)

    used = [await draw(tmp_path / "old", NOW + 5) for _ in range(3)]
    await put_back(backup, tmp_path / "new")
    assert await draw(tmp_path / "new", NOW + 60) > max(used)


async def test_an_empty_data_dir_will_do(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir(mode=0o755)
    await put_back(backup, tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


async def test_a_router_is_not_overwritten(backup: Path, tmp_path: Path) -> None:
    await make_router(tmp_path / "new")
    identity = load_identity(tmp_path / "new").public
    with pytest.raises(RelayError, match="has a Router already"):
        await put_back(backup, tmp_path / "new")
    assert load_identity(tmp_path / "new").public == identity


async def test_nor_is_anything_else(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "control.sock").touch()
    with pytest.raises(RelayError, match=r"is not empty \(control\.sock\)"):
        await put_back(backup, tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(RelayError, match="file: "):
        await put_back(backup, tmp_path / "file")


@pytest.mark.parametrize("name", ["identity.key", "router.db", "spool.key", "spool/queue.db"])
async def test_a_damaged_file_is_refused(backup: Path, tmp_path: Path, name: str) -> None:
    with (backup / name).open("r+b") as file:
        file.seek(20)
        file.write(b"?")
    with pytest.raises(RelayError, match=f"{name}: damaged"):
        await put_back(backup, tmp_path / "new")
    (backup / name).unlink()
    with pytest.raises(RelayError, match=f"{name}: No such file"):
        await put_back(backup, tmp_path / "new")
    assert not (tmp_path / "new").exists()


async def test_one_that_was_cut_short_is_refused(backup: Path, tmp_path: Path) -> None:
    (backup / "manifest.json").unlink()
    with pytest.raises(RelayError, match="no backup"):
        await put_back(backup, tmp_path / "new")


async def test_one_of_a_newer_relay_leaves_nothing(backup: Path, tmp_path: Path) -> None:
    async with open_database(backup / DATABASE_FILE, MIGRATIONS) as database:
        await database.run(lambda db: db.execute("INSERT INTO migration (number) VALUES (99)"))
    manifest = json.loads((backup / "manifest.json").read_text())
    manifest["files"]["router.db"] = digest(backup / "router.db")
    (backup / "manifest.json").write_text(json.dumps(manifest))
    for there in (False, True):
        if there:
            (tmp_path / "new").mkdir()
        with pytest.raises(DatabaseError, match="newer Relay"):
            await put_back(backup, tmp_path / "new")
        assert (tmp_path / "new").exists() == there
    assert not list((tmp_path / "new").iterdir())


async def test_objects_that_the_backup_has_lost_are_told(backup: Path, tmp_path: Path) -> None:
    object_file = next(path for path in (backup / "spool").glob("*/*"))
    object_file.unlink()
    restored = await put_back(backup, tmp_path / "new")
    assert len(restored.spool.carried.missing) == 1
    assert restored.spool.carried.objects == 2


async def test_a_spool_key_that_was_kept_apart_has_to_be_named(tmp_path: Path) -> None:
    key, other = tmp_path / "key", tmp_path / "other"
    key.write_bytes(b"k" * 32)
    other.write_bytes(b"o" * 32)
    await make_router(tmp_path / "old", objects=2, key=key)
    backup = tmp_path / "backup"
    await back_up(tmp_path / "old", backup, ae_title="A", key_apart=True)
    with pytest.raises(RelayError, match="spool_key"):
        await restore(backup, tmp_path / "new", key=None)
    assert not (tmp_path / "new").exists()
    restored = await restore(backup, tmp_path / "new", key=key)
    assert restored.spool.locked == 0
    restored = await restore(backup, tmp_path / "newer", key=other)
    assert restored.spool.locked == 2


async def test_until_all_is_there_no_router_starts_on_it(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    async def look(*_: object, **__: object) -> RestoredSpool:
        with pytest.raises(IdentityError, match="not an identity"):
            load_identity(tmp_path / "new")
        with pytest.raises(RelayError, match="cut short"):
            await put_back(backup, tmp_path / "new")
        seen.append("looked")
        raise RelayError("no further")

    monkeypatch.setattr(module, "restore_spool", look)
    with pytest.raises(RelayError, match="no further"):
        await put_back(backup, tmp_path / "new")
    assert seen
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_root_hands_it_over_to_the_owner_of_the_folder(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    os.chown(tmp_path / "new", 4711, 4712)
    await put_back(backup, tmp_path / "new")
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (tmp_path / "new").rglob("*")}
    assert owners == {(4711, 4712)}
