"""A backup's manifest: what is written is read; anything else is no backup, in one line."""

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from relay.backup import manifest as module
from relay.backup.manifest import MANIFEST_FILE, digest
from relay.errors import RelayError
from relay.router.manifest import NEEDED, Manifest

FILES = {name: "00" * 32 for name in NEEDED}
MANIFEST = Manifest(
    made=1_700_000_000,
    version="0.1.0",
    ae_title="RELAY_A",
    name="Hospital A",
    fingerprint="abcd",
    objects=3,
    bytes=300,
    linked=3,
    copied=0,
    over=1,
    lost=0,
    damaged=0,
    files=FILES,
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    assert Manifest.read(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_FILE]
    assert (tmp_path / MANIFEST_FILE).stat().st_mode & 0o777 == 0o600


def test_whether_the_spool_key_is_there(tmp_path: Path) -> None:
    assert not MANIFEST.has_spool_key
    with_key = attrs.evolve(MANIFEST, files={**FILES, "spool.key": "11" * 32})
    with_key.write(tmp_path)
    assert Manifest.read(tmp_path).has_spool_key


def changed(**changes: Any) -> dict[str, Any]:
    return MANIFEST.to_json() | changes


DAMAGED = {
    "a list": [],
    "nothing": {},
    "a field less": {k: v for k, v in MANIFEST.to_json().items() if k != "objects"},
    "a field more": changed(other=1),
    "a text for a number": changed(made="yesterday"),
    "files": changed(files=[]),
    "a number for a hash": changed(files={**FILES, "router.db": 1}),
    "a file less": changed(files={"router.db": "00"}),
    "a file that leads away": changed(files={**FILES, "../../etc/passwd": "00"}),
}


@pytest.mark.parametrize("value", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_one_is_refused(tmp_path: Path, value: Any) -> None:
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(value))
    with pytest.raises(RelayError, match=r"manifest\.json: damaged"):
        Manifest.read(tmp_path)


def test_what_is_cut_short_is_refused(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    path = tmp_path / MANIFEST_FILE
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RelayError, match="damaged"):
        Manifest.read(tmp_path)


def test_one_of_another_format_is_for_another_version(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_text(json.dumps({"format": 2, "new": True}))
    with pytest.raises(RelayError, match="another version"):
        Manifest.read(tmp_path)


def test_without_one_it_is_no_backup(tmp_path: Path) -> None:
    with pytest.raises(RelayError, match="cut short"):
        Manifest.read(tmp_path)
    with pytest.raises(RelayError, match="no such folder"):
        Manifest.read(tmp_path / "missing")


def test_a_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAXIMUM_MANIFEST", 100)
    MANIFEST.write(tmp_path)
    with pytest.raises(RelayError, match="larger than 100 bytes"):
        Manifest.read(tmp_path)


def test_each_file_is_as_it_was(tmp_path: Path) -> None:
    for name in NEEDED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    manifest = attrs.evolve(MANIFEST, files={name: digest(tmp_path / name) for name in NEEDED})
    manifest.verify(tmp_path)
    for name in NEEDED:
        (tmp_path / name).write_text("other")
        with pytest.raises(RelayError, match=f"{name}: damaged"):
            manifest.verify(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(RelayError, match=f"{name}: No such file"):
            manifest.verify(tmp_path)
        (tmp_path / name).write_text(name)
