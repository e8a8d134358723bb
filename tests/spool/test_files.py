"""File operations: what they do, and how they fail."""

import os
import stat
from pathlib import Path

import pytest

from relay.spool.files import File, Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    files = Files(tmp_path)
    files.make_folder("a")
    return files


def test_what_is_written_is_read_at_any_place(files: Files) -> None:
    file = files.create("a/one")
    file.write(b"01234")
    file.write(memoryview(b"56789"))
    file.write(b"")
    file.sync()
    file.close()
    read = files.open("a/one")
    assert read.read(4, 3) == b"3456"
    assert read.read(100, 8) == b"89"
    assert read.read(5, 100) == b""
    read.close()


def test_all_is_written_and_read_where_the_system_takes_less_at_a_time(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, pread = os.write, os.pread
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 2), at))
    file = files.create("a/one")
    file.write(b"0123456789")
    file.close()
    read = files.open("a/one")
    assert read.read(9, 1) == b"123456789"
    read.close()


def test_files_are_for_nobody_else(files: Files, tmp_path: Path) -> None:
    files.create("a/one").close()
    assert stat.S_IMODE((tmp_path / "a" / "one").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_a_name_is_made_once(files: Files) -> None:
    files.create("a/one").close()
    with pytest.raises(FileExistsError):
        files.create("a/one")
    with pytest.raises(FileNotFoundError):
        files.open("a/two")
    files.make_folder("a")
    files.make_folder("b")
    assert files.folders() == ["a", "b"]
    assert files.names("a") == ["one"]


def test_removing_is_harmless_the_second_time(files: Files) -> None:
    files.create("a/one").close()
    assert not files.remove_folder("a")
    files.remove("a/one")
    files.remove("a/one")
    assert files.remove_folder("a")
    assert not files.remove_folder("a")
    assert files.folders() == []


def test_a_file_whose_close_fails_is_closed_nevertheless(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be another file's by the second time."""
    closed = []
    close = os.close

    def fail(descriptor: int) -> None:
        close(descriptor)
        closed.append(descriptor)
        raise OSError(5, "no")

    file = files.create("a/one")
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", fail)
        with pytest.raises(OSError, match="no"):
            file.close()
        file.close()
    assert len(closed) == 1


def test_closing_twice_is_harmless(files: Files) -> None:
    file = files.create("a/one")
    file.close()
    file.close()
    with pytest.raises(OSError, match="descriptor"):
        file.write(b"more")


def test_syncs_are_of_the_file_and_of_the_folder(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    files.make_folder("b")
    file = files.create("b/one")
    file.sync()
    file.close()
    files.sync_folder("b")
    assert synced == [str(tmp_path), str(tmp_path / "b" / "one"), str(tmp_path / "b")]


def test_free_is_what_the_disk_has_for_us(files: Files, tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    assert 0 < files.free() <= disk.f_blocks * disk.f_frsize


def test_only_files_and_folders_are_listed(files: Files, tmp_path: Path) -> None:
    (tmp_path / "a" / "folder").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert files.folders() == ["a"]
    assert files.names("a") == []
    assert isinstance(files.create("a/one"), File)
