import json

import pytest
from pydicom.dataset import Dataset

from relay.cli import identifier
from relay.cli.scu import MODELS
from relay.dicom.commandset import Tag
from tests.cli.conftest import Behind, FakeProcess
from tests.cli.scp import Device

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def match(name: str) -> bytes:
    answer = Dataset()
    answer.PatientName = name
    answer.StudyInstanceUID = "1.2.3"
    return identifier.encode(answer, implicit=False)


def test_an_echo_says_how_long_it_took(stopped: FakeProcess, behind: Behind) -> None:
    device = Device()
    with behind(device):
        result = stopped.relay("echo", "SOUTH_PACS", "--count", "3")
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("SOUTH_PACS answered 3 times, in ")
        answer = json.loads(stopped.relay("echo", "SOUTH_PACS", "--json").stdout)
    assert len(answer["milliseconds"]) == 1
    assert len(device.commands) == 4


def test_an_echo_that_fails_says_why(stopped: FakeProcess, behind: Behind) -> None:
    with behind(Device(status=0x0122)):
        result = stopped.relay("echo", "SOUTH_PACS")
    assert (result.exit_code, result.stderr) == (
        1,
        "relay: SOUTH_PACS answered 0122H, SOP class not supported\n",
    )
    with behind(Device(refused_classes=frozenset({"1.2.840.10008.1.1"}))):
        assert "does not offer C-ECHO" in stopped.relay("echo", "SOUTH_PACS").stderr


def test_matches_are_shown_by_the_keys_asked_for(stopped: FakeProcess, behind: Behind) -> None:
    device = Device(found=[match("DOE^JANE"), match("DOE^JOHN")])
    with behind(device):
        result = stopped.relay("find", "SOUTH_PACS", "PatientName=DOE*", "StudyInstanceUID")
        assert result.exit_code == 0, result.output
        found = json.loads(stopped.relay("find", "SOUTH_PACS", "PatientID=1", "--json").stdout)
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["PatientName", "StudyInstanceUID"],
        ["DOE^JANE", "1.2.3"],
        ["DOE^JOHN", "1.2.3"],
    ]
    assert found[0]["00100010"]["Value"] == [{"Alphabetic": "DOE^JANE"}]
    assert device.commands[0].text(Tag.AFFECTED_SOP_CLASS_UID) == STUDY_ROOT_FIND
    assert b"DOE*" in device.data_sets[0]
    assert b"STUDY" in device.data_sets[0]


def test_no_match_is_no_failure(stopped: FakeProcess, behind: Behind) -> None:
    with behind(Device()):
        result = stopped.relay("find", "SOUTH_PACS", "PatientID=none", "--model", "worklist")
    assert (result.exit_code, result.stdout) == (0, "no match\n")


def test_too_many_matches_are_cancelled(stopped: FakeProcess, behind: Behind) -> None:
    with behind(Device(found=[match("A"), match("B"), match("C")], waits_for_cancel=True)):
        result = stopped.relay("find", "SOUTH_PACS", "PatientName", "--limit", "2")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 3
    assert "stopped after 2 answers" in result.stderr


def test_a_query_that_fails_is_status_1(stopped: FakeProcess, behind: Behind) -> None:
    with behind(Device(status=0xA700)):
        result = stopped.relay("find", "SOUTH_PACS", "PatientID=1")
    assert result.exit_code == 1
    assert "A700H, out of resources" in result.stderr
    assert result.stdout == ""
    with behind(Device(refused_classes=frozenset(MODELS.values()))):
        assert (
            "does not offer this query" in stopped.relay("find", "SOUTH_PACS", "PatientID").stderr
        )


def test_as_many_as_may_be_are_all_there_is(stopped: FakeProcess, behind: Behind) -> None:
    with behind(Device(found=[match("A"), match("B")])):
        result = stopped.relay("find", "SOUTH_PACS", "PatientName", "--limit", "2")
    assert (result.exit_code, result.stderr) == (0, "")
    # All have come before they could be stopped.
    with behind(Device(found=[match(name) for name in "ABCD"])):
        result = stopped.relay("find", "SOUTH_PACS", "PatientName", "--limit", "2")
    assert len(result.stdout.splitlines()) == 3
    assert "stopped after 2 answers" in result.stderr


@pytest.mark.parametrize("first", ["PatientID=1", "PatientID", "UNKNOWN_KEY=1"])
def test_without_an_ae_title_the_federation_is_asked(
    router: FakeProcess, behind: Behind, first: str
) -> None:
    router.will("GET", "/v1/status", {"federation": "EVERYWHERE"})
    device = Device(found=[match("DOE^JANE")])
    with behind(device):
        result = router.relay("find", first, "PatientName=DOE*")
    if first.startswith("UNKNOWN"):
        assert "UNKNOWN_KEY is no DICOM keyword" in result.stderr
        return
    assert result.exit_code == 0, result.output
    assert "DOE^JANE" in result.stdout
    assert [request.called for request in device.requests] == ["EVERYWHERE"]


def test_what_is_missing_is_said_behind_what_there_is(router: FakeProcess, behind: Behind) -> None:
    router.will("GET", "/v1/status", {"federation": "EVERYWHERE"})
    comment = "incomplete: SOUTH_PACS unreachable"
    with behind(Device(found=[match("DOE^JANE")], status=0xC001, comment=comment)):
        result = router.relay("find", "PatientID=1", "PatientName")
        shown = router.relay("find", "PatientID=1", "--json")
        named = router.relay("find", "EVERYWHERE", "PatientID=1")
    assert result.exit_code == shown.exit_code == named.exit_code == 1
    assert "DOE^JANE" in result.stdout
    assert len(json.loads(shown.stdout)) == 1
    assert result.stderr == f"relay: {comment}; `relay directory` says why\n"
    assert f"EVERYWHERE answered C001H, cannot understand: {comment}" in named.stderr


def test_what_the_federation_refuses_is_said(router: FakeProcess, behind: Behind) -> None:
    router.will("GET", "/v1/status", {"federation": "EVERYWHERE"})
    comment = "a key is needed that narrows the query, as an ID or a date"
    with behind(Device(status=0xC000, comment=comment)):
        result = router.relay("find", "PatientName")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"relay: the federation refuses the query: {comment}\n"
    with behind(Device(status=0xA700)):
        result = router.relay("find", "PatientName")
    assert result.stderr == "relay: EVERYWHERE answered A700H, out of resources\n"


def test_where_there_is_no_federation_a_device_is_named(router: FakeProcess) -> None:
    router.will("GET", "/v1/status", {"federation": None})
    result = router.relay("find", "PatientID=1")
    assert result.exit_code == 1
    assert "this Router has no federation" in result.stderr
    assert router.relay("find").exit_code == 2
    worklist = router.relay("find", "PatientID=1", "--model", "worklist")
    assert (worklist.exit_code, "a worklist is one device's" in worklist.stderr) == (2, True)


def test_a_wrong_key_was_asked_wrongly(stopped: FakeProcess) -> None:
    result = stopped.relay("find", "SOUTH_PACS", "Patient=1")
    assert result.exit_code == 2
    assert "Patient is no DICOM keyword" in result.stderr


def test_a_router_that_is_down_is_said(stopped: FakeProcess) -> None:
    result = stopped.relay("echo", "SOUTH_PACS")
    assert result.exit_code == 1
    assert "relay --mode router" in result.stderr
