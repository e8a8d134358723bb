"""Tunnelled associations over a fake Bridge and store that do all that the real ones may do."""

import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateRJ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
)
from relay.errors import AssociationAborted, LocalProtocolError, Refusal
from relay.signalling.client import Timeouts
from relay.signalling.messages import (
    Announce,
    Answer,
    End,
    EndReason,
    InLine,
    Message,
    Open,
    Progress,
    Refuse,
    Withdraw,
)
from relay.tunnel import pulse, reader, session, writer
from relay.tunnel import window as window_law
from relay.tunnel.allowance import IN_LINE_WINDOW, Allowance, InLineAllowance
from relay.tunnel.chunks import TARGET_SIZE, ChunkBuilder
from relay.tunnel.flows import WARM
from relay.tunnel.handshake import Purpose
from relay.tunnel.inbox import MAXIMUM_DELETES, MOST_FETCHES
from relay.tunnel.outbox import MOST_PUTS
from relay.tunnel.reader import OPENED_AHEAD
from relay.tunnel.session import TunnelAssociation, TunnelTimeouts, accept_tunnel, open_tunnel
from relay.tunnel.window import BASE, BUDGET
from tests.signalling.bridge import Bridge, running_bridge
from tests.tunnel.fakes import (
    AC,
    BLOCK,
    CALLEE,
    CALLER,
    Network,
    Pair,
    Store,
    established,
    merged,
    messages,
    near_end,
    opening,
    received,
    running,
    tunnel,
)

# Full chunks in a window that has not grown.
IN_WINDOW = BASE // TARGET_SIZE

LOST = AAbort(2, 0)
AWAY = AAssociateRJ(2, 3, 1)


@pytest.fixture(autouse=True)
def _no_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock clock jumps while a thread works: what is timed seals and opens in line."""
    if "autojump_clock" in request.fixturenames:
        monkeypatch.setattr(writer, "SEAL_IN_THREAD", math.inf)
        monkeypatch.setattr(reader, "OPEN_IN_THREAD", math.inf)


async def send_all(association: TunnelAssociation, atoms: list[Atom]) -> None:
    for index, atom in enumerate(atoms):
        more = isinstance(atom, PDV) and atom.is_command and index + 1 < len(atoms)
        await association.send(atom, compressible=True, end_of_message=not more)


async def receive_until(association: TunnelAssociation, last: type[Atom]) -> list[Atom]:
    atoms: list[Atom] = []
    while not (atoms and isinstance(atoms[-1], last)):
        atoms.append(await association.receive())
    return atoms


async def converse(pair: Pair, outward: list[Atom], inward: list[Atom]) -> None:
    """An association: AC, both lists at once, release; everything arrives once and in order."""
    got: list[Atom] = []
    got_back: list[Atom] = []

    async def far() -> None:
        await pair.callee.send(AC)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, pair.callee, inward)
            got.extend(await receive_until(pair.callee, AReleaseRQ))
        await pair.callee.send(AReleaseRP())

    async def near() -> None:
        got_back.extend(await receive_until(pair.caller, AReleaseRP))

    with trio.fail_after(600):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far)
            nursery.start_soon(near)
            await send_all(pair.caller, outward)
            await pair.caller.send(AReleaseRQ())
    assert merged(got) == merged([*outward, AReleaseRQ()])
    assert merged(got_back) == merged([AC, *inward, AReleaseRP()])


# --- everything arrives, whatever happens --------------------------------------------------------


async def test_an_association_from_request_to_release() -> None:
    """In real time, with threads."""
    async with tunnel() as pair:
        with trio.fail_after(30):
            await converse(pair, messages(60, largest=1_500_000), messages(100, seed=1))
        statistics = pair.caller.statistics()
        assert statistics.writer.retries == statistics.reader.retries == 0
        with pytest.raises(LocalProtocolError):
            await pair.caller.receive()
        with pytest.raises(AssociationAborted):
            await pair.caller.send(BLOCK)
    # What is left is being deleted as the session ends: the sweeper's.
    assert len(pair.store.objects) <= 4 * MAXIMUM_DELETES
    assert set(pair.network.ended) == {EndReason.FINISHED}
    assert pair.caller.cause == session.FAR_END
    assert pair.callee.cause == session.NEAR_END


async def test_small_messages_need_no_store(autojump_clock: MockClock) -> None:
    """C-ECHO: request and response, one round trip each."""
    async with tunnel() as pair:
        pair.network.latency = 0.05
        await converse(pair, [PDV(1, True, True, bytes(68))], [PDV(1, True, True, bytes(78))])
    assert pair.store.puts == 0


async def test_the_far_answer_comes_after_one_round_trip(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    network.latency = 0.1

    async def far(association: TunnelAssociation) -> None:
        await association.send(AC)
        await association.receive()

    async with running(network, far):
        start = trio.current_time()
        async with near_end(network) as association:
            assert await association.receive() == AC
            assert trio.current_time() - start < 0.25


@pytest.mark.parametrize("seed", range(12))
async def test_random_cuts_lose_nothing(seed: int, autojump_clock: MockClock) -> None:
    network, store = Network(seed), Store(seed)
    store.delay, store.failing = 0.2, 0.1
    rng = network.random

    async def cut() -> None:
        while True:
            await trio.sleep(rng.expovariate(1 / 1.5))
            victims = rng.choice([network.clients[:1], network.clients[1:], network.clients])
            for client in victims:
                network.cut(client)
            await trio.sleep(rng.uniform(0, 3))
            for client in victims:
                network.restore(client)

    async with tunnel(network, store) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(cut)
        await converse(pair, messages(150, seed), messages(60, seed + 100))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(12))
async def test_random_cuts_within_large_objects_lose_nothing(
    seed: int, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many bundles follow one another; the store has few turns, or none, or brings nothing."""
    network, store = Network(seed), Store(seed)
    store.delay, store.failing = 0.2, 0.1
    rng = network.random
    network.reads_ahead = seed % 4 > 0
    network.latency = rng.choice([0.001, 0.02, 0.1])
    monkeypatch.setattr(reader, "MANY_CHUNKS", rng.choice([1, 2, 4]))
    monkeypatch.setattr(ChunkBuilder.__init__, "__defaults__", (40_000, None))
    turns = trio.CapacityLimiter(rng.choice([1, 2, 5, 100]))
    get_ahead = store.get_ahead

    async def in_turn(*arguments: Any) -> bytes | None:
        turns.acquire_on_behalf_of_nowait(turn := object())
        try:
            if rng.random() < 0.05:
                await trio.sleep(8 * rng.random())
                return None
            return await get_ahead(*arguments)
        finally:
            turns.release_on_behalf_of(turn)

    async def cut() -> None:
        while True:
            await trio.sleep(rng.expovariate(1 / 1.5))
            network.cut(client := rng.choice(network.clients))
            await trio.sleep(rng.uniform(0, 3))
            network.restore(client)

    monkeypatch.setattr(store, "get_ahead", in_turn)
    async with tunnel(network, store) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(cut)
        large = partial(messages, largest=400_000)
        await converse(pair, large(30, seed), large(20, seed + 100))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("delay", [pulse.PROGRESS_DELAY, pulse.UNHURRIED_DELAY])
