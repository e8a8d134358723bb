"""The id that all lines about an association carry."""

import io
import json
from typing import Any

import pytest
import structlog
import trio
from structlog.contextvars import clear_contextvars

from relay import log, tracing


@pytest.fixture
def lines() -> Any:
    """What is logged, as a machine reads it."""
    stream = io.StringIO()
    clear_contextvars()
    log.configure(level="info", json=True, stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()
    clear_contextvars()


def say(words: str) -> None:
    structlog.get_logger().info(words)


def test_the_number_is_of_the_session() -> None:
    assert tracing.number(bytes(range(16))) == "000102030405"


def test_a_call_has_a_name_of_its_own_until_it_has_a_session(lines: Any) -> None:
    with tracing.arrived():
        say("asked for")
        with tracing.about("abc", "begun", side="caller"):
            say("within")
        say("behind")
    say("outside")
    asked, begun, within, behind, outside = lines()
    assert asked["association"].startswith(tracing.LOCAL)
    assert (begun["before"], begun["side"]) == (asked["association"], "caller")
    assert [line["association"] for line in (begun, within, behind)] == ["abc"] * 3
    assert "association" not in outside


def test_one_within_another_is_said_to_be_so_and_gives_the_name_back(lines: Any) -> None:
    with tracing.about("outer", "begun"):
        with tracing.about("inner", "begun"):
            say("in it")
        with tracing.about("outer"):
            say("again")
        say("behind")
    first, second, inner, again, behind = lines()
    assert (first["association"], "within" in first) == ("outer", False)
    assert (second["association"], second["within"]) == ("inner", "outer")
    assert inner["association"] == "inner"
    assert [again["association"], behind["association"]] == ["outer", "outer"]


async def test_tasks_carry_it_on_unless_they_go_on_for_something_else(lines: Any) -> None:
    async def apart() -> None:
        tracing.apart()
        say("apart")

    async def on() -> None:
        say("on")

    with tracing.about("abc"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(on)
            nursery.start_soon(apart)
        say("after")
    named = {line["event"]: line.get("association") for line in lines()}
    assert named == {"on": "abc", "apart": None, "after": "abc"}
