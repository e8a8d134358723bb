"""One session's port: what it receives, and what it says for itself."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from relay.errors import LocalProtocolError
from relay.signalling.limits import MAXIMUM_WAITING_MESSAGES
from relay.signalling.messages import Answer, End, EndReason, Open, SessionMessage
from relay.signalling.port import Connected, Disconnected, SessionPort
from tests.signalling.bridge import in_line, session_id

S = session_id(1)


class Carrier:
    """Remembers what a port says."""

    def __init__(self) -> None:
        self.said: list[SessionMessage | Open] = []
        self.forgotten = 0

    async def send(self, message: SessionMessage | Open) -> bool:
        await trio.lowlevel.checkpoint()
        self.say(message)
        return True

    def say(self, message: SessionMessage | Open) -> None:
        self.said.append(message)

    def forget(self, port: SessionPort) -> None:
        assert port.session == S
        self.forgotten += 1


def port() -> tuple[SessionPort, Carrier]:
    carrier = Carrier()
    return SessionPort(carrier, S), carrier


async def test_it_receives_in_order_and_waits_for_what_comes() -> None:
    one, _ = port()
    received: list[object] = []
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            received.extend([await one.receive() for _ in range(3)])

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        one.signal(Connected())
        assert one.deliver(in_line(S, 0))
        await wait_all_tasks_blocked()
        assert one.deliver(in_line(S, 1))
    assert received == [Connected(), in_line(S, 0), in_line(S, 1)]


async def test_of_what_became_of_the_connection_the_newest_word_counts() -> None:
    one, _ = port()
    one.signal(Disconnected())
    one.deliver(in_line(S, 0))
    one.signal(Connected())
    one.signal(Disconnected())
    assert [await one.receive(), await one.receive()] == [in_line(S, 0), Disconnected()]


async def test_an_answer_counts_once() -> None:
    one, _ = port()
    one.deliver(Answer(S, b"answer"))
    assert await one.receive() == Answer(S, b"answer")
    one.deliver(Answer(S, b"answer"))
    one.deliver(in_line(S, 0))
    assert await one.receive() == in_line(S, 0)


async def test_nothing_follows_an_end() -> None:
    one, carrier = port()
    one.deliver(End(S, EndReason.REVOKED))
    one.deliver(in_line(S, 0))
    one.signal(Disconnected())
    assert not await one.send(in_line(S, 0))
    assert await one.receive() == End(S, EndReason.REVOKED)
    with pytest.raises(LocalProtocolError, match="has ended"):
        await one.receive()
    await one.aclose()
    assert carrier.said == []


async def test_closing_says_so_once_and_forgets() -> None:
    one, carrier = port()
    await one.aclose(EndReason.EXPIRED)
    await one.aclose()
    assert carrier.said == [End(S, EndReason.EXPIRED)]
    assert carrier.forgotten == 2


async def test_closing_works_when_cancelled() -> None:
    one, carrier = port()
    with trio.CancelScope() as scope:
        scope.cancel()
        await one.aclose()
    assert carrier.said == [End(S, EndReason.FINISHED)]
    assert carrier.forgotten == 1


def test_detaching_says_nothing() -> None:
    one, carrier = port()
    one.detach()
    assert carrier.said == []
    assert carrier.forgotten == 1


async def test_a_receiver_too_far_behind_gets_the_end_only() -> None:
    one, _ = port()
    for chunk in range(MAXIMUM_WAITING_MESSAGES):
        assert one.deliver(in_line(S, chunk, 1))
    assert not one.deliver(in_line(S, MAXIMUM_WAITING_MESSAGES, 1))
    assert one.deliver(in_line(S, 5))
    assert await one.receive() == End(S, EndReason.PROTOCOL_VIOLATION)
