"""`relay queue`: what is asked of the Router, and what people are told."""

import json

import pytest

from relay.cli.output import local_time
from tests.cli.conftest import FakeProcess
from tests.cli.test_queue_tables import ITEM, PLACE, overview, standing

BEFORE = {"waiting": 0, "held": 0, "failed": 0, "delivered": 0, "discarded": 0}
COUNTS = {"waiting": 3, "held": 1, "failed": 2, "delivered": 90, "discarded": 4, "last": 100}


def shown(router: FakeProcess, *arguments: str) -> str:
    result = router.relay("queue", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


# --- list -----------------------------------------------------------------------------------------


def test_without_options_the_list_is_by_destination(router: FakeProcess) -> None:
    place = standing(sessions=2)
    router.will("GET", "/v1/queue", overview(place))
    head, row = shown(router, "list").splitlines()
    columns = "to of waiting held failed delivered size oldest how it stands"
    assert " ".join(head.split()) == columns
    assert row.startswith("PACS_S (published as PACS)  South Hospital  3        0     0       90")
    assert "3.0 MiB" in row  # of what waits, not of what is delivered
    assert local_time(1_780_300_000.0) in row
    assert row.rstrip().endswith("sending")
    assert json.loads(shown(router, "list", "--json")) == [place]


def test_a_filter_shows_objects_and_why(router: FakeProcess) -> None:
    path = "/v1/queue/items?called=PACS_S&calling=CT&study=1.2.3&state=failed&limit=2&latest=true"
    router.will("GET", path, {"items": [ITEM], "next": None})
    options = ("--to", "PACS_S", "--from", "CT", "--study", "1.2.3", "--state", "failed")
    row = shown(router, "list", *options, "--limit", "2").splitlines()[1]
    for words in ("7", "PACS_S", "CT", "failed", local_time(ITEM["accepted"]), "512.0 KiB", "5"):
        assert words in row
    assert row.rstrip().endswith("tried alone 5 times; C001, cannot understand")


def test_objects_come_in_pages(router: FakeProcess) -> None:
    router.will("GET", "/v1/queue/items?limit=100&latest=true", {"items": [ITEM], "next": 7})
    assert "there are more: `--until 7` shows them" in shown(router, "list", "--items")
    router.will("GET", "/v1/queue/items?until=7&limit=100&latest=true", {"items": [], "next": None})
    assert shown(router, "list", "--items", "--until", "7") == "no such objects\n"


def test_studies_are_counted(router: FakeProcess) -> None:
    study = PLACE | {"study": "1.2.3", "accepted": 120, "delivered": 100, "failed": 2}
    study |= {"waiting": 17, "discarded": 1, "since": 1_780_300_000.0, "until": None}
    router.will("GET", "/v1/queue/studies?called=PACS_S&limit=100", [study, study | {"study": ""}])
    table = shown(router, "list", "--studies", "--to", "PACS_S")
    assert table.splitlines()[1].split()[:7] == ["1.2.3", "PACS_S", "120", "100", "2", "17", "1"]
    assert "not known" in table


def test_a_list_is_asked_for_wrongly(router: FakeProcess) -> None:
    assert router.relay("queue", "list", "--items", "--studies").exit_code == 2
    assert router.relay("queue", "list", "--state", "lost").exit_code == 2
    assert router.relay("queue", "list", "--limit", "1001").exit_code == 2
    router.will(
        "GET",
        "/v1/queue/items?called=X&limit=100&latest=true",
        {"error": "no destination 'X'"},
        status=404,
    )
    result = router.relay("queue", "list", "--to", "X")
    assert (result.exit_code, result.stderr) == (1, "relay: no destination 'X'\n")


# --- show -----------------------------------------------------------------------------------------


def test_one_object_is_shown_whole(router: FakeProcess) -> None:
    router.will("GET", "/v1/queue/items/7", ITEM)
    text = shown(router, "show", "7")
    for words in (
        "PACS_S (published as PACS) of South Hospital",
        "CT (published as CT_N)",
        "tried alone 5 times",
        "C001H",
        "CT Image Storage (1.2.840.10008.5.1.4.1.1.2)",
        "Explicit VR Little Endian",
        "1.2.3.4",
        local_time(ITEM["ended"]),
    ):
        assert words in text
    assert json.loads(shown(router, "show", "7", "--json")) == ITEM
    assert router.relay("queue", "show", "8").exit_code == 1


# --- retry and discard ----------------------------------------------------------------------------


def retried(count: int, **before: int) -> dict[str, object]:
    return {"items": count, "before": BEFORE | before, "paused": []}


def test_a_retry_is_of_what_is_named(router: FakeProcess) -> None:
    router.will("POST", "/v1/queue/retry", retried(2, failed=2))
    assert shown(router, "retry", "--to", "PACS_S", "--state", "failed") == (
        "2 objects to be tried again now\n"
    )
    assert router.asked[-1][2] == {"called": "PACS_S", "state": "failed"}
    shown(router, "retry", "9", "7", "9")
    assert router.asked[-1][2] == {"numbers": [7, 9]}
    shown(router, "retry", "--all")
    assert router.asked[-1][2] == {"all": True}


def test_who_names_numbers_means_each(router: FakeProcess) -> None:
    router.will("POST", "/v1/queue/retry", retried(1, failed=1, delivered=1))
    result = router.relay("queue", "retry", "7", "8")
    assert result.exit_code == 1
    assert result.stderr.startswith("relay: 1 of 2 tried again: it is delivered; `relay queue")


def test_nothing_to_do_is_no_failure_where_none_was_named(router: FakeProcess) -> None:
    router.will("POST", "/v1/queue/retry", retried(0))
    assert shown(router, "retry", "--all") == "nothing is there to be tried\n"
    router.will("POST", "/v1/queue/retry", retried(0, delivered=3, waiting=2))
    assert shown(router, "retry", "--all") == (
        "nothing is there to be tried: 3 are delivered, 2 not: each waits for its first attempt\n"
    )


def test_a_retry_for_a_paused_destination_says_how_it_goes_on(router: FakeProcess) -> None:
    pause = {"by": "person", "reason": "moves house", "since": 1.0}
    for count, first in ((0, ""), (2, "2 objects to be tried again\n")):
        answer = retried(count, waiting=7) | {"paused": [PLACE | {"paused": pause}]}
        router.will("POST", "/v1/queue/retry", answer)
        assert shown(router, "retry", "--to", "PACS_S") == (
            f"{first}PACS_S (published as PACS) is paused by a person since {local_time(1.0)}:"
            " moves house; what waits for it goes on with `relay queue resume PACS_S`\n"
        )


@pytest.mark.parametrize("command", ["retry", "discard"])
def test_everything_is_never_meant_without_a_word(router: FakeProcess, command: str) -> None:
    result = router.relay("queue", command)
    assert result.exit_code == 2
    assert "--all" in result.stderr
    assert router.relay("queue", command, "--all", "--to", "X").exit_code == 2
    assert router.relay("queue", command, "--state", "delivered").exit_code == 2
    assert router.relay("queue", command, "0").exit_code == 2
    assert not router.asked


def test_a_discard_asks_first_and_means_no_more_than_it_asked_about(router: FakeProcess) -> None:
    router.will("GET", "/v1/queue/count?called=PACS_S&state=failed", COUNTS)
    router.will("POST", "/v1/queue/discard", {"items": 6})
    arguments = ("queue", "discard", "--to", "PACS_S", "--state", "failed")
    result = router.relay(*arguments)  # nobody answers
    assert result.exit_code == 1
    assert "discard 6 objects?" in result.output
    assert [method for method, _, _ in router.asked] == ["GET"]
    result = router.relay(*arguments, "--yes")
    assert (result.exit_code, result.stdout) == (0, "6 objects discarded\n")
    assert router.asked[-1][2] == {"called": "PACS_S", "state": "failed", "until": 100}


def test_a_discard_of_all_or_by_numbers(router: FakeProcess) -> None:
    router.will("GET", "/v1/queue/count", COUNTS | {"waiting": 0, "held": 0, "failed": 0})
    assert shown(router, "discard", "--all") == "nothing is there to be discarded\n"
    one = COUNTS | {"waiting": 0, "held": 0, "failed": 1}
    router.will("GET", "/v1/queue/count?numbers=7", one)
    router.will("POST", "/v1/queue/discard", {"items": 1})
    assert shown(router, "discard", "7", "--yes") == "1 object discarded\n"
    assert router.asked[-1][2] == {"numbers": [7], "until": 100}
    router.will("GET", "/v1/queue/count?numbers=7%2C8", one)
    assert router.relay("queue", "discard", "7", "8", "--yes").exit_code == 1


# --- pause and resume -----------------------------------------------------------------------------


def test_a_destination_is_paused_and_resumed(router: FakeProcess) -> None:
    pause = {"by": "person", "reason": "moves house", "since": 1.0}
    router.will("POST", "/v1/queue/pause", PLACE | {"paused": pause})
    words = "PACS_S (published as PACS): paused; `relay queue resume PACS_S` lets it go on\n"
    assert shown(router, "pause", "PACS_S", "--reason", "moves house") == words
    assert router.asked[-1][2] == {"called": "PACS_S", "reason": "moves house"}
    for was, says in ((True, "goes on"), (False, "was not paused")):
        router.will("POST", "/v1/queue/resume", PLACE | {"was_paused": was})
        assert shown(router, "resume", "PACS_S") == f"PACS_S (published as PACS): {says}\n"
    assert router.asked[-1][2] == {"called": "PACS_S"}
