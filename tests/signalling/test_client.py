"""The client: who it trusts, what it repeats, how it comes back, and what cannot stop it."""

import contextlib
import itertools
import random
from collections.abc import MutableMapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from relay.errors import Refused, SignallingError
from relay.identity import Identity
from relay.signalling import limits
from relay.signalling.authentication import challenge
from relay.signalling.client import Connected, Disconnected, SignallingClient, Timeouts
from relay.signalling.messages import (
    Ahead,
    AheadURLs,
    Answer,
    Ask,
    Direction,
    Directory,
    Done,
    End,
    EndReason,
    Granted,
    Grants,
    Held,
    Hello,
    InLine,
    Open,
    Ping,
    Pong,
    Progress,
    Publish,
    Refuse,
    Resign,
    Resigned,
    Slots,
    SlotURLs,
    Welcome,
    decode,
    encode,
)
from tests.signalling.bridge import (
    NETWORK,
    Bridge,
    MemorySocket,
    Router,
    in_line,
    joined,
    nothing,
    opening,
    progress,
    receive_until,
    running_bridge,
    session_id,
    signed,
    socket_pair,
)


async def test_it_publishes_before_it_says_what_it_holds(autojump_clock: MockClock) -> None:
    order: list[str] = []
    async with running_bridge() as bridge:

        async def on_connected() -> None:
            router = bridge.registry
            assert not bridge.hub.connected()
            order.append("connected")
            client = clients[0]
            assert not client.connected
            reply = await client.request(lambda n: Publish(n, (b"one", b"taken")))
            assert isinstance(reply, Done)
            assert reply.refusals == ("taken is published already",)
            await client.request(lambda n: Grants(n, ((b"g" * 32, "PACS", ("echo",)),)))
            order.append(f"published {len(router.publications)} {len(router.granted_by)}")

        clients: list[SignallingClient] = []
        identity = Identity.from_seed(b"a" * 32)
        bridge.registry.enrol(identity)
        client = SignallingClient(
            "https://bridge.example",
            identity,
            NETWORK,
            bridge.identity.public,
            dial=bridge.dialler(identity),
        )
        clients.append(client)

        async def run() -> None:
            await client.run(
                on_connected=on_connected, on_open=nothing, on_directory=nothing, on_ask=nothing
            )

        bridge.nursery.start_soon(run)
        await client.wait_connected()
        assert order == ["connected", "published 1 1"]
        assert abs(client.clock_offset or 0) < 5


async def test_publishing_that_fails_ends_the_connection_and_is_tried_again(
    autojump_clock: MockClock,
) -> None:
    tries = 0

    async def on_connected() -> None:
        nonlocal tries
        tries += 1
        await trio.lowlevel.checkpoint()
        if tries < 3:
            raise SignallingError("not yet")

    async with running_bridge() as bridge:
        router = await bridge.router("a", on_connected=on_connected)
        assert tries == 3
        assert router.client.statistics().last_failure == "not yet"


async def test_what_others_grant_is_told_on_connecting_and_after_each_change(
    autojump_clock: MockClock,
) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        await trio.sleep(1)
        assert a.granted == [Granted((), 0)]
        await b.client.request(lambda n: Grants(n, ((a.public, "PACS", ("echo",)),)))
        await trio.sleep(1)
        granted = Granted(((b.public, "PACS", ("echo",)),), 0)
        assert a.granted == [Granted((), 0), granted]
        assert b.granted == [Granted((), 0)]
        bridge.cut(a)
        await a.client.wait_connected()
        await trio.sleep(5)
        assert a.granted[2:] == [granted]


