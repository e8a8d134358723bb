"""A Bridge out of a folder: its Routers know it, and nothing comes back without being said."""

import shutil
import time
from pathlib import Path

import pytest
import trio

from relay.bridge.backup import back_up
from relay.bridge.restore import restore
from relay.errors import RelayError
from relay.identity import load_identity

from .conftest import PATIENCE, Router, connected, running


@pytest.fixture
async def backup(data_dir: Path, tmp_path: Path):
    """(backup, the Router North, the Router South) of a Bridge, whose data_dir is gone."""
    async with running(data_dir) as bridge:
        north, south = await bridge.enrol("North"), await bridge.enrol("South")
        await bridge.invite("West")
        made = await bridge.control.post("/v1/people", json={"name": "Ann", "role": "viewer"})
        assert made.is_success, made.text
        await bridge.control.post("/v1/api-tokens", json={"name": "script", "role": "viewer"})
        publish = (south.publication("PACS"),)
        grants = ((north.id, "PACS", ("store",)),)
        async with (
            connected(bridge, south, publish=publish, grants=grants),
            connected(bridge, north) as caller,
        ):
            await caller.client.send(north.opening(south, "PACS"))
            with trio.fail_after(PATIENCE):
                while not (await bridge.get("/v1/sessions")):
                    await trio.sleep(0.01)  # nobody is told of a session that is only open
            await back_up(data_dir, tmp_path / "backup", url=bridge.url)
    shutil.rmtree(data_dir)
    return tmp_path / "backup", north, south


async def test_its_routers_know_it(backup, data_dir: Path) -> None:
    folder, north, south = backup
    restored = await restore(folder, data_dir)
    assert load_identity(data_dir).fingerprint == restored.manifest.fingerprint
    async with running(data_dir) as bridge:
        async with connected(bridge, north) as joined, connected(bridge, south):
            await joined.heard(lambda heard: bool(heard.granted))
            assert {row["connected"] for row in await bridge.get("/v1/routers")} == {True}
            assert joined.refusals == []
        rows = await bridge.get("/v1/publications")
        assert rows == []  # South says anew what it publishes: nothing, here


async def test_newer_serials_go_on_above_the_older_ones(backup, data_dir: Path) -> None:
    folder, _, south = backup
    await restore(folder, data_dir)
    async with running(data_dir) as bridge:
        newer = (south.publication("PACS", serial=9),)
        async with connected(bridge, south, publish=newer) as joined:
            assert joined.refusals == []
            [row] = await bridge.get("/v1/publications")
            assert row["serial"] == 9


async def test_what_opens_doors_by_itself_is_closed(backup, data_dir: Path) -> None:
    folder, _, _ = backup
    restored = await restore(folder, data_dir)
    assert restored.withdrawn == 3  # West's, and those by which `connected` learns who we are
    assert [name for _, name in restored.routers] == ["North", "South"]
    assert restored.people == [("Ann", "viewer")]
    assert restored.tokens == [("script", "viewer")]
    async with running(data_dir) as bridge:
        assert [row["state"] for row in await bridge.get("/v1/invitations")] == ["used", "used"]
        assert await bridge.get("/v1/sessions") == []


async def test_an_invitation_that_was_used_since_lets_nobody_in(
    data_dir: Path, tmp_path: Path
) -> None:
    async with running(data_dir) as bridge:
        invitation = await bridge.invite("West")
        await back_up(data_dir, tmp_path / "backup", url=bridge.url)
        await bridge.web.post(
            "/v1/enrolments", content=Router(invitation.network, "West").enrolment(invitation)
        )
    shutil.rmtree(data_dir)
    await restore(tmp_path / "backup", data_dir)
    async with running(data_dir) as bridge:
        thief = Router(invitation.network, "West").enrolment(invitation)
        assert (await bridge.web.post("/v1/enrolments", content=thief)).status_code == 403


async def test_a_revocation_does_not_go_unnoticed(backup, data_dir: Path) -> None:
    folder, north, south = backup
    named = north.identity.fingerprint
    restored = await restore(folder, data_dir, revoke=[named])
    assert restored.revoked == ["North"]
    assert [name for _, name in restored.routers] == ["South"]
    async with running(data_dir) as bridge:
        rows = {row["name"]: row["revoked"] for row in await bridge.get("/v1/routers")}
        assert rows == {"North": True, "South": False}
        [warned] = await bridge.get("/v1/warnings")
        assert warned["warning"] == "restored"
        assert time.time() - warned["since"] < 60
        with trio.fail_after(10):  # an entry is written a moment later
            while not any(
                "restored from the backup" in row["words"]
                for row in (await bridge.get("/v1/audit"))["entries"]
            ):
                await trio.sleep(0.05)
        assert (await bridge.control.delete("/v1/restoration")).status_code == 204
        assert await bridge.get("/v1/warnings") == []
    async with running(data_dir) as bridge:
        assert await bridge.get("/v1/warnings") == []
    assert south.name == "South"


async def test_a_router_that_the_backup_does_not_know_is_said(backup, data_dir: Path) -> None:
    with pytest.raises(RelayError, match="no Router aaaa is enrolled"):
        await restore(backup[0], data_dir, revoke=["aaaa"])
    assert not data_dir.exists()


async def test_a_damaged_backup_is_refused_whole(backup, data_dir: Path) -> None:
    (backup[0] / "bridge.db").write_bytes(b"patient list")
    with pytest.raises(RelayError, match="damaged, not as it was written"):
        await restore(backup[0], data_dir)
    assert not data_dir.exists()


async def test_one_that_is_there_is_left_alone(backup, data_dir: Path) -> None:
    await restore(backup[0], data_dir)
    before = (data_dir / "bridge.db").read_bytes()
    with pytest.raises(RelayError, match="has a Bridge already"):
        await restore(backup[0], data_dir)
    assert (data_dir / "bridge.db").read_bytes() == before
