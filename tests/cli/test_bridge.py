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


def _invitation(id: str, name: str, state: str) -> dict[str, object]:
    times = {"created": 1_780_300_000, "expires": 1_780_400_000}
    return {"id": id * 4, "name": name, "state": state, "router": None} | times


def test_invitations_are_listed_and_taken_back(bridge: FakeProcess) -> None:
    bridge.will("GET", "/v1/invitations", [])
    assert "relay invite HOSPITAL" in bridge.relay("invitation", "list").stdout
    rows = [
        _invitation("0a0a0a0a", "South", "open"),
        _invitation("0b0b0b0b", "North", "expired"),
        _invitation("0c0c0c0c", "North", "used"),
        _invitation("0d0d0d0d", "South", "expired"),
    ]
    bridge.will("GET", "/v1/invitations", rows)
    shown = bridge.relay("invitation", "list").stdout.splitlines()
    assert shown[1].split()[:3] == ["0a0a0a0a", "South", "open"]
    assert local_time(1_780_400_000) in shown[1]
    assert local_time(1_780_400_000) not in shown[3]
    assert json.loads(bridge.relay("invitation", "list", "--json").stdout) == rows
    for words, id in (("south", "0a0a0a0a"), ("0A0A0A0A", "0a0a0a0a"), (" North", "0b0b0b0b")):
        bridge.will("DELETE", f"/v1/invitations/{id * 4}", b"", status=204)
        result = bridge.relay("invitation", "revoke", words)
        assert result.exit_code == 0, result.output
        assert bridge.asked[-1][:2] == ("DELETE", f"/v1/invitations/{id * 4}")
        assert "is taken back" in result.stdout


def test_an_invitation_that_is_not_one_is_not_taken_back(bridge: FakeProcess) -> None:
    rows = [_invitation(id, "South", "expired") for id in ("0a0a0a0a", "0b0b0b0b")]
    rows.append(_invitation("0c0c0c0c", "West", "used"))
    bridge.will("GET", "/v1/invitations", rows)
    used = {"error": "the invitation of West was used: revoke its Router to shut it out"}
    bridge.will("DELETE", f"/v1/invitations/{'0c0c0c0c' * 4}", used, status=409)
    for words, said in (
        ("0a0a", "no invitation '0a0a'"),
        ("West", "no invitation 'West'"),
        ("south", "2 invitations are for 'south': give an id"),
        ("0c0c0c0c", "revoke its Router"),
    ):
        result = bridge.relay("invitation", "revoke", words)
        assert result.exit_code == 1
        assert said in result.stderr


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
