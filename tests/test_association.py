"""`relay.association`: one end against another, against raw bytes, and against the clock.

Timing runs on trio's mock clock over memory streams; nothing here sleeps in real time.
"""

import math
from contextlib import suppress

import pytest
import trio
import trio.testing

from relay.association import ABORT_LIMIT, TCPAssociation
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateRJ,
    AReleaseRP,
    AReleaseRQ,
    decode,
    encode,
)
from relay.dicom.upperlayer import Role
from relay.errors import AssociationAborted, LocalProtocolError
from relay.patience import Timeouts
from relay.reading import Reader
from relay.writing import WRITE_SIZE
from tests.association_pairs import REQUEST, accept_all, establish, pair, pdv

# --- the ordinary way -------------------------------------------------------------------------


async def test_association_from_request_to_release() -> None:
    requestor, acceptor = pair()
    await establish(requestor, acceptor)
    await requestor.send(pdv(b"ping", command=True))
    received = await acceptor.receive()
    assert isinstance(received, PDV)
    assert bytes(received.fragment) == b"ping"
    await requestor.send(AReleaseRQ())
    assert await acceptor.receive() == AReleaseRQ()
    await acceptor.send(AReleaseRP())
    assert await requestor.receive() == AReleaseRP()
    await requestor.aclose()
    await acceptor.aclose()
    assert requestor.cause == acceptor.cause == "released"


async def test_each_direction_is_cut_to_its_own_receivers_maximum_length() -> None:
    requestor, acceptor = pair(requestor_maximum=1024, acceptor_maximum=4096)
    await establish(requestor, acceptor)
    assert (requestor.peer_maximum_length, acceptor.peer_maximum_length) == (4096, 1024)
    data = bytes(range(256)) * 40
    for sender, receiver, most in ((requestor, acceptor, 4090), (acceptor, requestor, 1018)):
        await sender.send(pdv(data))
        fragments = []
        while True:
            atom = await receiver.receive()
            assert isinstance(atom, PDV)
            fragments.append(bytes(atom.fragment))
            if atom.is_last:
                break
        assert b"".join(fragments) == data
        assert max(map(len, fragments)) == most


async def test_a_command_goes_out_with_the_beginning_of_its_data_set() -> None:
    near, far = trio.testing.memory_stream_pair()
    requestor = TCPAssociation(near, Role.REQUESTOR)
    await requestor.send(REQUEST)
    await far.receive_some(100_000)
    await far.send_all(encode(accept_all(REQUEST)))
    await requestor.receive()
    asked, first, last = pdv(b"command.", command=True), pdv(b"data", last=False), pdv(b"last")
    sent = requestor.bytes_sent
    await requestor.send(asked, end_of_message=False)
    assert requestor.bytes_sent == sent
    await requestor.send(first, end_of_message=False)
    assert await far.receive_some(100_000) == encode(asked) + encode(first)
    await requestor.send(last)
    assert await far.receive_some(100_000) == encode(last)
    await requestor.send(asked, end_of_message=False)
    await requestor.send(AReleaseRQ())  # whatever is sent next takes it along
    assert await far.receive_some(100_000) == encode(asked) + encode(AReleaseRQ())


async def test_many_fragments_go_out_in_one_write() -> None:
    near, far = trio.testing.memory_stream_pair()
    requestor = TCPAssociation(near, Role.REQUESTOR)
    await requestor.send(REQUEST)
    await far.receive_some(100_000)
    await far.send_all(encode(accept_all(REQUEST)))
    await requestor.receive()
    asked, first, last = pdv(b"command.", command=True), pdv(b"data", last=False), pdv(b"last")
    message = encode(asked) + encode(first) + encode(last)
    await requestor.send_all((asked, first, last, asked), end_of_message=False)
    assert await far.receive_some(100_000) == message  # the last one may wait for its data set
    await requestor.send_all((first, last))
    assert await far.receive_some(100_000) == message
    await requestor.send_all((asked,), end_of_message=False)
    await requestor.send_all((asked,))
    assert await far.receive_some(100_000) == 2 * encode(asked)
    with pytest.raises(LocalProtocolError):  # an odd fragment in the middle of another message
        await requestor.send_all((pdv(b"odd", last=False), asked))
    await requestor.send_all((last,))  # nothing of that is left
    assert await far.receive_some(100_000) == encode(last)
    await requestor.abort()
    with pytest.raises(AssociationAborted):
        await requestor.send_all((last,))


