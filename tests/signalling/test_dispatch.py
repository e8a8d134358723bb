"""What the hub does with each message, and with those that a Router may not send."""

import attrs
import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from relay.errors import ProviderError
from relay.identity import Identity
from relay.signalling import limits
from relay.signalling.client import Connected, Disconnected
from relay.signalling.messages import (
    Announce,
    Answer,
    Ask,
    Direction,
    Directory,
    Done,
    End,
    EndReason,
    Grants,
    Held,
    Hello,
    Look,
    Message,
    Ping,
    Pong,
    Present,
    Progress,
    Publish,
    Refuse,
    Seek,
    Slots,
    SlotURLs,
    Welcome,
    Withdraw,
    encode,
)
from tests.signalling.bridge import (
    NETWORK,
    Bridge,
    MemorySocket,
    in_line,
    joined,
    opening,
    progress,
    receive_until,
    running_bridge,
    session_id,
    signed,
)

S = session_id(1)


def public(letter: str) -> bytes:
    return Identity.from_seed(letter.encode() * 32).public


async def raw_pair(bridge: Bridge) -> tuple[MemorySocket, MemorySocket]:
    """Sockets of two Routers, a and c, that hold session S between them."""
    a, c = await bridge.raw_router("a"), await bridge.raw_router("c")
    await receive_until(a, Directory)
    await receive_until(c, Directory)
    while len(bridge.hub.connected()) < 2:
        await trio.sleep(0.01)
    await a.send(encode(opening(1, public("c"))))
    assert (await receive_until(c, type(opening(1, b"")))).router == public("a")
    await c.send(encode(Answer(S, b"answer")))
    await receive_until(a, Answer)
    return a, c


