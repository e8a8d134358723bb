import json

from relay.cli.output import local_time
from tests.cli.conftest import FakeProcess


def test_an_invitation_is_all_that_goes_to_stdout(bridge: FakeProcess) -> None:
    answer = {"invitation": "relay-invitation:x", "id": "00", "name": "N", "expires": 1_800_000_000}
    bridge.will("POST", "/v1/invitations", answer, status=201)
    result = bridge.relay("invite", "North Hospital", "--hours", "2")
    assert result.stdout == "relay-invitation:x\n"
    assert "North Hospital" in result.stderr
    assert bridge.asked[0][2] == {"name": "North Hospital", "lifetime": 7200}
    assert json.loads(bridge.relay("invite", "N", "--json").stdout) == answer


def test_routers_are_listed_and_revoked(bridge: FakeProcess) -> None:
    row = {
        "name": "North Hospital",
        "connected": True,
        "last_seen": 1_780_300_000,
        "revoked": False,
        "fingerprint": "abcd-efgh",
        "ae_titles": ["NORTH_WS"],
    }
    bridge.will("GET", "/v1/routers", [row])
    for typed in ("abcd-efgh", "ABCD-efgh"):
        bridge.will("POST", f"/v1/routers/{typed}/revoke", b"", status=204)
    shown = bridge.relay("router", "list").stdout
    assert "NORTH_WS" in shown
    assert local_time(1_780_300_000) in shown
    bridge.will("GET", "/v1/routers", [row | {"last_seen": None}])
    assert "never" in bridge.relay("router", "list").stdout
    bridge.will("GET", "/v1/routers", [row])
    assert json.loads(bridge.relay("router", "list", "--json").stdout) == [row]
    assert "abcd-efgh is revoked" in bridge.relay("router", "revoke", "abcd-efgh").stdout
    bridge.will("GET", "/v1/routers", [row | {"revoked": True}])
    assert "was revoked already" in bridge.relay("router", "revoke", "ABCD-efgh").stdout


def test_a_router_is_no_bridge(router: FakeProcess) -> None:
    result = router.relay("invite", "N")
    assert result.exit_code == 2
    assert "this command is for a Bridge's" in result.stderr
