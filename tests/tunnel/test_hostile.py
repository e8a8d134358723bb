"""A Bridge, a store or a peer's Router that means harm: a session ends, and nothing false is said.

What they may do at the worst is to take a session away (PROTOCOL.md §18).
"""

import math
import random

import attrs
import pytest
import trio
from trio.testing import MockClock

from relay.dicom.pdu import PDV, AAbort, AAssociateRJ, AReleaseRP, Atom
from relay.errors import AssociationAborted, RemoteProtocolError
from relay.router.guard import Guard
from relay.router.passthrough import How, join
from relay.signalling.messages import (
    MAXIMUM_IN_LINE,
    Announce,
    Direction,
    End,
    EndReason,
    InLine,
    Message,
    Open,
    Progress,
    Refuse,
)
from relay.tunnel import notes, reader, records, writer
from relay.tunnel.allowance import IN_LINE_WINDOW
from relay.tunnel.bundle import MAXIMUM_BUNDLE
from relay.tunnel.chunks import TARGET_SIZE, Chunk
from relay.tunnel.records import MAXIMUM_NOTE, Note, Record
from relay.tunnel.seal import ChunkSealer
from relay.tunnel.session import TunnelAssociation, TunnelTimeouts
from relay.tunnel.store import ObjectRequest
from relay.tunnel.window import BASE, BUDGET
from tests.router.fakes import CT, FakeAssociation, FakeBorder, acceptance, proposal
from tests.tunnel.fakes import (
    AC,
    BLOCK,
    Network,
    Pair,
    Store,
    established,
    merged,
    near_end,
    plain,
    received,
    running,
    tunnel,
)

