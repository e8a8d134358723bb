import json

import pytest

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
    assert [asked for asked in peers.asked if asked[0] == "POST"] == [
        ("POST", "/v1/peers", {"contact": "relay-contact:x"})
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


@pytest.mark.parametrize(
    ("options", "typed"), [((), "y\n"), (("--yes",), None)], ids=["asked", "not asked"]
)
def test_a_fingerprint_is_verified_by_the_name_that_it_has_here(
    peers: FakeProcess, options: tuple[str, ...], typed: str | None
) -> None:
    path = f"/v1/peers/{FINGERPRINT}/verify"
    peers.will("POST", path, {"name": "South Hospital", "fingerprint": FINGERPRINT})
    heard = FINGERPRINT.upper().replace("-", " ")
    result = peers.relay("peer", "verify", heard, *options, typed=typed)
    assert result.exit_code == 0, result.output
    question = f"Verify South Hospital (fingerprint {FINGERPRINT})? [y/N]"
    assert (question in result.output) == (not options)
    assert f"South Hospital is verified ({FINGERPRINT})" in result.stdout
    assert peers.asked[-1] == ("POST", path, {"name": "South Hospital"})


@pytest.mark.parametrize("typed", ["n\n", "\n", ""])
def test_who_does_not_mean_that_hospital_verifies_none(peers: FakeProcess, typed: str) -> None:
    result = peers.relay("peer", "verify", FINGERPRINT, typed=typed)
    assert result.exit_code != 0
    assert [asked[:2] for asked in peers.asked] == [("GET", "/v1/peers")]


@pytest.mark.parametrize(
    ("heard", "told"),
    [
        ("a" * 32, "do not go on: another identity may stand here in their place"),
        (FINGERPRINT[:-1] + "8", "no fingerprint has '8'"),
        (FINGERPRINT[:-5], "compare the whole fingerprint"),
    ],
)
def test_a_fingerprint_that_no_hospital_has_is_warned_of(
    peers: FakeProcess, heard: str, told: str
) -> None:
    result = peers.relay("peer", "verify", heard, "--yes")
    assert result.exit_code != 0
    assert told in result.stderr
    assert not [asked for asked in peers.asked if asked[0] == "POST"]


def test_a_beginning_of_a_fingerprint_stands_for_one_peer_alone(peers: FakeProcess) -> None:
    peers.will("POST", f"/v1/peers/{FINGERPRINT}/accept", {"ae_titles": []})
    for words in (FINGERPRINT[:14], FINGERPRINT[:14].replace("-", "").upper()):
        assert FINGERPRINT in peers.relay("peer", "accept", words).stdout
    # Twelve letters, and not twelve with their hyphens.
    assert "no peer" in peers.relay("peer", "accept", FINGERPRINT[:12]).stderr
    other = PEER | {"name": "Another", "fingerprint": FINGERPRINT[:-4] + "aaaa"}
    peers.will("GET", "/v1/peers", [PEER, other])
    assert "give more of it" in peers.relay("peer", "accept", FINGERPRINT[:14]).stderr
