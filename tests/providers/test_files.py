"""The files of the Bridge's own store: whole or not there, whatever their pieces were."""

import os
from pathlib import Path

import pytest

from relay.providers import files
from relay.providers.arrivals import READ_PIECE, Arrival


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    objects, incoming = tmp_path / "objects", tmp_path / "incoming"
    assert files.prepare(objects, incoming) == 0
    return objects, incoming


def arrival(*pieces: bytes) -> Arrival:
    made = Arrival("ab/1", sum(map(len, pieces)))
    for piece in pieces:
        made.add(piece)
    return made


@pytest.mark.parametrize("count", [0, 1, files.MAXIMUM_BUFFERS, 2 * files.MAXIMUM_BUFFERS + 1])
def test_pieces_without_number_are_one_file(folders: tuple[Path, Path], count: int) -> None:
    objects, incoming = folders
    pieces = [number.to_bytes(2, "big") * (number % 3 + 1) for number in range(count)]
    put = arrival(*pieces)
    assert files.store(put, incoming / "x", objects / "ab" / "ab+1", objects) > 0
    put.release()
    assert (objects / "ab" / "ab+1").read_bytes() == b"".join(pieces)
    assert list(incoming.iterdir()) == []


def test_what_is_there_stays(folders: tuple[Path, Path]) -> None:
    objects, incoming = folders
    place = objects / "ab" / "ab+1"
    place.write_bytes(b"first")
    put = arrival(b"other")
    with pytest.raises(FileExistsError):
        files.store(put, incoming / "x", place, objects)
    put.release()
    assert place.read_bytes() == b"first"
    assert list(incoming.iterdir()) == []


def test_a_write_that_is_cut_short_goes_on(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, incoming = folders
    writev = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, parts: writev(fd, [parts[0][:2]]))
    put = arrival(b"abc", b"def")
    files.store(put, incoming / "x", objects / "ab" / "ab+1", objects)
    put.release()
    assert (objects / "ab" / "ab+1").read_bytes() == b"abcdef"


def test_a_small_file_is_read_at_once_and_a_large_one_in_part(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"small")
    assert files.open_file(tmp_path / "small") == (5, b"small", None)
    (tmp_path / "large").write_bytes(bytes(READ_PIECE + 1))
    size, first, descriptor = files.open_file(tmp_path / "large")
    assert (size, len(first)) == (READ_PIECE + 1, READ_PIECE)
    assert descriptor is not None
    os.close(descriptor)
    (tmp_path / "link").symlink_to(tmp_path / "small")
    with pytest.raises(OSError, match="symbolic links"):
        files.open_file(tmp_path / "link")