LOST = AAbort(2, 0)
AWAY = AAssociateRJ(2, 3, 1)
RESPONSE = PDV(1, True, True, b"C-STORE-RSP, status 0000")


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock clock jumps while a thread works: what is timed seals and opens in line."""
    monkeypatch.setattr(writer, "SEAL_IN_THREAD", math.inf)
    monkeypatch.setattr(reader, "OPEN_IN_THREAD", math.inf)


async def until_over(association: TunnelAssociation) -> list[Atom]:
    """All that the association gives."""
    atoms: list[Atom] = []
    with trio.fail_after(300):
        while not (atoms and isinstance(atoms[-1], records.FINAL_ATOMS)):
            atoms.append(plain(await association.receive()))
    return atoms


def assert_no_response(atoms: list[Atom]) -> None:
    """No word of success was made out of nothing, and the end is an abort."""
    assert RESPONSE not in atoms
    assert isinstance(atoms[-1], (AAbort, AAssociateRJ))


# --- what was finished stays finished ------------------------------------------------------------


class Sticky(Store):
    """Takes a second for a DELETE, also of who hangs up."""

    async def delete(self, request: ObjectRequest) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)


async def test_an_end_right_behind_the_final_chunk_takes_nothing_back(
    autojump_clock: MockClock,
) -> None:
    """The peer says End as soon as it hears that its final chunk was opened."""
    async with established(store=Sticky()) as pair:
        await pair.callee.send(BLOCK)
        await pair.callee.send(PDV(1, False, True, b""))
        await pair.callee.send(RESPONSE)
        await pair.callee.send(AReleaseRP())
        await trio.sleep(5)
        assert merged(await until_over(pair.caller))[-2:] == [RESPONSE, AReleaseRP()]


@pytest.mark.parametrize("reason", [EndReason.REVOKED, EndReason.EXPIRED])
async def test_an_end_of_the_bridge_takes_back_no_release(
    reason: EndReason, autojump_clock: MockClock
) -> None:
    async with established(store=Sticky()) as pair:
        await pair.callee.send(BLOCK)
        await pair.callee.send(AReleaseRP())
        await trio.sleep(0.2)
        pair.network.end(pair.caller.session, reason)
        await trio.sleep(1)
        assert isinstance((await until_over(pair.caller))[-1], AReleaseRP)


# --- the Bridge ----------------------------------------------------------------------------------


@pytest.mark.parametrize("writes", ["caller", "callee"])
async def test_a_bridge_that_passes_no_chunk_on_is_not_waited_for_for_ever(
    writes: str, autojump_clock: MockClock
) -> None:
    """Both ends hear each other all the time, so neither takes the other for gone."""
    async with established() as pair:
        pair.network.lose = lambda message: isinstance(message, (InLine, Announce))
        start = trio.current_time()
        await getattr(pair, writes).send(RESPONSE)
        async with trio.open_nursery() as nursery:
            for association in (pair.caller, pair.callee):
                nursery.start_soon(assert_lost, association)
        assert trio.current_time() - start < 60


async def assert_lost(association: TunnelAssociation) -> None:
    assert await until_over(association) == [LOST]


@pytest.mark.parametrize("lie", [(4, 0), (4, 4), (2**63 - 1, 2**63 - 1), (1, 4)])
async def test_a_lie_about_what_the_peer_has_ends_the_session_or_does_nothing(
    lie: tuple[int, int], autojump_clock: MockClock
) -> None:
    async with established() as pair:
        forged = Progress(pair.caller.session, (0, *lie, 2**63 - 1, 2**63 - 1), (0, 0, 0, 0, 0))
        pair.network.carry(pair.network.callee, forged)
        await trio.sleep(1)
        for association in (pair.caller, pair.callee):
            assert_no_response(await until_over(association))


async def send_without_end(association: TunnelAssociation) -> None:
    while True:
        await association.send(PDV(1, True, True, b"small"))  # the window's bytes hold large ones
        await trio.sleep(0.1)


async def test_credit_that_the_reader_did_not_give_ends_the_session(
    autojump_clock: MockClock,
) -> None:
    async with established() as pair:
        forged = Progress(pair.caller.session, (0, 0, 0, 2**63 - 1, 2**63 - 1), (0, 0, 0, 0, 0))
        pair.network.carry(pair.network.callee, forged)
        await trio.sleep(1)

        with pytest.raises(AssociationAborted):
            await send_without_end(pair.caller)
        # The writer's own window holds, whatever the credit.
        window = BASE + BUDGET + TARGET_SIZE
        assert pair.caller.statistics().writer.unacknowledged_bytes <= window
        assert "beyond the credit" in pair.callee.cause


async def test_announcing_without_end_is_not_listened_to_for_ever(
    autojump_clock: MockClock,
) -> None:
    async with established() as pair:
        session = pair.caller.session

        async def announce() -> None:
            while True:
                forged = Progress(session, (0, 0, 0, 0, 0), (2**63 - 1, 0, 0, 0, 0))
                pair.network.carry(pair.network.callee, forged)
                await trio.sleep(0.1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(announce)
            with trio.fail_after(60):
                assert await until_over(pair.caller) == [LOST]
            nursery.cancel_scope.cancel()


async def test_swapped_urls_give_nobody_anothers_chunk(autojump_clock: MockClock) -> None:
    """Two sessions, each given the other's objects: both end, and neither reads the other."""
    network, store = Network(), Store()
    sessions: list[bytes] = []
    sign = network.sign

    def swap(method: str, session: bytes, direction: Direction, slot: int) -> tuple:
        if session not in sessions:
            sessions.append(session)
        if method == "GET" and len(sessions) == 2:
            session = sessions[1 - sessions.index(session)]
        return sign(method, session, direction, slot)

    network.sign = swap
    got: list[list[Atom]] = []

    async def far(association: TunnelAssociation) -> None:
        await association.send(AC)
        got.append(await until_over(association))

    async def near() -> None:
        async with near_end(network, store) as association:
            assert await association.receive() == AC
            await trio.sleep(1)
            await association.send(BLOCK)
            assert_no_response(await until_over(association))

    async with running(network, far, store), trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(near)
    assert [atoms[-1] for atoms in got] == [LOST] * 2
    assert not any(isinstance(atom, PDV) for atoms in got for atom in atoms)


# --- the peer's Router ---------------------------------------------------------------------------


async def test_a_refusal_after_the_answer_is_no_rejection(autojump_clock: MockClock) -> None:
    """PROTOCOL §8.4: an association that was accepted is aborted, and never rejected."""
    network = Network()
    opened: list[Open] = []

    async def far(association: TunnelAssociation) -> None:
        await association.send(AC)
        assert_no_response(await until_over(association))

    async with running(network, far):
        accept = network.on_open
        network.on_open = lambda message: (opened.append(message), accept(message))
        async with near_end(network) as association:
            assert await association.receive() == AC
            note = received(opened[0]).refuse(5)
            network.carry(network.callee, Refuse(association.session, note))
            assert await association.receive() == LOST


