"""Waiting for a queue that a fake Router has, by a clock that runs when somebody sleeps."""

from collections.abc import Callable, Iterable
from math import inf
from typing import Any, cast

import attrs
import pytest

from relay.cli import awaiting
from relay.cli.awaiting import PATIENCE, STANDING, Delivery, How, Way, way_to
from relay.cli.context import Invocation
from relay.cli.control import Control, NotRunning
from relay.errors import Refused, RelayError
from tests.cli.conftest import FakeProcess

NOTHING = {"waiting": 0, "held": 0, "failed": 0, "delivered": 0, "discarded": 0, "last": 12}


@attrs.define
class FakeTime:
    """`sleep` makes it later, and does what was planned for then."""

    now: float = 0.0
    planned: Callable[[float], None] = lambda now: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        self.planned(self.now)


@attrs.define
class FakeRouter:
    """Answers counts one after the other, the last of them for ever."""

    counts: list[dict[str, int] | RelayError]
    items: list[dict[str, Any]] = attrs.Factory(list)
    place: dict[str, Any] = attrs.Factory(dict)
    asked: list[tuple[str, dict[str, str]]] = attrs.Factory(list)

    def get(self, path: str, **query: str) -> Any:
        self.asked.append((path, query))
        if path == "/v1/queue":
            return {"destinations": [{"called": "OTHER", "paused": None}, self.place]}
        if path == "/v1/queue/items":
            found = [i for i in self.items if i["state"] == query["state"]]
            page = [i for i in found if i["number"] > int(query["after"])][:1]
            return {"items": page, "next": page[-1]["number"] if page else None}
        if "until" not in query:
            return NOTHING
        answer = self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]
        if isinstance(answer, RelayError):
            raise answer
        return NOTHING | answer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    time = FakeTime()
    monkeypatch.setattr(awaiting, "time", time)
    return time


def place(paused: dict[str, Any] | None = None, trouble: str | None = None) -> dict[str, Any]:
    return {"called": "PACS", "local": "PACS_S", "paused": paused, "trouble": trouble}


def item(number: int, state: str, instance: str, reason: str = "") -> dict[str, Any]:
    return {"number": number, "state": state, "sop_instance": instance, "reason": reason}


@attrs.define
class Heard:
    done: list[int] = attrs.Factory(list)
    words: list[str] = attrs.Factory(list)


def wait(
    router: FakeRouter, instances: Iterable[str] = ("1.2.1", "1.2.2"), timeout: float | None = None
) -> tuple[Delivery, Heard]:
    way = Way(cast(Control, router), "PACS", "NORTH")
    heard = Heard()
    delivery = way.wait(set(instances), 10, timeout, heard.done.append, heard.words.append)
    return delivery, heard


def test_all_delivered(clock: FakeTime) -> None:
    router = FakeRouter(
        [{"waiting": 2}, {"waiting": 1, "delivered": 1}, {"delivered": 2}], place=place()
    )
    assert wait(router)[0] == Delivery(How.SETTLED, [], 0)
    query = {"called": "PACS", "calling": "NORTH", "after": "10", "until": "12"}
    assert router.asked[0] == ("/v1/queue/count", {"called": "PACS"})
    assert router.asked[1] == ("/v1/queue/count", query)
    assert 0 < clock.now < 1


def test_what_is_over_counts_as_progress(clock: FakeTime) -> None:
    router = FakeRouter(
        [{"waiting": 2}, {"waiting": 1, "failed": 1}, {"delivered": 1, "failed": 1}], place=place()
    )
    assert wait(router)[1].done == [0, 1, 2]


def test_each_object_that_will_not_be_delivered_is_named_with_its_reason(clock: FakeTime) -> None:
    """But not what another command has sent meanwhile."""
    router = FakeRouter(
        [{"failed": 2, "held": 1, "discarded": 1}],
        items=[
            item(11, "failed", "1.9", "another's"),
            item(12, "failed", "1.2.1", "A900, does not match"),
            item(13, "held", "1.2.2", "not accepted any more"),
            item(14, "discarded", "1.2.3"),
        ],
    )
    delivery, _ = wait(router, ("1.2.1", "1.2.2", "1.2.3", "1.2.4"))
    assert sorted(delivery.undelivered) == [
        ("1.2.1", "failed: A900, does not match"),
        ("1.2.3", "discarded"),
    ]
    assert delivery.held == [("1.2.2", "not accepted any more")]
    assert (delivery.how, delivery.waiting) == (How.SETTLED, 0)


