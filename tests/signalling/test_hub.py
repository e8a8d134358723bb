"""The hub whole: who gets in, who is closed, what a revocation does, and fairness under load."""

from collections.abc import MutableMapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from relay.errors import SignallingError
from relay.identity import Identity
from relay.signalling import limits
from relay.signalling.authentication import introduce
from relay.signalling.client import Connected, Disconnected
from relay.signalling.hub import Timeouts
from relay.signalling.messages import (
    Directory,
    Done,
    End,
    EndReason,
    Held,
    Hello,
    Listing,
    Ping,
    Pong,
    PublishKey,
    Withdraw,
    decode,
    encode,
)
from tests.signalling.bridge import (
    NETWORK,
    MemorySocket,
    in_line,
    joined,
    opening,
    progress,
    receive_until,
    running_bridge,
    session_id,
)

# Of a Directory message that has routers only.
NONE = ((), (), ())


async def test_a_session_crosses(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        near, far = await joined(1, a, b)
        assert bridge.registry.answers == {near.session: b"answer"}
        before = bridge.hub.statistics().moved
        sent = in_line(near.session, 0)
        assert await near.send(sent)
        assert await far.receive() == sent
        assert bridge.hub.statistics().moved == before + len(sent.sealed)
        assert bridge.hub.counted == (bridge.hub.statistics().messages, before + len(sent.sealed))
        assert await far.send(progress(near.session, 1))
        assert await near.receive() == progress(near.session, 1)
        await far.aclose()
        assert await near.receive() == End(near.session, EndReason.FINISHED)
        assert bridge.registry.ended_with == {near.session: EndReason.FINISHED}


async def test_a_router_that_is_not_enrolled_is_not_let_in(
    autojump_clock: MockClock, logs: list[MutableMapping[str, Any]]
) -> None:
    async with running_bridge() as bridge:
        router = await bridge.router("a", enrolled=False, wait=False)
        await trio.sleep(5)
        assert not router.client.connected
        assert "is it enrolled and not revoked?" in router.client.statistics().last_failure
    assert {"event": "connection refused", "log_level": "info"}.items() <= logs[0].items()
    assert logs[0]["why"] == "this Router is not enrolled"


@pytest.mark.parametrize("reads", [True, False], ids=["behind Hello", "at once"])
async def test_who_only_looks_and_goes_is_not_refused(
    reads: bool, autojump_clock: MockClock, logs: list[MutableMapping[str, Any]]
) -> None:
    async with running_bridge() as bridge:
        told: list[str] = []
        bridge.hub.on_refused = told.append
        socket = bridge.join()
        if reads:
            await receive_until(socket, Hello)
        await socket.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert bridge.hub.statistics().unauthenticated == 0
        assert (told, bridge.hub.refused) == ([], 0)
    assert [(row["event"], row["log_level"]) for row in logs] == [
        ("connection closed before it said who it is", "debug")
    ]


async def test_silence_before_authentication_is_closed_in_time(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        socket = bridge.join()
        began = trio.current_time()
        assert isinstance(decode(await socket.receive()), Hello)
        assert await socket.receive() == b""
        assert trio.current_time() - began == pytest.approx(limits.Timeouts().authenticate)


async def test_a_socket_that_does_not_even_take_hello_is_closed(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        socket = bridge.join()
        await trio.sleep(limits.Timeouts().authenticate + 1)
        assert bridge.hub.statistics().unauthenticated == 0
        assert await socket.receive() == b""


@pytest.mark.parametrize(
    "frame",
    [b"\x00", b"GET / HTTP/1.1", encode(Ping(1)), encode(Held(())), b"\xff" * 300_000],
    ids=["nonsense", "http", "ping", "held", "oversize"],
)
async def test_what_is_no_authentication_is_closed(frame: bytes, autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        socket = bridge.join()
        told: list[str] = []
        bridge.hub.on_refused = told.append
        await receive_until(socket, Hello)
        await socket.send(frame)
        assert await socket.receive() == b""
        assert (len(told), bridge.hub.refused) == (1, 1)
        await bridge.router("a")


async def test_idle_strangers_do_not_keep_routers_out(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        strangers = [bridge.join() for _ in range(2 * limits.MAXIMUM_UNAUTHENTICATED)]
        await trio.testing.wait_all_tasks_blocked()
        assert bridge.hub.statistics().unauthenticated == limits.MAXIMUM_UNAUTHENTICATED
        began = trio.current_time()
        await bridge.router("a")
        assert trio.current_time() - began < 1
        assert strangers


async def test_the_newer_connection_of_a_router_wins(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        older = await bridge.raw_router("a")
        newer = await bridge.raw_router("a")
        await receive_until(newer, Directory)
        while await older.receive():
            pass
        await newer.send(encode(Ping(7)))
        assert await receive_until(newer, Pong) == Pong(7)
        await trio.sleep(1)
        assert bridge.hub.connected() == {Identity.from_seed(b"a" * 32).public}


async def test_a_silent_router_is_closed_and_shown_as_gone(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        bridge.registry.all_concern_all = True
        bridge.registry.enrol(Identity.from_seed(b"a" * 32))
        watcher = await bridge.router("w")
        socket = await bridge.raw_router("a")
        public = Identity.from_seed(b"a" * 32).public
        began = trio.current_time()
        while await socket.receive():
            pass
        silence = limits.Timeouts().silence
        assert silence <= trio.current_time() - began < silence + 1
        await trio.sleep(1)
        shown = [row[3] for part in watcher.directories for row in part.routers if row[0] == public]
        assert shown[-1] is False
        assert True in shown


async def test_a_router_that_never_says_what_it_holds_is_closed(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        socket = await bridge.raw_router("a", hold=False)
        began = trio.current_time()
        while frame := await socket.receive():
            assert not bridge.hub.connected()
            if isinstance(message := decode(frame), Ping):
                await socket.send(encode(Pong(message.sequence)))
        assert trio.current_time() - began == pytest.approx(limits.Timeouts().held)


async def test_the_directory_is_sent_whole_and_then_what_changes(
    autojump_clock: MockClock,
) -> None:
    async with running_bridge() as bridge:
        a = await bridge.router("a")
        await trio.sleep(0.1)
        (first,) = a.directories
        ((*row, _),) = first.routers  # of itself no Router asks whether it is connected
        assert (first.whole, row) == (True, [a.public, "hospital a", b""])
        assert a.listings == [Listing(True, ((a.public, "hospital a", ()),))]
        b = await bridge.router("c")
        bridge.registry.granted_by[b.public] = [(a.public, "PACS", ("echo",))]
        await bridge.hub.granted_changed([a.public, b.public])
        await trio.sleep(0.1)
        assert a.directories[1:] == [
            Directory(False, ((b.public, "hospital c", b"", True),), *NONE)
        ]
        reply = await b.client.request(lambda n: PublishKey(n, b"key statement"))
        assert isinstance(reply, Done)
        assert reply.refusals == ()
        await bridge.hub.directory_changed(b.public, publications=[b"p"], gone_titles=["OLD"])
        await trio.sleep(0.1)
        assert a.directories[-3].routers == ((b.public, "hospital c", b"key statement", True),)
        assert a.directories[-2] == Directory(False, (), (), (), ("OLD",))
        assert a.directories[-1] == Directory(False, (), (b"p",), (), ())
        bridge.cut(b)
        await trio.sleep(0.01)
        assert a.directories[-1].routers == ((b.public, "hospital c", b"", False),)


async def test_revoking_closes_the_socket_and_ends_sessions_at_both_ends_at_once(
    autojump_clock: MockClock,
) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        near, far = await joined(1, a, b)
        kept, kept_far = await joined(2, a, await bridge.router("d"))
        began = trio.current_time()
        del bridge.registry.routers[b.public]
        await bridge.hub.revoke(b.public)
        assert await near.receive() == End(near.session, EndReason.REVOKED)
        assert await far.receive() == Disconnected()
        assert trio.current_time() - began < 5
        assert bridge.registry.ended_with == {near.session: EndReason.REVOKED}
        await trio.sleep(30)
        assert not b.client.connected
        assert await kept.send(in_line(kept.session, 0))
        assert await kept_far.receive() == in_line(kept.session, 0)


async def test_whoever_is_revoked_while_coming_in_does_not_slip_in(
    autojump_clock: MockClock,
) -> None:
    async with running_bridge() as bridge:
        identity = Identity.from_seed(b"a" * 32)
        bridge.registry.enrol(identity)
        admit = bridge.registry.admit

        async def admit_then_revoke(router: bytes) -> None:
            await admit(router)
            if router in bridge.registry.routers:
                del bridge.registry.routers[router]
                await bridge.hub.revoke(router)

        bridge.registry.admit = admit_then_revoke  # type: ignore[method-assign]
        with pytest.raises(SignallingError, match="is it enrolled"):
            await introduce(bridge.join(), identity, NETWORK, bridge.identity.public, 10)
        assert bridge.hub.connected() == set()


async def test_ending_a_session_drops_what_waits_for_it(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a = await bridge.router("a")
        frozen = await bridge.raw_router("c")
        await receive_until(frozen, Directory)
        await trio.sleep(1)
        near = a.client.attach(session_id(1))
        assert await near.send(opening(1, Identity.from_seed(b"c" * 32).public))
        for chunk in range(20):
            assert await near.send(in_line(near.session, chunk))
        await trio.sleep(1)
        await bridge.hub.end_session(near.session, EndReason.REVOKED)
        assert await near.receive() == End(near.session, EndReason.REVOKED)
        assert await receive_until(frozen, End) == End(near.session, EndReason.REVOKED)


async def test_one_frozen_session_among_a_hundred_delays_no_other(
    autojump_clock: MockClock,
) -> None:
    """Its reader grants no more credit and takes nothing; the writer has used all it has."""
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        pairs = [await joined(number, a, b) for number in range(100)]
        frozen, frozen_far = pairs[0]
        for chunk in range(64):
            assert await frozen.send(in_line(frozen.session, chunk, 1024))
        began = trio.current_time()
        for chunk in range(20):
            for near, far in pairs[1:]:
                assert await near.send(in_line(near.session, chunk, 1024))
                assert await far.receive() == in_line(near.session, chunk, 1024)
        assert trio.current_time() - began < 1
        for chunk in range(64):  # and nothing of the frozen one was lost
            assert await frozen_far.receive() == in_line(frozen.session, chunk, 1024)


async def test_a_frozen_socket_delays_no_other(autojump_clock: MockClock) -> None:
    """A Router that reads nothing at all: its sender's other sessions and all Routers go on."""
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        frozen = await bridge.raw_router("f")
        await receive_until(frozen, Directory)
        while Identity.from_seed(b"f" * 32).public not in bridge.hub.connected():
            await trio.sleep(0.01)
        public = Identity.from_seed(b"f" * 32).public
        stuck = [a.client.attach(session_id(number)) for number in range(100)]
        began = trio.current_time()
        for number, port in enumerate(stuck):
            assert await port.send(opening(number, public))
        for chunk in range(60):
            for port in stuck[:10]:
                assert await port.send(in_line(port.session, chunk, 1024))
        near, far = await joined(1000, a, b)
        for chunk in range(50):
            assert await near.send(in_line(near.session, chunk))
            assert await far.receive() == in_line(near.session, chunk)
            assert await far.send(progress(near.session, chunk))
            assert await near.receive() == progress(near.session, chunk)
        assert trio.current_time() - began < 1
        assert bridge.hub.statistics().waiting_session_bytes > 600 * 1024
        # It is closed in the end, and its sessions can be resumed when it is back.
        await trio.sleep(limits.Timeouts().silence)
        assert public not in bridge.hub.connected()
        assert bridge.hub.statistics().waiting_session_bytes == 0


async def speak_of(socket: MemorySocket, sessions: int) -> None:
    for number in range(sessions):
        await socket.send(encode(progress(session_id(number))))


async def test_a_router_that_speaks_of_sessions_without_number_is_closed(
    autojump_clock: MockClock,
) -> None:
    """Each is answered by an End; it reads one of those now and then, so that none times out."""
    async with running_bridge() as bridge:
        babbler = await bridge.raw_router("f")
        public = Identity.from_seed(b"f" * 32).public

        async def drip() -> None:
            while await babbler.receive():
                await trio.sleep(limits.Timeouts().write / 2)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            with pytest.raises(SignallingError):
                await speak_of(babbler, 3 * limits.MAXIMUM_WAITING_TURNS)
            assert public not in bridge.hub.connected()
            babbler.cut()


async def test_going_over_the_credit_ends_that_session_only(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        good, good_far = await joined(1, a, b)
        await bridge.raw_router("f")
        await trio.sleep(0.1)
        greedy = a.client.attach(session_id(2))
        assert await greedy.send(opening(2, Identity.from_seed(b"f" * 32).public))
        await trio.sleep(0.1)
        for chunk in range(limits.MAXIMUM_WAITING_IN_LINE // 16384 + 2):
            await greedy.send(in_line(greedy.session, chunk, 16384))
        assert await greedy.receive() == End(greedy.session, EndReason.PROTOCOL_VIOLATION)
        assert bridge.registry.ended_with == {greedy.session: EndReason.PROTOCOL_VIOLATION}
        assert await good.send(in_line(good.session, 0))
        assert await good_far.receive() == in_line(good.session, 0)


async def test_a_router_that_takes_no_control_is_closed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.signalling.outbox.MAXIMUM_WAITING_CONTROL", 100_000)
    async with running_bridge() as bridge:
        a = await bridge.router("a")
        frozen = await bridge.raw_router("f")
        await receive_until(frozen, Directory)
        await trio.sleep(0.1)
        for _ in range(100):
            await bridge.hub.directory_changed(bytes(32), gone_titles=["T" * 16] * 125)
            await trio.sleep(0.001)
        await trio.sleep(0.1)
        assert bridge.hub.connected() == {a.public}


async def test_sessions_survive_a_restarted_bridge(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        near, far = await joined(1, a, b)
        forgotten, forgotten_far = await joined(2, a, b)
        bridge.stop()
        assert await near.receive() == Disconnected()
        assert not await near.send(in_line(near.session, 0))
        forgotten_far.detach()
        await trio.sleep(5)
        bridge.start()
        assert await near.receive() == Connected()
        while isinstance(message := await forgotten.receive(), Connected | Disconnected):
            pass
        # Which of the two depends on who came back first.
        assert message in (
            End(forgotten.session, EndReason.PEER_FORGOT),
            End(forgotten.session, EndReason.UNKNOWN_SESSION),
        )
        while len(bridge.hub.connected()) < 2:
            await trio.sleep(0.1)
        assert await near.send(in_line(near.session, 0))
        while isinstance(message := await far.receive(), Connected | Disconnected):
            pass
        assert message == in_line(near.session, 0)
        assert bridge.registry.ended_with == {forgotten.session: EndReason.PEER_FORGOT}


async def test_a_session_that_ended_unheard_is_ended_on_the_next_connection(
    autojump_clock: MockClock,
) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        near, far = await joined(1, a, b)
        bridge.cut(b)
        await near.aclose()
        assert await far.receive() == Disconnected()
        while isinstance(message := await far.receive(), Connected | Disconnected):
            pass
        assert message == End(near.session, EndReason.UNKNOWN_SESSION)


async def test_withdrawing_ends_the_session(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        a, b = await bridge.router("a"), await bridge.router("c")
        near = a.client.attach(session_id(1))
        assert await near.send(opening(1, b))
        far = b.client.attach((await b.opens.receive()).session)
        assert await near.send(Withdraw(near.session, b"signed"))
        near.detach()
        assert await far.receive() == Withdraw(near.session, b"signed")
        await trio.sleep(0.1)
        assert bridge.registry.sessions == {}


async def test_cancelled_the_hub_closes_its_sockets_at_once(autojump_clock: MockClock) -> None:
    async with running_bridge(Timeouts(close=1000)) as bridge:
        socket = await bridge.raw_router("a")
        began = trio.current_time()
        bridge.stop()
        while await socket.receive():
            pass
        assert trio.current_time() - began < 1
