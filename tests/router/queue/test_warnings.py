"""Warnings: each told once when it begins and once when it is over, and listed in between."""

from collections.abc import Mapping, MutableMapping
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from relay.router.queue.warnings import Kind, Warnings

Logs = list[MutableMapping[str, Any]]


@attrs.define
class Line:
    """What a webhook would be given to post."""

    posts: list[dict[str, Any]] = attrs.field(factory=list)
    failures: int = 0
    ran: bool = False

    def post(self, body: Mapping[str, Any]) -> None:
        self.posts.append(dict(body))

    async def run(self) -> None:
        self.ran = True
        await trio.sleep_forever()


@attrs.define
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def told(line: Line) -> list[tuple[str, str, str]]:
    return [(post["warning"], post["key"], post["state"]) for post in line.posts]


def test_a_warning_is_told_when_it_begins_and_when_it_is_over(logs: Logs) -> None:
    line, clock = Line(), Clock()
    warnings = Warnings(lambda: "North", line, clock)
    words = "3 objects were given up; `relay queue list --state failed` shows them"
    warnings.begin(Kind.FAILED, "PACS", words, destination="PACS", count=3)
    clock.now = 1060.0
    warnings.over(Kind.FAILED, "PACS")
    begun = {
        "router": "North",
        "state": "begun",
        "time": 1000.0,
        "warning": "failed",
        "key": "PACS",
        "words": words,
        "since": 1000.0,
        "destination": "PACS",
        "device": None,
        "count": 3,
    }
    assert line.posts == [begun, begun | {"state": "over", "time": 1060.0}]
    facts = {"warning": "failed", "key": "PACS", "words": words, "since": 1000.0}
    facts |= {"destination": "PACS", "count": 3}
    assert logs == [
        {"event": "warning begun", "log_level": "warning", **facts},
        {"event": "warning over", "log_level": "info", **facts},
    ]


def test_what_stands_is_kept_up_to_date_and_not_told_again(logs: Logs) -> None:
    line, clock = Line(), Clock()
    warnings = Warnings(lambda: "North", line, clock)
    warnings.begin(Kind.WAITING, "PACS", "one", count=1)
    clock.now = 2000.0
    warnings.begin(Kind.WAITING, "PACS", "two", count=2)
    assert len(line.posts) == len(logs) == 1
    [shown] = warnings.to_json()
    assert (shown["words"], shown["count"], shown["since"]) == ("two", 2, 1000.0)
    warnings.over(Kind.WAITING, "PACS")
    assert line.posts[-1]["words"] == "two"
    assert warnings.to_json() == []


def test_what_is_over_twice_or_never_began_is_not_told(logs: Logs) -> None:
    line = Line()
    warnings = Warnings(lambda: "North", line)
    warnings.over(Kind.PAUSED, "PACS")
    warnings.begin(Kind.PAUSED, "PACS", "it answered 0124")
    warnings.over(Kind.PAUSED, "CT")
    warnings.over(Kind.SPOOL_FULL, "PACS")
    warnings.over(Kind.PAUSED, "PACS")
    warnings.over(Kind.PAUSED, "PACS")
    assert told(line) == [("paused", "PACS", "begun"), ("paused", "PACS", "over")]
    assert len(logs) == 2


def test_kinds_and_keys_are_apart_and_all_are_counted_and_listed_the_oldest_first() -> None:
    clock = Clock()
    warnings = Warnings(lambda: "North", None, clock)
    warnings.begin(Kind.FAILED, "PACS", "a")
    clock.now += 1
    warnings.begin(Kind.FAILED, "CT", "b")
    warnings.begin(Kind.WAITING, "PACS", "c", since=900.0)
    assert [row["words"] for row in warnings.to_json()] == ["c", "a", "b"]
    assert warnings.standing(Kind.FAILED) == {"PACS", "CT"}
    assert warnings.standing(Kind.DOUBTFUL) == frozenset()
    counts = warnings.counts()
    assert counts == dict.fromkeys([kind.value for kind in Kind], 0) | {"failed": 2, "waiting": 1}


def test_the_name_is_the_one_that_the_router_has_when_it_tells() -> None:
    """It may enrol, and be named, after its start."""
    names, line = ["RELAY"], Line()
    warnings = Warnings(lambda: names[0], line)
    warnings.begin(Kind.SPOOL_FULL, "", "full")
    names[0] = "North"
    warnings.over(Kind.SPOOL_FULL, "")
    assert [post["router"] for post in line.posts] == ["RELAY", "North"]


async def test_it_runs_its_webhook_and_none_runs_too() -> None:
    line = Line(failures=7)
    warnings, silent = Warnings(lambda: "North", line), Warnings(lambda: "North")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(warnings.run)
        nursery.start_soon(silent.run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert line.ran
    assert (warnings.webhook_failures, silent.webhook_failures) == (7, 0)


@pytest.mark.parametrize("kind", Kind)
def test_names_of_kinds_fit_a_metrics_label(kind: Kind) -> None:
    assert kind.value == kind.name.lower()


@given(
    st.lists(
        st.tuples(st.sampled_from(Kind), st.sampled_from(["PACS", "CT"]), st.booleans()),
        max_size=30,
    )
)
def test_beginnings_and_ends_alternate_whatever_happens(
    moves: list[tuple[Kind, str, bool]],
) -> None:
    line = Line()
    warnings = Warnings(lambda: "North", line)
    standing = set()
    for kind, key, begins in moves:
        if begins:
            warnings.begin(kind, key, "words")
            standing.add((kind.value, key))
        else:
            warnings.over(kind, key)
            standing.discard((kind.value, key))
    assert {(row["warning"], row["key"]) for row in warnings.to_json()} == standing
    for kind in Kind:
        for key in ("PACS", "CT"):
            states = [state for *of, state in told(line) if of == [kind.value, key]]
            assert states == (["begun", "over"] * len(states))[: len(states)]
