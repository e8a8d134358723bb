"""A Router into a folder: all that it is, and nothing of a folder that did not become a backup."""

import shutil
from pathlib import Path

import apsw
import pytest

from relay.audit import happenings
from relay.audit.audit import open_audit
from relay.audit.document import AuditSource
from relay.backup.manifest import MANIFEST_FILE
from relay.errors import DatabaseError, RelayError
from relay.identity import load_identity
from relay.router import backup as module
from relay.router.backup import back_up
from relay.router.manifest import Manifest
from relay.router.restore import restore
from relay.spool.backup import BackedUp
from relay.spool.carrying import Progress
from tests.router.backups import make_router


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


async def test_all_of_a_router_is_in_the_folder(tmp_path: Path) -> None:
    data_dir, target = tmp_path / "data", tmp_path / "backup"
    items = await make_router(data_dir, objects=3)
    told: list[tuple[int, int]] = []
    manifest = await back_up(
        data_dir,
        target,
        ae_title="RELAY_A",
        key_apart=False,
        progress=lambda *words: told.append(words),
    )
    assert manifest == Manifest.read(target)
    manifest.verify(target)
    assert names(target) == {
        *("identity.key", "router.db", "spool.key", "spool/queue.db", MANIFEST_FILE),
        *(f"spool/{item.stored.name}" for item in items),
    }
    assert (manifest.ae_title, manifest.name) == ("RELAY_A", "Hospital A")
    assert manifest.fingerprint == load_identity(data_dir).fingerprint
    assert (manifest.objects, manifest.linked, manifest.lost) == (3, 3, 0)
    files = [target / "spool" / item.stored.name for item in items]
    assert manifest.bytes == sum(path.stat().st_size for path in files)
    assert told[-1] == (3, 3)
    for path in (target, *target.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


async def test_its_audit_is_in_it_and_comes_out_again(tmp_path: Path) -> None:
    data_dir, target = tmp_path / "data", tmp_path / "backup"
    await make_router(data_dir)
    async with open_audit(data_dir, lambda: AuditSource("here")) as audit:
        audit.record(happenings.application("RELAY_A", started=True))
        await audit.flush()
        manifest = await back_up(data_dir, target, ae_title="RELAY_A", key_apart=False)
    assert "audit.db" in manifest.files
    await restore(target, tmp_path / "new", key=None)
    async with open_audit(tmp_path / "new", lambda: AuditSource("here")) as audit:
        finding = await audit.verify()
    assert (finding.entries, finding.fault) == (1, "")


async def test_a_spool_key_from_elsewhere_is_not_in_it(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(bytes(32))
    await make_router(tmp_path / "data", objects=1, key=key, enrolled=False)
    manifest = await back_up(
        tmp_path / "data", tmp_path / "backup", ae_title="RELAY_A", key_apart=True
    )
    assert not manifest.has_spool_key
    assert manifest.name == ""
    assert "spool.key" not in names(tmp_path / "backup")


async def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    await make_router(tmp_path / "data")
    target = tmp_path / "backup"
    target.mkdir()
    (target / "mine").touch()
    with pytest.raises(RelayError, match="is there already"):
        await back_up(tmp_path / "data", target, ae_title="RELAY_A", key_apart=False)
    assert names(target) == {"mine"}


async def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    await make_router(tmp_path / "data")
    with pytest.raises(RelayError, match="No such file"):
        await back_up(tmp_path / "data", tmp_path / "a" / "b", ae_title="A", key_apart=False)


@pytest.mark.parametrize("missing", ["identity.key", "router.db", "spool/queue.db"])
async def test_what_is_no_router_is_not_backed_up(tmp_path: Path, missing: str) -> None:
    await make_router(tmp_path / "data")
    (tmp_path / "data" / missing).unlink()
    with pytest.raises(RelayError, match=f"{missing} is missing"):
        await back_up(tmp_path / "data", tmp_path / "backup", ae_title="A", key_apart=False)
    assert names(tmp_path / "data").isdisjoint({missing})  # and none is made
    assert not (tmp_path / "backup").exists()


async def test_anothers_router_is_not_backed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen by what the system says: a test may run as root, who may read everything."""

    def stat(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(RelayError, match="run this as the user that runs Relay"):
        await back_up(tmp_path / "data", tmp_path / "backup", ae_title="A", key_apart=False)


async def test_what_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir, target = tmp_path / "data", tmp_path / "backup"
    await make_router(data_dir, objects=2)

    async def full(data_dir: Path, target: Path, progress: Progress, *, before: float) -> BackedUp:
        raise OSError(28, "No space left on device", str(target / "spool"))

    monkeypatch.setattr(module, "copy_objects", full)
    with pytest.raises(RelayError, match="backup/spool: No space left on device"):
        await back_up(data_dir, target, ae_title="A", key_apart=False)
    assert not target.exists()


async def test_a_damaged_database_is_no_backup(tmp_path: Path) -> None:
    await make_router(tmp_path / "data")
    (tmp_path / "data" / "router.db").write_bytes(b"patient list\n" * 1000)
    with pytest.raises(DatabaseError, match=r"router\.db"):
        await back_up(tmp_path / "data", tmp_path / "backup", ae_title="A", key_apart=False)
    assert not (tmp_path / "backup").exists()


async def test_it_changes_nothing_of_the_router(tmp_path: Path) -> None:
    """Not even where the process has crashed: its log is its own to tidy up."""
    data_dir = tmp_path / "data"
    await make_router(data_dir, objects=1)
    running = apsw.Connection(str(data_dir / "router.db"))
    running.execute("INSERT INTO setting VALUES ('last', x'01')")
    shutil.copytree(data_dir, tmp_path / "crashed", ignore=shutil.ignore_patterns("*-shm"))
    running.close()
    before = {p: p.read_bytes() for p in (tmp_path / "crashed").rglob("*") if p.is_file()}
    assert any(path.name == "router.db-wal" for path in before)
    await back_up(tmp_path / "crashed", tmp_path / "backup", ae_title="A", key_apart=False)
    assert {path: path.read_bytes() for path in before} == before
    with apsw.Connection(str(tmp_path / "backup" / "router.db")) as copy:
        assert copy.execute("SELECT value FROM setting WHERE name = 'last'").get == b"\x01"