async def test_announcements_get_the_other_ends_urls(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        near, far = await joined(1, a, b)
        forged = (("GET", "https://evil.example/", (), 0),)
        await near.send(Announce(near.session, 0, 1, 7, 5, forged, forged))
        await far.send(Announce(near.session, 0, 1, 8, 5, (), ()))
        there = Direction.CALLER_TO_CALLEE, 7
        back = Direction.CALLEE_TO_CALLER, 8
        assert await far.receive() == Announce(
            near.session, 0, 1, 7, 5, (signed("GET", *there),), (signed("DELETE", *there),)
        )
        assert await near.receive() == Announce(
            near.session, 0, 1, 8, 5, (signed("GET", *back),), (signed("DELETE", *back),)
        )
        assert bridge.registry.signed == [(near.session, *there), (near.session, *back)]


async def test_the_bridge_hears_what_a_reader_has_opened(autojump_clock: MockClock) -> None:
    nothing = (0, 0, 0, 0, 0)
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        near, far = await joined(1, a, b)
        silent = Progress(near.session, nothing, nothing)
        told = [attrs.evolve(silent, slots=slots) for slots in (7, 8)]
        for port, other, message in ((near, far, told[0]), (far, near, told[1])):
            await port.send(silent)
            assert await other.receive() == silent
            await port.send(message)
            assert await other.receive() == message
        # Of the direction that each reads.
        assert bridge.registry.slots_opened == {
            (near.session, Direction.CALLEE_TO_CALLER): 7,
            (near.session, Direction.CALLER_TO_CALLEE): 8,
        }


async def test_nothing_is_signed_for_an_end_that_is_away(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a, c = await raw_pair(bridge)
        c.cut()
        await trio.sleep(1)
        await a.send(encode(Announce(S, 0, 1, 7, 5, (), ())))
        await trio.sleep(1)
        assert bridge.registry.signed == []
        assert S in bridge.registry.sessions


async def test_without_signed_urls_the_session_ends(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        near, far = await joined(1, a, b)
        bridge.registry.fail_urls = ProviderError("the store is down")
        await near.send(Announce(near.session, 0, 1, 7, 5, (), ()))
        ended = End(near.session, EndReason.STORE_UNAVAILABLE)
        assert await near.receive() == await far.receive() == ended


@pytest.mark.parametrize("reason", [EndReason.NOT_PUBLISHED, EndReason.NOT_GRANTED])
async def test_an_opening_that_the_bridge_refuses_says_why(
    reason: EndReason, autojump_clock: MockClock
) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        bridge.registry.refuse_open = reason
        near = a.client.attach(S)
        await near.send(opening(1, b))
        assert await near.receive() == End(S, reason)


async def test_an_opening_to_a_router_that_is_away_ends_at_once(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a = await bridge.router("a")
        near = a.client.attach(S)
        await near.send(opening(1, public("z")))
        assert await near.receive() == End(S, EndReason.CALLEE_OFFLINE)
        assert bridge.registry.sessions == {}


async def test_an_opening_to_oneself_is_refused(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a = await bridge.router("a")
        near = a.client.attach(S)
        await near.send(opening(1, a))
        assert await near.receive() == End(S, EndReason.PROTOCOL_VIOLATION)


async def test_anothers_session_cannot_be_opened_again(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a, b, thief = [await bridge.router(letter) for letter in "act"]
        near, far = await joined(1, a, b)
        stolen = thief.client.attach(S)
        await stolen.send(opening(1, b))
        assert await stolen.receive() == End(S, EndReason.PROTOCOL_VIOLATION)
        await near.send(in_line(S, 0))
        assert await far.receive() == in_line(S, 0)
        assert bridge.registry.sessions == {S: (a.public, b.public)}


@pytest.mark.parametrize(
    "message",
    [Answer(S, b""), Refuse(S, b""), Withdraw(S, b""), in_line(S, 0), progress(S), End(S, 0)],
    ids=lambda message: type(message).__name__,
)
async def test_a_third_router_reaches_no_session(
    message: Message, autojump_clock: MockClock
) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        near, far = await joined(1, a, b)
        thief = await bridge.raw_router("t")
        await receive_until(thief, Directory)
        await trio.sleep(0.1)
        for _ in range(3):
            await thief.send(encode(message))
        await thief.send(encode(Ping(1)))
        ends = 0
        while not isinstance(heard := await receive_until(thief, Message), Pong):
            ends += heard == End(S, EndReason.UNKNOWN_SESSION)
        await thief.send(encode(Ping(2)))
        while not isinstance(heard := await receive_until(thief, Message), Pong):
            ends += heard == End(S, EndReason.UNKNOWN_SESSION)
        assert ends == (0 if isinstance(message, End) else 1)
        await near.send(in_line(S, 0))
        assert await far.receive() == in_line(S, 0)
        assert S in bridge.registry.sessions


@pytest.mark.parametrize("message", [Answer(S, b"x"), Refuse(S, b"x")])
async def test_the_caller_may_not_answer_itself(
    message: Message, autojump_clock: MockClock
) -> None:
    async with running_bridge() as bridge:
        a, c = await raw_pair(bridge)
        await a.send(encode(message))
        assert await receive_until(a, End) == End(S, EndReason.PROTOCOL_VIOLATION)
        assert await receive_until(c, End) == End(S, EndReason.PROTOCOL_VIOLATION)


async def test_the_callee_may_not_withdraw(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        _, c = await raw_pair(bridge)
        await c.send(encode(Withdraw(S, b"x")))
        assert await receive_until(c, End) == End(S, EndReason.PROTOCOL_VIOLATION)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (EndReason.FINISHED, EndReason.FINISHED),
        (EndReason.STORE_UNAVAILABLE, EndReason.STORE_UNAVAILABLE),
        (EndReason.UNKNOWN_SESSION, EndReason.PEER_FORGOT),
        (EndReason.REVOKED, EndReason.PEER_FORGOT),  # that is the Bridge's to say
        (200, EndReason.PEER_FORGOT),
    ],
)
async def test_an_end_is_passed_on_behind_what_waits(
    said: int, told: EndReason, autojump_clock: MockClock
) -> None:
    async with running_bridge() as bridge:
        a, c = await raw_pair(bridge)
        for chunk in range(3):
            await a.send(encode(in_line(S, chunk)))
        await a.send(encode(End(S, said)))
        await trio.sleep(0.1)
        for chunk in range(3):
            assert await receive_until(c, Message) == in_line(S, chunk)
        assert await receive_until(c, Message) == End(S, told)
        assert bridge.registry.ended_with == {S: told}


@pytest.mark.parametrize(
    "message",
    [
        Hello(1, NETWORK, bytes(32), bytes(32)),
        Welcome(bytes(64), 0),
        Done(1, ()),
        SlotURLs(1, S, 0, ()),
        Directory(True, (), (), (), ()),
        Held(()),  # a second time
    ],
    ids=lambda message: type(message).__name__,
)
async def test_what_is_not_a_routers_to_send_closes_its_socket(
    message: Message, autojump_clock: MockClock
) -> None:
    async with running_bridge() as bridge:
        a, c = await raw_pair(bridge)
        await a.send(encode(message))
        while await a.receive():
            pass
        await c.send(encode(Ping(1)))
        assert await receive_until(c, Pong) == Pong(1)
        assert S in bridge.registry.sessions  # it may come back


async def test_held_ends_what_is_not_held_and_tells_what_is_unknown(
    autojump_clock: MockClock,
) -> None:
    async with running_bridge() as bridge:
        _, c = await raw_pair(bridge)
        again = await bridge.raw_router("a", hold=False)
        await again.send(encode(Held((session_id(9),))))
        assert await receive_until(c, End) == End(S, EndReason.PEER_FORGOT)
        assert await receive_until(again, End) in (
            End(session_id(9), EndReason.UNKNOWN_SESSION),
            End(S, EndReason.PEER_FORGOT),
        )


async def test_a_flood_of_requests_closes_the_socket(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a, _ = await raw_pair(bridge)

        async def hang(*_: object) -> list[object]:
            await trio.sleep_forever()

        bridge.registry.put_urls = hang  # type: ignore[assignment, method-assign]
        for number in range(limits.TOLERATED_REQUESTS):
            await a.send(encode(Slots(number, S, 0, 1)))
        await trio.sleep(1)
        assert public("a") in bridge.hub.connected()
        await a.send(encode(Slots(0, S, 0, 1)))
        while await a.receive():
            pass


async def test_a_registry_that_hangs_is_said_to_the_router(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        await joined(1, a, b)

        async def hang(*_: object) -> list[object]:
            await trio.sleep_forever()

        bridge.registry.put_urls = hang  # type: ignore[assignment, method-assign]
        reply = await a.client.request(lambda n: Slots(n, S, 0, 1), deadline=30)
        assert reply == Done(reply.request, ("the registry did not answer for 10 s",))


async def test_a_router_writes_to_the_registry_one_by_one(autojump_clock: MockClock) -> None:
    """Who sends a hundred at once keeps the registry from no other."""
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        writing, most = 0, 0

        async def slow(*_: object) -> list[str]:
            nonlocal writing, most
            writing += 1
            most = max(most, writing)
            await trio.sleep(1)
            writing -= 1
            return []

        bridge.registry.publish = slow  # type: ignore[assignment, method-assign]
        bridge.registry.grants = slow  # type: ignore[assignment, method-assign]
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(a.client.request, lambda n: Publish(n, ()), 30)
                nursery.start_soon(a.client.request, lambda n: Grants(n, ()), 30)
            await trio.sleep(0.5)
            assert most == 1
            nursery.start_soon(b.client.request, lambda n: Publish(n, ()), 30)
            await trio.sleep(0.1)
            assert most == 2


async def test_publications_and_asks_are_limited_and_slots_are_not(
    autojump_clock: MockClock,
) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        await joined(1, a, b)
        for _ in range(limits.NOTICES_AT_ONCE):
            reply = await a.client.request(lambda n: Ask(n, b.public, b"please"))
            assert isinstance(reply, Done)
            assert reply.refusals == ()
        for build in (
            lambda n: Ask(n, b.public, b"please"),
            lambda n: Publish(n, ()),
            lambda n: Grants(n, ()),
        ):
            reply = await a.client.request(build)
            assert isinstance(reply, Done)
            assert "too many" in reply.refusals[0]
        assert isinstance(await a.client.request(lambda n: Slots(n, S, 0, 1)), SlotURLs)
        await trio.sleep(10)
        reply = await a.client.request(lambda n: Publish(n, ()))
        assert isinstance(reply, Done)
        assert reply.refusals == ()


async def test_asks_to_a_frozen_router_are_refused_in_the_end_and_do_not_close_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.signalling.mailbox.MAXIMUM_WAITING_MESSAGES", 5)
    async with running_bridge() as bridge:
        a = await bridge.router("a")
        frozen = await bridge.raw_router("f")
        await receive_until(frozen, Directory)
        while public("f") not in bridge.hub.connected():
            await trio.sleep(0.01)
        refusals: list[str] = []
        for _ in range(8):
            reply = await a.client.request(lambda n: Ask(n, public("f"), bytes(8192)))
            assert isinstance(reply, Done)
            refusals += reply.refusals
        assert "too much waits for that Router; ask again later" in refusals
        assert public("f") in bridge.hub.connected()


async def test_a_flood_of_messages_is_read_no_faster_than_allowed(
    autojump_clock: MockClock,
) -> None:
    async with running_bridge() as bridge:
        a, c = await raw_pair(bridge)
        began = trio.current_time()
        extra = 500
        async with trio.open_nursery() as nursery:
            nursery.start_soon(swallow, c)
            for _ in range(limits.MESSAGES_AT_ONCE + extra):
                await a.send(encode(progress(S)))
            nursery.cancel_scope.cancel()
        took = trio.current_time() - began
        assert took == pytest.approx(extra / limits.MESSAGES_PER_SECOND, rel=0.1)


async def swallow(socket: MemorySocket) -> None:
    while await socket.receive():
        pass


async def test_what_is_sought_is_shown_before_the_answer(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        owner = await bridge.router("a")
        reply = await owner.client.request(lambda n: Publish(n, (b"PACS",)))
        assert reply == Done(reply.request, ())
        socket = await bridge.raw_router("c")
        await receive_until(socket, Directory)
        await socket.send(encode(Seek(7, "PACS")))
        shown = await receive_until(socket, Directory)
        assert shown.routers == ((owner.public, "hospital a", b"", True),)
        assert shown.publications == (b"PACS",)
        assert await receive_until(socket, Done) == Done(7, ())
        await socket.send(encode(Seek(8, "NONE")))
        assert await receive_until(socket, Done) == Done(8, ("'NONE' is not published",))


async def test_who_is_connected_is_said_when_asked(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        reply = await a.client.request(Look)
        assert isinstance(reply, Present)
        assert set(reply.routers) == {a.public, b.public}
        for _ in range(limits.NOTICES_AT_ONCE):
            reply = await a.client.request(Look)
        assert isinstance(reply, Done)
        assert "try again in a minute" in reply.refusals[0]


async def test_what_an_away_router_misses_is_not_kept(autojump_clock: MockClock) -> None:
    """Resume brings it again: the hub holds nothing for a connection that is not there."""
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        near, far = await joined(1, a, b)
        bridge.cut(b)
        assert await far.receive() == Disconnected()
        for chunk in range(10):
            assert await near.send(in_line(S, chunk))
        assert bridge.hub.statistics().waiting_session_bytes == 0
        assert await far.receive() == Connected()
        while b.public not in bridge.hub.connected():  # what it holds is on the way
            await trio.sleep(0.001)
        await near.send(in_line(S, 0))
        assert await far.receive() == in_line(S, 0)
