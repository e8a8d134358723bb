"""Sessions: refused early, kept over a restart, their slots in turn and their names random."""

import os
import re

import pytest
import trio

from relay.bridge.admission import OPENS_AT_ONCE
from relay.bridge.sessions import (
    GET_LIFETIME,
    MAXIMUM_OBJECT,
    OPENED_AT_ONCE,
    PUT_LIFETIME,
    SLOTS_AHEAD,
    SLOTS_COUNTED,
    Sessions,
)
from relay.errors import ProviderError, Refused
from relay.providers import SignedRequest
from relay.providers.names import is_object_name
from relay.signalling.hub import SessionRefused
from relay.signalling.messages import Direction, EndReason

from .conftest import NOW, Rooms, Router

OUTWARD, INWARD = Direction.CALLER_TO_CALLEE, Direction.CALLEE_TO_CALLER


class SigningProvider:
    """A store that signs and keeps nothing."""

    name = "paper"

    def __init__(self) -> None:
        self.signed: list[tuple[str, str]] = []
        self.down = False

    async def _sign(self, method: str, name: str, lifetime: int) -> SignedRequest:
        if self.down:
            raise ProviderError("down")
        self.signed.append((method, name))
        url = f"https://store/{name}?{method}"
        return SignedRequest(method, url, (("x", "y"),), NOW + lifetime)

    async def sign_put(self, name: str, *, size_limit: int, lifetime: int) -> SignedRequest:
        assert size_limit == MAXIMUM_OBJECT
        return await self._sign("PUT", name, lifetime)

    async def sign_get(self, name: str, *, lifetime: int) -> SignedRequest:
        return await self._sign("GET", name, lifetime)

    async def sign_delete(self, name: str, *, lifetime: int) -> SignedRequest:
        return await self._sign("DELETE", name, lifetime)


@pytest.fixture
def provider() -> SigningProvider:
    return SigningProvider()


def make(rooms: Rooms, provider: SigningProvider, **settings) -> Sessions:
    settings = {"in_use": ["disk"], **settings}
    return Sessions(
        rooms.database,
        {"disk": provider},
        clock=rooms.clock,
        monotonic=lambda: rooms.clock.now,
        **settings,
    )


@pytest.fixture
async def sessions(rooms: Rooms, provider: SigningProvider) -> Sessions:
    return make(rooms, provider)


async def opened(sessions: Sessions, granted: tuple[Router, Router], called: str = "PACS") -> bytes:
    message = granted[0].opening(granted[1], called)
    await sessions.open(granted[0].id, message, callee_connected=True)
    return message.session


async def refusal(sessions: Sessions, granted, called: str = "PACS", **settings) -> EndReason:
    message = granted[0].opening(granted[1], called)
    settings = {"callee_connected": True, **settings}
    with pytest.raises(SessionRefused) as caught:
        await sessions.open(granted[0].id, message, **settings)
    assert sessions.ends(message.session) is None
    assert sessions.of(granted[0].id) == []
    return caught.value.reason


async def test_open(sessions: Sessions, granted) -> None:
    session = await opened(sessions, granted)
    assert sessions.ends(session) == (granted[0].id, granted[1].id)
    assert sessions.of(granted[0].id) == sessions.of(granted[1].id) == [session]
    [row] = sessions.describe()
    assert (row["called"], row["answered"], row["created"]) == ("PACS", False, NOW)
    await sessions.answered(session, b"answer")
    await sessions.answered(session, b"again")
    [row] = sessions.describe()
    assert row["answered"]


async def test_refused_early(sessions: Sessions, rooms: Rooms, granted) -> None:
    caller, callee = granted
    assert await refusal(sessions, granted, callee_connected=False) is EndReason.CALLEE_OFFLINE
    assert await refusal(sessions, granted, "NOWHERE") is EndReason.NOT_PUBLISHED
    other = await rooms.publishing("West", "CT3")
    assert await refusal(sessions, (caller, callee), "CT3") is EndReason.NOT_PUBLISHED
    assert await refusal(sessions, (caller, other), "CT3") is EndReason.NOT_GRANTED
    assert await refusal(sessions, (other, callee)) is EndReason.NOT_GRANTED
    await rooms.registry.grants(callee.id, [(caller.id, "PACS", ())])
    assert await refusal(sessions, granted) is EndReason.NOT_GRANTED
    await rooms.registry.revoke(caller.id)
    assert await refusal(sessions, granted) is EndReason.REVOKED


