"""What is said of Move Destinations that were refused."""

from typing import Any

import attrs
import pytest

from relay.cli import doctor_moves
from relay.cli.doctor_calls import MOST, RECENT, SINCE, Known
from relay.providers import Finding
from relay.router.refusals import Refusal
from tests.cli.test_doctor_calls import NOW, device

STORE = device("WS", services=["store"])
UNPUBLISHED = "it is a device of this hospital that is not published with store: `relay device add`"
NOWHERE = (
    "it is neither a device of this hospital nor one that another hospital publishes: `relay alias`"
)
NOT_GRANTED = "the hospital that publishes it has not granted this one `store` there: ask"
NO_GRANT = "the caller may not store there: `relay grant add`"
NO_TITLE = "no such AE title is published; `relay peer list`"
UNKNOWN_TO = "PACS does not know it: enter it there"


def refusal(why: str, called: str = "PACS", ago: float = 10, destination: str = "WS") -> Any:
    """As GET /v1/refusals has it."""
    return attrs.asdict(Refusal(NOW - ago, "VIEWER", called, why, destination))


def refused(*refusals: Any, **known: Any) -> list[Finding]:
    now = Known(**{"devices": [device()]} | known)
    return list(doctor_moves.refused(refusals, now, NOW))


def test_what_several_archives_were_asked_for_is_one() -> None:
    rows = refusal(UNPUBLISHED, "SOUTH", 130), refusal(UNPUBLISHED, "EAST", 200)
    (finding,) = refused(*rows, refusal("another call", destination=""))
    what = "Move Destination WS was refused (A801H): VIEWER asked SOUTH, EAST 2 times, 2 min ago"
    assert finding == Finding(what, False, UNPUBLISHED)


@pytest.mark.parametrize(
    ("why", "still", "mended"),
    [
        (UNPUBLISHED, {}, {"devices": [STORE]}),
        (UNPUBLISHED, {"devices": [device(services=["echo"])]}, {"devices": []}),
        (NOWHERE, {"devices": []}, {"devices": [STORE]}),
        (NOWHERE, {"devices": []}, {"devices": [], "directory": [{"ae_title": "WS"}]}),
        (
            NOWHERE,
            {"devices": []},
            {
                "devices": [],
                "directory": [{"ae_title": "B_WS"}],
                "aliases": [{"local": "WS", "published": "B_WS"}],
            },
        ),
        (NO_TITLE, {}, {"directory": [{"ae_title": "WS"}]}),
        (
            NOT_GRANTED,
            {"directory": [{"ae_title": "WS", "granted": ["echo"]}]},
            {"directory": [{"ae_title": "WS", "granted": ["store"]}]},
        ),
    ],
)
def test_what_visibly_stands_is_a_fault_until_it_is_mended(
    why: str, still: dict[str, Any], mended: dict[str, Any]
) -> None:
    old = refusal(why, ago=RECENT + 7200)
    (finding,) = refused(old, **still)
    assert (finding.ok, finding.advice) == (False, why)
    assert "135 min ago" in finding.what
    assert refused(old, **mended) == []


def test_what_the_caller_may_store_a_grant_says() -> None:
    """Which hospital the caller is of is not said: any grant may be its own."""
    echo = {"ae_title": "WS", "services": ["echo"]}
    assert [f.ok for f in refused(refusal(NO_GRANT), grants=[echo])] == [False]
    store = {"ae_title": "WS", "services": ["store"]}
    assert [f.ok for f in refused(refusal(NO_GRANT), grants=[echo, store])] == [True]


def test_what_an_archive_knows_is_history() -> None:
    (finding,) = refused(refusal(UNKNOWN_TO))
    assert (finding.ok, finding.advice) == (True, f"{UNKNOWN_TO} {SINCE}")
    assert refused(refusal(UNKNOWN_TO, ago=RECENT + 1)) == []


def test_no_more_than_a_person_reads() -> None:
    many = [refusal(UNPUBLISHED, destination=f"WS{number}") for number in range(2 * MOST)]
    devices = [device(f"WS{number}") for number in range(2 * MOST)]
    assert len(refused(*many, devices=devices)) == MOST
