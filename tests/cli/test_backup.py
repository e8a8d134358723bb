"""`relay backup` and `relay restore`: what they print, and what they refuse in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from relay.backup.manifest import MANIFEST_FILE
from tests.cli.conftest import FakeProcess
from tests.router.backups import make_router

OBJECTS = 3


@pytest.fixture
def old(stopped: FakeProcess) -> FakeProcess:
    """A Router that does not run, with objects in its queue."""
    (stopped.folder / "data").rmdir()
    trio.run(lambda: make_router(stopped.folder / "data", objects=OBJECTS))
    return stopped


@pytest.fixture
def made(old: FakeProcess) -> Path:
    """Its backup; its data_dir is gone."""
    folder = old.folder / "backup"
    assert old.relay("backup", str(folder)).exit_code == 0
    shutil.rmtree(old.folder / "data")
    return folder


def test_a_backup_says_what_is_in_it_and_what_is_not(old: FakeProcess) -> None:
    result = old.relay("backup", str(old.folder / "backup"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("backed NORTH (Hospital A, ")
    assert lines[1].startswith("  3 objects of the queue, ")
    assert f"not in it: {old.configuration} and the files that it names" in result.stdout
    assert "hard links" in result.stdout
    assert "spool key" not in result.stdout


def test_the_same_for_scripts(old: FakeProcess) -> None:
    result = old.relay("backup", str(old.folder / "backup"), "--json")
    answer = json.loads(result.stdout)
    assert answer.pop("folder") == str(old.folder / "backup")
    assert answer == json.loads((old.folder / "backup" / MANIFEST_FILE).read_text())
    assert (answer["objects"], answer["name"]) == (OBJECTS, "Hospital A")


def test_a_spool_key_of_its_own_is_said_to_be_kept_apart(old: FakeProcess) -> None:
    key = old.folder / "key"
    key.write_bytes(bytes(32))
    with old.configuration.open("a") as file:
        file.write(f'spool_key = "{key}"\n')
    result = old.relay("backup", str(old.folder / "backup"))
    assert f"not in it: the spool key {key}" in result.stdout
    assert not (old.folder / "backup" / "spool.key").exists()
    shutil.rmtree(old.folder / "data")
    result = old.relay("restore", str(old.folder / "backup"))
    assert "3 objects locked with another spool key" in result.stdout


def test_no_router_is_said_in_one_line(stopped: FakeProcess) -> None:
    result = stopped.relay("backup", str(stopped.folder / "backup"))
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "is missing" in result.stderr


def test_nothing_is_revoked_in_a_router(old: FakeProcess, made: Path) -> None:
    result = old.relay("restore", str(made), "--revoke", "aaaa")
    assert result.exit_code == 2
    assert "--revoke is for a Bridge's backup" in result.stderr


def test_a_restore_says_what_a_person_must_know(old: FakeProcess, made: Path) -> None:
    result = old.relay("restore", str(made))
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("restored NORTH (Hospital A, ")
    for words in (
        "3 objects doubtful",
        "relay queue list --state held",
        "relay queue retry",
        "relay queue discard",
        "relay person token list",
        "never start the old machine's Router again",
        f"relay --mode router --config {old.configuration}",
    ):
        assert words in result.stdout
    for words in ("missing", "damaged", "locked", "its AE title"):
        assert words not in result.stdout


def test_a_restore_for_scripts(old: FakeProcess, made: Path) -> None:
    next((made / "spool").glob("*/*")).unlink()
    answer = json.loads(old.relay("restore", str(made), "--json").stdout)
    assert (answer["epoch"], answer["doubtful"], answer["missing"]) == (1, 3, 1)
    assert answer["fingerprint"] == json.loads((made / MANIFEST_FILE).read_text())["fingerprint"]


def test_another_ae_title_is_pointed_out(old: FakeProcess, made: Path) -> None:
    text = old.configuration.read_text().replace("NORTH", "SOUTH")
    old.configuration.write_text(text)
    result = old.relay("restore", str(made))
    assert "its AE title was NORTH, and is SOUTH by" in result.stdout


def cut_short(made: Path) -> None:
    (made / MANIFEST_FILE).unlink()


def of_the_future(made: Path) -> None:
    (made / MANIFEST_FILE).write_text('{"format": 2}')


def no_manifest(made: Path) -> None:
    (made / MANIFEST_FILE).write_text("[")


def changed(made: Path) -> None:
    (made / "router.db").write_bytes(b"")


def gone(made: Path) -> None:
    (made / "spool" / "queue.db").unlink()


@pytest.mark.parametrize("damage", [cut_short, of_the_future, no_manifest, changed, gone])
def test_a_damaged_backup_is_refused_in_one_line(
    old: FakeProcess, made: Path, damage: Callable[[Path], None]
) -> None:
    damage(made)
    result = old.relay("restore", str(made))
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("relay: ")
    assert not (old.folder / "data").exists()


def test_a_router_that_is_there_is_not_overwritten(old: FakeProcess) -> None:
    old.relay("backup", str(old.folder / "backup"))
    result = old.relay("restore", str(old.folder / "backup"))
    assert result.exit_code == 1
    assert "has a Router already" in result.stderr
