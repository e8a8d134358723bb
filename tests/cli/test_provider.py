import json
from pathlib import Path

import pytest

from tests.cli.conftest import FakeProcess

ROW = {
    "name": "cloud",
    "kind": "s3",
    "in_use": True,
    "place": 1,
    "origin": "https://bucket.example.org",
    "leaving": False,
    "failing": True,
    "worked": True,
    "last_failure": "S3 bucket b: NoSuchBucket",
    "failed_at": 1_800_000_000,
    "sessions": 3,
}


def test_stores_are_listed_with_how_they_do(bridge: FakeProcess) -> None:
    fine = ROW | {"name": "disk", "kind": "disk", "place": 2, "failing": False, "failed_at": None}
    gone = fine | {"name": "old", "place": 0, "leaving": True}
    new = fine | {"name": "new", "place": 0, "worked": False}
    never = new | {"name": "never", "failed_at": 1_800_000_000}
    bridge.will("GET", "/v1/providers", [ROW, fine, gone, new, never])
    lines = bridge.relay("provider", "list").stdout.splitlines()
    assert "failing" in lines[1]
    assert "NoSuchBucket" in lines[1]
    assert lines[2].split()[:4] == ["disk", "disk", "2", "works"]
    assert lines[3].split()[:4] == ["old", "disk", "no", "leaving"]
    assert lines[4].split()[:5] == ["new", "disk", "no", "not", "checked"]
    assert lines[5].split()[:4] == ["never", "disk", "no", "failing"]
    assert json.loads(bridge.relay("provider", "list", "--json").stdout)[0] == ROW


def test_a_store_is_added_with_paths_that_the_bridge_finds(
    bridge: FakeProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    bridge.will("POST", "/v1/providers", b"", status=201)
    result = bridge.relay(
        *("provider", "add", "cloud", "s3", "bucket=b", "access_key=env:KEY"),
        *("secret_key=file:secret", "endpoint=https://s3.example.org", "ca_file=ca.pem"),
    )
    assert result.exit_code == 0, result.output
    assert "relay provider use cloud" in result.stdout
    assert bridge.asked[0][2] == {
        "name": "cloud",
        "kind": "s3",
        "settings": {
            "bucket": "b",
            "access_key": "env:KEY",
            "secret_key": f"file:{tmp_path}/secret",
            "endpoint": "https://s3.example.org",
            "ca_file": f"{tmp_path}/ca.pem",
        },
    }


def test_a_setting_without_a_value_is_asked_wrongly(bridge: FakeProcess) -> None:
    result = bridge.relay("provider", "add", "cloud", "s3", "bucket")
    assert result.exit_code == 2
    assert "bucket: expected KEY=VALUE" in result.stderr
    result = bridge.relay("provider", "add", "cloud", "s3", "=very-secret")
    assert result.exit_code == 2
    assert "very-secret" not in result.stderr
    assert bridge.asked == []


@pytest.mark.parametrize(
    ("names", "words"),
    [(("cloud",), "use cloud\n"), (("cloud", "disk"), "use cloud; if it fails: disk")],
)
def test_stores_are_put_in_order(bridge: FakeProcess, names: tuple[str, ...], words: str) -> None:
    bridge.will("POST", "/v1/providers/use", b"", status=204)
    bridge.will("GET", "/v1/providers", [ROW | {"failing": False}])
    said = bridge.relay("provider", "use", *names).stdout
    assert words in said
    assert "fails now" not in said
    assert bridge.asked[0][2] == {"names": list(names)}


def test_a_store_that_fails_is_named_when_it_is_to_be_used(bridge: FakeProcess) -> None:
    bridge.will("POST", "/v1/providers/use", b"", status=204)
    bridge.will("GET", "/v1/providers", [ROW, ROW | {"name": "other"}])
    result = bridge.relay("provider", "use", "cloud")
    assert "cloud fails now: S3 bucket b: NoSuchBucket\n" in result.stdout
    assert "other" not in result.stdout


@pytest.mark.parametrize(("sessions", "words"), [(0, "is removed"), (2, "when the 2 that rest")])
def test_a_store_is_removed_now_or_later(bridge: FakeProcess, sessions: int, words: str) -> None:
    bridge.will("DELETE", "/v1/providers/cloud", {"sessions": sessions})
    assert words in bridge.relay("provider", "remove", "cloud").stdout


@pytest.mark.parametrize(("fine", "status"), [(True, 0), (False, 1)])
def test_a_store_is_checked(bridge: FakeProcess, fine: bool, status: int) -> None:
    findings = [{"what": "PUT", "ok": fine, "advice": "" if fine else "look at the log"}]
    bridge.will("POST", "/v1/providers/disk/check", {"findings": findings})
    result = bridge.relay("provider", "check")
    assert result.exit_code == status
    assert ("look at the log" in result.stdout) is not fine
    result = bridge.relay("provider", "check", "disk", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (status, findings)
