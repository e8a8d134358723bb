"""relay.tunnel.handshake, against the vectors and both halves against each other."""

import secrets

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import HandshakeError, LocalProtocolError, Refusal
from relay.identity import Identity
from relay.tunnel.handshake import (
    MAXIMUM_AGE,
    MAXIMUM_REQUEST,
    REPLAY_MEMORY,
    OpeningHeader,
    PendingOpening,
    Purpose,
    ReceivedOpening,
    accept_opening,
    hash_opening,
    open_session,
    refuse_opening,
)
from relay.tunnel.keys import HPKEKeyPair, early_key
from tests.vectors.reading import Vector, vectors

NETWORK = b"n" * 16
CALLER = Identity.from_seed(b"a" * 32)
CALLEE = Identity.from_seed(b"b" * 32)
KEY = HPKEKeyPair.from_seed(b"k" * 96)
NOW = 1_800_000_000


def call(request: bytes = b"request", now: int = NOW) -> PendingOpening:
    return open_session(
        CALLER,
        NETWORK,
        CALLEE.public,
        KEY.public,
        "PACS_B",
        request,
        Purpose.ASSOCIATION,
        now,
        secrets.token_bytes,
    )


def receive(pending: PendingOpening, now: int = NOW) -> ReceivedOpening:
    return accept_opening(
        CALLEE,
        {KEY.key_id: KEY},
        NETWORK,
        CALLER.public,
        pending.opening,
        pending.sealed_request,
        now,
    )


@pytest.mark.parametrize("vector", vectors("opening"), ids=str)
def test_opening_vector(vector: Vector) -> None:
    pairs = [HPKEKeyPair.from_seed(bytes.fromhex(seed)) for seed in vector.every("hpke-seed")]

    def accept() -> ReceivedOpening:
        return accept_opening(
            Identity.from_seed(vector.octets("callee-seed")),
            {pair.key_id: pair for pair in pairs},
            vector.octets("network"),
            vector.octets("caller"),
            vector.octets("opening"),
            vector.octets("sealed-request"),
            vector.number("now"),
        )

    if not vector.succeeds:
        with pytest.raises(HandshakeError) as caught:
            accept()
        assert caught.value.refusal == vector.number("refusal")
        return
    received = accept()
    assert received.session == vector.octets("session")
    assert received.purpose == vector.number("purpose")
    assert received.called == vector.text("called")
    assert received.created == vector.number("created")
    assert received.caller == vector.octets("caller")
    assert received.request == vector.octets("request")
    assert received.opening_hash == vector.octets("opening-hash")
    assert early_key(received.opening_hash, vector.octets("secret")) == vector.octets("early-key")


@pytest.mark.parametrize("vector", vectors("answer"), ids=str)
def test_answer_vector(vector: Vector) -> None:
    pending = pending_of(vector)
    if not vector.succeeds:
        with pytest.raises(HandshakeError):
            pending.accept_answer(vector.octets("answer"))
        return
    keys = pending.accept_answer(vector.octets("answer"))
    assert keys.transcript == vector.octets("transcript")
    assert keys.caller_to_callee == vector.octets("flow-key-0")
    assert keys.callee_to_caller == vector.octets("flow-key-1")


def pending_of(vector: Vector) -> PendingOpening:
    """A caller in the state in which the vector's caller waits."""
    opening = vector.octets("opening")
    return PendingOpening(
        opening,
        vector.octets("sealed-request"),
        OpeningHeader.unpack(msgpack.unpackb(opening)[0]),
        hash_opening(opening),
        CALLER,
        vector.octets("secret"),
        HPKEKeyPair.from_seed(vector.octets("ephemeral-seed")),
    )


@pytest.mark.parametrize("vector", vectors("refusal"), ids=str)
def test_refusal_vector(vector: Vector) -> None:
    waiting = waiting_for(vector)
    assert waiting.header.callee == vector.octets("callee")
    if vector.succeeds:
        assert waiting.check_refusal(vector.octets("refusal-note")) == vector.number("reason")
    else:
        with pytest.raises(HandshakeError):
            waiting.check_refusal(vector.octets("refusal-note"))


def waiting_for(vector: Vector) -> PendingOpening:
    """A caller that knows no more of its opening than is needed to be refused."""
    opening = vector.octets("opening")
    header = OpeningHeader.unpack(msgpack.unpackb(opening)[0])
    return PendingOpening(opening, b"", header, hash_opening(opening), CALLER, b"", KEY)


@pytest.mark.parametrize("vector", vectors("withdrawal"), ids=str)
def test_withdrawal_vector(vector: Vector) -> None:
    waiting = waiting_for(vector)
    received = ReceivedOpening(waiting.header, waiting.opening_hash, b"", CALLEE, b"", b"")
    assert received.caller == vector.octets("caller")
    if vector.succeeds:
        received.check_withdrawal(vector.octets("withdrawal-note"))
    else:
        with pytest.raises(HandshakeError):
            received.check_withdrawal(vector.octets("withdrawal-note"))


