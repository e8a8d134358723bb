import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from relay.cli import doctor, reach
from relay.cli.context import Invocation
from relay.config import RouterConfig
from relay.config_file import load
from relay.database import open_database
from relay.identity import Identity
from relay.invitation import Invitation
from relay.providers import Finding
from relay.router import membership
from relay.router.devices import Device as RouterDevice
from relay.router.devices import DeviceTable
from relay.router.membership import Membership
from relay.router.schema import MIGRATIONS
from relay.signalling.authentication import NOT_LET_IN
from relay.signalling.proxy import PASSWORD_REFUSED
from relay.tunnel.guard import NOT_PUBLIC
from tests.cli.conftest import DEVICE, FakeProcess
from tests.cli.scp import Device
from tests.cli.test_doctor_devices import serve_device

WELL = Finding("Bridge answers", True)
OPEN = Finding("the invitation is open", True)


@pytest.fixture(autouse=True)
def _bridge_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    async def well(url: str, **how: object) -> AsyncIterator[Finding]:
        yield WELL

    async def is_open(invited: Invitation, config: RouterConfig) -> Finding:
        return OPEN

    monkeypatch.setattr(reach, "bridge", well)
    monkeypatch.setattr(reach, "invitation", is_open)


def knows(
    router: FakeProcess,
    connected: bool = True,
    devices: object = (),
    refusals: object = (),
    warnings: object = (),
    **more: Any,
) -> None:
    """What the running Router answers."""
    router.will("GET", "/v1/status", {"connected": connected, "enrolled": True} | more)
    router.will("GET", "/v1/devices", devices)
    router.will("GET", "/v1/refusals", refusals)
    router.will("GET", "/v1/warnings", warnings)
    router.will("GET", "/v1/grants", [])
    router.will("GET", "/v1/asks", [])
    router.will("GET", "/v1/directory", [])
    router.will("GET", "/v1/aliases", [])
    router.will("GET", "/v1/destinations", [])


async def fill(process: FakeProcess, *devices: RouterDevice) -> None:
    """The database of a Router that has enrolled."""
    async with open_database(process.folder / "data/router.db", MIGRATIONS) as database:
        url = "https://relay.example.org"
        await membership.save(database, Membership(b"n" * 16, b"b" * 32, url, "North"))
        table = await DeviceTable.load(database)
        for device in devices:
            await table.put(device)


async def findings(process: FakeProcess, invited: Invitation | None = None) -> dict[str, Finding]:
    invocation = Invocation(None, process.configuration)
    return {finding.what: finding async for finding in doctor.examine(invocation, invited)}


def wrong(found: dict[str, Finding]) -> list[str]:
    return [what for what, finding in found.items() if not finding.ok]


async def test_a_router_that_is_well(router: FakeProcess) -> None:
    knows(router)
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


async def test_a_router_that_never_started(stopped: FakeProcess) -> None:
    found = await findings(stopped)
    assert wrong(found) == ["the Router is not running", "not enrolled"]
    assert "relay enroll" in found["not enrolled"].advice
    assert "relay doctor INVITATION" in found["not enrolled"].advice
    assert WELL.what not in found


def invitation(expires: float) -> Invitation:
    return Invitation(
        "https://relay.example.org",
        bytes(16),
        bytes(16),
        Identity.from_seed(bytes(32)).public,
        bytes(16),
        int(expires),
    )


async def test_an_invitation_says_which_bridge_to_look_for(stopped: FakeProcess) -> None:
    found = await findings(stopped, invitation(time.time() + 60))
    assert found[WELL.what].ok
    assert found[OPEN.what].ok
    found = await findings(stopped, invitation(time.time() - 60))
    assert "expired" in found["the invitation"].advice


async def test_who_is_enrolled_needs_no_invitation(router: FakeProcess) -> None:
    knows(router)
    await fill(router)
    found = await findings(router, invitation(time.time() - 60))
    assert wrong(found) == []
    assert any("is no longer good, and this Router" in what for what in found)


