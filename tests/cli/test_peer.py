import json

from tests.cli.conftest import FINGERPRINT, PEER, FakeProcess


def test_peers_are_listed_with_what_they_publish(peers: FakeProcess) -> None:
    result = peers.relay("peer", "list")
    assert "SOUTH_PACS: store granted of echo, store" in result.stdout
    assert "relay grant ask" not in result.stdout
    assert "relay peer verify" in result.stdout
    (row,) = json.loads(peers.relay("peer", "list", "--json").stdout)
    assert row["publishes"] == [
        {"ae_title": "SOUTH_PACS", "services": ["echo", "store"], "granted": ["store"]}
        | {"signed": True}
    ]
    assert "not signed" not in result.stdout


def test_who_may_use_nothing_is_told_to_ask(peers: FakeProcess) -> None:
    title = {"peer": FINGERPRINT, "services": ["store"], "granted": [], "signed": True}
    peers.will("GET", "/v1/directory", [title | {"ae_title": name} for name in ("CT", "PACS")])
    shown = peers.relay("peer", "list").stdout
    assert "CT: nothing granted of store; PACS: nothing granted of store" in shown
    assert "ask with `relay grant ask" in shown


def test_what_the_bridge_alone_says_is_shown_as_that(peers: FakeProcess) -> None:
    title = {"peer": FINGERPRINT, "services": ["store"], "granted": [], "signed": False}
    peers.will("GET", "/v1/directory", [title | {"ae_title": "CT"}])
    shown = peers.relay("peer", "list").stdout
    assert "CT (not signed): nothing granted of store" in shown
    assert "not signed: the Bridge alone says" in shown


def test_what_is_to_be_known_of_peers_is_explained(peers: FakeProcess) -> None:
    changed = PEER | {"verified": True, "state": "changed", "enrolled": False}
    peers.will("GET", "/v1/peers", [changed])
    peers.will("GET", "/v1/status", {"connected": False})
    shown = peers.relay("peer", "list").stdout
    for words in ("verified, changed, gone", "changed: it", "gone: not", "as last known"):
        assert words in shown


def test_a_peer_is_verified_and_accepted(peers: FakeProcess) -> None:
    peers.will("POST", "/v1/peers", {"name": "South Hospital", "fingerprint": FINGERPRINT})
    result = peers.relay("peer", "verify", "relay-contact:x")
    assert "South Hospital is verified" in result.stdout
    peers.will("POST", f"/v1/peers/{FINGERPRINT}/verify", {"name": "South Hospital"})
    result = peers.relay("peer", "verify", FINGERPRINT)
    assert "South Hospital is verified" in result.stdout
    assert [asked[:2] for asked in peers.asked if asked[0] == "POST"] == [
        ("POST", "/v1/peers"),
        ("POST", f"/v1/peers/{FINGERPRINT}/verify"),
    ]
    claim = {"peer": "old", "name": "North", "ae_title": "SOUTH_PACS", "claimed_by": FINGERPRINT}
    peers.will("GET", "/v1/directory", [claim])
    peers.will("POST", f"/v1/peers/{FINGERPRINT}/accept", {"ae_titles": ["SOUTH_PACS"]})
    assert peers.relay("peer", "accept", "south hospital").stdout == (
        f"accepted of South Hospital (unverified, {FINGERPRINT}):\n"
        "  SOUTH_PACS, formerly of North (old)\n"
    )
    peers.will("GET", "/v1/peers", [PEER, PEER | {"fingerprint": "zz", "claims": ["SOUTH_PACS"]}])
    assert "give a fingerprint" in peers.relay("peer", "accept", "South Hospital").stderr