@given(st.binary(max_size=2000))
def test_both_ends_come_to_the_same_keys(request_: bytes) -> None:
    pending = call(request_)
    received = receive(pending)
    assert received.request == request_
    assert received.session == pending.session
    assert received.opening_hash == pending.opening_hash
    answer, keys = received.answer(secrets.token_bytes)
    assert pending.accept_answer(answer) == keys


def test_nothing_repeats_between_two_openings() -> None:
    first, second = call(), call()
    assert first.session != second.session
    assert first.header.ephemeral != second.header.ephemeral
    assert first.opening_hash != second.opening_hash
    assert receive(first).answer(secrets.token_bytes) != receive(second).answer(secrets.token_bytes)


def test_request_travels_sealed() -> None:
    pending = call(b"WORKSTATION_A")
    assert b"WORKSTATION_A" not in pending.opening + pending.sealed_request
    assert b"PACS_B" in pending.opening


def test_longest_request() -> None:
    pending = call(bytes(MAXIMUM_REQUEST))
    assert len(receive(pending).request) == MAXIMUM_REQUEST
    with pytest.raises(HandshakeError):
        call(bytes(MAXIMUM_REQUEST + 1))
    pending.sealed_request += b"x"
    with pytest.raises(HandshakeError, match="too long"):
        receive(pending)


def test_age_is_taken_either_way() -> None:
    pending = call()
    for off in (-MAXIMUM_AGE, MAXIMUM_AGE):
        receive(pending, NOW + off)
    for off in (-MAXIMUM_AGE - 1, MAXIMUM_AGE + 1):
        with pytest.raises(HandshakeError) as caught:
            receive(pending, NOW + off)
        assert caught.value.refusal == Refusal.EXPIRED
    assert REPLAY_MEMORY > 2 * MAXIMUM_AGE


def test_every_byte_of_the_opening_counts() -> None:
    pending = call()
    for at in range(0, len(pending.opening), 7):
        changed = bytearray(pending.opening)
        changed[at] ^= 0x10
        pending_changed = PendingOpening(
            bytes(changed), pending.sealed_request, pending.header, b"", CALLER, b"", KEY
        )
        with pytest.raises(HandshakeError):
            receive(pending_changed)


@given(st.binary(max_size=300))
def test_accept_opening_survives_anything(data: bytes) -> None:
    with pytest.raises(HandshakeError) as caught:
        accept_opening(CALLEE, {KEY.key_id: KEY}, NETWORK, CALLER.public, data, data, NOW)
    assert caught.value.refusal == Refusal.MALFORMED


@pytest.mark.parametrize("called", ["", "A" * 17, "A\\B", "A\n"])
def test_cannot_open_to_what_is_no_ae_title(called: str) -> None:
    with pytest.raises(HandshakeError, match="called"):
        open_session(
            CALLER,
            NETWORK,
            CALLEE.public,
            KEY.public,
            called,
            b"",
            Purpose.ASSOCIATION,
            NOW,
            secrets.token_bytes,
        )


def test_cannot_open_to_what_is_no_key() -> None:
    with pytest.raises(HandshakeError):
        open_session(
            CALLER,
            NETWORK,
            CALLEE.public,
            b"short",
            "PACS_B",
            b"",
            Purpose.ASSOCIATION,
            NOW,
            secrets.token_bytes,
        )


def test_answered_once_by_either_half() -> None:
    pending = call()
    received = receive(pending)
    answer, _ = received.answer(secrets.token_bytes)
    with pytest.raises(LocalProtocolError):
        received.answer(secrets.token_bytes)
    pending.accept_answer(answer)
    with pytest.raises(LocalProtocolError):
        pending.accept_answer(answer)


def test_forged_answer_does_not_spoil_the_true_one() -> None:
    pending = call()
    answer, keys = receive(pending).answer(secrets.token_bytes)
    with pytest.raises(HandshakeError):
        pending.accept_answer(answer[:-1] + b"x")
    assert pending.accept_answer(answer) == keys


def test_answer_of_an_earlier_try_is_for_another_opening() -> None:
    first, second = call(), call()
    answer, _ = receive(first).answer(secrets.token_bytes)
    with pytest.raises(HandshakeError, match="another opening"):
        second.accept_answer(answer)


@pytest.mark.parametrize("reason", Refusal)
def test_refusal(reason: Refusal) -> None:
    pending = call()
    assert pending.check_refusal(receive(pending).refuse(reason)) == reason
    assert pending.check_refusal(refuse_opening(CALLEE, pending.opening, reason)) == reason


def test_refusal_for_a_reason_of_the_future() -> None:
    pending = call()
    signature = CALLEE.sign("refusal", pending.opening_hash + bytes([200]))
    note = msgpack.packb([pending.opening_hash, 200, signature])
    assert pending.check_refusal(note) == Refusal.NOT_SPECIFIED


def test_withdrawal() -> None:
    pending = call()
    receive(pending).check_withdrawal(pending.withdraw())
    with pytest.raises(HandshakeError):
        receive(call()).check_withdrawal(pending.withdraw())


def test_secrets_are_not_shown() -> None:
    pending = call()
    received = receive(pending)
    shown = repr(pending) + repr(received)
    assert pending._secret.hex() not in shown
    assert repr(pending._secret) not in shown
