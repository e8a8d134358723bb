"""One direction: messages are judged whole, go on in order, wait, or are drained and answered."""

from collections.abc import Awaitable, Callable

import pytest

from relay.dicom import dimse, uids
from relay.dicom.dimse import CommandField, CommandSet, Status
from relay.dicom.pdu import PDV
from relay.errors import RemoteProtocolError
from relay.router.direction import (
    MAXIMUM_OUTSTANDING,
    Denial,
    Direction,
    Judgement,
    Look,
    Outstanding,
    Passage,
    PassOn,
    Seen,
    Verdict,
    command_pdv,
)
from tests.router.fakes import (
    CT,
    JPEG,
    MR,
    acceptance,
    command,
    data,
    echo_rq,
    find_rq,
    proposal,
    store_rq,
)

REPLY = command(1, dimse.response_to(store_rq(), Status.NOT_AUTHORIZED))
CONTEXTS = (CT, MR, uids.VERIFICATION)


class Judge:
    """Says of each message what the test has said before, and passes the others."""

    def __init__(self, *judgements: Judgement) -> None:
        self.judgements = list(judgements)
        self.asked: list[tuple[int, CommandSet]] = []

    def __call__(self, context_id: int, command_set: CommandSet) -> Judgement:
        self.asked.append((context_id, command_set))
        return self.judgements.pop(0) if self.judgements else Passage(command_set)


def direction(
    *judgements: Judgement, transfer_syntax: str = uids.IMPLICIT_VR_LITTLE_ENDIAN
) -> Direction:
    made = Direction(Judge(*judgements))
    answer = acceptance(proposal(*CONTEXTS, transfer_syntaxes=[transfer_syntax]))
    made.accepted = {result.id: result for result in answer.contexts}
    return made


async def nothing() -> None:
    pass


# --- commands -------------------------------------------------------------------------------------


def test_what_passes_goes_on_as_it_came() -> None:
    made = direction()
    assert made.take(command(1, store_rq())) == Verdict((command(1, store_rq()),))
    first, last = data(1, b"a" * 10, last=False), data(1, b"b")
    assert made.take(first) == Verdict((first,), compressible=True)
    assert made.take(last) == Verdict((last,), ends=True, compressible=True)
    assert made.take(command(5, echo_rq())) == Verdict((command(5, echo_rq()),), ends=True)


@pytest.mark.parametrize(
    ("transfer_syntax", "asked", "compressible"),
    [
        (uids.EXPLICIT_VR_BIG_ENDIAN, store_rq(), True),
        (JPEG, store_rq(), False),
        (uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, store_rq(), False),
        (uids.IMPLICIT_VR_LITTLE_ENDIAN, find_rq(), False),  # identifiers are not compressed
    ],
)
def test_uncompressed_objects_are_compressible(
    transfer_syntax: str, asked: CommandSet, compressible: bool
) -> None:
    made = direction(transfer_syntax=transfer_syntax)
    made.take(command(1, asked))
    assert made.take(data(1)).compressible is compressible


def test_a_command_in_several_fragments_is_judged_whole() -> None:
    judge = Judge()
    made = direction()
    made._judge = judge
    encoded = echo_rq().encode()
    for at in range(len(encoded) - 1):
        assert made.take(PDV(5, True, False, encoded[at : at + 1])) == Verdict()
    assert not judge.asked
    assert made.take(PDV(5, True, True, encoded[-1:])).forward == (command(5, echo_rq()),)
    assert judge.asked == [(5, echo_rq())]


def test_fragments_of_a_command_are_not_kept() -> None:
    """Empty ones count for no limit of a command set's length, and must not pile up."""
    made = direction()
    buffer = bytearray(b"a whole PDU")
    for _ in range(10):
        made.take(PDV(1, True, False, memoryview(buffer)[:0]))
    buffer.clear()  # impossible while somebody has a view of it
    assert made.take(command(1, echo_rq())).forward