@attrs.define
class Peer:
    """The callee's Router in other hands: it has the keys, and says what it likes."""

    pair: Pair
    sealer: ChunkSealer
    chunk: int = 0

    @classmethod
    def of(cls, pair: Pair) -> "Peer":
        keys = pair.callee._greeting._keys
        return cls(pair, ChunkSealer(keys.callee_to_caller, keys.transcript, 1))

    def seal(self, *said: Record) -> bytes:
        final = isinstance(said[-1], records.FINAL_ATOMS)
        return self.sealer.seal(Chunk(b"".join(map(records.encode, said)), final=final))

    def say(self, message: Message) -> None:
        self.pair.network.carry(self.pair.network.callee, message)

    def in_line(self, sealed: bytes, chunk: int | None = None) -> None:
        number = self.chunk if chunk is None else chunk
        self.chunk = number + 1
        self.say(InLine(self.pair.caller.session, number, sealed))

    def announce(self, size: int, chunk: int | None = None) -> None:
        number = self.chunk if chunk is None else chunk
        self.chunk = number + 1
        self.say(Announce(self.pair.caller.session, number, 1, number, size, (), ()))


async def assert_ended(pair: Pair) -> None:
    """The caller's end is over at once, for the peer's fault."""
    with trio.fail_after(1):
        await until_over(pair.caller)
        await trio.sleep(0.1)
    assert pair.network.ended[0] is EndReason.PROTOCOL_VIOLATION


