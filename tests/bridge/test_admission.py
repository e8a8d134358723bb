"""Which sessions may be opened: how many, how fast, and by whom to whom."""

from functools import partial

import pytest

from relay.bridge.admission import (
    MAXIMUM_HELD,
    MAXIMUM_OPENED,
    OPENS_AT_ONCE,
    OPENS_PER_SECOND,
    OpeningRates,
    authorise,
    check_counts,
)
from relay.signalling.hub import SessionRefused
from relay.signalling.messages import EndReason

from .conftest import Clock, Rooms, Router


async def refusal(rooms: Rooms, caller: Router, callee: Router, called: str) -> EndReason | None:
    """Why `caller` may not call, or None."""
    call = partial(authorise, caller=caller.id, callee=callee.id, called=called)
    try:
        await rooms.database.run(call)
    except SessionRefused as error:
        return error.reason
    return None


async def test_who_is_granted_something_may_call(rooms: Rooms, granted) -> None:
    north, south = granted
    assert await refusal(rooms, north, south, "PACS") is None
    assert await refusal(rooms, north, south, "CT1") is EndReason.NOT_PUBLISHED
    assert await refusal(rooms, south, north, "PACS") is EndReason.NOT_PUBLISHED
    west = await rooms.publishing("West", "CT3")
    assert await refusal(rooms, west, south, "PACS") is EndReason.NOT_GRANTED
    await rooms.registry.revoke(south.id)
    assert await refusal(rooms, north, south, "PACS") is EndReason.REVOKED


async def test_what_was_asked_for_comes_back(rooms: Rooms, granted) -> None:
    """The callee's devices may use one of the caller's: it may call any that the callee has."""
    north, south = granted
    await rooms.registry.publish(north.id, [north.publication("WS1")])
    assert await refusal(rooms, south, north, "CT1") is EndReason.NOT_PUBLISHED
    west = await rooms.publishing("West", "CT3")
    assert await refusal(rooms, west, north, "WS1") is EndReason.NOT_GRANTED
    assert await refusal(rooms, south, north, "WS1") is None


@pytest.mark.parametrize("services", [(), ("store",)])
async def test_a_grant_of_nothing_lets_nothing_come_back(
    rooms: Rooms, granted, services: tuple[str, ...]
) -> None:
    north, south = granted
    await rooms.registry.publish(north.id, [north.publication("WS1")])
    await rooms.registry.grants(
        south.id, [(north.id, "PACS", ()), (north.id, "NOT PUBLISHED", services)]
    )
    assert await refusal(rooms, south, north, "WS1") is EndReason.NOT_GRANTED


def test_counts() -> None:
    check_counts(MAXIMUM_OPENED - 1, MAXIMUM_HELD - 1)
    for opened, held, words in ((MAXIMUM_OPENED, 0, "open"), (0, MAXIMUM_HELD, "part of")):
        with pytest.raises(SessionRefused, match=words) as caught:
            check_counts(opened, held)
        assert caught.value.reason is EndReason.LIMIT_REACHED


def test_each_router_has_openings_of_its_own() -> None:
    clock = Clock()
    rates = OpeningRates(clock)
    for _ in range(OPENS_AT_ONCE):
        rates.check(b"north")
    with pytest.raises(SessionRefused, match="a second") as caught:
        rates.check(b"north")
    assert caught.value.reason is EndReason.LIMIT_REACHED
    rates.check(b"south")
    clock.now += 1
    for _ in range(int(OPENS_PER_SECOND)):
        rates.check(b"north")
    with pytest.raises(SessionRefused):
        rates.check(b"north")
