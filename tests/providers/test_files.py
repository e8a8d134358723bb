"""The files of the Bridge's own store: whole or not there, whatever their pieces were."""

import os
from pathlib import Path

import pytest

from relay.providers import files
from relay.providers.arrivals import READ_PIECE, Arrival


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    objects, incoming = tmp_path / "objects", tmp_path / "incoming"
    assert files.prepare(objects, incoming) == {}
    return objects, incoming


def places(objects: Path, incoming: Path) -> tuple[str, str, str]:
    return str(incoming / "x"), str(objects / "ab" / "ab+1"), str(objects)


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
    assert files.store(put, *places(objects, incoming)) > 0
    assert put.descriptor is None  # what is in memory needs none
    put.release()
    assert (objects / "ab" / "ab+1").read_bytes() == b"".join(pieces)
    assert list(incoming.iterdir()) == []


def test_what_is_there_stays(folders: tuple[Path, Path]) -> None:
    objects, incoming = folders
    place = objects / "ab" / "ab+1"
    place.write_bytes(b"first")
    put = arrival(b"other")
    with pytest.raises(FileExistsError):
        files.store(put, *places(objects, incoming))
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
    files.store(put, *places(objects, incoming))
    put.release()
    assert (objects / "ab" / "ab+1").read_bytes() == b"abcdef"


def test_a_small_file_is_read_at_once_and_a_large_one_in_part(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"small")
    assert files.open_file(str(tmp_path / "small")) == (5, b"small", None)
    (tmp_path / "large").write_bytes(bytes(READ_PIECE + 1))
    size, first, descriptor = files.open_file(str(tmp_path / "large"))
    assert (size, len(first)) == (READ_PIECE + 1, READ_PIECE)
    assert descriptor is not None
    os.close(descriptor)
    (tmp_path / "link").symlink_to(tmp_path / "small")
    with pytest.raises(OSError, match="symbolic links"):
        files.open_file(str(tmp_path / "link"))


def test_what_is_stored_is_known_from_the_start_and_what_was_half_way_goes(
    folders: tuple[Path, Path],
) -> None:
    objects, incoming = folders
    files.store(arrival(b"whole"), *places(objects, incoming))
    (incoming / "y").write_bytes(b"half")
    assert files.prepare(objects, incoming) == {"ab/1": 5}
    assert list(incoming.iterdir()) == []


def test_a_written_part_stays_open_for_those_who_read_it(folders: tuple[Path, Path]) -> None:
    objects, incoming = folders
    put = arrival(b"abc")
    files.write_out(put, str(incoming / "x"))
    put.wrote()
    put.add(b"def")
    files.store(put, *places(objects, incoming))
    assert put.descriptor is not None
    put.release()
    assert (objects / "ab" / "ab+1").read_bytes() == b"abcdef"


def test_unlinking_says_how_far_it_came(tmp_path: Path) -> None:
    for name in ("a", "b", "d"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "c").mkdir()
    count, error = files.unlink_all(
        [str(tmp_path / name) for name in ("a", "never", "b", "c", "d")]
    )
    assert (count, type(error)) == (3, IsADirectoryError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "d"]
    assert files.unlink_all([str(tmp_path / "d")]) == (1, None)
