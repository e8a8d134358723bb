"""What pages show of a thing: its state in a word, names for fingerprints, what is searched for."""

from typing import Any

import pytest
from starlette.requests import Request

from relay.bridge.pages.rows import (
    MAXIMUM_SEARCH,
    matching,
    may,
    need,
    searched,
    state_of,
    store_state,
    with_names,
)
from relay.errors import Refused
from relay.people.roles import Role
from relay.people.who import Who


def request(query: str = "", who: Who | None = None) -> Request:
    scope: dict[str, Any] = {"type": "http", "query_string": query.encode(), "headers": []}
    return Request(scope | ({"relay.who": who} if who is not None else {}))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"revoked": True, "connected": False, "last_seen": 1}, "revoked"),
        ({"revoked": False, "connected": True, "last_seen": 1}, "connected"),
        ({"revoked": False, "connected": False, "last_seen": 1}, "away"),
        ({"revoked": False, "connected": False, "last_seen": None}, "away"),
    ],
)
def test_a_routers_state(row: dict[str, Any], words: str) -> None:
    assert state_of(row)[0] == words


@pytest.mark.parametrize(
    ("row", "state"),
    [
        ({"leaving": True, "failing": True, "worked": True}, ("leaving", "idle")),
        ({"leaving": False, "failing": True, "worked": True}, ("failing", "bad")),
        ({"leaving": False, "failing": False, "worked": True}, ("works", "ok")),
        ({"leaving": False, "failing": False, "worked": False}, ("not checked", "idle")),
    ],
)
def test_a_stores_state(row: dict[str, Any], state: tuple[str, str]) -> None:
    assert store_state(row) == state


def test_roles() -> None:
    operator = request(who=Who("o", Role.OPERATOR))
    assert may(operator, Role.VIEWER)
    assert not may(operator, Role.ADMINISTRATOR)
    assert not may(request(), Role.VIEWER)
    need(operator, Role.OPERATOR, "this")
    with pytest.raises(Refused, match="this needs the role administrator") as caught:
        need(operator, Role.ADMINISTRATOR, "this")
    assert caught.value.status == 403


def test_names_for_fingerprints() -> None:
    rows = with_names([{"owner": "aa", "grantee": "bb"}], {"aa": "North"}, "owner", "grantee")
    assert rows == [{"owner": "aa", "grantee": "bb", "owner_name": "North", "grantee_name": "bb"}]


def test_what_is_searched_for() -> None:
    assert searched(request("q=+a+b+")) == "a b"
    assert searched(request("q=a&owner=x"), "owner") == "x"
    assert searched(request()) == ""
    assert len(searched(request(f"q={'a' * 500}"))) == MAXIMUM_SEARCH


def test_each_word_is_somewhere() -> None:
    rows = [{"title": "PACS_A", "services": ["echo", "store"]}, {"title": "CT", "services": []}]
    fields = ("title", "services")
    assert matching(rows, "", *fields) == rows
    assert matching(rows, "STORE pacs", *fields) == rows[:1]
    assert matching(rows, "pacs ct", *fields) == []
