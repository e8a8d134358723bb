"""How far the federation is behind its sites: round by round, and the median of that."""

from typing import Any

import attrs
import pytest

from scripts.benchmark.federation import (
    TOGETHER,
    Behind,
    Round,
    Timed,
    behind_fastest,
    behind_slowest,
    behind_together,
    federation_table,
    medians,
)
from tests.interop.federated import FEDERATION


def asked(sites: str, federation: Timed) -> Round:
    """A round in which each site's answers came at "first-last", seconds."""
    north, east, south = (Timed(*map(float, times.split("-"))) for times in sites.split())
    return {
        "NORTH": north,
        "EAST": east,
        "SOUTH": south,
        TOGETHER: Timed(0.0, 100.0),
        FEDERATION: federation,
    }


# Each site is once the fastest, and once the slowest.
ROUNDS = [
    asked("1-6 2-5 3-4", Timed(1.5, 7.0)),
    asked("5-7 2-9 4-8", Timed(4.0, 12.0)),
    asked("8-10 9-11 6-12", Timed(7.0, 14.0)),
]


def test_the_first_answer_is_behind_the_rounds_fastest_site() -> None:
    assert behind_fastest(ROUNDS) == Behind(site=2.0, federation=4.0, difference=1.0)


def test_the_last_answer_is_behind_the_rounds_slowest_site() -> None:
    assert behind_slowest(ROUNDS) == Behind(site=9.0, federation=12.0, difference=2.0)


def test_it_is_also_told_how_far_it_is_behind_all_sites_asked_at_once() -> None:
    assert behind_together(ROUNDS) == Behind(site=100.0, federation=12.0, difference=-88.0)


def test_each_goal_is_said_to_be_reached_or_not_by_itself() -> None:
    """One more slow site beside another hides nothing of what that one shows."""
    near, far = Behind(0.7, 0.71, 0.01), Behind(0.7, 0.75, 0.05)
    lines = federation_table(results(streamed=near, merged=far, searching=near)).splitlines()
    told = {line.split(" |")[0]: line.split(" |")[-2] for line in lines if "at most" in line}
    assert told == {
        "| streamed: first answer; fastest site": " yes",
        "| merged: final response; slowest site, which waits 5.0 ms before each answer": " **no**",
        "| merged: final response; slowest site, which searches for 0.5 s first": " yes",
    }


def results(**behind: Behind) -> dict[str, Any]:
    """What a measurement gives, with these distances."""
    names = ("NORTH", "EAST", "SOUTH", FEDERATION)
    way = {
        "medians": {name: {"first": 1.0, "last": 2.0} for name in (*names, TOGETHER)},
        "memory": {"before": 1, "peaks": [2]},
    }
    keys = ("behind_fastest", "behind_slowest", "behind_together")
    return {
        "when": "now",
        "machine": "this",
        "python": "3.11",
        "load": 0.1,
        "runs": 1,
        "rounds": 2,
        "studies": 3,
        "answers": dict.fromkeys(names, 3),
        **{
            name: way | dict.fromkeys(keys, attrs.asdict(distance))
            for name, distance in behind.items()
        },
    }


def test_a_sites_own_times_are_medians_each_for_itself() -> None:
    assert medians(ROUNDS, "EAST") == Timed(2.0, 9.0)
    assert medians(ROUNDS, FEDERATION) == Timed(4.0, 12.0)


def test_a_round_without_one_of_the_sites_is_no_round() -> None:
    for behind in (behind_fastest, behind_slowest):
        with pytest.raises(KeyError):
            behind([{FEDERATION: Timed(1.0, 2.0)}])
