import json

import pytest

from tests.cli.conftest import FINGERPRINT, GRANT, PEER, FakeProcess


@pytest.mark.parametrize(
    "words", ["South Hospital", "SOUTH HOSPITAL", FINGERPRINT, FINGERPRINT[:14]]
)
def test_a_grant_goes_to_a_peer_by_name_or_fingerprint(peers: FakeProcess, words: str) -> None:
    peers.will("POST", "/v1/grants", GRANT | {"replaced": [3, 5]}, status=201)
    result = peers.relay(
        "grant", "add", words, "PACS", "--services", "store", "--calling", "CT1,CT2"
    )
    assert result.exit_code == 0, result.output
    assert "grant 7: South Hospital (unverified," in result.stdout
    assert "in place of grant 3, 5\n" in result.stdout
    assert peers.asked[-1][2] == {
        "peer": FINGERPRINT,
        "ae_title": "PACS",
        "services": ["store"],
        "calling": ["CT1", "CT2"],
        "user_identity": False,
    }


def test_a_device_of_two_titles_is_shown_by_both(peers: FakeProcess) -> None:
    other = GRANT | {"ae_title": "PACS_NORTH"}
    peers.will("POST", "/v1/grants", other | {"replaced": []}, status=201)
    peers.will("GET", "/v1/grants", [other, GRANT | {"device": None, "ae_title": "GONE"}])
    peers.will("GET", "/v1/asks", [])
    result = peers.relay("grant", "add", "South Hospital", "PACS", "--services", "store")
    assert result.stdout.endswith("may use store of PACS (published as PACS_NORTH)\n")
    shown = peers.relay("grant", "list").stdout
    assert "PACS (published as PACS_NORTH)" in shown
    assert "GONE" in shown


def test_a_name_that_two_peers_have_is_refused(peers: FakeProcess) -> None:
    peers.will("GET", "/v1/peers", [PEER, PEER | {"fingerprint": "zzzz"}])
    result = peers.relay("grant", "add", "South Hospital", "PACS", "--services", "store")
    assert result.exit_code == 1
    assert "give a fingerprint" in result.stderr


@pytest.mark.parametrize("words", ["Nobody", "abcd", "", "zzzz-zzzz-zzzz-zzzz"])
def test_a_peer_that_is_not_there_is_said(peers: FakeProcess, words: str) -> None:
    result = peers.relay("grant", "add", words, "PACS", "--services", "store")
    assert result.exit_code == 1
    assert "no peer" in result.stderr


def test_grants_and_asks_are_listed_taken_and_given(router: FakeProcess) -> None:
    ask = GRANT | {"id": 3, "note": "for the tumour board"}
    router.will("GET", "/v1/grants", [GRANT | {"unpublished": ["store"]}])
    router.will("GET", "/v1/asks", [ask])
    router.will("POST", "/v1/asks/3/accept", GRANT, status=201)
    router.will("DELETE", "/v1/asks/3", {})
    router.will("DELETE", "/v1/grants/7", {})
    shown = router.relay("grant", "list").stdout
    for words in ("for the tumour board", "South Hospital", FINGERPRINT, "store (not published)"):
        assert words in shown
    router.will("GET", "/v1/grants", [GRANT])
    assert "South Hospital" in router.relay("grant", "accept", "3").stdout
    assert json.loads(router.relay("grant", "list", "--json").stdout) == {
        "grants": [GRANT],
        "asks": [ask],
    }
    for arguments in (("accept", "3"), ("decline", "3"), ("remove", "7")):
        assert router.relay("grant", *arguments).exit_code == 0


def test_asking_for_a_grant(router: FakeProcess) -> None:
    router.will("POST", "/v1/asks", {}, status=202)
    result = router.relay(
        "grant", "ask", "SOUTH_PACS", "--services", "query,retrieve", "--note", "please"
    )
    assert result.exit_code == 0, result.output
    assert router.asked[0][2] == {
        "ae_title": "SOUTH_PACS",
        "services": ["query", "retrieve"],
        "calling": [],
        "note": "please",
    }


def test_a_refusal_is_one_line(router: FakeProcess) -> None:
    router.will("DELETE", "/v1/grants/9", {"error": "no grant 9"}, status=404)
    result = router.relay("grant", "remove", "9")
    assert (result.exit_code, result.stderr) == (1, "relay: no grant 9\n")
