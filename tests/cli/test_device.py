import json
from pathlib import Path
from typing import Any

import pytest

from relay.router.devices import Device
from tests.cli.conftest import DEVICE, FINGERPRINT, GRANT, FakeProcess


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
    refusal = (
        "PACS is published by South already: publish it under another title with"
        " `relay device add PACS 10.0.0.2 --as PACS_NORTH`"
    )
    taken = DEVICE | {"refusal": refusal}
    router.will("GET", "/v1/devices", [taken])
    router.will("POST", "/v1/devices", taken)
    result = router.relay("device", "add", "PACS", "10.0.0.2", "--publish", "store")
    assert result.exit_code == 1
    assert result.stderr == f"relay: PACS is set, but not published: {refusal}\n"
    shown = router.relay("device", "list").stdout
    assert "refused" in shown
    assert f"PACS is not published: {refusal}\n" in shown


def test_the_published_title_is_shown(router: FakeProcess) -> None:
    other = DEVICE | {"published_as": "PACS_NORTH"}
    router.will("GET", "/v1/devices", [DEVICE])
    router.will("POST", "/v1/devices", other)
    result = router.relay("device", "add", "PACS", "10.0.0.2", "--as", "PACS_NORTH")
    assert router.asked[-1][2] == other
    assert result.stdout.startswith("PACS (published as PACS_NORTH) at 10.0.0.2:104, published")
    assert "changed: published as: PACS -> PACS_NORTH" in result.stdout
    router.will("GET", "/v1/devices", [other, DEVICE | {"ae_title": "WS", "services": []}])
    _, pacs, ws = router.relay("device", "list").stdout.splitlines()
    assert "PACS_NORTH" in pacs
    assert "PACS" not in ws


@pytest.mark.parametrize(
    ("federation", "words"), [(False, "nobody sees it"), (True, "this hospital's federation asks")]
)
def test_a_device_that_is_not_published_says_so(
    federation: bool, words: str, router: FakeProcess
) -> None:
    router.will("GET", "/v1/devices", [])
    device = {"ae_title": "CT1", "host": "10.0.0.3", "services": [], "federation": federation}
    router.will("POST", "/v1/devices", DEVICE | device)
    result = router.relay("device", "add", "CT1", "10.0.0.3")
    assert "CT1 at 10.0.0.3:104, not published" in result.stdout
    assert words in result.stdout
    assert "device test" not in result.stdout
    assert "services" not in router.asked[-1][2]


def test_devices_are_listed(router: FakeProcess) -> None:
    router.will("GET", "/v1/devices", [DEVICE])
    assert "store, query" in router.relay("device", "list").stdout
    assert json.loads(router.relay("device", "list", "--json").stdout) == [DEVICE]
    router.will("GET", "/v1/devices", [])
    assert "relay device add" in router.relay("device", "list").stdout


def test_what_is_not_as_usual_is_listed(router: FakeProcess) -> None:
    usual = Device("PACS", "10.0.0.2").to_json()
    other = usual | {
        "move_via": "router",
        "present_as": "OUT",
        "tls": True,
        "linger": 5.0,
        "split": 3,
        "declares": {"1.2": ["1.3"]},
        "federation": True,
        "issuer": "NORTH",
        "character_set": "ISO_IR 192",
        "get_via_move": True,
    }
    router.will("GET", "/v1/devices", [usual, other])
    _, first, second = router.relay("device", "list").stdout.splitlines()
    assert first.rstrip().endswith("-")
    assert second.rstrip().endswith(
        "move via router, present as OUT, tls, linger 5.0, split 3, federation, issuer NORTH,"
        " character set ISO_IR 192, get via move, declares what it takes"
    )


def test_what_the_federation_is_told_of_a_device(router: FakeProcess) -> None:
    router.will("GET", "/v1/devices", [])
    router.will("POST", "/v1/devices", DEVICE, status=201)
    router.relay(
        *("device", "add", "PACS", "10.0.0.2", "--federation", "--issuer", "NORTH"),
        *("--character-set", "\\ISO 2022 IR 87", "--get-via-move"),
    )
    told = {
        "federation": True,
        "issuer": "NORTH",
        "character_set": "\\ISO 2022 IR 87",
        "get_via_move": True,
    }
    assert router.asked[-1][2] == {"ae_title": "PACS", "host": "10.0.0.2"} | told
    router.will("GET", "/v1/devices", [DEVICE | told])
    router.relay(
        *("device", "add", "PACS", "10.0.0.2", "--no-federation", "--issuer", "none"),
        *("--character-set", "none", "--no-get-via-move"),
    )
    assert router.asked[-1][2] == DEVICE | {
        "federation": False,
        "issuer": "",
        "character_set": "",
        "get_via_move": False,
    }


TAKEN = {"1.2.840.10008.5.1.4.1.1.2": ["1.2.840.10008.1.2"]}


@pytest.mark.parametrize("document", [TAKEN, {"findings": [], "accepted": TAKEN}])
def test_what_a_device_takes_may_be_declared(
    router: FakeProcess, tmp_path: Path, document: dict[str, Any]
) -> None:
    router.will("GET", "/v1/devices", [DEVICE | {"declares": {}, "split": 1}])
    router.will("POST", "/v1/devices", DEVICE | {"declares": TAKEN, "split": 2})
    file = tmp_path / "takes.json"
    file.write_text(json.dumps(document))
    result = router.relay(
        *("device", "add", "PACS", "10.0.0.2", "--split", "2", "--declares", str(file))
    )
    assert (router.asked[-1][2]["declares"], router.asked[-1][2]["split"]) == (TAKEN, 2)
    assert "changed: declares: none -> 1 entries; split: 1 -> 2" in result.stdout
    router.relay("device", "add", "PACS", "10.0.0.2", "--declares", "none")
    assert router.asked[-1][2]["declares"] == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), ("{", "Expecting"), ("[]", "expected SOP classes"), ("{}", "none`")],
)
def test_what_is_no_declaration(
    router: FakeProcess, tmp_path: Path, content: str | None, words: str
) -> None:
    file = tmp_path / "takes.json"
    if content is not None:
        file.write_text(content)
    result = router.relay("device", "add", "PACS", "10.0.0.2", "--declares", str(file))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"relay: {file}: ")
    assert words in result.stderr
    assert not router.asked


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
