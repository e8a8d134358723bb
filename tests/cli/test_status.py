import json
import re
import time
from datetime import datetime
from typing import Any

from relay.cli.output import local_time
from tests.cli.conftest import FakeProcess

QUEUE: dict[str, Any] = {
    "waiting": 0,
    "held": 0,
    "failed": 0,
    "bytes": 0,
    "oldest": None,
    "paused": [],
    "refusing": None,
    "limit": None,
}


def test_a_router_says_how_it_is_doing(router: FakeProcess) -> None:
    answer = {
        "name": "North",
        "connected": True,
        "last_failure": None,
        "refusals": ["PACS is published by B already"],
        "listening": [{"host": "::", "port": 104}, "b"],
        "queue": QUEUE,
        "warnings": ["objects for PACS wait", "objects for PACS2 wait"],
        "store": {"puts": 3},
    }
    router.will("GET", "/v1/status", answer)
    router.will("GET", "/v1/refusals", [])
    lines = [re.split(" {2,}", line) for line in router.relay("status").stdout.splitlines()]
    assert lines == [
        ["name", "North"],
        ["connected", "yes"],
        ["last failure", "-"],
        ["not published 1", "PACS is published by B already"],
        ["listening", ":: 104, b"],
        ["queue", "0 waiting"],
        ["warning 1", "objects for PACS wait"],
        ["warning 2", "objects for PACS2 wait"],
        ["store: puts", "3"],
        ["refused calls", "none that stands"],
    ]
    assert json.loads(router.relay("status", "--json").stdout) == answer


def test_a_queue_is_one_line(router: FakeProcess) -> None:
    full: dict[str, Any] = {
        "waiting": 3,
        "held": 1,
        "failed": 2,
        "bytes": 2**20,
        "oldest": 1_780_300_000.0,
    }
    full |= {"paused": ["PACS", "PACS2"], "refusing": "the disk is full"}
    router.will("GET", "/v1/refusals", [])
    router.will("GET", "/v1/status", {"queue": QUEUE | full, "warnings": []})
    since = local_time(1_780_300_000.0)
    words = f"3 waiting since {since}, 1 held, 2 failed, 1.0 MiB, paused: PACS PACS2, "
    shown = router.relay("status").stdout.splitlines()[0]
    assert re.split(" {2,}", shown) == ["queue", f"{words}no more accepted: the disk is full"]
    router.will("GET", "/v1/status", {"queue": QUEUE | {"limit": 2.5e6}, "warnings": []})
    shown = router.relay("status").stdout.splitlines()[1]
    assert re.split(" {2,}", shown) == ["bandwidth", "20 Mbit/s at most, now"]


def test_dicomweb_is_one_line(router: FakeProcess) -> None:
    web = {"urls": ["http://h:1/rs", "http://i:1/rs"], "tokens": 1, "open": False, "origins": []}
    for answer, words in (
        (None, "off"),
        (web, "http://h:1/rs, http://i:1/rs, 1 token"),
        (
            web | {"open": True, "origins": ["https://a.example", "https://b.example"]},
            "http://h:1/rs, http://i:1/rs, 1 token, open to this machine without one,"
            " for pages of https://a.example https://b.example",
        ),
    ):
        router.will("GET", "/v1/status", {"dicomweb": answer})
        router.will("GET", "/v1/refusals", [])
        shown = " ".join(router.relay("status").stdout.splitlines()[0].split())
        assert shown == f"DICOMweb {words}"


def refusal(at: float, why: str, calling: str = "WS", destination: str = "") -> dict[str, Any]:
    return {"time": at, "calling": calling, "called": "PACS", "why": why} | {
        "destination": destination,
        "cause": "other",
    }


def test_calls_that_were_refused_are_told_with_their_causes(router: FakeProcess) -> None:
    at = 1_780_300_000.0
    rows = [
        refusal(at, "nothing is granted"),
        refusal(at - 60, "nothing is granted"),
        refusal(at - 120, "no such AE title is published", destination="ELSEWHERE"),
        refusal(at - 180, "'CT' is no device of this Router", calling="CT"),
        refusal(at - 240, "older"),
    ]
    router.will("GET", "/v1/status", {"name": "North"})
    router.will("GET", "/v1/refusals", rows)
    lines = [re.split(" {2,}", line) for line in router.relay("status").stdout.splitlines()]
    then = [local_time(at - ago) for ago in (0, 120, 180)]
    assert lines[1:] == [
        ["refused call 1", f"{then[0]}, WS called PACS 2 times: nothing is granted"],
        [
            "refused call 2",
            f"{then[1]}, WS asked PACS to move to ELSEWHERE: no such AE title is published",
        ],
        ["refused call 3", f"{then[2]}, CT called PACS: 'CT' is no device of this Router"],
    ]


def test_a_router_that_is_down_is_status_1(stopped: FakeProcess) -> None:
    result = stopped.relay("status")
    assert result.exit_code == 1
    assert "start it with" in result.stderr


def test_times_are_shown_as_people_read_them(bridge: FakeProcess) -> None:
    started = int(time.time()) - 90061
    answer = {"started": started, "clock_offset": 0.123456}
    bridge.will("GET", "/v1/status", answer)
    lines = [re.split(" {2,}", line) for line in bridge.relay("status").stdout.splitlines()]
    shown = dict(lines)
    assert datetime.fromisoformat(shown["started"]).timestamp() == started
    assert shown["uptime"].startswith("1 day, 1:01:0")
    assert shown["clock offset"] == "0.1 s"
    assert json.loads(bridge.relay("status", "--json").stdout) == answer
