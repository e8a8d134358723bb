import json
import re
import time
from datetime import datetime

from tests.cli.conftest import FakeProcess


def test_a_router_says_how_it_is_doing(router: FakeProcess) -> None:
    answer = {
        "name": "North",
        "connected": True,
        "last_failure": None,
        "refusals": [],
        "listening": [{"host": "::", "port": 104}, "b"],
        "store": {"puts": 3},
    }
    router.will("GET", "/v1/status", answer)
    lines = [re.split(" {2,}", line) for line in router.relay("status").stdout.splitlines()]
    assert lines == [
        ["name", "North"],
        ["connected", "yes"],
        ["last failure", "-"],
        ["refusals", "-"],
        ["listening", ":: 104, b"],
        ["store: puts", "3"],
    ]
    assert json.loads(router.relay("status", "--json").stdout) == answer


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
