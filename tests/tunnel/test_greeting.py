"""How a session comes about: what is said until heard, and what the peer may say to it."""

import pytest
import trio

from relay.dicom.pdu import AAbort, AAssociateRJ
from relay.errors import HandshakeError, Refusal, SessionEnded
from relay.signalling.messages import Answer, Open, Refuse, Withdraw
from relay.tunnel.greeting import Declined, Greeting
from relay.tunnel.handshake import PendingOpening, ReceivedOpening
from tests.tunnel.fakes import CALLEE, opening, received


def begun() -> tuple[Greeting, PendingOpening, ReceivedOpening]:
    pending = opening()
    first = Open(pending.session, CALLEE.public, "PACS", pending.opening, pending.sealed_request)
    return Greeting(pending, first), pending, received(first)


def answered(far: ReceivedOpening) -> tuple[Greeting, Answer]:
    answer, keys = far.answer(lambda size: bytes(range(size)))
    message = Answer(far.session, answer)
    return Greeting(far, message, keys), message


async def test_both_ends_stand_with_the_same_keys() -> None:
    caller, _, far = begun()
    callee, answer = answered(far)
    assert (caller.is_caller, caller.stands, caller.heard) == (True, False, False)
    assert (callee.is_caller, callee.stands, callee.heard) == (False, True, False)
    assert caller.take(answer) is None
    assert caller.stands
    assert caller.heard
    with trio.fail_after(1):
        assert await caller.wait_standing() == await callee.wait_standing()
    callee.hear()
    assert callee.heard


async def test_an_answer_is_taken_once() -> None:
    caller, _, far = begun()
    answer = answered(far)[1]
    assert caller.take(answer) is None
    keys = await caller.wait_standing()
    for again in (answer, Answer(far.session, b"")):
        assert caller.take(again) is None
    assert await caller.wait_standing() is keys


def test_an_opening_is_withdrawn_until_it_is_answered_or_refused() -> None:
    caller, pending, far = begun()
    withdrawal = caller.withdrawal()
    assert withdrawal is not None
    callee, answer = answered(far)
    assert callee.withdrawal() is None
    assert callee.take(withdrawal) == Declined("the caller withdrew", AAbort(2, 0))
    caller.take(answer)
    assert caller.withdrawal() is None

    caller, pending, far = begun()
    refusal = Refuse(pending.session, far.refuse(Refusal.NOT_GRANTED))
    assert caller.take(refusal) == Declined(
        "the far Router refuses: not granted", AAssociateRJ(1, 1, 3)
    )
    assert caller.withdrawal() is None


def test_what_is_answered_is_not_refused() -> None:
    caller, pending, far = begun()
    refusal = Refuse(pending.session, far.refuse(Refusal.NOT_GRANTED))
    caller.take(answered(far)[1])
    with pytest.raises(HandshakeError, match="has answered"):
        caller.take(refusal)


def test_neither_end_says_what_is_the_others() -> None:
    caller, pending, far = begun()
    callee, answer = answered(far)
    refusal = Refuse(pending.session, far.refuse(Refusal.BUSY))
    with pytest.raises(SessionEnded, match="wrong end"):
        caller.take(Withdraw(pending.session, pending.withdraw()))
    for message in (answer, refusal):
        with pytest.raises(SessionEnded, match="wrong end"):
            callee.take(message)


@pytest.mark.parametrize("size", [0, 100, 1272])
def test_what_is_not_signed_does_not_hold(size: int) -> None:
    caller, pending, far = begun()
    callee, _ = answered(far)
    with pytest.raises(HandshakeError):
        caller.take(Answer(pending.session, bytes(size)))
    with pytest.raises(HandshakeError):
        caller.take(Refuse(pending.session, bytes(size)))
    with pytest.raises(HandshakeError):
        callee.take(Withdraw(pending.session, bytes(size)))
    assert not caller.stands
