"""`relay destination`: what is asked of the Router, and what people are told."""

import json
from typing import Any

import pytest

from tests.cli.conftest import FINGERPRINT, FakeProcess

ROW: dict[str, Any] = {
    "called": "PACS",
    "calling": "",
    "mode": "queued",
    "mixed": "refuse",
    "priority": "normal",
    "local": "PACS_S",
    "device": "",
    "peer": FINGERPRINT,
    "name": "South Hospital",
    "known": ["CT_N"],
    "unknown": {"CT_N": "a while ago", "MR_N": "no answer within 60 s"},
    "refused": {},
    "granted": ["store"],
}
EXCEPTION = ROW | {"calling": "CT_N", "device": "CT", "mode": "confirmed", "priority": "high"}
NOBODYS = ROW | {
    "called": "MR",
    "local": "MR",
    "peer": None,
    "name": "",
    "known": [],
    "unknown": {},
}


def test_a_destination_is_added(router: FakeProcess) -> None:
    router.will("GET", "/v1/destinations", [])
    router.will("POST", "/v1/destinations", ROW)
    result = router.relay("destination", "add", "PACS_S")
    assert (result.exit_code, result.stdout) == (
        0,
        "PACS_S (published as PACS): queued, priority normal\n",
    )
    assert router.asked[-1][2] == {"called": "PACS_S", "calling": ""}


def test_what_is_not_granted_yet_is_said(router: FakeProcess) -> None:
    router.will("GET", "/v1/destinations", [])
    router.will("POST", "/v1/destinations", ROW | {"granted": ["query"]})
    shown = router.relay("destination", "add", "PACS_S").stdout
    assert "South Hospital has not granted" in shown
    assert "`relay grant ask PACS_S --services store`" in shown
    router.will("POST", "/v1/destinations", EXCEPTION | {"granted": []})
    assert "grant" not in router.relay("destination", "add", "PACS_S", "--confirmed").stdout


def test_what_was_refused_is_listed(router: FakeProcess) -> None:
    kinds = {"CT_N": ["CT in JPEG Baseline", "MR in JPEG Baseline"]}
    router.will("GET", "/v1/destinations", [ROW | {"refused": kinds}])
    assert (
        "from CT_N PACS is known to take all that it said but for CT in JPEG Baseline, MR in JPEG"
        " Baseline, which it refused at a delivery"
    ) in router.relay("destination", "list").stdout


@pytest.mark.parametrize("titles", [("PACS_S", "CT"), ("PACS", "CT_N")])
def test_what_is_not_given_stays(router: FakeProcess, titles: tuple[str, str]) -> None:
    router.will("GET", "/v1/destinations", [ROW, EXCEPTION])
    router.will("POST", "/v1/destinations", EXCEPTION | {"mode": "queued", "mixed": "confirmed"})
    called, calling = titles
    result = router.relay(
        *("destination", "add", called, "--calling", calling, "--queued"),
        *("--mixed", "confirmed"),
    )
    assert router.asked[-1][2] == {
        "called": called,
        "calling": calling,
        "mode": "queued",
        "mixed": "confirmed",
        "priority": "high",
    }
    assert result.stdout == (
        "PACS_S (published as PACS) from CT (published as CT_N): queued, priority high; what also"
        " proposes something else goes through confirmed\n"
    )


def test_an_exception_is_made(router: FakeProcess) -> None:
    router.will("GET", "/v1/destinations", [ROW])
    router.will("POST", "/v1/destinations", EXCEPTION)
    result = router.relay("destination", "add", "PACS_S", "--calling", "CT", "--confirmed")
    assert router.asked[-1][2] == {"called": "PACS_S", "calling": "CT", "mode": "confirmed"}
    assert result.stdout.endswith(": confirmed, the far device answers\n")


def test_what_nobody_publishes_is_said(router: FakeProcess) -> None:
    router.will("GET", "/v1/destinations", [])
    router.will("POST", "/v1/destinations", NOBODYS)
    shown = router.relay("destination", "add", "MR").stdout
    assert "nobody publishes MR now: see `relay peer list`" in shown


def test_a_refusal_is_one_line(router: FakeProcess) -> None:
    router.will("GET", "/v1/destinations", [])
    router.will("POST", "/v1/destinations", {"error": "'CT' is the device CT"}, status=409)
    result = router.relay("destination", "add", "CT")
    assert (result.exit_code, result.stderr) == (1, "relay: 'CT' is the device CT\n")


def test_destinations_are_listed(router: FakeProcess) -> None:
    router.will("GET", "/v1/destinations", [ROW, EXCEPTION])
    _, general, exception, why = router.relay("destination", "list").stdout.splitlines()
    for words in ("PACS_S (published as PACS)", "South Hospital", "any", "this Router", "CT_N"):
        assert words in general
    for words in ("CT (published as CT_N)", "the device", "high"):
        assert words in exception
    assert why == "nothing is accepted from MR_N for PACS yet: no answer within 60 s"
    assert json.loads(router.relay("destination", "list", "--json").stdout) == [ROW, EXCEPTION]
    router.will("GET", "/v1/destinations", [NOBODYS])
    shown = router.relay("destination", "list").stdout
    assert "nobody now" in shown
    router.will("GET", "/v1/destinations", [])
    assert "relay destination add AE_TITLE" in router.relay("destination", "list").stdout


def test_a_destination_is_removed(router: FakeProcess) -> None:
    router.will("DELETE", "/v1/destinations/A%2FB?calling=CT+1", EXCEPTION)
    router.will("GET", "/v1/queue", {"destinations": [{"called": "OTHER", "waiting": 9}]})
    result = router.relay("destination", "remove", "A/B", "--calling", "CT 1")
    assert result.stdout == (
        "PACS_S (published as PACS) from CT (published as CT_N): no destination any more, confirmed"
        " from now on\n"
    )


def test_what_waits_for_a_removed_destination_is_said(router: FakeProcess) -> None:
    router.will("DELETE", "/v1/destinations/PACS_S?calling=", ROW)
    router.will("GET", "/v1/queue", {"destinations": [{"called": ROW["called"], "waiting": 7}]})
    shown = router.relay("destination", "remove", "PACS_S").stdout
    assert "7 objects for PACS waiting: still delivered, see `relay queue list`" in shown
