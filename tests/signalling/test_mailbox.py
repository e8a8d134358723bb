"""What waits for one session: order, nothing twice, bounds."""

from hypothesis import given
from hypothesis import strategies as st

from relay.signalling.limits import MAXIMUM_WAITING_IN_LINE, MAXIMUM_WAITING_MESSAGES
from relay.signalling.mailbox import Mailbox
from relay.signalling.messages import Announce, Answer, Ask, End, InLine, Message, Progress

S = bytes(16)


def announce(chunk: int) -> Announce:
    return Announce(S, chunk, 1, chunk, 5, (), ())


def in_line(chunk: int, size: int = 10) -> InLine:
    return InLine(S, chunk, bytes(size))


def progress(opened: int) -> Progress:
    return Progress(S, (0, 0, opened, 0, 0), (0, 0, 0, 0, 0))


def drained(mailbox: Mailbox[Message]) -> list[Message]:
    return [mailbox.pop() for _ in range(len(mailbox))]


def filled(*messages: Message) -> Mailbox[Message]:
    mailbox: Mailbox[Message] = Mailbox()
    for message in messages:
        assert mailbox.put(message, message, 1)
    return mailbox


def test_messages_come_out_in_order() -> None:
    messages = [Answer(S, b"x"), in_line(0), announce(1), in_line(2), End(S, 0)]
    assert drained(filled(*messages)) == messages


def test_a_chunk_that_waits_is_not_queued_again() -> None:
    mailbox = filled(
        in_line(0), announce(1), in_line(0), announce(1), Answer(S, b""), Answer(S, b"")
    )
    assert drained(mailbox) == [in_line(0), announce(1), Answer(S, b"")]
    assert mailbox.put(in_line(0), in_line(0))
    assert len(mailbox) == 1


def test_of_progress_only_the_newest_waits_and_it_goes_last() -> None:
    mailbox = filled(progress(1), announce(0), progress(2), announce(1))
    assert drained(mailbox) == [announce(0), progress(2), announce(1)]


def test_asks_are_each_their_own() -> None:
    asks = [Ask(1, bytes(32), b"x"), Ask(2, bytes(32), b"x")]
    assert drained(filled(*asks, asks[0])) == asks


def test_in_line_bytes_are_bounded_and_come_back() -> None:
    mailbox: Mailbox[int] = Mailbox()
    size = 16 * 1024
    taken = 0
    while mailbox.put(in_line(taken, size), taken, size):
        taken += 1
    assert taken == MAXIMUM_WAITING_IN_LINE // size
    assert mailbox.size == taken * size
    assert mailbox.put(announce(1000), 1000)  # what is stored elsewhere takes no room
    mailbox.pop()
    assert mailbox.put(in_line(taken, size), taken, size)
    assert not mailbox.put(in_line(taken + 1, size), taken, size)


def test_messages_are_bounded() -> None:
    mailbox: Mailbox[int] = Mailbox()
    for chunk in range(MAXIMUM_WAITING_MESSAGES):
        assert mailbox.put(announce(chunk), chunk)
    assert not mailbox.put(announce(MAXIMUM_WAITING_MESSAGES), 0)
    assert mailbox.put(announce(0), 0)  # waits already


def test_replace_moves_to_the_end() -> None:
    mailbox: Mailbox[str] = Mailbox()
    mailbox.replace("connection", "lost")
    mailbox.put(in_line(0), "chunk")
    mailbox.replace("connection", "there")
    assert [mailbox.pop() for _ in range(len(mailbox))] == ["chunk", "there"]


def test_clear_makes_all_room() -> None:
    mailbox = filled(in_line(0, 1000), progress(1))
    mailbox.clear()
    assert len(mailbox) == mailbox.size == 0
    assert mailbox.put(in_line(0, MAXIMUM_WAITING_IN_LINE), in_line(0))


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 5).map(in_line), st.integers(0, 9).map(progress)))
)
def test_size_is_what_waits(steps: list[Message | None]) -> None:
    mailbox: Mailbox[Message] = Mailbox()
    for step in steps:
        if step is not None:
            mailbox.put(step, step, 7)
        elif mailbox:
            mailbox.pop()
        assert mailbox.size == 7 * len(mailbox)