def test_where_an_invitation_is_not_known_the_end_does_not_say_that_all_is_well(
    stopped: FakeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def not_told(invited: Invitation, config: RouterConfig) -> Finding:
        return Finding(reach.NOT_TOLD, True)

    monkeypatch.setattr(reach, "invitation", not_told)
    (stopped.folder / "data").rmdir()
    result = stopped.relay("doctor", invitation(time.time() + 60).to_string())
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].startswith("all that can be seen is well; whether")


async def test_before_the_first_start_what_it_brings_is_no_fault(stopped: FakeProcess) -> None:
    (stopped.folder / "data").rmdir()
    found = await findings(stopped, invitation(time.time() + 60))
    assert wrong(found) == []
    assert "relay --mode router" in found["the Router is not running: not yet"].advice
    assert found[f"data_dir {stopped.folder}/data: not yet"].ok
    assert "relay enroll" in found["not enrolled yet"].advice
    assert len(wrong(await findings(stopped))) == 3


async def test_a_router_that_has_stopped_is_a_fault_with_an_invitation_too(
    stopped: FakeProcess,
) -> None:
    await fill(stopped)
    found = await findings(stopped, invitation(time.time() + 60))
    assert wrong(found) == ["the Router is not running"]


async def test_the_file_of_the_proxys_password(router: FakeProcess) -> None:
    await fill(router)
    secret = router.folder / "proxy"
    secret.write_text("http://user:hunter2@proxy.example.org:3128")
    text = router.configuration.read_text()
    router.configuration.write_text(f'{text}proxy = "file:proxy"\n')
    knows(router, False, last_failure=f"proxy proxy.example.org:3128: {PASSWORD_REFUSED}")
    what = f"proxy's password {secret}, closed to others"
    secret.chmod(0o644)
    found = await findings(router)
    assert found[what] == Finding(what, False, f"chmod o= {secret}")
    assert f"`proxy` is what file:{secret} holds" in found["connected to the Bridge"].advice
    secret.chmod(0o640)
    found = await findings(router)
    assert found[what].ok
    assert "hunter2" not in str(found)


def test_what_is_no_invitation_is_asked_wrongly(stopped: FakeProcess) -> None:
    result = stopped.relay("doctor", "relay-invitation:x")
    assert result.exit_code == 2
    assert "invitation" in result.output


async def test_a_router_that_is_cut_off_says_why(router: FakeProcess) -> None:
    await fill(router)
    knows(router, False, last_failure="no way out")
    assert (await findings(router))["connected to the Bridge"] == Finding(
        "connected to the Bridge", False, "no way out"
    )
    knows(router, False, last_failure="")
    assert "look again" in (await findings(router))["connected to the Bridge"].advice


async def test_a_router_that_was_revoked_is_told_how_to_come_back(router: FakeProcess) -> None:
    await fill(router)
    knows(router, False, last_failure=f"{NOT_LET_IN} (closed): is it enrolled and not revoked?")
    advice = (await findings(router))["connected to the Bridge"].advice
    assert "Bridge's administrator" in advice
    assert "new invitation" in advice


@pytest.mark.parametrize(("offset", "words"), [(7200, "2.0 hours behind"), (-240, "4 minutes")])
async def test_a_clock_that_the_bridge_has_shown_to_be_wrong(
    router: FakeProcess, offset: float, words: str
) -> None:
    await fill(router)
    knows(router, clock_offset=offset)
    ((what, finding),) = ((w, f) for w, f in (await findings(router)).items() if not f.ok)
    assert words in what
    assert "NTP" in finding.advice
    knows(router, clock_offset=3.0)
    assert wrong(await findings(router)) == []


async def test_a_store_that_fails_is_said(router: FakeProcess) -> None:
    await fill(router)
    inner, outer = "https://10.0.0.5:9000", "https://store.example"
    knows(
        router,
        store={"failing": {inner: f"10.0.0.5: {NOT_PUBLIC}", outer: "store.example: answered 403"}},
    )
    found = await findings(router)
    assert f'add "{inner}" to allowed_origins' in found[f"object store {inner}"].advice
    assert "answered 403; images do not get" in found[f"object store {outer}"].advice


