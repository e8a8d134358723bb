"""How a session is opened, answered, refused and withdrawn (PROTOCOL.md §8).

    caller                                      callee
      | opening, sealed request                   |   open_session / accept_opening
      | --------------------------------------->  |
      |                       answer, or refusal  |   ReceivedOpening.answer / .refuse
      | <---------------------------------------  |   refuse_opening, when it does not hold
      | withdrawal (instead of waiting)           |   PendingOpening.withdraw / .check_withdrawal
      | --------------------------------------->  |

Pure: the clock and all entropy but HPKE's own encapsulation are passed in. Whatever a peer or the
Bridge may have changed raises HandshakeError, whose `refusal` says what to answer. Nothing here
remembers openings: the callee's Router asks its durable replay cache by `opening_hash` before it
answers.
"""

import hashlib
from collections.abc import Mapping
from enum import IntEnum

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.errors import HandshakeError, IdentityError, LocalProtocolError, Refusal
from relay.identity import Identity, is_ae_title, is_hpke_public, public_identity, verify
from relay.packed import Packed, bounded, octets, octets_up_to, unsigned
from relay.tunnel.keys import (
    SEALED_SECRET_LENGTH,
    SECRET_LENGTH,
    HPKEKeyPair,
    Random,
    SessionKeys,
    early_key,
    key_id,
    seal_to,
)

VERSION = 1
SUITE = 1  # Ed25519; HPKE MLKEM768_X25519, HKDF-SHA256, AES-256-GCM; chunks AES-256-GCM

# Hospitals' clocks are wrong by minutes, by an hour after a missed change of daylight saving time,
# and by two where that change is made the wrong way round.
MAXIMUM_AGE = 3 * 3600
# An opening can hold from 3 h before its creation time to 3 h after it; the hour more is for a
# clock that is set back meanwhile.
REPLAY_MEMORY = 7 * 3600
MAXIMUM_REQUEST = 128 * 1024  # bytes of a request before sealing: the longest A-ASSOCIATE-RQ
MAXIMUM_OPENING = 4096  # bytes: a composite key and a sealed secret (2.4 kB), names, a signature
MAXIMUM_ANSWER = 2048  # bytes: a sealed secret (1.2 kB), a hash, a signature
MAXIMUM_NOTE = 256  # bytes of a refusal or a withdrawal: a hash and a signature

_TAG_LENGTH = 16
# Used once: the early key seals one request and is derived from a secret drawn for this opening.
_EARLY_NONCE = bytes(12)


class Purpose(IntEnum):
    """What a session is for."""

    ASSOCIATION = 1
    DELIVERY = 2
    KNOWLEDGE = 3


_PURPOSES = frozenset(map(int, Purpose))
_REFUSALS = frozenset(map(int, Refusal))


# --- what travels -------------------------------------------------------------------------------


@attrs.frozen(slots=True)
class OpeningHeader(Packed):
    """What the caller states; HPKE and the signature both cover it. `created` is Unix seconds."""

    WHAT = "opening header"
    LIMIT = MAXIMUM_OPENING
    LEADING = (VERSION, SUITE)
    network: bytes = octets(16)
    session: bytes = octets(16)
    purpose: int = bounded(lambda v: type(v) is int and v in _PURPOSES)
    caller: bytes = public_identity()
    callee: bytes = public_identity()
    callee_key_id: bytes = octets(32)
    ephemeral: bytes = bounded(is_hpke_public)
    called: str = bounded(is_ae_title)
    created: int = unsigned()


@attrs.frozen(slots=True)
class _Opening(Packed):
    WHAT = "opening"
    LIMIT = MAXIMUM_OPENING
    header: bytes = octets_up_to(MAXIMUM_OPENING)
    ciphertext: bytes = octets(SEALED_SECRET_LENGTH)
    signature: bytes = octets(64)


@attrs.frozen(slots=True)
class _Answer(Packed):
    WHAT = "answer"
    LIMIT = MAXIMUM_ANSWER
    opening_hash: bytes = octets(32)
    ciphertext: bytes = octets(SEALED_SECRET_LENGTH)
    signature: bytes = octets(64)


@attrs.frozen(slots=True)
class _Refusal(Packed):
    WHAT = "refusal"
    LIMIT = MAXIMUM_NOTE
    opening_hash: bytes = octets(32)
    reason: int = unsigned(255)
    signature: bytes = octets(64)


@attrs.frozen(slots=True)
class _Withdrawal(Packed):
    WHAT = "withdrawal"
    LIMIT = MAXIMUM_NOTE
    opening_hash: bytes = octets(32)
    signature: bytes = octets(64)


