"""The sessions that a Router holds: what is repeated on a new connection, and in which order."""

import pytest

from relay.errors import LocalProtocolError
from relay.signalling.messages import (
    Answer,
    End,
    EndReason,
    Held,
    Message,
    Open,
    Refuse,
    decode,
)
from relay.signalling.outbox import Outbox
from relay.signalling.port import Connected, Disconnected
from relay.signalling.sessions import Sessions
from tests.signalling.bridge import in_line, opening, progress, session_id

A, B, C = (session_id(number) for number in range(3))
ROUTER = bytes(32)


async def written(outbox: Outbox) -> list[Message]:
    """All that waits, as it would be written."""
    messages = []
    while outbox.statistics().control_frames or outbox.statistics().sessions:
        messages.append(decode(await outbox.take()))
    return messages


async def connect(sessions: Sessions) -> tuple[Outbox, list[Message]]:
    outbox = Outbox()
    sessions.connected(outbox)
    return outbox, await written(outbox)


async def test_without_a_connection_nothing_is_sent() -> None:
    sessions = Sessions()
    port = sessions.attach(A)
    assert not await port.send(in_line(A, 0))
    assert not await sessions.send(Refuse(B, b"signed"))


async def test_an_opening_is_said_again_before_what_is_held_until_it_is_heard() -> None:
    sessions = Sessions()
    port = sessions.attach(A)
    assert not await sessions.attach(B).send(progress(B))
    assert not await port.send(opening(0, ROUTER))
    for _ in range(2):
        _, said = await connect(sessions)
        assert said == [opening(0, ROUTER), Held((A, B))]
        sessions.lost()
    sessions.deliver(Answer(A, b"answer"))
    _, said = await connect(sessions)
    assert said == [Held((A, B))]


async def test_a_session_whose_opening_is_yet_to_be_said_is_not_held() -> None:
    """The Bridge would call it unknown, and so end what has not begun."""
    sessions = Sessions()
    port = sessions.attach(A)
    _, said = await connect(sessions)
    assert said == [Held(())]
    sessions.lost()
    assert not await port.send(opening(0, ROUTER))
    _, said = await connect(sessions)
    assert said == [opening(0, ROUTER), Held((A,))]


async def test_an_answer_is_said_again_until_the_caller_is_known_to_have_it() -> None:
    sessions = Sessions()
    outbox, _ = await connect(sessions)
    assert sessions.offer(opening(0, ROUTER))
    port = sessions.attach(A)
    sessions.say(Answer(A, b"answer"))
    assert await written(outbox) == [Answer(A, b"answer")]
    # The caller says its opening again: it has not got the answer.
    assert not sessions.offer(opening(0, ROUTER))
    assert await written(outbox) == [Answer(A, b"answer")]
    sessions.lost()
    assert await port.receive() == Disconnected()
    outbox, said = await connect(sessions)
    assert said == [Held((A,)), Answer(A, b"answer")]
    assert await port.receive() == Connected()
    sessions.deliver(progress(A))  # the caller says where it stands before it has the answer
    assert not sessions.offer(opening(0, ROUTER))
    assert await written(outbox) == [Answer(A, b"answer")]
    sessions.deliver(in_line(A, 0))
    assert not sessions.offer(opening(0, ROUTER))
    assert await written(outbox) == []


async def test_what_was_offered_is_held_before_anyone_attaches_it() -> None:
    sessions = Sessions()
    outbox, _ = await connect(sessions)
    assert sessions.offer(opening(0, ROUTER))
    sessions.deliver(progress(A))
    sessions.lost()
    outbox, said = await connect(sessions)
    assert said == [Held((A,))]
    port = sessions.attach(A)
    assert await port.receive() == progress(A)
    with pytest.raises(LocalProtocolError, match="attached already"):
        sessions.attach(A)
    assert await written(outbox) == []


async def test_refusing_what_was_offered_forgets_it() -> None:
    sessions = Sessions()
    outbox, _ = await connect(sessions)
    sessions.offer(opening(0, ROUTER))
    sessions.say(Refuse(A, b"signed"))
    assert len(sessions) == 0
    assert await written(outbox) == [Refuse(A, b"signed")]


async def test_detached_sessions_are_not_held() -> None:
    sessions = Sessions()
    port = sessions.attach(A)
    sessions.say(opening(0, ROUTER))
    port.detach()
    _, said = await connect(sessions)
    assert said == [Held(())]


async def test_a_port_that_was_replaced_cannot_forget_its_successor() -> None:
    sessions = Sessions()
    older = sessions.attach(A)
    older.detach()
    sessions.attach(A)
    older.detach()
    assert len(sessions) == 1


async def test_one_end_tells_and_no_end_answers_an_end() -> None:
    sessions = Sessions()
    outbox, _ = await connect(sessions)
    sessions.deliver(End(B, 0))
    sessions.deliver(progress(C))
    sessions.deliver(progress(C, 1))
    assert await written(outbox) == [End(C, EndReason.UNKNOWN_SESSION)]


async def test_an_ended_session_is_held_no_more_and_its_port_learns_why() -> None:
    sessions = Sessions()
    await connect(sessions)
    port = sessions.attach(A)
    sessions.deliver(End(A, EndReason.EXPIRED))
    assert len(sessions) == 0
    assert await port.receive() == End(A, EndReason.EXPIRED)


async def test_an_opening_beyond_what_can_be_held_is_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relay.signalling.sessions.MAXIMUM_SESSIONS", 1)
    sessions = Sessions()
    outbox, _ = await connect(sessions)
    sessions.attach(A)
    assert not sessions.offer(Open(B, ROUTER, "PACS", b"", b""))
    assert await written(outbox) == [End(B, EndReason.LIMIT_REACHED)]
