"""`relay backup` and `relay restore` of a Bridge: what they print, and what they refuse."""

import json
import shutil
from pathlib import Path

import pytest
import trio

from relay.backup.manifest import MANIFEST_FILE
from relay.bridge.enrolment import Enrolment
from relay.bridge.schema import DATABASE_FILE, MIGRATIONS, load_network
from relay.database import open_database
from tests.bridge.conftest import Router
from tests.cli.conftest import FakeProcess


async def _make(data_dir: Path) -> str:
    """A Bridge's data_dir, with a Router and an invitation; the Router's fingerprint."""
    async with open_database(data_dir / DATABASE_FILE, MIGRATIONS) as database:
        identity, network = await load_network(database, data_dir)
        now = 1_800_000_000
        enrolment = Enrolment(
            database, identity, network, url="https://b.example", clock=lambda: now
        )
        router = Router(network.network, "North")
        await enrolment.enrol(router.enrolment(await enrolment.invite("North")))
        await enrolment.invite("South")
        return router.identity.fingerprint


@pytest.fixture
def old(bridge: FakeProcess) -> FakeProcess:
    """A Bridge that has run."""
    for path in (bridge.folder / "data").iterdir():
        path.unlink()
    (bridge.folder / "fingerprint").write_text(trio.run(_make, bridge.folder / "data"))
    return bridge


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
    assert lines[0].startswith("backed the Bridge at https://relay.example.org (")
    assert lines[1] == "  1 Router, 0 revoked"
    assert f"not in it: {old.configuration} and the files that it names" in result.stdout


def test_the_same_for_scripts(old: FakeProcess) -> None:
    result = old.relay("backup", str(old.folder / "backup"), "--json")
    answer = json.loads(result.stdout)
    assert answer.pop("folder") == str(old.folder / "backup")
    assert answer == json.loads((old.folder / "backup" / MANIFEST_FILE).read_text())


def test_a_restore_says_what_a_person_must_know(old: FakeProcess, made: Path) -> None:
    result = old.relay("restore", str(made))
    assert result.exit_code == 0, result.output
    fingerprint = (old.folder / "fingerprint").read_text()
    for words in (
        "restored the Bridge at https://relay.example.org (",
        "1 open invitation taken back",
        "everybody is signed out",
        f"  {fingerprint}  North",
        "relay router revoke",
        "never start the old machine's Bridge again",
        f"relay --mode bridge --config {old.configuration}",
    ):
        assert words in result.stdout
    assert "its url was" not in result.stdout
    again = old.relay("restore", str(made))
    assert again.exit_code == 1
    assert "has a Bridge already" in again.stderr


def test_a_restoration_is_confirmed(bridge: FakeProcess) -> None:
    warned = {"warning": "restored", "key": "", "words": "…", "since": 1}
    bridge.will("DELETE", "/v1/restoration", b"", status=204)
    bridge.will("GET", "/v1/warnings", [warned])
    assert bridge.relay("restore", "--confirm").stdout.startswith("confirmed: ")
    assert ("DELETE", "/v1/restoration", None) in bridge.asked
    assert json.loads(bridge.relay("restore", "--confirm", "--json").stdout) == {"confirmed": True}
    bridge.will("GET", "/v1/warnings", [warned | {"warning": "router_away"}])
    bridge.asked.clear()
    assert bridge.relay("restore", "--confirm").stdout.startswith("nothing to confirm")
    assert [asked[0] for asked in bridge.asked] == ["GET"]


def test_confirming_stands_alone(bridge: FakeProcess) -> None:
    for arguments in (("backup", "--confirm"), ("--confirm", "--revoke", "abcd"), ()):
        result = bridge.relay("restore", *arguments)
        assert result.exit_code == 2, result.output
        assert "--confirm" in result.stderr
    assert bridge.asked == []


def test_what_was_revoked_since_is_shut_out_with_it(old: FakeProcess, made: Path) -> None:
    fingerprint = (old.folder / "fingerprint").read_text()
    result = old.relay("restore", str(made), "--revoke", fingerprint, "--json")
    answer = json.loads(result.stdout)
    assert (answer["revoked"], answer["routers"], answer["withdrawn"]) == (["North"], [], 1)


def test_another_url_is_pointed_out(old: FakeProcess, made: Path) -> None:
    text = old.configuration.read_text().replace("relay.example.org", "new.example.org")
    old.configuration.write_text(text)
    result = old.relay("restore", str(made))
    assert "its url was https://relay.example.org, and is https://new.example.org" in result.stdout


def test_a_routers_backup_is_no_bridges(old: FakeProcess, made: Path) -> None:
    manifest = json.loads((made / MANIFEST_FILE).read_text())
    (made / MANIFEST_FILE).write_text(json.dumps(manifest | {"format": 1}))
    result = old.relay("restore", str(made))
    assert result.exit_code == 1
    assert "a Router's backup" in result.stderr