def hash_opening(opening: bytes) -> bytes:
    """The 32 bytes by which everything after it, and the replay cache, names an opening."""
    return hashlib.sha256(b"relay/1/opening-hash\0" + opening).digest()


def _opening_info(header: bytes) -> bytes:
    return b"relay/1/opening-info\0" + header


def _answer_info(opening_hash: bytes) -> bytes:
    return b"relay/1/answer-info\0" + opening_hash


def _opening_signed(header: bytes, ciphertext: bytes) -> bytes:
    return len(header).to_bytes(4, "big") + header + ciphertext


# --- the caller ---------------------------------------------------------------------------------


@attrs.define(slots=True, eq=False, repr=False)
class PendingOpening:
    """The caller's half, from its opening until the answer. Lives in memory only."""

    opening: bytes
    sealed_request: bytes
    header: OpeningHeader
    opening_hash: bytes
    _identity: Identity
    _secret: bytes
    _ephemeral: HPKEKeyPair
    _answered: bool = False

    @property
    def session(self) -> bytes:
        return self.header.session

    def accept_answer(self, answer: bytes) -> SessionKeys:
        """The session's keys, if `answer` is the callee's to this opening and request.

        Raises HandshakeError if it is not; LocalProtocolError the second time.
        """
        if self._answered:
            raise LocalProtocolError("this opening has been answered already")
        request_hash = hashlib.sha256(self.sealed_request).digest()
        try:
            stated = _Answer.unpack(answer)
            self._check_hash("answer", stated.opening_hash)
            signed = stated.opening_hash + request_hash + stated.ciphertext
            verify(self.header.callee, "answer", signed, stated.signature)
        except IdentityError as error:
            raise HandshakeError(str(error)) from None
        entropy = self._ephemeral.open(stated.ciphertext, _answer_info(self.opening_hash))
        self._answered = True
        return SessionKeys.derive(self.opening_hash, request_hash, answer, self._secret, entropy)

    def check_refusal(self, refusal: bytes) -> Refusal:
        """Why the callee refuses. Raises HandshakeError if it was not the callee who said so."""
        try:
            stated = _Refusal.unpack(refusal)
            self._check_hash("refusal", stated.opening_hash)
            signed = stated.opening_hash + bytes([stated.reason])
            verify(self.header.callee, "refusal", signed, stated.signature)
        except IdentityError as error:
            raise HandshakeError(str(error)) from None
        # A newer Router may have reasons that are not known here; it refuses all the same.
        return Refusal(stated.reason) if stated.reason in _REFUSALS else Refusal.NOT_SPECIFIED

    def withdraw(self) -> bytes:
        """The signed word that no answer is wanted any more."""
        signature = self._identity.sign("withdrawal", self.opening_hash)
        return _Withdrawal(self.opening_hash, signature).pack()

    def _check_hash(self, what: str, opening_hash: bytes) -> None:
        if opening_hash != self.opening_hash:
            raise HandshakeError(f"{what} is for another opening")


def open_session(
    identity: Identity,
    network: bytes,
    callee: bytes,
    callee_key: bytes,
    called: str,
    request: bytes,
    purpose: Purpose,
    now: int,
    random: Random,
) -> PendingOpening:
    """Open a session with `callee`'s Router about its published AE title `called`.

    `callee_key` is the callee's HPKE public key (1216 bytes), from its verified KeyStatement; `now`
    is Unix seconds; `random` gives that many random bytes (drawn: session, secret, ephemeral seed).
    Raises HandshakeError if the key is not one, the title cannot be, or the request is too long.
    """
    if len(request) > MAXIMUM_REQUEST:
        raise HandshakeError(
            f"request of {len(request)} bytes; an opening carries at most {MAXIMUM_REQUEST}"
        )
    session = random(16)
    secret = random(SECRET_LENGTH)
    ephemeral = HPKEKeyPair.generate(random)
    stated = OpeningHeader(
        network=network,
        session=session,
        purpose=int(purpose),
        caller=identity.public,
        callee=callee,
        callee_key_id=key_id(callee_key),
        ephemeral=ephemeral.public,
        called=called,
        created=now,
    )
    try:
        header = stated.pack()
    except IdentityError as error:
        raise HandshakeError(str(error)) from None
    ciphertext = seal_to(callee_key, secret, _opening_info(header))
    signature = identity.sign("opening", _opening_signed(header, ciphertext))
    opening = _Opening(header, ciphertext, signature).pack()
    opening_hash = hash_opening(opening)
    sealed_request = AESGCM(early_key(opening_hash, secret)).encrypt(
        _EARLY_NONCE, request, opening_hash
    )
    return PendingOpening(
        opening, sealed_request, stated, opening_hash, identity, secret, ephemeral
    )


# --- the callee ---------------------------------------------------------------------------------


