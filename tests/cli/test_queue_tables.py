"""What people are shown of the queue, in words and in their own time."""

from typing import Any

import pytest

from relay.cli.output import local_time
from relay.cli.queue_tables import show_destinations, show_item, show_items, show_studies
from tests.cli.conftest import FINGERPRINT

PLACE: dict[str, Any] = {
    "called": "PACS",
    "local": "PACS_S",
    "peer": FINGERPRINT,
    "name": "South Hospital",
}
ITEM = PLACE | {
    "number": 7,
    "id": "00" * 16,
    "state": "failed",
    "hold": None,
    "attempts": 5,
    "due": None,
    "status": "C001",
    "reason": "tried alone 5 times; C001, cannot understand",
    "sop_class": "1.2.840.10008.5.1.4.1.1.2",
    "sop_instance": "1.2.3.4",
    "transfer_syntax": "1.2.840.10008.1.2.1",
    "study": "1.2.3",
    "length": 524288,
    "accepted": 1_780_300_000.0,
    "ended": 1_780_300_600.0,
    "calling": "CT_N",
    "device": "CT",
    "batch": 3,
    "priority": "normal",
    "paused": None,
    "trouble": None,
    "again": None,
}


def standing(**others: Any) -> dict[str, Any]:
    return (
        PLACE
        | {"waiting": 3, "held": 0, "failed": 0, "delivered": 90, "discarded": 0}
        | {"bytes": {"waiting": 3 * 2**20, "delivered": 90 * 2**20}}
        | {"queued": True, "oldest": 1_780_300_000.0, "sessions": 0}
        | {"paused": None, "trouble": None, "again": None}
        | others
    )


def overview(*places: dict[str, Any], refusing: str | None = None) -> dict[str, Any]:
    room = {"used": 1, "maximum": 2, "free": 3, "reserve": 4, "refusing": refusing}
    return {"destinations": list(places), "room": room}


def out(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("others", "words"),
    [
        (
            {"paused": {"by": "person", "reason": "PACS moves house", "since": 1.0}},
            f"paused by a person since {local_time(1.0)}: PACS moves house",
        ),
        (
            {"paused": {"by": "device", "reason": "0124, not authorized", "since": 1.0}},
            f"paused by its own answer since {local_time(1.0)}: 0124, not authorized",
        ),
        ({"sessions": 1, "trouble": "the last one was cut off"}, "sending; the last one was cut"),
        (
            {"trouble": "South is away", "again": 4_000_000_000.0},
            f"South is away; tried again at {local_time(4_000_000_000.0)}",
        ),
        ({"held": 1, "failed": 2}, "held; failed"),
        ({"queued": False}, "no destination any more"),
        ({"name": "", "peer": None}, "nobody now"),
    ],
)
def test_how_a_destination_stands_is_said_in_words(
    capsys: pytest.CaptureFixture[str], others: dict[str, Any], words: str
) -> None:
    show_destinations(overview(standing(**others)))
    assert words in out(capsys)


def test_an_empty_queue_says_how_to_have_one(capsys: pytest.CaptureFixture[str]) -> None:
    show_destinations(overview(refusing="the spool holds 2 bytes of at most 2"))
    lines = out(capsys).splitlines()
    assert "relay destination add AE_TITLE" in lines[0]
    assert lines[1] == "no more objects are accepted: the spool holds 2 bytes of at most 2"


def test_what_waits_for_its_time_says_when(capsys: pytest.CaptureFixture[str]) -> None:
    later = 4_000_000_000.0
    item = ITEM | {"state": "waiting", "again": later, "reason": "A700, no room"}
    show_items({"items": [item, item | {"reason": ""}, item | {"again": None}], "next": None})
    _, first, second, third = (line.rstrip() for line in out(capsys).splitlines())
    again = f"again at {local_time(later)}"
    assert first.endswith(f"A700, no room; {again}")
    assert second.endswith(f"  {again}")
    assert third.endswith("A700, no room")


def test_what_waits_says_what_its_destination_waits_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    item = ITEM | {"state": "waiting", "reason": "", "trouble": "South is away"}
    pause = {"by": "person", "reason": "moves house", "since": 1.0}
    show_items({"items": [item, item | {"paused": pause}], "next": None})
    _, away, stopped = (line.rstrip() for line in out(capsys).splitlines())
    assert away.endswith("5      South is away")
    assert stopped.endswith(f"5      paused by a person since {local_time(1.0)}: moves house")
    show_item(item | {"reason": "South is away"})
    assert out(capsys).count("South is away") == 1


def test_what_is_not_known_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    nobody = PLACE | {"peer": None, "name": ""}
    show_item(ITEM | nobody | {"study": "", "status": None, "ended": None, "sop_class": "1.2.3"})
    lines = dict(line.split("  ", 1) for line in out(capsys).splitlines())
    shown = {name: value.strip() for name, value in lines.items()}
    assert shown["to"] == "PACS_S (published as PACS) of nobody now"
    assert (shown["study"], shown["kind"], shown["ended"]) == ("not known", "1.2.3", "-")
    assert shown["device's last answer"] == "-"


def test_a_study_without_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    study = PLACE | {"study": "", "accepted": 2, "delivered": 0, "failed": 0, "waiting": 1}
    study |= {"discarded": 1}
    show_studies([study | {"since": 1.0, "until": None}])
    row = out(capsys).splitlines()[1]
    assert row.startswith("not known  PACS_S  2         0")
    assert row.rstrip().endswith("-")
    show_studies([])
    assert out(capsys) == "no such studies\n"
