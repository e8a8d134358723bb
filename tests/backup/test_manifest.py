"""A manifest is read by whom it is for: of another version, or of the other mode, it says so."""

import json
from pathlib import Path

import pytest

from relay.backup import manifest as module
from relay.backup.manifest import MANIFEST_FILE, digest, read, verify, write
from relay.errors import RelayError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path, {"format": 1, "made": 7})
    assert read(tmp_path, 1, lambda value: value) == {"made": 7}
    assert (tmp_path / MANIFEST_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_FILE]


@pytest.mark.parametrize(
    ("found", "wanted", "words"),
    [
        (2, 1, "of another version"),
        ("bridge-2", "bridge-1", "of another version"),
        ("bridge-1", 1, "a Bridge's backup"),
        (1, "bridge-1", "a Router's backup"),
    ],
)
def test_one_of_another_kind(tmp_path: Path, found, wanted, words: str) -> None:
    write(tmp_path, {"format": found})
    with pytest.raises(RelayError, match=words):
        read(tmp_path, wanted, lambda value: value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"format": 1}', "[" * 100_000])
def test_what_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(text)

    def make(value: dict) -> int:
        return value["made"]

    with pytest.raises(RelayError, match=r"manifest\.json: (damaged|larger)"):
        read(tmp_path, 1, make)


def test_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RelayError, match="cut short"):
        read(tmp_path, 1, dict)
    with pytest.raises(RelayError, match="no such folder"):
        read(tmp_path / "missing", 1, dict)
    monkeypatch.setattr(module, "MAXIMUM_MANIFEST", 10)
    (tmp_path / MANIFEST_FILE).write_text(json.dumps({"format": 1, "made": 7}))
    with pytest.raises(RelayError, match="larger than 10 bytes"):
        read(tmp_path, 1, dict)


def test_files_are_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    good = {"a": digest(tmp_path / "a")}
    assert good["a"].startswith("ba7816bf")  # FIPS 180-4's own example
    verify(tmp_path, good)
    (tmp_path / "a").write_bytes(b"abd")
    with pytest.raises(RelayError, match="a: damaged, not as it was written"):
        verify(tmp_path, good)
    with pytest.raises(RelayError, match="No such file"):
        verify(tmp_path, {"b": ""})
