import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from relay import listener
from relay.association import TCPAssociation
from relay.cli import doctor, reach
from relay.cli.context import Invocation
from relay.config import load
from relay.database import open_database
from relay.dicom.pdu import AAssociateRJ
from relay.providers import Finding
from relay.router import membership
from relay.router.devices import Device as RouterDevice
from relay.router.devices import DeviceTable
from relay.router.membership import Membership
from relay.router.schema import MIGRATIONS
from tests.cli.conftest import FakeProcess
from tests.cli.scp import Device

WELL = Finding("Bridge answers", True)


@pytest.fixture(autouse=True)
def _bridge_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "bridge", lambda url, *, proxy, ca_file: iter([WELL]))


async def fill(process: FakeProcess, *devices: RouterDevice) -> None:
    """The database of a Router that has enrolled."""
    async with open_database(process.folder / "data/router.db", MIGRATIONS) as database:
        url = "https://relay.example.org"
        await membership.save(database, Membership(b"n" * 16, b"b" * 32, url, "North"))
        table = await DeviceTable.load(database)
        for device in devices:
            await table.put(device)


async def findings(process: FakeProcess) -> dict[str, Finding]:
    invocation = Invocation(None, process.configuration)
    return {finding.what: finding async for finding in doctor.examine(invocation)}


def wrong(found: dict[str, Finding]) -> list[str]:
    return [what for what, finding in found.items() if not finding.ok]


async def serve_device(
    nursery: trio.Nursery, handle: Callable[[TCPAssociation], Awaitable[object]]
) -> int:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    await nursery.start(partial(listener.serve, listeners, handle))
    return int(listeners[0].socket.getsockname()[1])


async def test_a_router_that_is_well(router: FakeProcess) -> None:
    router.will("GET", "/v1/status", {"connected": True})
    async with trio.open_nursery() as nursery:
        port = await serve_device(nursery, Device().serve)
        await fill(router, RouterDevice("PACS", "127.0.0.1", port))
        found = await findings(router)
        nursery.cancel_scope.cancel()
    assert wrong(found) == []
    assert f"device PACS at 127.0.0.1:{port} answers a C-ECHO" in found
    assert "enrolled at https://relay.example.org as North" in found
    assert "connected to the Bridge" in found


async def test_with_the_process_down_everything_else_is_still_looked_at(
    stopped: FakeProcess,
) -> None:
    async with trio.open_nursery() as nursery:
        port = await serve_device(nursery, Device().serve)
        await fill(stopped, RouterDevice("PACS", "127.0.0.1", port))
        found = await findings(stopped)
        nursery.cancel_scope.cancel()
    assert wrong(found) == ["the Router is not running"]
    assert "relay --mode router" in found["the Router is not running"].advice
    assert WELL.what in found


async def test_devices_that_are_wrong_are_told_apart(stopped: FakeProcess) -> None:
    async with trio.open_nursery() as nursery:
        rejecting = await serve_device(nursery, Device(rejects=AAssociateRJ(1, 1, 3)).serve)
        failing = await serve_device(nursery, Device(status=0xC000).serve)
        no_echo = await serve_device(
            nursery, Device(refused_classes=frozenset({"1.2.840.10008.1.1"})).serve
        )
        unused = await trio.open_tcp_listeners(0, host="127.0.0.1")
        silent = int(unused[0].socket.getsockname()[1])
        await unused[0].aclose()
        await fill(
            stopped,
            RouterDevice("REJECTS", "127.0.0.1", rejecting),
            RouterDevice("FAILS", "127.0.0.1", failing),
            RouterDevice("NO_ECHO", "127.0.0.1", no_echo),
            RouterDevice("SILENT", "127.0.0.1", silent, services=frozenset({"store"})),
            RouterDevice("CALLS_OUT", "127.0.0.1", silent),
            RouterDevice("NOWHERE", "ct.invalid", silent),
        )
        found = await findings(stopped)
        nursery.cancel_scope.cancel()
    advice = {
        what.split()[1]: finding.advice for what, finding in found.items() if "device " in what
    }
    assert "does it know NORTH and its own name REJECTS?" in advice["REJECTS"]
    assert "C000H" in advice["FAILS"]
    assert advice["NO_ECHO"] == ""
    assert "is it switched on" in advice["SILENT"]
    assert "is it switched on" in advice["NOWHERE"]
    (note,) = [what for what in found if what.startswith("device CALLS_OUT only calls out")]
    assert found[note].ok