async def test_a_revocation_right_behind_an_opening_finds_it(
    sessions: Sessions, rooms: Rooms, granted
) -> None:
    caller, callee = granted
    message = caller.opening(callee, "PACS")
    outcomes = []

    async def open_it() -> None:
        try:
            await sessions.open(caller.id, message, callee_connected=True)
            outcomes.append("opened")
        except SessionRefused as error:
            outcomes.append(error.reason)

    async def revoke() -> None:
        await rooms.registry.revoke(caller.id)
        for session in sessions.of(caller.id):
            await sessions.end(session, EndReason.REVOKED)

    for _ in range(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_it)
            nursery.start_soon(revoke)
        assert sessions.all() == []
        await rooms.database.run(
            lambda db: db.execute(
                "UPDATE router SET revoked = NULL; DELETE FROM session; "
                "INSERT OR REPLACE INTO \"grant\" VALUES (?, ?, 'PACS', '[\"store\"]')",
                (callee.id, caller.id),
            ).fetchall()
        )
    assert outcomes


async def test_limits_per_router(sessions: Sessions, granted, monkeypatch) -> None:
    monkeypatch.setattr("relay.bridge.admission.MAXIMUM_OPENED", 2)
    first = await opened(sessions, granted)
    await opened(sessions, granted)
    with pytest.raises(SessionRefused, match="2 sessions") as caught:
        await opened(sessions, granted)
    assert caught.value.reason is EndReason.LIMIT_REACHED
    await sessions.end(first, EndReason.FINISHED)
    await opened(sessions, granted)
    monkeypatch.setattr("relay.bridge.admission.MAXIMUM_HELD", 2)
    monkeypatch.setattr("relay.bridge.admission.MAXIMUM_OPENED", 99)
    with pytest.raises(SessionRefused, match="part of"):
        await opened(sessions, granted)


async def test_openings_a_second(sessions: Sessions, rooms: Rooms, granted) -> None:
    for _ in range(OPENS_AT_ONCE):
        await sessions.end(await opened(sessions, granted), EndReason.FINISHED)
    assert await refusal(sessions, granted) is EndReason.LIMIT_REACHED
    rooms.clock.now += 1
    await opened(sessions, granted)


async def test_no_store_in_use(rooms: Rooms, provider, granted) -> None:
    sessions = make(rooms, provider, in_use=[])
    assert await refusal(sessions, granted) is EndReason.STORE_UNAVAILABLE


async def test_a_session_id_is_used_once(sessions: Sessions, granted) -> None:
    session = await opened(sessions, granted)
    await sessions.end(session, EndReason.FINISHED)
    again = granted[0].opening(granted[1], "PACS", session)
    with pytest.raises(SessionRefused, match="over"):
        await sessions.open(granted[0].id, again, callee_connected=True)


async def test_restart(sessions: Sessions, rooms: Rooms, provider, granted) -> None:
    session = await opened(sessions, granted)
    await sessions.answered(session, b"answer")
    before = await sessions.put_urls(granted[0].id, session, OUTWARD, 0, 3)
    restarted = make(rooms, provider)
    await restarted.load()
    [known], [row] = restarted.describe(), sessions.describe()
    assert row["slots"] == [3, 0]
    # Of slots it knows how many were signed at most.
    assert known == {**row, "slots": [SLOTS_COUNTED, SLOTS_COUNTED]}
    after = await restarted.put_urls(granted[0].id, session, OUTWARD, 0, 3)
    assert after == before
    await restarted.read_urls(session, OUTWARD, 2)