async def test_what_only_the_running_router_knows(router: FakeProcess) -> None:
    await fill(router)
    taken = DEVICE | {"check_address": True, "refusal": "PACS is published by B: use --as OTHER"}
    why = "'CT' is no device of this Router"
    refusal = {"time": time.time(), "calling": "CT", "called": "PACS", "why": why}
    move = refusal | {"why": "PACS does not know it", "destination": "CT"}
    knows(router, devices=[taken], refusals=[move, refusal | {"destination": ""}])
    found = await findings(router)
    assert "--as OTHER" in found["device PACS is published"].advice
    assert found["CT called PACS, and was refused, just now"].advice.startswith(f"{why}; if")
    assert found["device PACS is published, and granted to nobody"].ok
    assert found["Move Destination CT was refused (A801H): CT asked PACS, just now"].ok


async def test_what_stands_in_the_queue_is_not_well(router: FakeProcess) -> None:
    await fill(router)
    row = {"key": "PACS", "since": 1.0, "device": None, "count": 3}
    waiting = {"warning": "waiting", "words": "objects for PACS wait", "destination": "PACS"}
    full = {"warning": "spool_full", "words": "no room", "destination": None}
    knows(router, warnings=[row | waiting, row | full])
    found = await findings(router)
    assert found["warning about PACS: waiting"].advice == "objects for PACS wait"
    assert found["warning: spool full"].advice == "no room"
    assert not found["warning about PACS: waiting"].ok


async def test_a_router_that_answers_half_is_no_crash(router: FakeProcess) -> None:
    await fill(router)
    router.will("GET", "/v1/status", {"connected": True, "enrolled": True})
    assert wrong(await findings(router)) == ["what the Router knows of its devices"]


async def test_a_database_that_cannot_be_read_is_said(stopped: FakeProcess) -> None:
    (stopped.folder / "data/router.db").write_bytes(b"no database" * 1000)
    found = await findings(stopped)
    assert "the Router's database" in wrong(found)


async def test_a_port_that_is_taken_keeps_a_router_from_starting(stopped: FakeProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = stopped.configuration.read_text()
        stopped.configuration.write_text(f'{text}listen = "{address}"\n')
        found = await findings(stopped)
    assert "another program" in found[f"{address} can be listened on"].advice


async def test_a_wrong_configuration_is_the_only_finding(stopped: FakeProcess) -> None:
    stopped.configuration.write_text("[router]\ntrust = 1\n")
    found = await findings(stopped)
    assert list(found) == ["configuration"]
    assert "router.trust" in found["configuration"].advice


def test_a_bridge_is_asked_for_its_providers(bridge: FakeProcess) -> None:
    bridge.will("GET", "/v1/status", {"version": "1"})
    bridge.will("GET", "/v1/warnings", [])
    bridge.will("GET", "/v1/providers", [{"name": "disk", "kind": "disk", "in_use": True}])
    failing = {"what": "PUT", "ok": False, "advice": "look at the disk"}
    bridge.will("POST", "/v1/providers/disk/check", {"findings": [failing]})
    result = bridge.relay("doctor")
    assert result.exit_code == 1
    assert "FAIL disk: PUT" in result.stdout
    assert "look at the disk" in result.stdout
    bridge.will("POST", "/v1/providers/disk/check", {"findings": []})
    result = bridge.relay("doctor")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "all is well")
    result = bridge.relay("doctor", "--json")
    assert all(finding["ok"] for finding in json.loads(result.stdout))


def test_what_a_bridge_warns_of_is_not_well(bridge: FakeProcess) -> None:
    words = "This Bridge was restored: then say that it is set right."
    warned = {"warning": "router_away", "key": "abcd", "words": words, "since": 1}
    bridge.will("GET", "/v1/status", {"version": "1"})
    bridge.will("GET", "/v1/providers", [])
    bridge.will("GET", "/v1/warnings", [warned])
    result = bridge.relay("doctor")
    assert result.exit_code == 1
    assert f"FAIL warning: router away\n     {words}\n" in result.stdout


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
