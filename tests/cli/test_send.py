import json
from pathlib import Path

import pytest

from relay.cli.part10 import BLOCK
from relay.dicom.commandset import Tag
from relay.dicom.pdu import AAssociateRJ
from tests.cli.conftest import Behind, FakeProcess
from tests.cli.scp import Device
from tests.cli.test_part10 import META, element

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"


def uid(number: int, value: str) -> bytes:
    return element(number, b"UI", value.encode() + b"\0" * (len(value) % 2))


def write(
    folder: Path,
    name: str,
    *,
    sop_class: str = CT,
    syntax: str = EXPLICIT,
    data: bytes = b"a data set",
) -> Path:
    """A file whose SOP instance is 1.2. and the number in its name."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    number = "".join(filter(str.isdigit, name))
    path.write_bytes(META + uid(2, sop_class) + uid(3, f"1.2.{number}") + uid(16, syntax) + data)
    return path


def test_data_sets_arrive_as_they_stand_in_the_files(
    stopped: FakeProcess, behind: Behind, tmp_path: Path
) -> None:
    large = bytes(range(256)) * (2 * BLOCK // 256) + b"ab"
    folder = tmp_path / "files"
    write(folder, "1.dcm", data=large)
    write(folder, "2.dcm", sop_class=MR, syntax=JPEG, data=b"compressed")
    (folder / "notes.txt").write_text("not DICOM, and in a folder: passed over")
    device = Device()
    with behind(device):
        result = stopped.relay("send", "SOUTH_PACS", str(folder))
    assert result.exit_code == 0, result.output
    assert "sent 2 of 2 objects to SOUTH_PACS, 512.0 KiB" in result.stdout
    assert device.data_sets == [large, b"compressed"]
    (rq,) = device.requests
    assert [(c.abstract_syntax, c.transfer_syntaxes) for c in rq.contexts] == [
        (CT, (EXPLICIT,)),
        (MR, (JPEG,)),
    ]
    assert [command.message_id for command in device.commands] == [1, 2]
    assert device.commands[1].text(Tag.AFFECTED_SOP_INSTANCE_UID) == "1.2.2"


def test_each_failure_has_its_reason(stopped: FakeProcess, behind: Behind, tmp_path: Path) -> None:
    paths = [
        write(tmp_path, "1.dcm"),
        write(tmp_path, "2.dcm"),
        write(tmp_path, "3.dcm", sop_class=MR),
        write(tmp_path, "4.dcm"),
        tmp_path / "notes.txt",
    ]
    paths[4].write_text("named, and not DICOM")
    device = Device(statuses={"1.2.2": 0xA700, "1.2.4": 0xB000}, refused_classes=frozenset({MR}))
    with behind(device):
        result = stopped.relay("send", "SOUTH_PACS", *map(str, paths), "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert answer["sent"] == 2
    assert [w["why"] for w in answer["warnings"]] == ["B000H, stored, with a warning"]
    assert {Path(f["path"]).name: f["why"] for f in answer["failures"]} == {
        "2.dcm": "A700H, out of resources",
        "3.dcm": "SOUTH_PACS does not take MR Image Storage in Explicit VR Little Endian",
        "notes.txt": "not a DICOM file (no DICM after 128 bytes)",
    }


def test_an_object_that_breaks_the_association_does_not_take_the_others_along(
    stopped: FakeProcess, behind: Behind, tmp_path: Path
) -> None:
    paths = [write(tmp_path, f"{number}.dcm") for number in range(1, 6)]
    device = Device(aborts_at="1.2.3")
    with behind(device):
        result = stopped.relay("send", "SOUTH_PACS", *map(str, paths))
    assert result.exit_code == 1
    assert "sent 4 of 5 objects" in result.stdout
    assert "3.dcm" in result.stdout
    assert len(device.requests) == 2


@pytest.mark.parametrize("device", [Device(rejects=AAssociateRJ(2, 3, 1))])
def test_where_nothing_gets_through_it_is_tried_once(
    stopped: FakeProcess, behind: Behind, tmp_path: Path, device: Device
) -> None:
    paths = [write(tmp_path, f"{number}.dcm") for number in range(1, 6)]
    with behind(device):
        result = stopped.relay("send", "SOUTH_PACS", *map(str, paths), "--json")
    assert result.exit_code == 1
    failures = json.loads(result.stdout)["failures"]
    assert {failure["why"] for failure in failures} == {
        "rejected for now: temporary congestion; `relay doctor` says more"
    }
    assert len(failures) == 5
    assert len(device.requests) == 1


def test_more_kinds_than_one_association_has_contexts(
    stopped: FakeProcess, behind: Behind, tmp_path: Path
) -> None:
    for number in range(130):
        write(tmp_path / "files", f"{number}.dcm", sop_class=f"1.2.840.113.{number}")
    device = Device()
    with behind(device):
        result = stopped.relay("send", "SOUTH_PACS", str(tmp_path / "files"))
    assert result.exit_code == 0, result.output
    assert [len(rq.contexts) for rq in device.requests] == [128, 2]


def test_a_file_that_is_not_there_was_asked_wrongly(stopped: FakeProcess) -> None:
    assert stopped.relay("send", "SOUTH_PACS", "/none.dcm").exit_code == 2


def test_a_router_that_is_down_is_said_once(stopped: FakeProcess, tmp_path: Path) -> None:
    result = stopped.relay("send", "SOUTH_PACS", str(write(tmp_path, "1.dcm")))
    assert result.exit_code == 1
    assert "relay --mode router" in result.stderr


def test_an_empty_folder_sends_nothing_and_says_so(
    stopped: FakeProcess, behind: Behind, tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    result = stopped.relay("send", "SOUTH_PACS", str(tmp_path / "files"))
    assert result.exit_code == 1
    assert "sent 0 of 0" in result.stdout
    assert result.stdout.endswith(": there is no DICOM file\n")


# --- where it is queued ---------------------------------------------------------------------------

COUNTS = {"waiting": 0, "held": 0, "failed": 0, "delivered": 0, "discarded": 0, "last": 12}
RANGE = "called=PACS&calling=NORTH&after=12&until=12"


@pytest.fixture
def queued(router: FakeProcess) -> FakeProcess:
    """A Router that queues what it sends itself to SOUTH_PACS."""
    way = {"called": "PACS", "local": "SOUTH_PACS", "calling": "NORTH", "queued": True}
    router.will("GET", "/v1/queue/mode?called=SOUTH_PACS", way)
    router.will("GET", "/v1/queue/count?called=PACS", COUNTS)
    router.will("GET", "/v1/queue", {"destinations": []})
    return router


def test_what_is_queued_is_accepted_and_no_more_is_said(
    queued: FakeProcess, behind: Behind, tmp_path: Path
) -> None:
    path = str(write(tmp_path, "1.dcm"))
    with behind(Device()):
        result = queued.relay("send", "SOUTH_PACS", path)
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        assert lines[0].startswith("accepted for delivery 1 of 1 objects to SOUTH_PACS, 10 B")
        assert lines[1].startswith("`relay queue list --to SOUTH_PACS` shows")
        answer = json.loads(queued.relay("send", "SOUTH_PACS", path, "--json").stdout)
    assert (answer["queued"], answer["delivered"], answer["sent"]) == (True, None, 1)


def test_wait_is_until_it_is_delivered(queued: FakeProcess, behind: Behind, tmp_path: Path) -> None:
    looks = iter([{"waiting": 2}, {"waiting": 1, "delivered": 1}, {"delivered": 2}])
    queued.will("GET", f"/v1/queue/count?{RANGE}", lambda: COUNTS | next(looks))
    paths = [str(write(tmp_path, f"{number}.dcm")) for number in (1, 2)]
    with behind(Device()):
        result = queued.relay("send", "SOUTH_PACS", *paths, "--wait")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("delivered 2 of 2 objects to SOUTH_PACS, 20 B in ")
    assert next(looks, None) is None


def test_wait_says_what_failed_and_why(queued: FakeProcess, behind: Behind, tmp_path: Path) -> None:
    queued.will("GET", f"/v1/queue/count?{RANGE}", COUNTS | {"failed": 2, "delivered": 1})
    ours = {"number": 13, "state": "failed", "sop_instance": "1.2.2", "reason": "A900, no match"}
    items = {"items": [ours, ours | {"sop_instance": "1.9"}], "next": None}
    queued.will("GET", f"/v1/queue/items?{RANGE}&state=failed&limit=1000", items)
    paths = [str(write(tmp_path, f"{number}.dcm")) for number in (1, 2)]
    with behind(Device()):
        result = queued.relay("send", "SOUTH_PACS", *paths, "--wait", "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert (answer["sent"], answer["delivered"], answer["waiting"]) == (2, 1, 0)
    assert answer["failures"] == [{"path": paths[1], "why": "failed: A900, no match"}]


def test_a_wait_that_takes_too_long_says_that_the_queue_goes_on(
    queued: FakeProcess, behind: Behind, tmp_path: Path
) -> None:
    queued.will("GET", f"/v1/queue/count?{RANGE}", COUNTS | {"waiting": 1})
    place = {"called": "PACS", "local": "SOUTH_PACS", "paused": None, "trouble": "South is away"}
    queued.will("GET", "/v1/queue", {"destinations": [place]})
    path = str(write(tmp_path, "1.dcm"))
    with behind(Device()):
        result = queued.relay("send", "SOUTH_PACS", path, "--wait", "--timeout", "0.01")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1:] == [
        "1 waited still when the time was over: the queue goes on by itself;"
        " `relay queue list --to SOUTH_PACS` shows how"
    ]
    assert result.stdout.startswith("delivered 0 of 1 objects")
    assert "SOUTH_PACS: South is away" in result.stderr


def test_a_wait_for_a_paused_destination_says_who_lets_it_go_on(
    queued: FakeProcess, behind: Behind, tmp_path: Path
) -> None:
    queued.will("GET", f"/v1/queue/count?{RANGE}", COUNTS | {"waiting": 1})
    pause = {"by": "person", "reason": "it moves", "since": 1.0}
    place = {"called": "PACS", "local": "SOUTH_PACS", "paused": pause, "trouble": None}
    queued.will("GET", "/v1/queue", {"destinations": [place]})
    path = str(write(tmp_path, "1.dcm"))
    with behind(Device()):
        result = queued.relay("send", "SOUTH_PACS", path, "--wait", "--timeout", "0.01")
    assert (result.exit_code, result.stdout.splitlines()[1:]) == (
        1,
        [
            "1 waited still when the time was over: SOUTH_PACS is paused by a person, it moves;"
            " `relay queue resume SOUTH_PACS` lets it go on"
        ],
    )


def test_a_wait_that_a_person_ends_says_that_the_queue_goes_on(
    queued: FakeProcess, behind: Behind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("relay.cli.awaiting.time.sleep", interrupted)
    queued.will("GET", f"/v1/queue/count?{RANGE}", COUNTS | {"waiting": 1})
    with behind(Device()):
        result = queued.relay("send", "SOUTH_PACS", str(write(tmp_path, "1.dcm")), "--wait")
    assert result.exit_code == 1
    assert "1 waited still: the queue goes on by itself" in result.stdout


def test_where_nothing_is_queued_wait_waits_for_nothing(
    router: FakeProcess, behind: Behind, tmp_path: Path
) -> None:
    way = {"called": "PACS", "local": "SOUTH_PACS", "calling": "NORTH", "queued": False}
    router.will("GET", "/v1/queue/mode?called=SOUTH_PACS", way)
    with behind(Device()):
        result = router.relay("send", "SOUTH_PACS", str(write(tmp_path, "1.dcm")), "--wait")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("sent 1 of 1 objects")
    assert len(router.asked) == 1


def test_a_timeout_without_a_wait_was_asked_wrongly(stopped: FakeProcess, tmp_path: Path) -> None:
    path = str(write(tmp_path, "1.dcm"))
    result = stopped.relay("send", "SOUTH_PACS", path, "--timeout", "5")
    assert result.exit_code == 2
    assert "--timeout is for --wait" in result.stderr
