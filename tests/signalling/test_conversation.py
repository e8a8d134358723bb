"""One connection while it lasts: pings, silence, writes that stall, and what ends it."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from relay.errors import SignallingError
from relay.signalling.conversation import converse, reason, receive
from relay.signalling.limits import MESSAGES_AT_ONCE, MESSAGES_PER_SECOND, Timeouts
from relay.signalling.messages import End, Message, Ping, Pong, decode, encode
from relay.signalling.outbox import Outbox
from tests.signalling.bridge import MemorySocket, session_id, socket_pair

TIMEOUTS = Timeouts()


class Talk:
    """A conversation at one end of a pair; the test holds the other end."""

    def __init__(self) -> None:
        self.near, self.far = socket_pair()
        self.outbox = Outbox()
        self.heard: list[Message] = []
        self.why = ""
        self.lasted = 0.0

    async def run(self) -> None:
        began = trio.current_time()
        try:
            await converse(self.near, self.outbox, self.dispatch, TIMEOUTS)
        except* SignallingError as group:
            self.why = reason(group)
        self.lasted = trio.current_time() - began

    async def dispatch(self, message: Message, frame: bytes) -> None:
        assert decode(frame) == message
        await trio.lowlevel.checkpoint()
        self.heard.append(message)


async def test_pings_are_answered_and_others_handed_on(autojump_clock: MockClock) -> None:
    talk = Talk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        await talk.far.send(encode(Ping(41)))
        assert decode(await talk.far.receive()) == Pong(41)
        await talk.far.send(encode(End(session_id(1), 0)))
        await talk.far.send(encode(Pong(0)))
        talk.outbox.put_control(b"frame")
        assert await talk.far.receive() == b"frame"
        assert talk.heard == [End(session_id(1), 0)]
        talk.far.cut()
    assert talk.why == "the other end closed the connection"


async def test_pings_go_out_and_silence_ends_it(autojump_clock: MockClock) -> None:
    talk = Talk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        assert [decode(await talk.far.receive()) for _ in range(2)] == [Ping(0), Ping(1)]
    assert talk.why == f"the other end was silent for {TIMEOUTS.silence:g} s"
    assert talk.lasted == pytest.approx(TIMEOUTS.silence)


async def test_anything_heard_breaks_the_silence(autojump_clock: MockClock) -> None:
    talk = Talk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        nursery.start_soon(swallow, talk.far)
        for _ in range(10):
            await trio.sleep(TIMEOUTS.silence - 1)
            await talk.far.send(encode(Pong(0)))
        assert talk.why == ""
        talk.far.cut()


async def swallow(socket: MemorySocket) -> None:
    while await socket.receive():
        pass


async def test_who_talks_need_not_ping(autojump_clock: MockClock) -> None:
    talk = Talk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        sent = []
        for number in range(10):
            talk.outbox.put_control(b"frame %d" % number)
            sent.append(await talk.far.receive())
            await talk.far.send(encode(Pong(0)))
            await trio.sleep(TIMEOUTS.heartbeat - 1)
        assert sent == [b"frame %d" % number for number in range(10)]
        # Answering counts, hearing does not: what comes in says nothing of us to the other end.
        await talk.far.send(encode(Ping(7)))
        assert decode(await talk.far.receive()) == Pong(7)
        answered = trio.current_time()
        await trio.sleep(TIMEOUTS.heartbeat - 1)
        await talk.far.send(encode(Pong(0)))
        assert decode(await talk.far.receive()) == Ping(0)
        assert trio.current_time() - answered == pytest.approx(TIMEOUTS.heartbeat)
        talk.far.cut()


async def test_what_is_done_with_a_message_is_not_silence(autojump_clock: MockClock) -> None:
    talk = Talk()
    done = trio.Event()

    async def slowly(message: Message, frame: bytes) -> None:
        await trio.sleep(TIMEOUTS.silence + 1)
        done.set()

    talk.dispatch = slowly  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        nursery.start_soon(swallow, talk.far)
        await talk.far.send(encode(End(session_id(1), 0)))
        await done.wait()
        assert talk.why == ""
        talk.far.cut()


async def test_an_end_that_takes_nothing_is_left(autojump_clock: MockClock) -> None:
    talk = Talk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        talk.outbox.put_control(b"frame")
        await trio.sleep(TIMEOUTS.write + 1)
        assert talk.why == f"a message could not be written for {TIMEOUTS.write:g} s"


async def test_a_peer_that_pings_and_does_not_read_costs_one_answer(
    autojump_clock: MockClock,
) -> None:
    talk = Talk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        for sequence in range(1000):
            await talk.far.send(encode(Ping(sequence)))
        await wait_all_tasks_blocked()
        assert talk.outbox.statistics().control_frames <= 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("message", [Ping(1), Pong(1)])
async def test_a_peer_that_pings_without_end_is_read_no_faster_than_messages(
    autojump_clock: MockClock, message: Message
) -> None:
    talk = Talk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        nursery.start_soon(swallow, talk.far)
        began = trio.current_time()
        for _ in range(MESSAGES_AT_ONCE + 2 * MESSAGES_PER_SECOND):
            await talk.far.send(encode(message))
        await talk.far.send(encode(End(session_id(1), 0)))
        while not talk.heard:
            await trio.sleep(0.01)
        assert trio.current_time() - began == pytest.approx(2, abs=0.1)
        talk.far.cut()


async def test_when_it_ends_whoever_waits_to_send_is_told(autojump_clock: MockClock) -> None:
    talk = Talk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        session = session_id(1)
        for number in range(2):
            talk.outbox.put(session, Ping(number), b"frame")
            talk.outbox.put(session, Pong(number), b"frame")
        nursery.start_soon(talk.far.aclose)
        assert not await talk.outbox.drained(session)


async def test_receive_has_a_deadline(autojump_clock: MockClock) -> None:
    near, _far = socket_pair()
    with pytest.raises(SignallingError, match="silent for 3 s"):
        await receive(near, 3)


def test_the_reason_is_the_first_cause() -> None:
    inner = ExceptionGroup("", [SignallingError("first"), SignallingError("second")])
    assert reason(ExceptionGroup("", [inner])) == "first"