async def test_no_slot_is_signed_that_the_database_does_not_know_of(
    sessions: Sessions, rooms: Rooms, provider, granted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or nobody would sweep it when the Bridge has crashed; and a transaction knows of many."""
    session = await opened(sessions, granted)
    transactions, run = 0, rooms.database.run

    async def counted(work):
        nonlocal transactions
        transactions += 1
        return await run(work)

    monkeypatch.setattr(rooms.database, "run", counted)
    signed = 3 * SLOTS_COUNTED
    for first in range(0, signed, 8):
        await sessions.put_urls(granted[0].id, session, OUTWARD, first, 8)
        restarted = make(rooms, provider)
        before = transactions
        await restarted.load()
        transactions = before
        assert restarted.describe()[0]["slots"][OUTWARD] >= first + 8
    assert 0 < transactions <= 3
    ended = await sessions.end(session, EndReason.FINISHED)
    assert ended is not None
    assert ended.slots == (signed, 0)


async def test_ended_waits_for_its_sweep(sessions: Sessions, rooms: Rooms, granted) -> None:
    session = await opened(sessions, granted)
    await sessions.put_urls(granted[0].id, session, OUTWARD, 0, 3)
    await sessions.put_urls(granted[1].id, session, INWARD, 0, 1)
    rooms.clock.now += 7
    ended = await sessions.end(session, EndReason.FINISHED)
    assert ended is not None
    assert (ended.slots, ended.ended, len(list(ended.object_names()))) == ((3, 1), NOW + 7, 4)
    assert await sessions.end(session, EndReason.FINISHED) is None
    assert sessions.ends(session) is None
    assert sessions.of(granted[0].id) == []
    assert await sessions.ended() == [ended]
    await sessions.forget(session)
    assert await sessions.ended() == []


async def test_forgetting_needs_an_end(sessions: Sessions, rooms: Rooms, provider, granted) -> None:
    session = await opened(sessions, granted)
    await sessions.forget(session)
    restarted = make(rooms, provider)
    await restarted.load()
    assert restarted.ends(session) is not None


async def test_what_is_no_longer_granted(sessions: Sessions, rooms: Rooms, granted) -> None:
    caller, callee = granted
    session = await opened(sessions, granted)
    assert await sessions.no_longer_granted(callee.id) == []
    await rooms.registry.grants(callee.id, [])
    assert await sessions.no_longer_granted(callee.id) == [session]
    await rooms.registry.grants(callee.id, [(caller.id, "PACS", ("store",))])
    await rooms.registry.publish(callee.id, [])
    assert await sessions.no_longer_granted(callee.id) == [session]
    assert await sessions.no_longer_granted(caller.id) == [session]  # it is theirs as well


async def test_what_comes_back_ends_with_the_grant(
    sessions: Sessions, rooms: Rooms, granted
) -> None:
    north, south = granted
    await rooms.registry.publish(north.id, [north.publication("WS1")])
    session = await opened(sessions, (south, north), "WS1")
    assert await sessions.no_longer_granted(south.id) == []
    await rooms.registry.grants(south.id, [])
    assert await sessions.no_longer_granted(south.id) == [session]
    await rooms.registry.grants(south.id, [(north.id, "PACS", ("store",))])
    await rooms.registry.publish(south.id, [])
    assert await sessions.no_longer_granted(south.id) == [session]


# --- slots and names ----------------------------------------------------------------------------


async def test_put_urls_are_in_slot_order(sessions: Sessions, granted, provider) -> None:
    session = await opened(sessions, granted)
    rows = await sessions.put_urls(granted[0].id, session, OUTWARD, 0, 4)
    assert [row[0] for row in rows] == ["PUT"] * 4
    assert all(row[3] == NOW + PUT_LIFETIME for row in rows)
    names = [name for _, name in provider.signed]
    assert len(set(names)) == 4
    assert all(name in row[1] for name, row in zip(names, rows, strict=True))
    # An expired URL is signed again, of the same object.
    [again] = await sessions.put_urls(granted[0].id, session, OUTWARD, 2, 1)
    assert again == rows[2]


async def test_reading_what_the_other_end_wrote(sessions: Sessions, granted, provider) -> None:
    session = await opened(sessions, granted)
    [put] = await sessions.put_urls(granted[0].id, session, OUTWARD, 0, 1)
    get, delete = await sessions.read_urls(session, OUTWARD, 0)
    assert (get[0], delete[0]) == ("GET", "DELETE")
    assert put[1].split("?")[0] == get[1].split("?")[0] == delete[1].split("?")[0]
    with pytest.raises(Refused, match="no such slot"):
        await sessions.read_urls(session, OUTWARD, 1)
    with pytest.raises(Refused, match="no such slot"):
        await sessions.read_urls(session, INWARD, 0)


class WaitingProvider(SigningProvider):
    """One that can have a reader wait, too."""

    async def sign_get_ahead(self, name: str, *, lifetime: int, reader: bytes) -> SignedRequest:
        return await self._sign("GET", f"{name}/{reader.hex()}", lifetime)


async def test_reading_ahead_of_what_the_other_end_writes(rooms: Rooms, granted) -> None:
    sessions = make(rooms, WaitingProvider())
    session = await opened(sessions, granted)
    rows = await sessions.ahead_urls(session, OUTWARD, 1, 3)
    puts = await sessions.put_urls(granted[0].id, session, OUTWARD, 0, 4)
    for (get, delete), put in zip(rows, puts[1:], strict=True):
        name = put[1].split("?")[0]
        assert get == (
            "GET",
            f"{name}/{granted[1].id.hex()}?GET",
            (("x", "y"),),
            NOW + GET_LIFETIME,
        )
        assert delete is None  # the Bridge's
    with pytest.raises(Refused, match="out of turn"):
        await sessions.ahead_urls(session, OUTWARD, 4 + SLOTS_AHEAD + 1, 1)
    await sessions.end(session, EndReason.FINISHED)
    with pytest.raises(Refused, match="unknown session"):
        await sessions.ahead_urls(session, OUTWARD, 0, 1)


async def test_what_is_opened_is_named_once(rooms: Rooms, granted) -> None:
    provider = WaitingProvider()
    sessions = make(rooms, provider)
    session = await opened(sessions, granted)
    rows = await sessions.put_urls(granted[0].id, session, OUTWARD, 0, 4)
    names = [row[1].removeprefix("https://store/").split("?")[0] for row in rows]
    assert sessions.opened(session, OUTWARD, 0) == ("", [])
    assert sessions.opened(session, OUTWARD, 3, 1) == ("disk", names[:1])
    assert sessions.opened(session, OUTWARD, 3) == ("disk", names[1:3])  # what was too much
    assert sessions.opened(session, OUTWARD, 3) == ("", [])
    assert sessions.opened(session, OUTWARD, 1) == ("", [])
    assert sessions.opened(session, INWARD, 3) == ("", [])
    assert sessions.opened(session, OUTWARD, 2**62) == ("disk", names[3:])  # those that are signed
    restarted = make(rooms, provider)
    await restarted.load()
    assert restarted.opened(session, OUTWARD, 2) == ("disk", names[:2])  # harmless
    await sessions.end(session, EndReason.FINISHED)
    assert sessions.opened(session, OUTWARD, 4) == ("", [])


async def test_what_is_opened_is_named_so_many_at_a_time(rooms: Rooms, granted) -> None:
    sessions = make(rooms, WaitingProvider())
    session = await opened(sessions, granted)
    slots = OPENED_AT_ONCE + 8
    for first in range(0, slots, 8):
        await sessions.put_urls(granted[0].id, session, OUTWARD, first, 8)
    for count in (OPENED_AT_ONCE, 8, 0):
        assert len(sessions.opened(session, OUTWARD, slots)[1]) == count


async def test_of_a_store_that_readers_delete_in_nothing_is_named(
    sessions: Sessions, granted
) -> None:
    session = await opened(sessions, granted)
    await sessions.put_urls(granted[0].id, session, OUTWARD, 0, 4)
    assert sessions.opened(session, OUTWARD, 3) == ("", [])


async def test_a_store_that_cannot_have_a_reader_wait(sessions: Sessions, granted) -> None:
    session = await opened(sessions, granted)
    assert await sessions.ahead_urls(session, OUTWARD, 0, 8) == []


async def test_each_end_writes_its_own_direction(sessions: Sessions, rooms: Rooms, granted) -> None:
    session = await opened(sessions, granted)
    stranger = await rooms.router("West")
    for router, direction in (
        (granted[1].id, OUTWARD),
        (granted[0].id, INWARD),
        (stranger.id, OUTWARD),
        (stranger.id, INWARD),
    ):
        with pytest.raises(Refused, match="other end"):
            await sessions.put_urls(router, session, direction, 0, 1)


async def test_slots_out_of_turn(sessions: Sessions, granted) -> None:
    session = await opened(sessions, granted)
    for first in (SLOTS_AHEAD + 1, 2**20, 2**62):
        with pytest.raises(Refused, match="out of turn"):
            await sessions.put_urls(granted[0].id, session, OUTWARD, first, 1)
    assert sessions.describe()[0]["slots"] == [0, 0]


async def test_nothing_is_signed_for_a_session_that_is_over(sessions: Sessions, granted) -> None:
    session = await opened(sessions, granted)
    await sessions.put_urls(granted[0].id, session, OUTWARD, 0, 1)
    await sessions.end(session, EndReason.REVOKED)
    for call in (
        sessions.put_urls(granted[0].id, session, OUTWARD, 0, 1),
        sessions.read_urls(session, OUTWARD, 0),
        sessions.put_urls(granted[0].id, os.urandom(16), OUTWARD, 0, 1),
    ):
        with pytest.raises(Refused, match="unknown session") as caught:
            await call
        assert caught.value.status == 404


async def test_store_that_is_down(sessions: Sessions, granted, provider) -> None:
    session = await opened(sessions, granted)
    provider.down = True
    with pytest.raises(ProviderError):
        await sessions.put_urls(granted[0].id, session, OUTWARD, 0, 1)


async def test_store_that_is_not_set_up_any_more(rooms: Rooms, granted) -> None:
    sessions = Sessions(
        rooms.database, {}, in_use=["disk"], clock=rooms.clock, monotonic=rooms.clock
    )
    session = await opened(sessions, granted)
    with pytest.raises(Refused, match="disk is not set up"):
        await sessions.put_urls(granted[0].id, session, OUTWARD, 0, 1)


async def test_names_say_nothing(sessions: Sessions, granted, provider) -> None:
    for _ in range(3):
        session = await opened(sessions, granted)
        await sessions.put_urls(granted[0].id, session, OUTWARD, 0, 16)
        await sessions.put_urls(granted[1].id, session, INWARD, 0, 16)
    names = {name for _, name in provider.signed}
    assert len(names) == 3 * 32
    assert all(re.fullmatch("[0-9a-f]{2}/[0-9a-f]{62}", name) for name in names)
    assert all(map(is_object_name, names))