async def test_a_quick_exchange_does_not_wait_for_what_is_said_later(
    delay: float, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "UNHURRIED_DELAY", delay)
    network = Network()
    network.latency = 0.001
    async with established(network) as pair, trio.open_nursery() as nursery:

        async def answer() -> None:
            while True:
                await pair.callee.receive()
                await pair.callee.send(PDV(1, True, True, bytes(78)))

        nursery.start_soon(answer)
        began = trio.current_time()
        for _ in range(300):
            await pair.caller.send(PDV(1, True, True, bytes(68)))
            await pair.caller.receive()
        # Some wait a moment for what was said to be heard of.
        assert trio.current_time() - began < 1.3 * 300 * 2 * network.latency
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(4))
async def test_messages_may_be_lost_one_by_one(seed: int, autojump_clock: MockClock) -> None:
    network = Network(seed)
    network.lose = lambda message: not isinstance(message, End) and network.random.random() < 0.2
    async with tunnel(network) as pair:
        await converse(pair, messages(50, seed), messages(20, seed + 100))


@pytest.mark.parametrize("lost", [Open, Answer, InLine, Announce, Progress])
async def test_each_message_may_be_lost_at_first(
    lost: type[Message], autojump_clock: MockClock
) -> None:
    network = Network()
    dropped: list[Message] = []

    def lose(message: Message) -> bool:
        if isinstance(message, lost) and len(dropped) < 3:
            dropped.append(message)
            return True
        return False

    network.lose = lose
    async with tunnel(network) as pair:
        await converse(pair, messages(20), messages(20))
    assert len(dropped) == 3


async def test_a_restarted_bridge_is_only_a_pause(autojump_clock: MockClock) -> None:
    network, store = Network(), Store()
    store.delay = 0.05

    async def restart() -> None:
        for pause in (0.3, 2, 15):
            await trio.sleep(0.5)
            for client in network.clients:
                network.cut(client)
            network.frames.clear()
            await trio.sleep(pause)
            for client in network.clients:
                network.restore(client)
                await trio.sleep(network.random.random())

    async with tunnel(network, store) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(restart)
        await converse(pair, messages(200), messages(50, seed=1))