@attrs.define(slots=True, eq=False, repr=False)
class ReceivedOpening:
    """The callee's half: an opening that holds, to be answered or refused. In memory only."""

    header: OpeningHeader
    opening_hash: bytes
    request: bytes
    _identity: Identity
    _request_hash: bytes
    _secret: bytes
    _answered: bool = False

    @property
    def session(self) -> bytes:
        return self.header.session

    @property
    def purpose(self) -> Purpose:
        return Purpose(self.header.purpose)

    @property
    def caller(self) -> bytes:
        return self.header.caller

    @property
    def called(self) -> str:
        return self.header.called

    @property
    def created(self) -> int:
        return self.header.created

    def answer(self, random: Random) -> tuple[bytes, SessionKeys]:
        """The answer and the session's keys; `random` gives 32 bytes of entropy.

        Raises LocalProtocolError the second time.
        """
        if self._answered:
            raise LocalProtocolError("this opening has been answered already")
        self._answered = True
        entropy = random(SECRET_LENGTH)
        ciphertext = seal_to(self.header.ephemeral, entropy, _answer_info(self.opening_hash))
        signed = self.opening_hash + self._request_hash + ciphertext
        signature = self._identity.sign("answer", signed)
        answer = _Answer(self.opening_hash, ciphertext, signature).pack()
        keys = SessionKeys.derive(
            self.opening_hash, self._request_hash, answer, self._secret, entropy
        )
        return answer, keys

    def refuse(self, reason: Refusal) -> bytes:
        """The signed refusal of this opening."""
        return _refuse(self._identity, self.opening_hash, reason)

    def check_withdrawal(self, withdrawal: bytes) -> None:
        """Return if the caller withdraws this opening; else HandshakeError."""
        try:
            stated = _Withdrawal.unpack(withdrawal)
            if stated.opening_hash != self.opening_hash:
                raise HandshakeError("withdrawal is for another opening")
            verify(self.header.caller, "withdrawal", self.opening_hash, stated.signature)
        except IdentityError as error:
            raise HandshakeError(str(error)) from None


def accept_opening(
    identity: Identity,
    keypairs: Mapping[bytes, HPKEKeyPair],
    network: bytes,
    caller: bytes,
    opening: bytes,
    sealed_request: bytes,
    now: int,
) -> ReceivedOpening:
    """Open what a caller's Router sent.

    `keypairs` are the HPKE keys that still open, by key id; `caller` is whom the Bridge says it is
    from; `now` is Unix seconds. Raises HandshakeError with the refusal to answer.
    """
    if len(sealed_request) > MAXIMUM_REQUEST + _TAG_LENGTH:
        raise HandshakeError(f"sealed request of {len(sealed_request)} bytes is too long")
    try:
        sealed = _Opening.unpack(opening)
        header = OpeningHeader.unpack(sealed.header)
        if header.network != network:
            raise HandshakeError("opening is for another network")
        if header.callee != identity.public:
            raise HandshakeError("opening is for another Router")
        if header.caller != caller:
            raise HandshakeError("opening is from another Router than the Bridge says")
        signed = _opening_signed(sealed.header, sealed.ciphertext)
        verify(caller, "opening", signed, sealed.signature)
    except IdentityError as error:
        raise HandshakeError(str(error)) from None
    if abs(now - header.created) > MAXIMUM_AGE:
        raise HandshakeError(
            f"opening was made {now - header.created} s ago by this clock; "
            f"at most {MAXIMUM_AGE} either way are taken",
            Refusal.EXPIRED,
        )
    keypair = keypairs.get(header.callee_key_id)
    if keypair is None:
        raise HandshakeError("opening is sealed to an HPKE key not held", Refusal.UNKNOWN_KEY)
    secret = keypair.open(sealed.ciphertext, _opening_info(sealed.header))
    opening_hash = hash_opening(opening)
    try:
        request = AESGCM(early_key(opening_hash, secret)).decrypt(
            _EARLY_NONCE, sealed_request, opening_hash
        )
    except InvalidTag:
        raise HandshakeError("sealed request does not belong to this opening") from None
    request_hash = hashlib.sha256(sealed_request).digest()
    return ReceivedOpening(header, opening_hash, request, identity, request_hash, secret)


def refuse_opening(identity: Identity, opening: bytes, reason: Refusal) -> bytes:
    """The signed refusal of an opening that does not hold, by the bytes that came."""
    return _refuse(identity, hash_opening(opening), reason)


def _refuse(identity: Identity, opening_hash: bytes, reason: Refusal) -> bytes:
    signature = identity.sign("refusal", opening_hash + bytes([reason]))
    return _Refusal(opening_hash, int(reason), signature).pack()