async def test_in_line_bytes_beyond_the_credit(autojump_clock: MockClock) -> None:
    async with tunnel() as pair:
        await trio.sleep(1)
        pair.store.stalled = trio.Event()
        peer = Peer.of(pair)
        peer.announce(100)  # never to be had: nothing behind it is opened
        for _ in range(IN_LINE_WINDOW // MAXIMUM_IN_LINE + 1):
            peer.in_line(bytes(MAXIMUM_IN_LINE))
        await assert_ended(pair)


@pytest.mark.parametrize("size", [64 * 1024 * 1024, MAXIMUM_BUNDLE + 1])
async def test_a_chunk_that_is_too_large(size: int, autojump_clock: MockClock) -> None:
    async with tunnel() as pair:
        await trio.sleep(1)
        Peer.of(pair).announce(size)
        await assert_ended(pair)


async def test_chunks_beyond_the_credit(autojump_clock: MockClock) -> None:
    async with tunnel() as pair:
        await trio.sleep(1)
        pair.store.stalled = trio.Event()
        peer = Peer.of(pair)
        for _ in range(reader.CREDIT + 2):
            peer.announce(100)
        await assert_ended(pair)


async def test_chunks_far_ahead_are_not_kept(autojump_clock: MockClock) -> None:
    async with tunnel() as pair:
        await trio.sleep(1)
        peer = Peer.of(pair)
        for chunk in (7, 2**32, 2**63 - 1):
            peer.in_line(bytes(100), chunk)
            peer.announce(100, chunk)
        await trio.sleep(0.1)
        assert not pair.caller._reader._inbox
        await pair.callee.send(AC)
        assert await pair.caller.receive() == AC


async def test_what_follows_the_final_chunk_changes_nothing(autojump_clock: MockClock) -> None:
    async with tunnel() as pair:
        await trio.sleep(1)
        peer = Peer.of(pair)
        final = peer.seal(AC, AReleaseRP())
        peer.in_line(final)
        peer.in_line(final)
        peer.in_line(random.randbytes(100))
        await trio.sleep(1)
        assert await until_over(pair.caller) == [AC, AReleaseRP()]


async def test_silence_after_the_answer(autojump_clock: MockClock) -> None:
    """Nothing but Progress: the caller's device is told in time that nobody is there."""
    network = Network()
    network.lose = lambda message: isinstance(message, End)

    async def far(association: TunnelAssociation) -> None:
        await association.receive()

    async with running(network, far):
        start = trio.current_time()
        async with near_end(network, timeouts=TunnelTimeouts(answer=9)) as association:
            assert await association.receive() == AWAY
            assert trio.current_time() - start < 10
        assert trio.current_time() - start < 12


async def test_a_reader_that_takes_no_announcement(autojump_clock: MockClock) -> None:
    """It is heard, it gives credit, and it never receives."""
    async with established() as pair:
        session = pair.caller.session
        pair.network.lose = lambda message: isinstance(message, (InLine, Announce))

        async def stubborn() -> None:
            while True:
                forged = Progress(session, (0, 0, 0, 100, 10**6), (1, 0, 0, 0, 0))
                pair.network.carry(pair.network.callee, forged)
                await trio.sleep(0.5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stubborn)
            await pair.caller.send(PDV(1, False, False, bytes(TARGET_SIZE // 2)))
            with trio.fail_after(60):
                assert await until_over(pair.caller) == [LOST]
            nursery.cancel_scope.cancel()


# --- notes ---------------------------------------------------------------------------------------

RESULT = notes.encode(notes.Result(bytes(16), notes.Outcome.ANSWERED, 0, ""))
FRAGMENT = records.encode(PDV(1, False, False, b"data"))
RELEASE = records.encode(AReleaseRP())


def note_of(length: int) -> bytes:
    """The record of a note of so many bytes, which nobody here would encode."""
    return b"\x10" + length.to_bytes(4, "big") + bytes(length)


@pytest.mark.parametrize(
    "chunk",
    [
        Chunk(b"", records.encode(RESULT)),
        Chunk(b"", FRAGMENT + records.encode(RESULT)),
        Chunk(b"", records.encode(RESULT) + FRAGMENT),
        Chunk(note_of(0)),
        Chunk(note_of(MAXIMUM_NOTE + 1)),
        Chunk(records.encode(RESULT)[:-1]),
        Chunk(RELEASE + records.encode(RESULT), final=True),
        Chunk(records.encode(RESULT), final=True),
    ],
    ids=[
        "in the body",
        "behind a fragment",
        "in front of one",
        "of nothing",
        "too long",
        "cut",
        "behind the end",
        "for an end",
    ],
)
async def test_a_note_where_or_as_none_may_be(chunk: Chunk, autojump_clock: MockClock) -> None:
    async with tunnel() as pair:
        await trio.sleep(1)
        peer = Peer.of(pair)
        sealed = peer.sealer.seal(chunk)
        if len(sealed) <= MAXIMUM_IN_LINE:
            peer.in_line(sealed)
        else:
            url = f"https://store.example/{pair.caller.session.hex()}/1/0"
            pair.store.objects[url] = sealed
            peer.announce(len(sealed))
        await assert_ended(pair)


@pytest.mark.parametrize(
    "payload", [b"\xc1", b"\x91" * 1000, bytes(MAXIMUM_NOTE), RESULT.payload + b"\0", b"\x91\x08"]
)
async def test_a_note_that_says_nothing_is_refused_by_who_reads_it(
    payload: bytes, autojump_clock: MockClock
) -> None:
    """And nothing but that: the session can still be ended in words."""
    async with established() as pair:
        await pair.callee.send(Note(payload))
        note = await pair.caller.receive_record()
        assert note == Note(payload)
        with pytest.raises(RemoteProtocolError) as caught:
            notes.decode(note)
        await pair.caller.abort(2, caught.value.abort_reason)
        assert await until_over(pair.callee) == [AAbort(2, 6)]


@pytest.mark.parametrize("answered", [False, True])
async def test_a_note_between_two_devices_aborts_both(
    answered: bool, autojump_clock: MockClock
) -> None:
    request = proposal(CT)
    device = FakeAssociation()
    async with tunnel() as pair, trio.open_nursery() as nursery:
        guard = Guard(request, None, FakeBorder())

        async def say() -> None:
            if answered:
                await pair.callee.send(acceptance(request))
            await pair.callee.send(RESULT)

        nursery.start_soon(say)
        with trio.fail_after(10):
            ending = await join(device, pair.caller, guard, tunnel=pair.caller, answer_wait=25)
        assert (ending.how, ending.by) == (How.ABORTED, "router")
        assert "note in the session of an association" in ending.why
        assert device.aborts
        assert await until_over(pair.callee) == [AAbort(2, 2)]
