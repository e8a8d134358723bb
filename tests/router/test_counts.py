"""What a Router counts of its associations and their messages."""

from collections import Counter

import pytest

from relay.dicom import dimse
from relay.dicom.dimse import CommandField, Status
from relay.dicom.rejection import (
    CALLED_AE_TITLE_NOT_RECOGNIZED,
    LOCAL_LIMIT_EXCEEDED,
    word_of,
)
from relay.errors import AssociationRejected
from relay.metrics.histogram import Histogram
from relay.router.counts import UNKNOWN, Counts, Line, Messages
from relay.router.live import LiveAssociation, LiveRegister, Side, Work
from relay.router.passthrough import Ending, How
from tests.router.fakes import store_rq
from tests.router.test_live import entry


def end(entry: LiveAssociation, ending: Ending | None) -> tuple[str, str]:
    """How one that ended so is counted."""
    register = LiveRegister(5)
    counts = Counts(register)
    with register.hold(entry):
        entry.ending = ending
    ((line, outcome, reason),) = counts.ended
    assert line == Line(Side.CALLEE, Work.RELAYED, "peer", "PACS")
    return outcome, reason


@pytest.mark.parametrize(
    ("ending", "counted"),
    [
        (Ending(How.RELEASED, "requestor"), ("released", "")),
        (Ending(How.ABORTED, "acceptor", "why", (2, 0)), ("aborted", "acceptor")),
        (
            Ending(How.REJECTED, "acceptor", "", (1, 1, 7)),
            ("rejected", "called AE title not recognized"),
        ),
        (Ending(How.REJECTED, "acceptor", "", (1, 1, 99)), ("rejected", "other")),
        (Ending(How.REJECTED, "router", "not in time"), ("rejected", "silence")),
        (None, ("released", "")),
    ],
)
async def test_each_end_is_counted_by_how_it_was(
    ending: Ending | None, counted: tuple[str, str]
) -> None:
    assert end(entry(), ending) == counted


async def test_what_is_revoked_is_counted_so() -> None:
    assert end(entry(permitted=False), None) == ("aborted", "revoked")


async def test_a_rejection_is_counted_by_whoever_tells_it() -> None:
    register = LiveRegister(5)
    counts = Counts(register)
    numbers = (1, 1, 7)
    with pytest.raises(AssociationRejected), register.hold(entry()):
        raise AssociationRejected(*numbers, "no such title")
    assert not counts.ended
    with pytest.raises(ValueError, match="ours"), register.hold(entry()):
        raise ValueError("ours")
    ((_, outcome, reason),) = counts.ended
    assert (outcome, reason) == ("aborted", "router")
    assert CALLED_AE_TITLE_NOT_RECOGNIZED.reason == 7


def test_what_the_port_turns_away_is_counted() -> None:
    counts = Counts(LiveRegister(5))
    counts.turned_away(LOCAL_LIMIT_EXCEEDED)
    counts.turned_away(LOCAL_LIMIT_EXCEEDED)
    line = Line(Side.CALLER, Work.RELAYED, "", UNKNOWN)
    assert counts.ended == {(line, "rejected", word_of(LOCAL_LIMIT_EXCEEDED)): 2}


async def test_bytes_are_of_what_runs_and_of_what_is_over_by_the_way_they_went() -> None:
    register = LiveRegister(5)
    counts = Counts(register)
    with register.hold(entry()) as in_, register.hold(entry(side=Side.CALLER)) as out:
        in_.traffic.count(10)
        out.traffic.count(7)
        running = counts.carried()
    assert running == counts.carried()
    ways = {line.side: sizes for line, sizes in running.items()}
    assert ways == {Side.CALLEE: (0, 10), Side.CALLER: (7, 0)}


def test_commands_are_counted_and_a_store_is_timed_from_its_request_to_its_answer() -> None:
    own, total, stores = Counter[int](), Counter[int](), Histogram()
    heard = Messages(own, total, stores)
    request = store_rq(5)
    heard(request)
    heard(dimse.response_to(store_rq(6), Status.SUCCESS))  # to what was never asked
    assert stores.count == 0
    heard(dimse.response_to(request, Status.SUCCESS))
    heard(dimse.response_to(request, Status.SUCCESS))  # once more
    assert stores.count == 1
    assert own == total == {CommandField.C_STORE_RQ: 1, CommandField.C_STORE_RSP: 3}
    assert dimse.in_names({**own, 0x7777: 2, 0x7778: 1}) == {
        "C-STORE-RQ": 1,
        "C-STORE-RSP": 3,
        "other": 3,
    }


def test_queries_and_requests_are_counted_by_how_they_ended_and_timed() -> None:
    counts = Counts(LiveRegister(5))
    counts.queried("refused")
    counts.queried("complete", 0.2)
    counts.queried("incomplete", 3.0)
    assert counts.queries == {"refused": 1, "complete": 1, "incomplete": 1}
    assert (counts.query_seconds.count, counts.query_seconds.sum) == (2, 3.2)
    counts.requested("search", "GET", 200, 0.1)
    counts.requested("search", "GET", 404, 0.1)
    assert counts.requests == {("search", "GET", "200"): 1, ("search", "GET", "404"): 1}
    assert counts.request_seconds["search"].count == 2