@pytest.mark.parametrize("seed", range(3))
async def test_a_store_that_fails_a_third_of_the_time(seed: int, autojump_clock: MockClock) -> None:
    store = Store(seed)
    store.failing, store.delay = 0.3, 0.05
    async with tunnel(store=store) as pair:
        await converse(pair, messages(150, seed), messages(100, seed + 100))
        assert pair.caller.statistics().writer.retries > 0
        assert pair.callee.statistics().reader.retries > 0


async def test_urls_that_expired_are_signed_again(autojump_clock: MockClock) -> None:
    network, store = Network(), Store()
    first: set[str] = set()

    def refuse(request: object) -> bool:
        """Each URL once: as if it had expired on the way."""
        key = f"{request.method} {request.url}"
        if request.method == "DELETE" or key in first:
            return False
        first.add(key)
        return True

    store.refuse = refuse
    async with tunnel(network, store) as pair:
        await converse(pair, messages(30), messages(30))


async def test_slots_that_waited_are_signed_again(autojump_clock: MockClock) -> None:
    """Asked for ahead, used an hour later."""
    async with established() as pair:
        await trio.sleep(3600)
        before = pair.network.signed
        await pair.caller.send(BLOCK)
        await pair.callee.receive()
        # One PUT signed again, GET and DELETE, and the batch that refills.
        assert pair.network.signed > before + 2
        await pair.caller.abort()


async def test_one_wait_for_slots_in_a_session(autojump_clock: MockClock) -> None:
    """They are asked for before they are needed, so that no chunk after the first waits."""
    network, store = Network(), Store()
    network.latency = 0.1
    async with established(network, store) as pair:
        await trio.sleep(1)

        async def far() -> None:
            for _ in range(40):
                await pair.callee.receive()

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far)
            for _ in range(40):
                await pair.caller.send(BLOCK)
        # Ten windows, each acknowledged after one way there and one back, and no more.
        assert trio.current_time() - start < 10 * 2 * 0.115
        await pair.caller.abort()


# --- backpressure --------------------------------------------------------------------------------


async def test_many_go_and_come_in_one_call(autojump_clock: MockClock) -> None:
    said = [PDV(1, True, True, b"c."), PDV(1, False, True, b"data")] * 100
    async with established() as pair:
        await pair.caller.send_all(said)
        got: list[Atom] = []
        calls = 0
        while len(got) < len(said):
            got += await pair.callee.receive_some()
            calls += 1
        assert got == said
        assert calls == pair.caller.statistics().writer.chunks == 1
        await pair.caller.send_all(said[:1], end_of_message=False)  # its data set follows
        await pair.caller.send_all(said[1:2])
        assert list(await pair.callee.receive_some()) == said[:2]
        await pair.caller.send(AReleaseRQ())
        assert list(await pair.callee.receive_some()) == [AReleaseRQ()]
        await pair.callee.send(AReleaseRP())
        assert list(await pair.caller.receive_some()) == [AReleaseRP()]
        with pytest.raises(LocalProtocolError):
            await pair.caller.receive_some()
        with pytest.raises(LocalProtocolError):
            await pair.callee.send_all(said)


