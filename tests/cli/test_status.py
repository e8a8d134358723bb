import json
import re

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
