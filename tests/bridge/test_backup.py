"""A Bridge into a folder: all that it is, while it runs; or no folder at all."""

import json
from pathlib import Path

import apsw
import pytest

from relay.backup.manifest import MANIFEST_FILE, verify
from relay.bridge.backup import FORMAT, NEEDED, Manifest, back_up
from relay.errors import DatabaseError, RelayError
from relay.identity import load_identity

from .conftest import Bridge, running

URL = "https://bridge.example"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_a_running_bridge_is_backed_up(bridge: Bridge, data_dir: Path, tmp_path) -> None:
    north = await bridge.enrol("North")
    await bridge.enrol("South")
    await bridge.control.post(f"/v1/routers/{north.identity.fingerprint}/revoke")
    target = tmp_path / "backup"
    manifest = await back_up(data_dir, target, url=bridge.url)
    assert manifest == Manifest.read(target)
    verify(target, manifest.files)
    assert names(target) == {"identity.key", "bridge.db", "audit.db", MANIFEST_FILE}
    assert (manifest.routers, manifest.revoked, manifest.url) == (1, 1, bridge.url)
    assert manifest.fingerprint == load_identity(data_dir).fingerprint
    for path in (target, *target.iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path
    with apsw.Connection(str(target / "bridge.db")) as copy:
        assert copy.execute("SELECT count(*) FROM router").get == 2
    await bridge.enrol("West")  # it goes on


async def test_without_an_audit_there_is_none(data_dir: Path, tmp_path: Path) -> None:
    async with running(data_dir):
        pass
    (data_dir / "audit.db").unlink()
    manifest = await back_up(data_dir, tmp_path / "backup", url=URL)
    assert set(manifest.files) == NEEDED


@pytest.mark.parametrize("missing", sorted(NEEDED))
async def test_what_is_no_bridge_is_not_backed_up(
    data_dir: Path, tmp_path: Path, missing: str
) -> None:
    async with running(data_dir):
        pass
    (data_dir / missing).unlink()
    with pytest.raises(RelayError, match=f"{missing} is missing: is this the data_dir of a Bridge"):
        await back_up(data_dir, tmp_path / "backup", url=URL)
    assert not (tmp_path / "backup").exists()


async def test_a_damaged_database_is_no_backup(data_dir: Path, tmp_path: Path) -> None:
    async with running(data_dir):
        pass
    (data_dir / "bridge.db").write_bytes(b"patient list\n" * 1000)
    with pytest.raises(DatabaseError, match=r"bridge\.db"):
        await back_up(data_dir, tmp_path / "backup", url=URL)
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize(
    "changes",
    [{"files": {"bridge.db": "00"}}, {"files": {"../x": "00"}}, {"made": "now"}, {"more": 1}],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, changes) -> None:
    manifest = Manifest(
        made=1,
        version="1",
        url=URL,
        fingerprint="aaaa",
        routers=0,
        revoked=0,
        files=dict.fromkeys(NEEDED, "00"),
    )
    assert manifest.to_json()["format"] == FORMAT
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(manifest.to_json() | changes))
    with pytest.raises(RelayError, match="damaged"):
        Manifest.read(tmp_path)
