"""`relay audit`: what is asked of the process, and what people are told."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import FakeProcess

ENTRY = {
    "number": 7,
    "at": 1_780_300_000.5,
    "kind": "alert",
    "type": "Network Configuration",
    "outcome": "failure",
    "words": "POST /v1/devices: Add a device. ae_title=CT\x1b[31m",
    "why": "TAKEN is another's",
    "requestor": None,
    "source": None,
    "destination": None,
    "participants": [
        {"id": "RELAY", "name": "", "address": "", "role": None, "person": False},
        {"id": "anna", "name": "", "address": "10.0.0.7", "role": None, "person": True},
    ],
    "objects": 0,
    "association": None,
    "studies": [],
    "hash": "00" * 32,
}
WHOLE = {"first": 1, "last": 7, "head": "ab" * 32, "entries": 7, "fault": ""}


@pytest.mark.parametrize("process", ["router", "bridge"])
def test_entries_are_listed(process: str, request: pytest.FixtureRequest) -> None:
    running: FakeProcess = request.getfixturevalue(process)
    running.will("GET", "/v1/audit?limit=100", {"entries": [ENTRY], "before": 7})
    shown = running.relay("audit", "list").stdout
    for words in ("7", "2026-", "ae_title=CT", "failure: TAKEN is another's", "anna"):
        assert words in shown
    assert "\x1b[31m" not in shown
    assert "older ones: --before 7" in shown
    assert json.loads(running.relay("audit", "list", "--json").stdout) == [ENTRY]
    running.will("GET", "/v1/audit?limit=100", {"entries": [], "before": None})
    assert "nothing of that kind" in running.relay("audit", "list").stdout


def test_entries_are_asked_for_as_wanted(router: FakeProcess) -> None:
    router.will("GET", "/v1/audit?limit=5", {"entries": [], "before": None})
    result = router.relay(
        *("audit", "list", "--kind", "transfer", "--ae-title", "CT_1", "--who", "anna"),
        *("--since", "2026-01-01", "--until", "2026-01-02T12:30", "--before", "99", "--limit", "5"),
    )
    assert result.exit_code == 1  # it has no answer for that
    path = router.asked[-1][1]
    for part in ("kind=transfer", "ae_title=CT_1", "who=anna", "before=99", "limit=5"):
        assert part in path
    since, until = (float(path.partition(f"{n}=")[2].partition("&")[0]) for n in ("since", "until"))
    assert until - since == 36.5 * 3600
    assert router.relay("audit", "list", "--kind", "x").exit_code == 2
    assert router.relay("audit", "list", "--since", "yesterday").exit_code == 2


def test_an_entry_is_printed_as_a_message(router: FakeProcess) -> None:
    router.will("GET", "/v1/audit/7.xml", b"<AuditMessage/>")
    assert router.relay("audit", "message", "7").stdout == "<AuditMessage/>\n"
    router.will("GET", "/v1/audit/8.xml", {"error": "no entry 8 in the audit"}, status=404)
    result = router.relay("audit", "message", "8")
    assert (result.exit_code, result.stderr) == (1, "relay: no entry 8 in the audit\n")


def test_entries_are_exported_into_a_new_file(router: FakeProcess, tmp_path: Path) -> None:
    router.will("GET", "/v1/audit.csv?kind=query", b"number,time\r\n" + b"1,x\r\n" * 50_000)
    target = tmp_path / "audit.csv"
    result = router.relay("audit", "export", str(target), "--kind", "query")
    assert result.stdout == f"the audit is in {target}\n"
    assert target.read_bytes().count(b"\n") == 50_001
    again = router.relay("audit", "export", str(target))
    assert (again.exit_code, again.stderr) == (
        1,
        f"relay: {target} is there already: an export gets a new file\n",
    )
    nowhere = router.relay("audit", "export", str(tmp_path / "no" / "audit.csv"))
    assert "No such file" in nowhere.stderr


def test_the_chain_is_verified_and_says_what_to_note(router: FakeProcess) -> None:
    router.will("GET", "/v1/audit/verify", WHOLE)
    shown = router.relay("audit", "verify").stdout
    assert "7 entries, 1 to 7, none was changed" in shown
    assert f"--noted 7:{'ab' * 32}" in shown
    noted = f"7:{'ab' * 32}"
    broken = WHOLE | {"fault": "entry 3 is missing"}
    router.will("GET", f"/v1/audit/verify?noted={noted.replace(':', '%3A')}", broken)
    result = router.relay("audit", "verify", "--noted", noted)
    assert result.exit_code == 1
    assert "the audit is not whole: entry 3 is missing" in result.stderr
    router.will("GET", "/v1/audit/verify", broken)
    result = router.relay("audit", "verify", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, broken)