async def test_a_frozen_reader_holds_the_writer(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the window learns before the reader freezes is tests/tunnel/test_window.py's concern.
    monkeypatch.setattr(window_law, "MAXIMUM_WINDOW", BASE)
    sent = 0

    async with established() as pair:

        async def flood() -> None:
            nonlocal sent
            while sent < 50:
                await pair.caller.send(PDV(1, False, False, bytes(TARGET_SIZE // 4)))
                sent += 1
            await pair.caller.send(AReleaseRQ())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await trio.sleep(600)
            # Opened and not consumed, and a chunk beyond that; in the window, and a chunk beyond
            # that; in a chunk that is cut, and in one that is being gathered.
            opened, window = OPENED_AHEAD // TARGET_SIZE + 1, BASE // TARGET_SIZE + 2
            assert sent <= 4 * (opened + window + 2)
            assert pair.caller.statistics().writer.chunks <= opened + window
            assert sum(map(len, pair.store.objects.values())) <= window * (TARGET_SIZE + 100)
            assert pair.callee.cause == pair.caller.cause == ""

            got = await receive_until(pair.callee, AReleaseRQ)
            assert sum(len(a.fragment) for a in got[:-1]) == 50 * (TARGET_SIZE // 4)
            await pair.callee.send(AReleaseRP())


async def test_unacknowledged_bytes_are_bounded(autojump_clock: MockClock) -> None:
    store = Store()
    store.delay = 0.5
    most = 0
    async with tunnel(store=store) as pair:

        async def watch() -> None:
            nonlocal most
            while True:
                statistics = pair.caller.statistics().writer
                most = max(most, statistics.unacknowledged_bytes)
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await converse(pair, [BLOCK] * 60, [])
            nursery.cancel_scope.cancel()
    assert TARGET_SIZE < most <= BASE + BUDGET + TARGET_SIZE
    # Several at a time, but not without end.
    most_requests = MOST_PUTS + MOST_FETCHES + MAXIMUM_DELETES
    assert 2 < store.most_in_flight <= most_requests


async def test_without_in_line_credit_small_chunks_go_by_the_store(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "IN_LINE_WINDOW", 200)
    async with established() as pair:
        for number in range(100):
            await pair.caller.send(PDV(1, True, True, b"%08d" % number))
            await trio.lowlevel.checkpoint()
        got = [await pair.callee.receive() for _ in range(100)]
        assert [int(bytes(a.fragment)) for a in got] == list(range(100))
        await pair.caller.abort()
    assert pair.store.puts > 0


async def test_what_waits_for_the_window_goes_in_one_chunk(
    autojump_clock: MockClock,
) -> None:
    """1,000 C-FIND answers do not take 250 round trips."""
    network = Network()
    network.latency = 0.1
    async with established(network) as pair:
        await trio.sleep(1)
        start = trio.current_time()

        async def answer() -> None:
            for number in range(1000):
                await pair.callee.send(PDV(1, True, True, b"%08d" % number))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            for number in range(1000):
                assert bytes((await pair.caller.receive()).fragment) == b"%08d" % number
        assert trio.current_time() - start < 1
        await pair.caller.abort()


async def test_a_message_that_stops_in_its_middle_is_sent_as_far_as_it_is(
    autojump_clock: MockClock,
) -> None:
    async with established() as pair:
        await pair.caller.send(PDV(1, False, False, b"part"))
        with trio.fail_after(2):
            assert merged([await pair.callee.receive()]) == [PDV(1, False, False, b"part")]
        await pair.caller.abort()


# --- endings -------------------------------------------------------------------------------------


async def test_an_abort_overtakes_what_the_device_has_not_taken(
    autojump_clock: MockClock,
) -> None:
    async with established() as pair:
        for _ in range(IN_WINDOW):
            await pair.caller.send(BLOCK)
        await trio.sleep(1)
        assert isinstance(await pair.callee.receive(), PDV)
        await pair.caller.abort(0, 0)
        await pair.caller.abort(2, 1)
        await trio.sleep(1)
        assert await pair.callee.receive() == AAbort(0, 0)
        assert await pair.caller.receive() == AAbort(0, 0)
        with pytest.raises(LocalProtocolError):
            await pair.callee.receive()


async def test_an_abort_needs_no_credit(autojump_clock: MockClock) -> None:
    async with established() as pair, trio.open_nursery() as nursery:

        async def flood() -> None:
            while True:
                await pair.caller.send(BLOCK)

        async def flood_until_told() -> None:
            with pytest.raises(AssociationAborted):
                await flood()

        nursery.start_soon(flood_until_told)
        await trio.sleep(30)
        await pair.caller.abort(2, 6)
        await trio.sleep(0.1)
        assert await pair.callee.receive() == AAbort(2, 6)


async def test_a_far_abort_and_rejection_arrive_as_they_were(
    autojump_clock: MockClock,
) -> None:
    for atom in (AAssociateRJ(1, 1, 7), AAbort(2, 5), AAbort(0, 200)):
        async with tunnel() as pair:
            await pair.callee.send(atom)
            assert await pair.caller.receive() == atom


async def test_nothing_follows_a_final_atom(autojump_clock: MockClock) -> None:
    async with tunnel() as pair:
        await pair.callee.send(AAssociateRJ(1, 1, 1))
        with pytest.raises(LocalProtocolError):
            await pair.callee.send(AC)


async def test_the_other_flow_needs_no_final_chunk(autojump_clock: MockClock) -> None:
    """Data still on its way when the far end releases or aborts is dropped, quietly."""
    async with established() as pair:
        for _ in range(IN_WINDOW):
            await pair.caller.send(BLOCK)
        await pair.callee.send(AAbort(0, 0))
        assert await pair.caller.receive() == AAbort(0, 0)
        with pytest.raises(AssociationAborted):
            await pair.caller.send(BLOCK)
    assert set(pair.network.ended) == {EndReason.FINISHED}


async def test_both_ends_abort_at_once(autojump_clock: MockClock) -> None:
    async with established() as pair:
        await pair.caller.abort(0, 0)
        await pair.callee.abort(2, 0)


async def break_off(network: Network) -> None:
    async with near_end(network):
        await trio.sleep(1)
        raise ZeroDivisionError


async def test_leaving_without_a_final_atom_aborts(autojump_clock: MockClock) -> None:
    network = Network()
    ended: list[Atom] = []

    async def far(association: TunnelAssociation) -> None:
        ended.append(await association.receive())

    async with running(network, far):
        async with near_end(network) as association:
            await trio.sleep(1)
        assert association.cause
        async with near_end(network) as association:
            await association.aclose()
        with pytest.raises(ZeroDivisionError):
            await break_off(network)
    assert ended == [LOST] * 2


@pytest.mark.parametrize("connected", [True, False])
async def test_cancelling_is_bounded(connected: bool, autojump_clock: MockClock) -> None:
    network = Network()
    ended: list[Atom] = []

    async def far(association: TunnelAssociation) -> None:
        ended.append(await association.receive())

    async with running(network, far):
        with trio.move_on_after(5) as scope:
            async with near_end(network):
                await trio.sleep(1)
                if not connected:
                    network.cut(network.caller)
                await trio.sleep_forever()
        assert scope.cancelled_caught
        late = trio.current_time() - scope.deadline
        assert late < 0.1 if connected else late == session.CANCELLED_LIMIT
    # Told by the final chunk, or for want of a word.
    assert ended == [LOST]


async def test_cancelling_while_it_waits_for_the_far_end_is_bounded(
    autojump_clock: MockClock,
) -> None:
    network = Network()

    async def far(association: TunnelAssociation) -> None:
        await association.receive()

    async with running(network, far):
        with trio.move_on_after(5) as scope:
            async with near_end(network):
                await trio.sleep(1)
                network.cut(network.callee)
        assert trio.current_time() - scope.deadline == session.CANCELLED_LIMIT


async def test_the_final_chunk_is_kept_for_an_end_that_is_away(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    ended: list[Atom] = []

    async def far(association: TunnelAssociation) -> None:
        ended.append(await association.receive())

    async with running(network, far) as nursery:

        async def away() -> None:
            network.cut(network.callee)
            await trio.sleep(15)
            network.restore(network.callee)

        async with near_end(network) as association:
            await trio.sleep(1)
            nursery.start_soon(away)
            await trio.sleep(0.5)
            await association.abort(0, 0)
            start = trio.current_time()
        assert 14 < trio.current_time() - start < 16
    assert ended == [AAbort(0, 0)]


async def test_the_final_chunk_is_not_kept_for_ever(
    autojump_clock: MockClock,
) -> None:
    network = Network()

    async def far(association: TunnelAssociation) -> None:
        await association.receive()

    async with running(network, far):
        async with near_end(network) as association:
            await trio.sleep(1)
            network.cut(network.callee)
            await association.abort(0, 0)
            start = trio.current_time()
        assert 19 < trio.current_time() - start < 23


# --- before there is an answer -------------------------------------------------------------------


async def first_of(network: Network, timeouts: TunnelTimeouts | None = None) -> Atom:
    async with near_end(network, timeouts=timeouts) as association:
        return await association.receive()


@pytest.mark.parametrize(
    ("refusal", "rejection"),
    [
        (Refusal.NOT_GRANTED, AAssociateRJ(1, 1, 3)),
        (Refusal.UNTRUSTED_PEER, AAssociateRJ(1, 1, 3)),
        (Refusal.UNKNOWN_DEVICE, AAssociateRJ(1, 1, 7)),
        (Refusal.BUSY, AWAY),
        (Refusal.EXPIRED, AWAY),
        (Refusal.REPLAY, AWAY),
    ],
)
async def test_a_refused_opening_is_a_rejection(
    refusal: Refusal, rejection: Atom, autojump_clock: MockClock
) -> None:
    network = Network()

    def refuse(message: Open) -> None:
        note = received(message).refuse(refusal)
        network.carry(network.callee, Refuse(message.session, note))

    async with running(network):
        network.on_open = refuse
        assert await first_of(network) == rejection
    assert not any(isinstance(message, Withdraw) for message in network.passed)


@pytest.mark.parametrize(
    ("reason", "rejection"),
    [
        (EndReason.NOT_PUBLISHED, AAssociateRJ(1, 1, 7)),
        (EndReason.NOT_GRANTED, AAssociateRJ(1, 1, 3)),
        (EndReason.LIMIT_REACHED, AAssociateRJ(2, 3, 2)),
        (EndReason.CALLEE_OFFLINE, AWAY),
        (EndReason.STORE_UNAVAILABLE, AWAY),
    ],
)
async def test_an_opening_that_the_bridge_ends_is_a_rejection(
    reason: EndReason, rejection: Atom, autojump_clock: MockClock
) -> None:
    network = Network()
    async with running(network):
        network.on_open = lambda message: network.end(message.session, reason)
        assert await first_of(network) == rejection


@pytest.mark.parametrize("what", ["answer", "refusal"])
async def test_what_the_callee_did_not_sign_ends_the_session(
    what: str, autojump_clock: MockClock
) -> None:
    network = Network()

    def forge(message: Open) -> None:
        if what == "answer":
            answer, _ = received(message).answer(bytes)
            network.carry(network.callee, Answer(message.session, answer[:-1] + b"x"))
        else:
            note = received(message).refuse(Refusal.BUSY)
            network.carry(network.callee, Refuse(message.session, note[:-1] + b"x"))

    async with running(network):
        network.on_open = forge
        assert await first_of(network) == AWAY
    assert any(isinstance(message, Withdraw) for message in network.passed)


async def test_without_an_answer_the_opening_is_withdrawn(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    opened: list[Open] = []
    async with running(network):
        network.on_open = opened.append
        start = trio.current_time()
        assert await first_of(network) == AWAY
        assert trio.current_time() - start == pytest.approx(25)
    (withdraw,) = [m for m in network.passed if isinstance(m, Withdraw)]
    received(opened[0]).check_withdrawal(withdraw.withdrawal)


async def test_a_callee_that_answers_and_then_nothing(
    autojump_clock: MockClock,
) -> None:
    """The far device takes too long: rejected here, aborted there."""
    network = Network()
    ended: list[Atom] = []

    async def far(association: TunnelAssociation) -> None:
        ended.append(await association.receive())

    async with running(network, far):
        assert await first_of(network, TunnelTimeouts(answer=7)) == AWAY
    assert ended == [LOST]


@pytest.mark.parametrize("how", ["abort", "leave", "cancel"])
async def test_giving_up_before_the_answer_withdraws(how: str, autojump_clock: MockClock) -> None:
    network = Network()
    async with running(network):
        with trio.move_on_after(1):
            async with near_end(network) as association:
                if how == "abort":
                    await association.abort()
                    assert await association.receive() == AAbort(0, 0)
                elif how == "cancel":
                    await trio.sleep_forever()
    assert [type(m) for m in network.passed if isinstance(m, (Withdraw, End))] == [Withdraw, End]


async def test_a_withdrawal_ends_the_callees_half(autojump_clock: MockClock) -> None:
    network = Network()
    ended: list[Atom] = []
    causes: list[str] = []

    async def far(association: TunnelAssociation) -> None:
        ended.append(await association.receive())
        causes.append(association.cause)

    network.lose = lambda message: isinstance(message, (Answer, End))
    async with running(network, far), near_end(network):
        await trio.sleep(1)
    assert ended == [LOST]
    assert causes == ["the caller withdrew"]


# --- what becomes of the tunnel ------------------------------------------------------------------


@pytest.mark.parametrize("reason", [EndReason.REVOKED, EndReason.UNKNOWN_SESSION, 77])
async def test_an_end_of_the_bridge_aborts_at_once(reason: int, autojump_clock: MockClock) -> None:
    async with established() as pair:
        for _ in range(2):
            await pair.caller.send(BLOCK)
        await trio.sleep(1)
        pair.network.end(pair.caller.session, reason)
        for association in (pair.caller, pair.callee):
            with trio.fail_after(0.1):
                assert await association.receive() == LOST
            with pytest.raises(AssociationAborted):
                await association.send(BLOCK)
            assert "ended by the Bridge" in association.cause


@pytest.mark.parametrize("who", ["caller", "callee"])
async def test_a_tunnel_that_is_lost_aborts_both_ends(who: str, autojump_clock: MockClock) -> None:
    async with established() as pair:
        await trio.sleep(1)
        pair.network.cut(getattr(pair.network, who))
        start = trio.current_time()
        await pair.caller.send(BLOCK)
        await pair.callee.send(BLOCK)
        for association in (pair.caller, pair.callee):
            assert await association.receive() == LOST
            assert association.cause
        took = trio.current_time() - start
        assert 20 - 0.1 < took < 20 + 2 * pulse.RESUME_INTERVAL


async def test_before_its_first_word_a_lost_tunnel_is_a_rejection(
    autojump_clock: MockClock,
) -> None:
    async with tunnel(timeouts=TunnelTimeouts(resume_window=5)) as pair:
        pair.network.cut(pair.network.caller)
        assert await pair.caller.receive() == AWAY


@pytest.mark.parametrize("purpose", [Purpose.ASSOCIATION, Purpose.DELIVERY])
async def test_what_needs_no_keys_is_done_before_there_are_any(
    purpose: Purpose, autojump_clock: MockClock
) -> None:
    network, store = Network(), Store()
    async with running(network), near_end(network, store, purpose=purpose):
        await trio.sleep(1)
        said = [type(message) for message in network.passed]
        assert said.count(Open) == 1
        assert Answer not in said
        assert network.caller.requests == 1  # for slots
        assert store.warmed == (WARM if purpose is Purpose.DELIVERY else 0)


async def test_the_first_word_is_not_said_with_every_other(autojump_clock: MockClock) -> None:
    network = Network()
    async with running(network), near_end(network) as caller:
        for _ in range(20):
            caller._pulse.want()
            await trio.sleep(0.01)
        said = [type(message) for message in network.passed]
        assert said.count(Progress) > 10
        assert said.count(Open) == 1
        await trio.sleep(5)
        assert [type(message) for message in network.passed].count(Open) > 1


async def test_a_pause_within_the_window_is_nothing(autojump_clock: MockClock) -> None:
    async with established() as pair:
        pair.network.cut(pair.network.caller)
        await pair.caller.send(BLOCK)
        await trio.sleep(18)
        pair.network.restore(pair.network.caller)
        assert merged([await pair.callee.receive()]) == [BLOCK]
        await pair.caller.abort()


async def test_an_idle_association_lives(autojump_clock: MockClock) -> None:
    """Time while a response is owed, or nothing is, is not time without the peer."""
    async with established() as pair:
        await pair.caller.send(PDV(1, True, True, b"request"))
        await pair.callee.receive()
        before = len(pair.network.passed)
        await trio.sleep(8 * 3600)
        assert len(pair.network.passed) - before < 2 * 8 * 3600 / pulse.IDLE_INTERVAL + 10
        await pair.callee.send(PDV(1, True, True, b"response"))
        assert (await pair.caller.receive()).fragment == b"response"
        await pair.caller.abort()


async def test_a_peer_that_is_gone_is_missed(autojump_clock: MockClock) -> None:
    """Also where nothing is outstanding but the far device's response."""
    async with established() as pair:
        pair.network.lose = lambda message: True
        with trio.fail_after(30):
            assert await pair.caller.receive() == LOST


async def test_a_store_that_is_down_ends_the_session_after_the_window(
    autojump_clock: MockClock,
) -> None:
    async with established() as pair:
        pair.store.failing = 1.1
        start = trio.current_time()
        await pair.caller.send(BLOCK)
        for association in (pair.caller, pair.callee):
            assert await association.receive() == LOST
        assert 20 < trio.current_time() - start < 24
        assert pair.caller.cause in ("answered 503", "ReadTimeout")
    assert pair.network.ended[0] is EndReason.STORE_UNAVAILABLE


async def test_a_store_that_comes_back_loses_nothing(
    autojump_clock: MockClock,
) -> None:
    async with tunnel() as pair:

        async def down() -> None:
            await trio.sleep(0.1)
            pair.store.failing = 1.1
            await trio.sleep(15)
            pair.store.failing = 0

        async with trio.open_nursery() as nursery:
            nursery.start_soon(down)
            pair.store.delay = 0.1
            await converse(pair, messages(100), messages(100, seed=1))


async def test_a_store_that_stalls_for_a_while(autojump_clock: MockClock) -> None:
    async with tunnel() as pair:
        pair.store.stalled = trio.Event()

        async def resume() -> None:
            await trio.sleep(10)
            pair.store.stalled.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(resume)
            await converse(pair, messages(30), messages(30))


@pytest.mark.parametrize("where", ["first", "middle", "last"])
async def test_a_changed_chunk_is_never_handed_on(where: str, autojump_clock: MockClock) -> None:
    position = {"first": 0, "middle": 5000, "last": -1}[where]

    def flip(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[position] ^= 1
        return bytes(changed)

    async with established() as pair:
        await pair.caller.send(PDV(1, True, True, b"command"))
        assert isinstance(await pair.callee.receive(), PDV)
        pair.store.mangle = flip
        await pair.caller.send(BLOCK)
        for association in (pair.callee, pair.caller):
            assert await association.receive() == LOST
        assert "chunk" in pair.callee.cause
    assert pair.network.ended[0] is EndReason.PROTOCOL_VIOLATION


async def test_a_truncated_object_is_fetched_again(autojump_clock: MockClock) -> None:
    async with established() as pair:
        tries = 0

        def truncate(data: bytes) -> bytes:
            nonlocal tries
            tries += 1
            return data[: len(data) // 2] if tries < 4 else data

        pair.store.mangle = truncate
        await pair.caller.send(BLOCK)
        assert merged([await pair.callee.receive()]) == [BLOCK]
        await pair.caller.abort()


async def test_acknowledging_what_was_not_sent_ends_the_session(
    autojump_clock: MockClock,
) -> None:
    async with tunnel() as pair:
        await trio.sleep(1)
        forged = Progress(pair.caller.session, (9, 9, 9, 9, 9), (0, 0, 0, 0, 0))
        pair.network.carry(pair.network.callee, forged)
        assert await pair.caller.receive() == AWAY
        assert await pair.callee.receive() == LOST


async def test_old_progress_changes_nothing(autojump_clock: MockClock) -> None:
    async with established() as pair:
        await trio.sleep(1)
        for _ in range(3):
            old = Progress(pair.caller.session, (0, 0, 0, 0, 0), (0, 0, 0, 0, 0))
            pair.network.carry(pair.network.callee, old)
            pair.network.carry(pair.network.caller, old)
            await pair.caller.send(BLOCK)
            await pair.callee.receive()
        await pair.caller.abort()


async def test_sessions_give_back_their_share_of_the_allowance(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    in_line = InLineAllowance(IN_LINE_WINDOW)
    allowance = Allowance(in_line=in_line)
    async with running(network):
        for _ in range(3):
            async with open_tunnel(network.caller, Store(), opening(), allowance=allowance):
                await trio.sleep(1)
                assert in_line.take(1) == 0
            assert in_line.take(IN_LINE_WINDOW) == IN_LINE_WINDOW
            in_line.give_back(IN_LINE_WINDOW)


# --- over the real hub and clients ---------------------------------------------------------------


@asynccontextmanager
async def over_a_bridge(bridge: Bridge, store: Store) -> AsyncIterator[Pair]:
    """A tunnel between two Routers of `bridge`."""
    caller, callee = await bridge.router("a"), await bridge.router("b")
    timeouts = TunnelTimeouts()
    far: list[TunnelAssociation] = []
    stands, leave = trio.Event(), trio.Event()

    async def serve() -> None:
        message = await callee.opens.receive()
        async with accept_tunnel(
            callee.client, store, received(message), allowance=Allowance(), timeouts=timeouts
        ) as association:
            far.append(association)
            stands.set()
            await leave.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_tunnel(
            caller.client, store, opening(), allowance=Allowance(), timeouts=timeouts
        ) as association:
            with trio.fail_after(20):
                await stands.wait()
            yield Pair(None, store, association, far[0])
        leave.set()


@pytest.mark.parametrize("seed", range(6))
async def test_random_cuts_over_the_real_hub(seed: int, autojump_clock: MockClock) -> None:
    rng, store = random.Random(seed), Store(seed)
    store.delay, store.failing = 0.1, 0.05

    async def cut(bridge: Bridge) -> None:
        while True:
            await trio.sleep(rng.expovariate(1 / 2))
            bridge.cut(rng.choice([CALLER, CALLEE]))
            if rng.random() < 0.2:
                bridge.stop()
                await trio.sleep(rng.uniform(0, 4))
                bridge.start()

    # A pause as long as the resume window would be the end of every session.
    signalling = Timeouts(longest_pause=2)
    async with (
        running_bridge(signalling) as bridge,
        over_a_bridge(bridge, store) as pair,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(cut, bridge)
        await converse(pair, messages(120, seed), messages(60, seed + 100))
        nursery.cancel_scope.cancel()


async def test_the_real_hub_is_told_that_a_session_is_over(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge:
        async with over_a_bridge(bridge, Store()) as pair:
            await converse(pair, messages(5), messages(5))
        await trio.sleep(1)
        assert list(bridge.registry.ended_with.values()) == [EndReason.FINISHED]
        assert bridge.registry.sessions == {}


async def test_the_real_hub_revokes_at_once(autojump_clock: MockClock) -> None:
    async with running_bridge() as bridge, over_a_bridge(bridge, Store()) as pair:
        await pair.callee.send(AC)
        assert await pair.caller.receive() == AC
        await bridge.hub.end_session(pair.caller.session, EndReason.REVOKED)
        for association in (pair.caller, pair.callee):
            with trio.fail_after(1):
                assert await association.receive() == LOST