async def test_a_router_that_never_started(stopped: FakeProcess) -> None:
    found = await findings(stopped)
    down, not_enrolled = wrong(found)
    assert down == "the Router is not running"
    assert "not tested before" in not_enrolled
    assert "relay enroll" in found[not_enrolled].advice


async def test_a_router_that_is_cut_off_says_why(router: FakeProcess) -> None:
    await fill(router)
    router.will("GET", "/v1/status", {"connected": False, "last_failure": "it was not let in"})
    found = await findings(router)
    assert found["connected to the Bridge"] == Finding(
        "connected to the Bridge", False, "it was not let in"
    )
    router.will("GET", "/v1/status", {"connected": False, "last_failure": ""})
    assert "look again" in (await findings(router))["connected to the Bridge"].advice


async def test_folders_that_are_wrong_are_said(stopped: FakeProcess) -> None:
    data = stopped.folder / "data"
    data.chmod(0o755)
    found = await findings(stopped)
    (what,) = [what for what in wrong(found) if what.startswith("data_dir")]
    assert "chmod 700" in found[what].advice
    data.rmdir()
    assert f"data_dir {data}" in wrong(await findings(stopped))
    data.write_text("a file")
    assert (await findings(stopped))[f"data_dir {data}"].advice == "not a folder"


async def test_a_wrong_configuration_is_the_only_finding(stopped: FakeProcess) -> None:
    stopped.configuration.write_text("[router]\ntrust = 1\n")
    found = await findings(stopped)
    assert list(found) == ["configuration"]
    assert "router.trust" in found["configuration"].advice


def test_a_bridge_is_asked_for_its_providers(bridge: FakeProcess) -> None:
    bridge.will("GET", "/v1/status", {"version": "1"})
    bridge.will("GET", "/v1/providers", [{"name": "disk", "kind": "disk", "in_use": True}])
    failing = {"what": "PUT", "ok": False, "advice": "look at the disk"}
    bridge.will("POST", "/v1/providers/disk/check", {"findings": [failing]})
    result = bridge.relay("doctor")
    assert result.exit_code == 1
    assert "FAIL PUT" in result.stdout
    assert "look at the disk" in result.stdout
    bridge.will("POST", "/v1/providers/disk/check", {"findings": []})
    result = bridge.relay("doctor")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "all is well")
    result = bridge.relay("doctor", "--json")
    assert all(finding["ok"] for finding in json.loads(result.stdout))


def test_a_bridges_certificate_is_looked_at(stopped: FakeProcess, tmp_path: Path) -> None:
    from relay.cli import certificate

    _, chain, key = certificate.make(tmp_path, "other.example.org")
    stopped.configuration.write_text(
        f'[bridge]\nurl = "https://relay.example.org"\ncertificate = "{chain}"\n'
        f'private_key = "{key}"\ndata_dir = "data"\n'
    )
    load(stopped.configuration)
    result = stopped.relay("doctor")
    assert result.exit_code == 1
    assert "FAIL certificate is for relay.example.org" in result.stdout
    assert f"ok   private key {key} is the certificate's" in result.stdout


def test_a_private_key_of_another_certificate_is_said(tmp_path: Path) -> None:
    from relay.cli import certificate

    (tmp_path / "other").mkdir()
    _, chain, _ = certificate.make(tmp_path, "relay.example.org")
    _, _, key = certificate.make(tmp_path / "other", "relay.example.org")
    finding = doctor._key(chain, key)
    assert not finding.ok
    assert str(key) in finding.advice
