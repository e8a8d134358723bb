"""Warnings stand as long as their cause, and say what to do next."""

import re
from pathlib import Path
from typing import Any

import pytest

from relay.audit.sender import Lagging
from relay.bridge.restored import Restoration
from relay.bridge.warnings import AWAY_AFTER, CERTIFICATE_DAYS, Kind, Warned, standing

from .conftest import NOW

DAY = 24 * 3600
# The worst first, as they are shown.
DOCUMENTED = (
    Kind.RESTORED,
    Kind.STORES_FAILING,
    Kind.STORE_FAILING,
    Kind.CERTIFICATE,
    Kind.STORE_FULL,
    Kind.AUDIT_BEHIND,
    Kind.ROUTER_AWAY,
)


def store(name: str, *, in_use: bool = True, failing: bool = False) -> dict[str, Any]:
    row = {"name": name, "in_use": in_use, "failing": failing}
    return row | {"last_failure": "no answer in 10 s", "failed_at": NOW - 60}


def router(name: str = "North", **row: Any) -> dict[str, Any]:
    fresh = {"revoked": False, "connected": False, "last_seen": NOW - 2 * AWAY_AFTER}
    return {"fingerprint": "aaaa", "name": name, "enrolled": NOW - 9 * DAY} | fresh | row


def found(**how: Any) -> list[Warned]:
    fine: dict[str, Any] = {
        "stores": [store("disk")],
        "routers": [],
        "used": 0,
        "space": 1000,
        "certificate_ends": NOW + 90 * DAY,
        "restored": None,
        "lagging": None,
        "started": NOW - DAY,
        "now": NOW,
    }
    return standing(**fine | how)


def test_where_all_is_well_there_are_none() -> None:
    assert found() == []
    assert found(space=None, certificate_ends=None) == []


def test_a_collector_that_lags_is_told() -> None:
    [warned] = found(lagging=Lagging(7, 1000.4, "the audit's collector lacks 7 entries"))
    words = "The audit's collector lacks 7 entries."
    assert warned == Warned(Kind.AUDIT_BEHIND, "", words, NOW - 1000)


def test_a_store_that_fails_is_named_with_the_one_in_its_place() -> None:
    [warned] = found(stores=[store("cloud", failing=True), store("disk")])
    assert warned == Warned(
        Kind.STORE_FAILING,
        "cloud",
        "Object store cloud fails: no answer in 10 s. New sessions use disk. What is wrong with it:"
        " `relay provider check cloud`.",
        NOW - 60,
    )
    assert warned.to_json() == {
        "warning": "store_failing",
        "key": "cloud",
        "words": warned.words,
        "since": NOW - 60,
    }


def test_where_none_works_that_is_said() -> None:
    [one, other] = found(stores=[store("cloud", failing=True), store("disk", failing=True)])
    assert one.kind is other.kind is Kind.STORES_FAILING
    assert "no other works" in one.words


def test_a_store_that_is_not_in_use_may_fail() -> None:
    assert found(stores=[store("disk"), store("old", in_use=False, failing=True)]) == []


@pytest.mark.parametrize(("used", "words"), [(799, None), (800, "80% full"), (1000, "100% full")])
def test_the_own_store_is_nearly_full(used: int, words: str | None) -> None:
    warned = found(used=used)
    assert [w.kind for w in warned] == ([Kind.STORE_FULL] if words else [])
    assert all(words is not None and words in w.words for w in warned)


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (CERTIFICATE_DAYS * DAY, "ends in 14 days"),
        (DAY, "ends in 1 day;"),
        (DAY - 1, "ends in less than a day"),
        (0, "has ended"),
        (-DAY, "has ended"),
    ],
)
def test_the_certificate_ends(left: int, words: str) -> None:
    [warned] = found(certificate_ends=NOW + left)
    assert (warned.kind, words in warned.words) == (Kind.CERTIFICATE, True)
    assert "Renew" in warned.words


def test_a_certificate_that_holds_for_longer() -> None:
    assert found(certificate_ends=NOW + CERTIFICATE_DAYS * DAY + 1) == []


def test_a_router_is_away() -> None:
    [warned] = found(routers=[router()])
    assert (warned.kind, warned.key) == (Kind.ROUTER_AWAY, "aaaa")
    assert warned.since == NOW - 2 * AWAY_AFTER
    assert "The Router of North is not connected" in warned.words
    [warned] = found(routers=[router(last_seen=None)])
    assert "was never connected" in warned.words


@pytest.mark.parametrize(
    "row",
    [
        {"connected": True},
        {"revoked": True},
        {"last_seen": NOW - AWAY_AFTER + 1},
        {"last_seen": None, "enrolled": NOW},
    ],
)
def test_a_router_that_is_not_missed(row: dict[str, Any]) -> None:
    assert found(routers=[router(**row)]) == []


def test_while_the_bridge_was_away_nobody_is_missed() -> None:
    assert found(routers=[router()], started=NOW - AWAY_AFTER + 1) == []


def test_a_restored_bridge_warns_of_what_came_back() -> None:
    [warned] = found(restored=Restoration(NOW - DAY, NOW - 60))
    assert (warned.kind, warned.since) == (Kind.RESTORED, NOW - 60)
    assert "backup of 2027-01-14 08:00 UTC" in warned.words
    assert "revoke them anew" in warned.words


def test_every_warning_is_documented_and_no_other() -> None:
    document = (Path(__file__).parents[2] / "docs/pages.md").read_text()
    table = document.split("| warning | when | until |")[1].split("\n\n")[0]
    assert re.findall(r"(?m)^\| `(\w+)` \|", table) == [kind.value for kind in DOCUMENTED]
    assert set(DOCUMENTED) == set(Kind)