def test_a_command_goes_on_as_it_was_judged() -> None:
    other = store_rq(99)
    made = direction(Passage(other, nothing))
    verdict = made.take(command(1, store_rq(1)))
    assert verdict == Verdict((command_pdv(1, other),), before=nothing)
    assert verdict.command == other
    assert made.take(data(1)).command is None


def test_only_accepted_contexts_carry_anything() -> None:
    with pytest.raises(RemoteProtocolError, match="not accepted"):
        direction().take(command(7, echo_rq()))


def test_messages_must_not_interleave() -> None:
    made = direction()
    made.take(command(1, store_rq()))
    made.take(data(1, last=False))
    with pytest.raises(RemoteProtocolError):
        made.take(command(3, store_rq(2, MR)))


# --- refused --------------------------------------------------------------------------------------


def test_a_refused_message_is_drained_and_then_answered() -> None:
    made = direction(Denial(REPLY))
    assert made.take(command(1, store_rq())) == Verdict()
    for _ in range(5):
        assert made.take(data(1, last=False)) == Verdict()
    assert made.take(data(1, b"")) == Verdict(reply=REPLY)
    assert made.take(command(1, store_rq(2))).forward


def test_without_a_data_set_it_is_answered_at_once() -> None:
    made = direction(Denial(REPLY), Denial())
    assert made.take(command(5, echo_rq())) == Verdict(reply=REPLY)
    assert made.take(command(5, echo_rq())) == Verdict()  # what has no answer


# --- held for a value of the data set -------------------------------------------------------------


def looking(
    enough: int, denial: Denial | None = None, before: Callable[[], Awaitable[None]] | None = None
) -> tuple[Look, list[tuple[int, bool]]]:
    """A look that is content with `enough` bytes; and what it was shown."""
    shown: list[tuple[int, bool]] = []

    def look(prefix: bytes, whole: bool) -> Seen | None:
        shown.append((len(prefix), whole))
        if len(prefix) < enough and not whole:
            return None
        return Seen(prefix.replace(b"a", b"b"), denial=denial, before=before)

    return look, shown


def test_a_held_message_goes_on_in_order_once_enough_is_there() -> None:
    look, _ = looking(30, before=nothing)
    made = direction(Passage(store_rq(), look=look))
    assert made.take(command(1, store_rq())) == Verdict()
    assert made.take(data(1, b"a" * 10, last=False)) == Verdict()
    held = made.take(data(1, b"a" * 20, last=False))
    assert held.forward == (command(1, store_rq()), PDV(1, False, False, b"b" * 30))
    assert (held.ends, held.before) == (False, nothing)
    # What follows is not looked at any more.
    assert made.take(data(1, b"a", last=False)).forward == (data(1, b"a", last=False),)
    assert made.take(data(1, b"")).ends


@pytest.mark.parametrize("size", [0, 1, 20, 3_000_000])
def test_a_data_set_that_is_whole_is_decided_on(size: int) -> None:
    look, shown = looking(100)
    made = direction(Passage(store_rq(), look=look))
    made.take(command(1, store_rq()))
    held = made.take(data(1, b"a" * size))
    assert held.forward == (command(1, store_rq()), PDV(1, False, True, b"b" * size))
    assert held.ends
    assert shown == [(size, True)]


def test_what_is_to_be_awaited_first_is_the_commands_or_the_values() -> None:
    async def other() -> None:
        pass

    for seen, expected in ((None, nothing), (other, other)):
        look, _ = looking(1, before=seen)
        made = direction(Passage(store_rq(), nothing, look))
        assert made.take(command(1, store_rq())).before is None
        assert made.take(data(1, b"aa")).before is expected


