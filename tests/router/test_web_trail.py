"""A viewer's thousand requests are one transfer; a search is a query; what is stored is told."""

import attrs
import pytest
import trio

from relay.audit.codes import Kind, Outcome
from relay.audit.events import AuditEvent
from relay.audit.telling import detail, words
from relay.router.auditing import Auditing
from relay.router.web_trail import IDLE, MAXIMUM_STUDIES, WebRequest, WebTrail

FRAME = WebRequest(
    resource="frames",
    caller="WS",
    token="viewer",
    address="10.0.0.7",
    called="FEDERATION",
    path="/aets/FEDERATION/rs/studies/1.9/series/1.8/instances/1.7/frames/1",
    study="1.9",
)


class Trail:
    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.trail = WebTrail(Auditing(ae_title="RELAY", record=self.events.append))


@pytest.fixture
def told() -> Trail:
    return Trail()


async def test_a_study_is_told_at_once_and_when_nobody_asks_any_more(
    told: Trail, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(told.trail.run)
        for _ in range(1000):
            told.trail.answered(FRAME)
            await trio.sleep(0.1)
        told.trail.answered(attrs.evolve(FRAME, held=False))
        (began,) = told.events
        assert words(began) == "FEDERATION begins to send to WS"
        assert began.subjects[0].id == "1.9"
        await trio.sleep(IDLE + 10)
        _, held, failed = told.events
        assert (held.kind, held.outcome, detail(held, "Requests")) == (
            Kind.TRANSFER,
            Outcome.SUCCESS,
            "1000",
        )
        assert (failed.outcome, detail(failed, "Requests")) == (Outcome.MINOR_FAILURE, "1")
        person = held.participants[1]
        assert (person.id, person.name, person.address) == ("WS", "viewer", "10.0.0.7")
        nursery.cancel_scope.cancel()
    assert len(told.events) == 3


async def test_studies_and_callers_are_kept_apart_and_all_is_told_at_the_end(
    told: Trail,
) -> None:
    with trio.CancelScope() as scope:
        for change in ({}, {"study": "1.10"}, {"caller": "WS_2"}, {"address": "10.0.0.8"}):
            told.trail.answered(attrs.evolve(FRAME, **change))
        scope.cancel()
        await told.trail.run()
    assert [event.kind for event in told.events] == [Kind.BEGIN] * 4 + [Kind.TRANSFER] * 4


async def test_too_many_at_once_are_told_early(told: Trail) -> None:
    for number in range(MAXIMUM_STUDIES + 5):
        told.trail.answered(attrs.evolve(FRAME, study=f"1.{number}"))
    over = [event for event in told.events if event.kind is Kind.TRANSFER]
    assert [event.subjects[0].id for event in over] == [f"1.{n}" for n in range(5)]


async def test_a_search_is_a_query(told: Trail) -> None:
    search = attrs.evolve(
        FRAME, resource="search studies", path="/aets/FEDERATION/rs/studies", study="", names="x="
    )
    told.trail.answered(search)
    (event,) = told.events
    assert (event.kind, words(event)) == (Kind.QUERY, "WS asks FEDERATION")


@pytest.mark.parametrize(("held", "outcome"), [(True, "0"), (False, "4")])
async def test_what_is_stored_goes_the_other_way(told: Trail, held: bool, outcome: str) -> None:
    told.trail.answered(attrs.evolve(FRAME, resource="store", held=held))
    (event,) = told.events
    assert [p.id for p in event.participants] == ["WS", "FEDERATION"]
    assert event.outcome.value == outcome


async def test_what_names_no_study_is_nothing(told: Trail) -> None:
    told.trail.answered(attrs.evolve(FRAME, resource="", study=""))
    assert told.events == []