async def test_requests_get_their_own_answers(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        near, far = await joined(1, a, b)
        s = near.session
        replies: dict[int, Any] = {}

        async def ask(client: SignallingClient, first: int) -> None:
            replies[first] = await client.request(lambda n: Slots(n, s, first, 2))

        async with trio.open_nursery() as nursery:
            for first in range(200):
                nursery.start_soon(ask, a.client, first)
        for first, reply in replies.items():
            assert isinstance(reply, SlotURLs)
            assert reply.first == first
            assert reply.puts == (
                signed("PUT", Direction.CALLER_TO_CALLEE, first),
                signed("PUT", Direction.CALLER_TO_CALLEE, first + 1),
            )
        mirrored = await b.client.request(lambda n: Slots(n, far.session, 3, 1))
        assert isinstance(mirrored, SlotURLs)
        assert mirrored.puts == (signed("PUT", Direction.CALLEE_TO_CALLER, 3),)
        again = await b.client.request(lambda n: Resign(n, s, 9))
        assert isinstance(again, Resigned)
        assert (again.get, again.delete) == (
            (signed("GET", Direction.CALLER_TO_CALLEE, 9),),
            (signed("DELETE", Direction.CALLER_TO_CALLEE, 9),),
        )
        nothing = await b.client.request(lambda n: Ahead(n, s, 9, 2))
        assert nothing == AheadURLs(nothing.request, s, 9, (), ())
        bridge.registry.reads_ahead = True
        ahead = await b.client.request(lambda n: Ahead(n, s, 9, 2))
        assert isinstance(ahead, AheadURLs)
        assert ahead.gets == tuple(
            signed("GET", Direction.CALLER_TO_CALLEE, slot) for slot in (9, 10)
        )
        assert ahead.deletes == tuple(
            signed("DELETE", Direction.CALLER_TO_CALLEE, slot) for slot in (9, 10)
        )
        unknown = await a.client.request(lambda n: Slots(n, session_id(77), 0, 1))
        assert isinstance(unknown, Done)
        assert unknown.refusals == ("unknown session",)


async def test_a_request_fails_when_there_is_no_connection(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        bridge.stop()
        router = await bridge.router("a", wait=False)
        with pytest.raises(SignallingError, match="not connected"):
            await router.client.request(lambda n: Publish(n, ()))
        assert not await router.client.send(End(session_id(1), 0))


async def test_a_request_fails_when_the_connection_is_lost(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        router = await bridge.router("a")

        async def hang(*_: object) -> list[str]:
            await trio.sleep_forever()

        bridge.registry.grants = hang  # type: ignore[assignment, method-assign]
        bridge.nursery.start_soon(cut_later, bridge, router)
        with pytest.raises(SignallingError, match="was lost"):
            await router.client.request(lambda n: Grants(n, ()))


async def cut_later(bridge: Bridge, router: Router) -> None:
    await trio.sleep(1)
    bridge.cut(router)


async def test_a_request_that_is_late_fails_and_its_answer_is_ignored(
    autojump_clock: MockClock,
) -> None:
    async with running_bridge() as bridge:
        router = await bridge.router("a")

        async def slow(*_: object) -> list[str]:
            await trio.sleep(5)
            return []

        bridge.registry.grants = slow  # type: ignore[assignment, method-assign]
        with pytest.raises(SignallingError, match="within 2 s"):
            await router.client.request(lambda n: Grants(n, ()), deadline=2)
        await trio.sleep(10)
        assert router.client.connected


async def test_asks_reach_the_other_router_under_the_askers_name(
    autojump_clock: MockClock,
) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        reply = await a.client.request(lambda n: Ask(n, b.public, b"sealed"))
        assert isinstance(reply, Done)
        assert reply.refusals == ()
        await trio.sleep(0.1)
        assert [(ask.router, ask.sealed) for ask in b.asks] == [(a.public, b"sealed")]
        reply = await a.client.request(lambda n: Ask(n, b"x" * 32, b"sealed"))
        assert isinstance(reply, Done)
        assert reply.refusals == ("that Router is not connected; ask again later",)


async def test_a_refusal_needs_no_port(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        near = a.client.attach(session_id(1))
        assert await near.send(opening(1, b))
        message = await b.opens.receive()
        assert message.router == a.public
        assert b.client.statistics().sessions == 1  # held until answered or refused
        assert await b.client.send(Refuse(message.session, b"signed"))
        assert await near.receive() == Refuse(message.session, b"signed")
        assert b.client.statistics().sessions == 0
        await trio.sleep(0.1)
        assert bridge.registry.sessions == {}


async def test_cuts_at_random_moments_only_pause_a_session(autojump_clock: MockClock) -> None:
    """Writer and reader as the tunnel has them: announce again from what was received."""
    chooser = random.Random(7)
    async with running_bridge(Timeouts(longest_pause=1)) as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        near, far = await joined(1, a, b)
        s, total, received = near.session, 500, 0

        async def read() -> None:
            nonlocal received
            while received < total:
                message = await far.receive()
                assert not isinstance(message, End)
                if isinstance(message, InLine) and message.chunk == received:
                    received += 1
                await far.send(Progress(s, (0, received, received, 0, 0), (0, 0, 0, 0, 0)))

        async def write() -> None:
            nxt, acknowledged = 0, 0
            while acknowledged < total:
                if nxt < min(total, acknowledged + 8):
                    await near.send(InLine(s, nxt, bytes(50)))
                    await trio.sleep(0.01)
                    nxt += 1
                    continue
                message: Any = None
                with trio.move_on_after(2):
                    message = await near.receive()
                assert not isinstance(message, End)
                if isinstance(message, Progress):
                    acknowledged = message.outward[1]
                elif message is None or isinstance(message, Connected):
                    nxt = acknowledged

        async def cut() -> None:
            while True:
                await trio.sleep(chooser.uniform(0.1, 3))
                with contextlib.suppress(KeyError):
                    bridge.cut(chooser.choice([a, b]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            async with trio.open_nursery() as both:
                both.start_soon(read)
                both.start_soon(write)
            nursery.cancel_scope.cancel()
        assert received == total
        assert a.client.statistics().connections > 3


@pytest.mark.parametrize("seed", range(10))
async def test_openings_survive_cuts_at_random_moments(
    seed: int, autojump_clock: MockClock
) -> None:
    """Whatever is cut, an opening comes to an answer or an end, and both ends agree."""
    chooser = random.Random(seed)
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")

        async def serve() -> None:
            async for message in b.opens:
                port = b.client.attach(message.session)
                await trio.sleep(chooser.uniform(0, 0.01))
                await port.send(Answer(message.session, b"answer"))

        bridge.nursery.start_soon(serve)
        for number in range(40):
            near = a.client.attach(session_id(number))
            with trio.CancelScope() as scope:
                bridge.nursery.start_soon(
                    cut_soon, bridge, chooser.choice([a, b]), chooser.random()
                )
                await near.send(opening(number, b))
            assert not scope.cancelled_caught
            with trio.fail_after(60):
                while isinstance(message := await near.receive(), Connected | Disconnected):
                    pass
            assert isinstance(message, Answer | End)
            await a.client.wait_connected()
            await b.client.wait_connected()
            if isinstance(message, Answer):
                await near.aclose()
            await trio.sleep(1)
        await trio.sleep(60)
        assert bridge.registry.sessions == {}
        assert a.client.statistics().sessions == b.client.statistics().sessions == 0


async def cut_soon(bridge: Bridge, router: Router, when: float) -> None:
    # The memory sockets take no time, so whole moments are counted in scheduler rounds.
    for _ in range(int(when * 40)):
        await trio.lowlevel.checkpoint()
    bridge.cut(router)


async def test_pauses_grow_and_begin_anew_after_a_good_connection(
    autojump_clock: MockClock,
) -> None:
    async with running_bridge() as bridge:
        dials: list[float] = []
        router = await bridge.router("a")
        dial = router.client._dial

        async def counted(nursery: trio.Nursery) -> Any:
            dials.append(trio.current_time())
            return await dial(nursery)

        router.client._dial = counted
        await trio.sleep(60)
        bridge.stop()
        await trio.sleep(120)
        gaps = [after - before for before, after in itertools.pairwise(dials)]
        assert gaps[0] <= 0.4
        assert max(gaps) <= limits.Timeouts().longest_pause
        assert max(gaps) > limits.Timeouts().longest_pause / 2
        bridge.start()
        await trio.sleep(60)
        assert router.client.connected
        dials.clear()
        down = trio.current_time()
        bridge.cut(router)
        await router.client.wait_connected()
        await trio.sleep(1)
        assert router.client.connected
        assert dials[0] - down < 0.5


class Impostor:
    """Speaks as the Bridge, wrongly; the client's dialler."""

    def __init__(self, identity: Identity, network: bytes = NETWORK) -> None:
        self.identity, self.network = identity, network
        self.sockets: list[MemorySocket] = []

    async def dial(self, nursery: trio.Nursery) -> MemorySocket:
        ours, theirs = socket_pair()
        nursery.start_soon(self.speak, theirs)
        await trio.lowlevel.checkpoint()
        return ours

    async def speak(self, socket: MemorySocket) -> None:
        with contextlib.suppress(SignallingError):
            proven = await challenge(socket, self.identity, self.network, 5)
            await self.welcome(socket, proven.welcome)

    async def welcome(self, socket: MemorySocket, frame: bytes) -> None:
        await socket.send(frame)
        await self.then(socket)

    async def then(self, socket: MemorySocket) -> None:
        await trio.sleep_forever()


async def failure_of(impostor: Impostor, within: float = 1) -> str:
    """What the client says of that Bridge."""
    client = SignallingClient(
        "https://bridge.example",
        Identity.from_seed(b"a" * 32),
        NETWORK,
        Identity.from_seed(b"B" * 32).public,
        dial=impostor.dial,
    )
    with trio.move_on_after(within):
        await client.run(
            on_connected=nothing, on_open=nothing, on_directory=nothing, on_ask=nothing
        )
    return client.statistics().last_failure


async def test_only_the_enrolled_bridge_is_believed(autojump_clock: MockClock) -> None:
    real = Identity.from_seed(b"B" * 32)
    assert "not the enrolled one" in await failure_of(Impostor(Identity.generate()))
    assert "another network" in await failure_of(Impostor(real, bytes(16)))

    class Forger(Impostor):
        async def welcome(self, socket: MemorySocket, frame: bytes) -> None:
            await socket.send(encode(Welcome(bytes(64), 0)))

    assert "signature does not hold" in await failure_of(Forger(real))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"\xc1", "not msgpack"),
        (encode(Hello(1, NETWORK, bytes(32), bytes(32))), "not the Bridge's to send"),
        (encode(Held(())), "not the Bridge's to send"),
        (b"", "closed the connection"),
    ],
)
async def test_a_bridge_that_speaks_out_of_turn_is_left(
    frame: bytes, words: str, autojump_clock: MockClock
) -> None:
    class Babbler(Impostor):
        async def then(self, socket: MemorySocket) -> None:
            await receive_until(socket, Held)
            await socket.send(frame)

    assert words in await failure_of(Babbler(Identity.from_seed(b"B" * 32)))


async def test_a_silent_bridge_is_left(autojump_clock: MockClock) -> None:
    class Silent(Impostor):
        async def then(self, socket: MemorySocket) -> None:
            while await socket.receive():
                pass

    silence = limits.Timeouts().silence
    why = await failure_of(Silent(Identity.from_seed(b"B" * 32)), silence + 2)
    assert f"silent for {silence:g} s" in why


async def test_a_bridge_that_takes_nothing_is_left(autojump_clock: MockClock) -> None:
    class Stuffed(Impostor):
        async def then(self, socket: MemorySocket) -> None:
            while True:
                await trio.sleep(1)
                await socket.send(encode(Pong(0)))

    assert "could not be written" in await failure_of(
        Stuffed(Identity.from_seed(b"B" * 32)), limits.Timeouts().write + 5
    )


async def test_a_message_for_an_unknown_session_is_answered_once(
    autojump_clock: MockClock,
) -> None:
    ends: list[End] = []

    class Confused(Impostor):
        async def then(self, socket: MemorySocket) -> None:
            await receive_until(socket, Held)
            for _ in range(5):
                await socket.send(encode(progress(session_id(1))))
                await socket.send(encode(End(session_id(2), 0)))
            await socket.send(encode(Ping(9)))
            while True:
                message = decode(await socket.receive())
                if isinstance(message, End):
                    ends.append(message)

    assert await failure_of(Confused(Identity.from_seed(b"B" * 32))) == ""
    assert ends == [End(session_id(1), EndReason.UNKNOWN_SESSION)]


async def test_a_receiver_too_far_behind_loses_its_session_and_no_other(
    autojump_clock: MockClock, logs: list[MutableMapping[str, Any]]
) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        near, far = await joined(1, a, b)
        good, good_far = await joined(2, a, b)
        for chunk in range(limits.MAXIMUM_WAITING_MESSAGES + 5):
            await near.send(in_line(near.session, chunk, 1))
        assert await far.receive() == End(far.session, EndReason.PROTOCOL_VIOLATION)
        assert await near.receive() == End(near.session, EndReason.PROTOCOL_VIOLATION)
        assert await good.send(in_line(good.session, 0))
        assert await good_far.receive() == in_line(good.session, 0)
    assert "session ended: its receiver is too far behind" in [line["event"] for line in logs]


async def test_slow_callbacks_turn_openings_away_and_block_nothing(
    autojump_clock: MockClock,
) -> None:
    async def on_open(message: Open) -> None:
        await trio.sleep_forever()

    async with running_bridge() as bridge:
        a = await bridge.router("a")
        b = await bridge.router("c", on_open=on_open)
        ports = [a.client.attach(session_id(n)) for n in range(80)]
        for number, port in enumerate(ports):
            await port.send(opening(number, b))
        assert await ports[-1].receive() == End(ports[-1].session, EndReason.LIMIT_REACHED)
        await trio.sleep(300)
        assert b.client.connected
        assert b.client.statistics().connections == 1


async def test_a_callback_that_fails_ends_its_session_only(
    autojump_clock: MockClock, logs: list[MutableMapping[str, Any]]
) -> None:
    async def on_open(message: Open) -> None:
        await trio.lowlevel.checkpoint()
        if message.session == session_id(1):
            raise Refused(500, "no such device")
        await router[0].client.attach(message.session).send(Answer(message.session, b""))

    async with running_bridge() as bridge:
        a = await bridge.router("a")
        b = await bridge.router("c", on_open=on_open)
        router = [b]
        bad, good = a.client.attach(session_id(1)), a.client.attach(session_id(2))
        await bad.send(opening(1, b))
        await good.send(opening(2, b))
        assert await bad.receive() == End(bad.session, EndReason.PEER_FORGOT)
        assert await good.receive() == Answer(good.session, b"")
        assert b.client.statistics().sessions == 1
    assert "no such device" in [line.get("why") for line in logs]


async def test_cancelled_callers_do_not_hurt_the_socket(autojump_clock: MockClock) -> None:
    """A cancelled sender's frame is written whole or not at all: the connection stays."""
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        near, far = await joined(1, a, b)
        for chunk in range(50):
            with trio.CancelScope() as scope:
                if chunk % 2:
                    scope.cancel()
                await near.send(in_line(near.session, chunk))
        for chunk in range(50):
            assert await far.receive() == in_line(near.session, chunk)
        assert a.client.statistics().connections == 1


async def test_no_more_sessions_than_can_be_held(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.signalling.sessions.MAXIMUM_SESSIONS", 2)
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        await joined(1, a, b)
        await joined(2, a, b)
        with pytest.raises(SignallingError, match="no more fit"):
            a.client.attach(session_id(3))


async def test_statistics_count(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        await joined(1, a, b)
        await trio.sleep(0.1)
        statistics = a.client.statistics()
        assert statistics.connected
        assert statistics.sessions == statistics.connections == 1
        assert statistics.messages >= 3
        assert any(isinstance(part, Directory) for part in a.directories)