async def test_all_that_came_is_received_at_once() -> None:
    requestor, acceptor = pair()
    await establish(requestor, acceptor)
    said = [pdv(b"command.", command=True), pdv(b"data", last=False), pdv(b"last")]
    await requestor.send_all(said)
    assert list(await acceptor.receive_some()) == said
    await requestor.send_all(said[:1])
    await requestor.send(AReleaseRQ())
    assert list(await acceptor.receive_some()) == [said[0], AReleaseRQ()]
    await acceptor.send(AReleaseRP())
    assert list(await requestor.receive_some()) == [AReleaseRP()]
    with pytest.raises(LocalProtocolError):
        await requestor.receive_some()


async def test_a_command_whose_data_set_never_begins_is_not_sent_before_an_abort() -> None:
    requestor, acceptor = pair()
    await establish(requestor, acceptor)
    await requestor.send(pdv(b"command.", command=True), end_of_message=False)
    await requestor.abort()
    assert await acceptor.receive() == AAbort(0, 0)


async def test_rejection_arrives_as_it_was() -> None:
    requestor, acceptor = pair()
    await requestor.send(REQUEST)
    await acceptor.receive()
    await acceptor.send(AAssociateRJ(1, 1, 7))
    assert await requestor.receive() == AAssociateRJ(1, 1, 7)
    assert requestor.cause == "rejected by the peer: result 1, source 1, reason 7"
    assert acceptor.cause == "rejected here: result 1, source 1, reason 7"


async def test_abort_arrives_as_it_was_and_is_idempotent() -> None:
    requestor, acceptor = pair()
    await establish(requestor, acceptor)
    await acceptor.abort(2, 6)
    await acceptor.abort(0, 0)
    assert await requestor.receive() == AAbort(2, 6)
    assert requestor.cause == "aborted by the peer: source 2, reason 6"
    assert acceptor.cause == "aborted here: source 2, reason 6"


async def test_abort_as_an_atom_is_the_same() -> None:
    requestor, acceptor = pair()
    await establish(requestor, acceptor)
    await requestor.send(AAbort(0, 0))
    assert await acceptor.receive() == AAbort(0, 0)


async def test_receive_and_send_run_in_two_tasks_at_once() -> None:
    requestor, acceptor = pair(acceptor_maximum=0x10000)
    await establish(requestor, acceptor)

    async def pour(association: TCPAssociation) -> None:
        for _ in range(50):
            await association.send(pdv(bytes(50_000), last=False))
        await association.send(pdv(b""))

    async def drain(association: TCPAssociation) -> int:
        total = 0
        while True:
            atom = await association.receive()
            assert isinstance(atom, PDV)
            total += len(atom.fragment)
            if atom.is_last:
                return total

    totals = []

    async def count(association: TCPAssociation) -> None:
        totals.append(await drain(association))

    async with trio.open_nursery() as nursery:
        for association in (requestor, acceptor):
            nursery.start_soon(pour, association)
            nursery.start_soon(count, association)
    assert totals == [2_500_000, 2_500_000]


# --- using it wrongly -------------------------------------------------------------------------


async def test_receive_after_the_end_is_our_own_mistake() -> None:
    requestor, acceptor = pair()
    await establish(requestor, acceptor)
    await acceptor.abort()
    await requestor.receive()
    with pytest.raises(LocalProtocolError, match="after the end"):
        await requestor.receive()


async def test_receive_before_the_request_is_our_own_mistake() -> None:
    requestor, _ = pair()
    with pytest.raises(LocalProtocolError, match="before the A-ASSOCIATE-RQ"):
        await requestor.receive()


async def test_atom_out_of_turn_changes_nothing() -> None:
    requestor, acceptor = pair()
    await establish(requestor, acceptor)
    with pytest.raises(LocalProtocolError):
        await requestor.send(AReleaseRP())
    await requestor.send(pdv(b"ping"))
    assert isinstance(await acceptor.receive(), PDV)


async def test_send_after_the_end_says_why_it_ended() -> None:
    requestor, acceptor = pair()
    await establish(requestor, acceptor)
    await acceptor.abort(2, 0)
    await requestor.receive()
    with pytest.raises(AssociationAborted, match="aborted by the peer: source 2"):
        await requestor.send(pdv(b"ping"))