def test_the_time_is_over(clock: FakeTime) -> None:
    delivery, _ = wait(FakeRouter([{"waiting": 2}], place=place()), timeout=30)
    assert delivery == Delivery(How.TIMEOUT, [], 2)
    assert clock.now == 30


def test_a_destination_that_is_paused_when_the_time_is_over(clock: FakeTime) -> None:
    paused = {"by": "person", "reason": "it moves", "since": 1.0}
    delivery, _ = wait(FakeRouter([{"waiting": 2}], place=place(paused)), timeout=30)
    assert (delivery.how, delivery.waiting, clock.now) == (How.TIMEOUT, 2, 30)
    assert delivery.paused == (
        "paused by a person, it moves; `relay queue resume PACS_S` lets it go on"
    )


def test_a_person_goes(clock: FakeTime) -> None:
    def interrupt(now: float) -> None:
        raise KeyboardInterrupt

    clock.planned = interrupt
    delivery, _ = wait(FakeRouter([{"waiting": 1, "delivered": 1}], place=place()))
    assert delivery == Delivery(How.INTERRUPTED, [], 1)


def test_what_is_in_the_way_is_told_once(clock: FakeTime) -> None:
    router = FakeRouter([{"waiting": 2}], place=place(trouble="nobody listens"))
    paused = {"by": "device", "reason": "not authorized", "since": 1.0}

    def then(now: float) -> None:
        if now > 3 * STANDING:
            router.place = place(paused=paused)

    clock.planned = then
    _, heard = wait(router, timeout=6 * STANDING)
    assert heard.words == [
        "nobody listens",
        "paused by its own answer, not authorized; `relay queue resume PACS_S` lets it go on",
    ]


def test_a_router_that_is_started_anew_is_waited_for(clock: FakeTime) -> None:
    gone = [NotRunning("no Router is running")] * 5
    router = FakeRouter([{"waiting": 1}, *gone, {"delivered": 2}], place=place())
    assert wait(router)[0].how is How.SETTLED


def test_a_router_that_does_not_come_back_is_an_error(clock: FakeTime) -> None:
    router = FakeRouter([{"waiting": 1}, NotRunning("no Router is running")], place=place())
    with pytest.raises(NotRunning):
        wait(router)
    assert PATIENCE <= clock.now < PATIENCE + 5


def test_whether_it_is_queued(router: FakeProcess) -> None:
    path = "/v1/queue/mode?called=PACS_S"
    invocation = Invocation(path=router.configuration)
    answer = {"called": "PACS", "local": "PACS_S", "calling": "NORTH", "queued": True}
    router.will("GET", path, answer)
    way = way_to(invocation, "PACS_S")
    assert way is not None
    assert (way.called, way.calling) == ("PACS", "NORTH")
    router.will("GET", "/v1/queue/count?called=PACS", NOTHING)
    assert way.last() == 12
    router.will("GET", path, answer | {"queued": False})
    assert way_to(invocation, "PACS_S") is None
    router.will("GET", path, {"error": "an AE title is"}, status=400)
    with pytest.raises(Refused):
        way_to(invocation, "PACS_S")


def test_where_no_router_runs_nothing_is_queued(stopped: FakeProcess) -> None:
    assert way_to(Invocation(path=stopped.configuration), "PACS_S") is None


def test_without_a_timeout_there_is_no_end_but_theirs(clock: FakeTime) -> None:
    router = FakeRouter([*[{"waiting": 1}] * 2000, {"delivered": 2}], place=place())
    assert wait(router, timeout=None)[0].how is How.SETTLED
    assert 1000 < clock.now < inf
