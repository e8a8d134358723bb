import json

import pytest

from tests.cli.conftest import FakeProcess

FINGERPRINT = "abcd-efgh-ijkl-mnop-qrst-uvwx-yz23-4567"
PEER = {
    "fingerprint": FINGERPRINT,
    "name": "South Hospital",
    "verified": False,
    "state": "unverified",
    "connected": True,
    "enrolled": True,
    "claims": [],
}
DEVICE = {
    "ae_title": "PACS",
    "host": "10.0.0.2",
    "port": 104,
    "services": ["store", "query"],
    "maximum_associations": 16,
}
GRANT = {
    "id": 7,
    "peer": FINGERPRINT,
    "name": "South Hospital",
    "unpublished": [],
    "ae_title": "PACS",
    "services": ["store"],
    "calling": ["*"],
    "user_identity": False,
}


@pytest.fixture
def peers(router: FakeProcess) -> FakeProcess:
    router.will("GET", "/v1/peers", [PEER])
    router.will("GET", "/v1/status", {"connected": True})
    router.will(
        "GET",
        "/v1/directory",
        [
            {"peer": FINGERPRINT, "ae_title": "SOUTH_PACS", "services": ["store"]}
            | {"name": "South Hospital", "claimed_by": None}
        ],
    )
    return router


def test_enrolling_shows_the_contact_last(router: FakeProcess) -> None:
    answer = {"bridge": "https://h", "name": "N", "contact": "relay-contact:abc"}
    router.will("POST", "/v1/enrolment", answer)
    result = router.relay("enroll", "relay-invitation:xyz")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "enrolled at https://h as N"
    assert result.stdout.split()[-1] == "relay-contact:abc"
    assert router.asked == [("POST", "/v1/enrolment", {"invitation": "relay-invitation:xyz"})]
    router.will("POST", "/v1/enrolment", answer | {"already": True})
    result = router.relay("enroll", "relay-invitation:xyz")
    assert result.exit_code == 0
    assert result.stdout.startswith("already enrolled at https://h as N")


def test_a_device_is_added_as_it_is_described(router: FakeProcess) -> None:
    router.will("GET", "/v1/devices", [])
    router.will("POST", "/v1/devices", DEVICE, status=201)
    result = router.relay(
        *("device", "add", "PACS", "10.0.0.2", "11112", "--publish", "store, query,"),
        *("--maximum-associations", "4", "--any-address"),
    )
    assert result.exit_code == 0, result.output
    assert router.asked[-1][2] == {
        "ae_title": "PACS",
        "host": "10.0.0.2",
        "port": 11112,
        "services": ["store", "query"],
        "maximum_associations": 4,
        "check_address": False,
    }


def test_what_is_not_given_stays(router: FakeProcess) -> None:
    router.will("GET", "/v1/devices", [DEVICE | {"port": 4242, "refusal": None}])
    router.will("POST", "/v1/devices", DEVICE | {"host": "10.0.0.9", "port": 4242})
    result = router.relay("device", "add", "PACS", "10.0.0.9")
    assert router.asked[-1][2] == DEVICE | {"host": "10.0.0.9", "port": 4242}
    assert "changed: host: 10.0.0.2 -> 10.0.0.9\n" in result.stdout
    router.relay("device", "add", "PACS", "10.0.0.9", "--publish", "none")
    assert router.asked[-1][2]["services"] == []


def test_a_title_that_is_taken_is_a_failure(router: FakeProcess) -> None:
    taken = DEVICE | {"refusal": "PACS is published by South already: choose another AE title"}
    router.will("GET", "/v1/devices", [taken])
    router.will("POST", "/v1/devices", taken)
    result = router.relay("device", "add", "PACS", "10.0.0.2", "--publish", "store")
    assert result.exit_code == 1
    assert "by South already: choose another AE title" in result.stderr
    assert "not published: taken" in router.relay("device", "list").stdout


def test_a_device_that_is_not_published_says_so(router: FakeProcess) -> None:
    router.will("GET", "/v1/devices", [])
    router.will(
        "POST", "/v1/devices", DEVICE | {"ae_title": "CT1", "host": "10.0.0.3", "services": []}
    )
    result = router.relay("device", "add", "CT1", "10.0.0.3")
    assert "CT1 at 10.0.0.3:104, not published" in result.stdout
    assert "device test" not in result.stdout
    assert "services" not in router.asked[-1][2]


def test_devices_are_listed(router: FakeProcess) -> None:
    router.will("GET", "/v1/devices", [DEVICE])
    assert "store, query" in router.relay("device", "list").stdout
    assert json.loads(router.relay("device", "list", "--json").stdout) == [DEVICE]
    router.will("GET", "/v1/devices", [])
    assert "relay device add" in router.relay("device", "list").stdout


@pytest.mark.parametrize(("fine", "status"), [(True, 0), (False, 1)])
def test_a_test_shows_what_the_device_takes(router: FakeProcess, fine: bool, status: int) -> None:
    report = {
        "findings": [{"what": "answers C-ECHO", "ok": fine, "advice": "" if fine else "look"}],
        "accepted": {"1.2.840.10008.5.1.4.1.1.2": ["1.2.840.10008.1.2"]},
    }
    router.will("POST", "/v1/devices/PACS%201/test", report)
    result = router.relay("device", "test", "PACS 1")
    assert result.exit_code == status
    assert result.stdout.splitlines() == (
        ["ok   answers C-ECHO"] if fine else ["FAIL answers C-ECHO", "     look"]
    )
    result = router.relay("device", "test", "PACS 1", "--all")
    assert "CT Image Storage" in result.stdout
    assert "Implicit VR Little Endian" in result.stdout
    result = router.relay("device", "test", "PACS 1", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (status, report)


def test_a_device_is_removed(router: FakeProcess) -> None:
    router.will("DELETE", "/v1/devices/A%2FB", {"grants_removed": [GRANT]})
    result = router.relay("device", "remove", "A/B")
    assert result.exit_code == 0
    assert f"grant 7 removed: store to South Hospital ({FINGERPRINT})" in result.stdout


def test_peers_are_listed_with_what_they_publish(peers: FakeProcess) -> None:
    result = peers.relay("peer", "list")
    assert "SOUTH_PACS" in result.stdout
    assert "relay peer verify" in result.stdout
    (row,) = json.loads(peers.relay("peer", "list", "--json").stdout)
    assert row["publishes"] == ["SOUTH_PACS"]


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
    "words", ["South Hospital", "SOUTH HOSPITAL", FINGERPRINT, FINGERPRINT[:14]]
)
def test_a_grant_goes_to_a_peer_by_name_or_fingerprint(peers: FakeProcess, words: str) -> None:
    peers.will("POST", "/v1/grants", GRANT, status=201)
    result = peers.relay(
        "grant", "add", words, "PACS", "--services", "store", "--calling", "CT1,CT2"
    )
    assert result.exit_code == 0, result.output
    assert "grant 7: South Hospital (unverified," in result.stdout
    assert peers.asked[-1][2] == {
        "peer": FINGERPRINT,
        "ae_title": "PACS",
        "services": ["store"],
        "calling": ["CT1", "CT2"],
        "user_identity": False,
    }


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