async def test_second_reader_is_our_own_mistake() -> None:
    requestor, acceptor = pair()
    await establish(requestor, acceptor)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(requestor.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await requestor.receive()
        nursery.cancel_scope.cancel()


# --- how it ends ------------------------------------------------------------------------------


async def test_lost_connection_arrives_as_an_abort() -> None:
    near, far = trio.testing.memory_stream_pair()
    acceptor = TCPAssociation(far, Role.ACCEPTOR)
    await near.send_all(encode(REQUEST))
    await acceptor.receive()
    await acceptor.send(accept_all(REQUEST))
    await near.aclose()
    assert isinstance(await acceptor.receive(), AAbort)
    assert acceptor.cause == "connection closed by the peer"


async def test_peers_last_words_are_read_after_a_write_has_failed() -> None:
    """A device that aborts in the middle of an object, and closes while we still send."""
    near, far = trio.testing.memory_stream_pair()
    requestor = TCPAssociation(near, Role.REQUESTOR)
    await requestor.send(REQUEST)
    await far.send_all(encode(accept_all(REQUEST)))
    await requestor.receive()
    await far.send_all(encode(AAbort(2, 1)))
    assert isinstance(far.receive_stream, trio.testing.MemoryReceiveStream)
    far.receive_stream.close()
    with pytest.raises(AssociationAborted, match="connection lost"):
        await requestor.send(pdv(b"ping"))
    assert await requestor.receive() == AAbort(2, 1)


async def test_local_end_wakes_the_task_that_receives() -> None:
    requestor, acceptor = pair()
    await establish(requestor, acceptor)
    got = []

    async def receive() -> None:
        got.append(await requestor.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await requestor.aclose()
    assert [type(atom) for atom in got] == [AAbort]
    assert requestor.cause == "aborted here: source 0, reason 0"


async def test_aclose_of_a_running_association_aborts_it() -> None:
    requestor, acceptor = pair()
    await establish(requestor, acceptor)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(requestor.aclose)
        assert await acceptor.receive() == AAbort(0, 0)
        await acceptor.aclose()
    await requestor.aclose()


# --- against the clock ------------------------------------------------------------------------


async def test_silence_before_the_request(autojump_clock: trio.testing.MockClock) -> None:
    acceptor = pair(Timeouts(association_request=7))[1]
    assert isinstance(await acceptor.receive(), AAbort)
    assert trio.current_time() == pytest.approx(7)
    assert acceptor.cause == "silence: no A-ASSOCIATE-RQ within 7 s"


async def test_dripping_does_not_extend_the_time_for_the_request(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = trio.testing.memory_stream_pair()
    acceptor = TCPAssociation(far, Role.ACCEPTOR, timeouts=Timeouts(association_request=7))

    async def drip() -> None:
        with suppress(trio.BrokenResourceError):  # closed in its face
            for byte in encode(REQUEST):
                await near.send_all(bytes((byte,)))
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        assert isinstance(await acceptor.receive(), AAbort)
        assert trio.current_time() == pytest.approx(7)
        nursery.cancel_scope.cancel()


async def test_no_answer_to_the_request(autojump_clock: trio.testing.MockClock) -> None:
    requestor, acceptor = pair(Timeouts(association_answer=9))
    await requestor.send(REQUEST)
    assert isinstance(await requestor.receive(), AAbort)
    assert trio.current_time() == pytest.approx(9)
    assert requestor.cause == "silence: no answer to A-ASSOCIATE-RQ in 9 s"
    await acceptor.receive()
    assert await acceptor.receive() == AAbort(2, 0)


async def test_no_answer_to_the_release(autojump_clock: trio.testing.MockClock) -> None:
    requestor, acceptor = pair(Timeouts(release=5))
    await establish(requestor, acceptor)
    await requestor.send(AReleaseRQ())
    assert isinstance(await requestor.receive(), AAbort)
    assert requestor.cause == "silence: no answer to A-RELEASE-RQ in 5 s"


async def test_idle_counts_both_directions(autojump_clock: trio.testing.MockClock) -> None:
    requestor, acceptor = pair(Timeouts(idle=10))
    await establish(requestor, acceptor)

    async def work() -> None:
        for _ in range(3):
            await trio.sleep(9)
            await requestor.send(pdv(b"ping"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        assert isinstance(await requestor.receive(), AAbort)
    assert trio.current_time() == pytest.approx(3 * 9 + 10)
    assert requestor.cause == "silence: idle for 10 s"


async def test_without_idle_limit_an_association_waits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    requestor, acceptor = pair(Timeouts(idle=None))
    await establish(requestor, acceptor)
    with trio.move_on_after(100_000) as scope:
        await requestor.receive()
    assert scope.cancelled_caught


async def test_peer_that_takes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    near, _far = trio.testing.lockstep_stream_pair()
    requestor = TCPAssociation(near, Role.REQUESTOR, timeouts=Timeouts(write=11))
    with pytest.raises(AssociationAborted, match="took no data for 11 s"):
        await requestor.send(REQUEST)
    assert trio.current_time() == pytest.approx(11)
    assert isinstance(await requestor.receive(), AAbort)


async def test_slow_peer_has_the_write_time_for_each_piece(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = trio.testing.lockstep_stream_pair()
    requestor = TCPAssociation(near, Role.REQUESTOR, timeouts=Timeouts(write=11))
    answer = encode(accept_all(REQUEST))
    size = 3 * WRITE_SIZE

    async def device() -> None:
        await far.receive_some(100_000)
        await far.send_all(answer)
        while True:
            await trio.sleep(8)
            await far.receive_some(WRITE_SIZE)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(device)
        await requestor.send(REQUEST)
        await requestor.receive()
        await requestor.send(pdv(bytes(size)))
        assert trio.current_time() > 2 * 11
        nursery.cancel_scope.cancel()


async def test_abort_does_not_wait_for_a_writer_that_is_stuck(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, _far = trio.testing.lockstep_stream_pair()
    requestor = TCPAssociation(near, Role.REQUESTOR)

    async def write() -> None:
        with pytest.raises(AssociationAborted, match="aborted here"):
            await requestor.send(REQUEST)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        await requestor.abort()
        assert trio.current_time() == pytest.approx(ABORT_LIMIT)


async def test_aclose_waits_for_the_peers_close_but_not_longer_than_artim(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = trio.testing.memory_stream_pair()
    acceptor = TCPAssociation(far, Role.ACCEPTOR, timeouts=Timeouts(artim=13))
    await near.send_all(encode(REQUEST))
    await acceptor.receive()
    await acceptor.send(AAssociateRJ(1, 1, 1))
    await acceptor.aclose()
    assert trio.current_time() == pytest.approx(13)
    assert await near.receive_some(100) == encode(AAssociateRJ(1, 1, 1))
    assert await near.receive_some(100) == b""


async def test_a_peer_that_never_stops_sending_is_waited_for_no_longer(
    mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = trio.testing.memory_stream_pair()
    acceptor = TCPAssociation(far, Role.ACCEPTOR, timeouts=Timeouts(artim=13))
    await near.send_all(encode(REQUEST))
    await acceptor.receive()
    taken = 0

    async def take(reader: Reader) -> bytes:
        nonlocal taken
        taken += 1
        assert taken < 100
        mock_clock.jump(1)
        return encode(pdv(b"more and more"))

    monkeypatch.setattr(Reader, "take", take)
    await acceptor.abort()
    await acceptor.aclose()
    assert 1 < taken <= 14


async def test_aclose_ends_when_the_peer_closes(autojump_clock: trio.testing.MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()
    acceptor = TCPAssociation(far, Role.ACCEPTOR)
    await near.send_all(encode(REQUEST))
    await acceptor.receive()
    await acceptor.send(AAssociateRJ(1, 1, 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(acceptor.aclose)
        await trio.sleep(1)
        await near.aclose()
    assert trio.current_time() == pytest.approx(1)


async def test_cancelled_aclose_still_gets_the_abort_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = trio.testing.memory_stream_pair()
    requestor = TCPAssociation(near, Role.REQUESTOR)
    await requestor.send(REQUEST)
    with trio.CancelScope() as scope:
        scope.cancel()
        await requestor.aclose()
    assert trio.current_time() <= 2 * ABORT_LIMIT
    sent = await far.receive_some(100_000)
    assert decode(sent[-10:]) == AAbort(0, 0)


# --- cancelled at each await ------------------------------------------------------------------


async def test_cancelled_receive_loses_nothing() -> None:
    requestor, acceptor = pair()
    await establish(requestor, acceptor)
    with trio.CancelScope() as scope:
        scope.cancel()
        await acceptor.receive()
    assert scope.cancelled_caught
    await requestor.send(pdv(b"ping"))
    received = await acceptor.receive()
    assert isinstance(received, PDV)
    assert bytes(received.fragment) == b"ping"


async def test_cancelled_write_closes_the_connection() -> None:
    near, far = trio.testing.lockstep_stream_pair()
    requestor = TCPAssociation(near, Role.REQUESTOR)

    async def peek() -> None:
        await far.receive_some(3)  # a part of the request: what is left can never be mended

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peek)
        with trio.move_on_after(math.inf) as scope:
            nursery.start_soon(_cancel_when_blocked, scope)
            await requestor.send(REQUEST)
        assert scope.cancelled_caught
    assert requestor.over
    assert isinstance(await requestor.receive(), AAbort)
    assert requestor.cause == "closed here in the middle of a PDU"
    with pytest.raises(AssociationAborted):
        await requestor.send(pdv(b"ping"))


async def test_send_cancelled_before_its_turn_leaves_the_association_alone() -> None:
    near, far = trio.testing.memory_stream_pair()
    requestor = TCPAssociation(near, Role.REQUESTOR)
    await requestor.send(REQUEST)
    await far.send_all(encode(accept_all(REQUEST)))
    await requestor.receive()
    await far.receive_some(100_000)
    with trio.CancelScope() as scope:
        scope.cancel()
        await requestor.send(pdv(b"ping"))
    assert scope.cancelled_caught
    assert not requestor.over
    await requestor.send(pdv(b"pong"))
    assert b"pong" in await far.receive_some(100_000)


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()
