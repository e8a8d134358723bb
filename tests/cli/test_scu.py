import json

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


def test_a_wrong_key_was_asked_wrongly(stopped: FakeProcess) -> None:
    result = stopped.relay("find", "SOUTH_PACS", "Patient=1")
    assert result.exit_code == 2
    assert "Patient is no DICOM keyword" in result.stderr


def test_a_router_that_is_down_is_said(stopped: FakeProcess) -> None:
    result = stopped.relay("echo", "SOUTH_PACS")
    assert result.exit_code == 1
    assert "relay --mode router" in result.stderr
