"""A backup's folder comes about whole or not at all; so does the data_dir made of it."""

from pathlib import Path

import pytest

from relay.backup.folder import copy_file, finish, identity_in, laying_down, new_folder
from relay.errors import RelayError
from relay.identity import IDENTITY_FILE, load_identity


def test_a_file_is_copied_for_its_owner_alone(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"x" * 3_000_000)
    copy_file(source, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == source.read_bytes()
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        copy_file(source, tmp_path / "b")


def test_a_folder_that_fails_is_gone(tmp_path: Path) -> None:
    target = tmp_path / "backup"

    def fail(error: Exception) -> None:
        with new_folder(target):
            (target / "half").touch()
            raise error

    with pytest.raises(RelayError, match="half: No space left on device"):
        fail(OSError(28, "No space left on device", "half"))
    with pytest.raises(RelayError, match="no"):
        fail(RelayError("no"))
    assert not target.exists()
    with new_folder(target):
        (target / "whole").touch()
    with pytest.raises(RelayError, match="is there already"), new_folder(target):
        pass
    assert (target / "whole").exists()


def test_whose_folder_it_is(tmp_path: Path) -> None:
    with pytest.raises(RelayError, match=r"a\.db is missing: is this the data_dir of a Bridge"):
        identity_in(tmp_path, ["a.db"], "a Bridge")
    (tmp_path / "a.db").touch()
    made = load_identity(tmp_path)
    assert identity_in(tmp_path, ["a.db"], "a Bridge").public == made.public


def test_until_the_end_it_is_nobodys(tmp_path: Path) -> None:
    backup, data_dir = tmp_path / "backup", tmp_path / "data"
    backup.mkdir()
    made = load_identity(backup)
    with laying_down(data_dir, "a Bridge"):
        assert (data_dir / IDENTITY_FILE).stat().st_size == 0
        (data_dir / "folder").mkdir()
        finish(backup, data_dir, "folder")
    assert load_identity(data_dir).public == made.public
    assert sorted(path.name for path in data_dir.iterdir()) == ["folder", IDENTITY_FILE]
    with (
        pytest.raises(RelayError, match="has a Bridge already: a Bridge is restored into a new"),
        laying_down(data_dir, "a Bridge"),
    ):
        pass


def test_what_fails_leaves_it_as_it_was(tmp_path: Path) -> None:
    there, new = tmp_path / "there", tmp_path / "new"
    there.mkdir()

    def fail(data_dir: Path) -> None:
        with laying_down(data_dir, "a Router"):
            (data_dir / "half").mkdir()
            (data_dir / "half" / "a").touch()
            raise OSError(28, "No space left on device")

    for data_dir in (there, new):
        with pytest.raises(RelayError, match="No space left on device"):
            fail(data_dir)
    assert list(there.iterdir()) == []
    assert not new.exists()


def test_what_is_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(RelayError, match=r"not empty \(mine\)"), laying_down(tmp_path, "a Router"):
        pass
    (tmp_path / IDENTITY_FILE).touch()
    with pytest.raises(RelayError, match="cut short"), laying_down(tmp_path, "a Router"):
        pass