@pytest.mark.parametrize("last", [True, False])
def test_what_is_refused_for_its_value_is_drained_answered_and_not_outstanding(
    last: bool,
) -> None:
    look, _ = looking(4, Denial(REPLY))
    made = direction(Passage(store_rq(), look=look))
    made.outstanding.add(store_rq())
    made.take(command(1, store_rq()))
    verdict = made.take(data(1, b"aaaa", last=last))
    if not last:
        assert verdict == Verdict()
        assert made.take(data(1, last=False)) == Verdict()
        verdict = made.take(data(1))
    assert verdict == Verdict(reply=REPLY)
    assert not made.outstanding.has(CommandField.C_STORE_RQ)
    assert made.take(command(1, store_rq(2))).forward


def test_byte_by_byte_it_is_not_looked_at_for_every_byte() -> None:
    """Each look begins at the beginning: a peer could keep us busy with bytes of its own choice."""
    look, shown = looking(1 << 20)
    made = direction(Passage(store_rq(), look=look))
    made.take(command(1, store_rq()))
    for _ in range(1 << 14):
        made.take(PDV(1, False, False, b"a"))
        made.take(PDV(1, False, False, b""))
    assert len(shown) <= 20
    assert made.take(data(1, b"")).forward[1].fragment == b"b" * (1 << 14)


# --- outstanding ----------------------------------------------------------------------------------


def test_an_answer_needs_a_request_of_its_kind() -> None:
    outstanding = Outstanding()
    answer = dimse.response_to(echo_rq(1), 0)
    assert outstanding.answer(answer) == Denial()
    outstanding.add(store_rq(1))
    assert outstanding.answer(answer) == Denial()
    outstanding.add(echo_rq(1))
    assert outstanding.answer(answer) is None
    assert outstanding.answer(answer) == Denial()
    assert outstanding.has(CommandField.C_STORE_RQ)


def test_pending_answers_leave_the_request_open() -> None:
    outstanding = Outstanding()
    outstanding.add(find_rq(1))
    for status in (0xFF00, 0xFF01, 0xFF00, 0):
        assert outstanding.answer(dimse.response_to(find_rq(1), status)) is None
    assert outstanding.answer(dimse.response_to(find_rq(1), 0)) == Denial()


def test_an_answer_with_another_message_id_is_for_one_of_its_kind() -> None:
    """Some devices count for themselves."""
    outstanding = Outstanding()
    outstanding.add(echo_rq(1))
    outstanding.add(echo_rq(2))
    assert outstanding.answer(dimse.response_to(echo_rq(2), 0)) is None  # the right one first
    assert outstanding.answer(dimse.response_to(echo_rq(9), 0)) is None
    assert not outstanding.has(CommandField.C_ECHO_RQ)


def test_one_message_id_for_all_is_enough() -> None:
    outstanding = Outstanding()
    for _ in range(2):
        outstanding.add(echo_rq(1))
    outstanding.forget(echo_rq(1))
    outstanding.forget(store_rq(1))  # was not there
    assert outstanding.answer(dimse.response_to(echo_rq(1), 0)) is None
    assert outstanding.answer(dimse.response_to(echo_rq(1), 0)) == Denial()


def test_outstanding_requests_are_bounded() -> None:
    outstanding = Outstanding()
    for number in range(MAXIMUM_OUTSTANDING):
        outstanding.add(echo_rq(number))
    with pytest.raises(RemoteProtocolError, match="unanswered"):
        outstanding.add(echo_rq(MAXIMUM_OUTSTANDING))


# --- what goes on in its own time -----------------------------------------------------------------


async def speech(pass_on: PassOn) -> None:
    await pass_on(REPLY, True)


def test_a_speech_goes_on_in_place_of_a_message() -> None:
    made = direction(Passage(store_rq(), speech=speech))
    assert made.take(command(1, store_rq())) == Verdict(speech=speech)


def test_a_speech_waits_for_the_data_set() -> None:
    def look(prefix: bytes, whole: bool) -> Seen | None:
        return Seen(speech=speech) if whole else None

    made = direction(Passage(store_rq(), look=look))
    assert made.take(command(1, store_rq())) == Verdict()
    assert made.take(data(1, last=False)) == Verdict()
    assert made.take(data(1)) == Verdict(speech=speech)
    assert made.take(command(1, store_rq(2))).forward
