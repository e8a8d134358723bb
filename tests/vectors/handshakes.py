"""Generates the vectors of HPKE, openings, answers, refusals and withdrawals."""

import hashlib
import hmac
import struct
from collections.abc import Callable, Sequence

import msgpack
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.errors import Refusal
from relay.identity import Identity
from relay.tunnel.handshake import (
    MAXIMUM_AGE,
    MAXIMUM_REQUEST,
    PendingOpening,
    Purpose,
    accept_opening,
    hash_opening,
    open_session,
    refuse_opening,
)
from relay.tunnel.keys import HPKEKeyPair, early_key, seal_to
from tests.vectors.making import (
    CALLEE,
    CALLER,
    KEY,
    NETWORK,
    NOT_ML_KEM,
    NOT_X25519,
    NOW,
    OLD_KEY,
    OTHER,
    REQUEST,
    SMALL_ORDER,
    Lines,
    drawn,
    flipped,
    holds_for_library,
    long_bin,
    long_format,
    put,
    with_unreduced_s,
)


def hpke() -> None:
    sealed = seal_to(KEY.public, b"a secret", b"some info")
    lines: Lines = [("seed", KEY.seed), ("info", b"some info")]
    put(
        "hpke",
        "hpke",
        "success",
        [
            *lines,
            ("sealed", sealed),
            ("public", KEY.public),
            ("key-id", KEY.key_id),
            ("plaintext", b"a secret"),
        ],
    )
    put("hpke-other-info", "hpke", "refused", [*lines[:1], ("info", b"other"), ("sealed", sealed)])
    for name, at in [("mlkem", 0), ("x25519", 1100), ("ciphertext", 1121), ("tag", -1)]:
        put(f"hpke-flipped-{name}", "hpke", "refused", [*lines, ("sealed", flipped(sealed, at))])
    put("hpke-cut", "hpke", "refused", [*lines, ("sealed", sealed[:-1])])
    put(
        "hpke-small-order-x25519",
        "hpke",
        "refused",
        [*lines, ("sealed", sealed_with_zeros(b"some info"))],
        "The sender's X25519 key is of small order; sealed well under the zeros that it gives.",
    )


def sealed_with_zeros(info: bytes) -> bytes:
    """HPKE of b"a secret" to KEY, written out from PROTOCOL.md §7, with ct_X = ss_X = zeros."""
    mlkem = MLKEM768PublicKey.from_public_bytes(KEY.public[:1184])
    ss_m, ct_m = mlkem.encapsulate()
    zeros = bytes(32)
    shared = hashlib.sha3_256(ss_m + zeros + zeros + KEY.public[1184:] + b"\\.//^\\").digest()
    suite = b"HPKE-v1HPKE" + bytes.fromhex("647a00010002")

    def extract(salt: bytes, label: bytes, material: bytes) -> bytes:
        return hmac.digest(salt, suite + label + material, "sha256")

    def expand(label: bytes, length: int) -> bytes:
        labelled = struct.pack(">H", length) + suite + label + context + b"\1"
        return hmac.digest(secret, labelled, "sha256")[:length]

    context = b"\0" + extract(zeros, b"psk_id_hash", b"") + extract(zeros, b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    sealed = AESGCM(expand(b"key", 32)).encrypt(expand(b"base_nonce", 12), b"a secret", b"")
    return ct_m + zeros + sealed


def pending(label: str) -> PendingOpening:
    return open_session(
        CALLER,
        NETWORK,
        CALLEE.public,
        KEY.public,
        "PACS_B",
        REQUEST,
        Purpose.ASSOCIATION,
        NOW,
        drawn(label),
    )


def repacked(opening: bytes, change: Callable[[list], None], signer: Identity = CALLER) -> bytes:
    """The opening with its header changed and everything after it made anew, well signed."""
    header = msgpack.unpackb(msgpack.unpackb(opening)[0])
    change(header)
    return assembled(msgpack.packb(header), signer)


def assembled(header: bytes, signer: Identity = CALLER) -> bytes:
    ciphertext = seal_to(KEY.public, drawn("secret again")(32), b"relay/1/opening-info\0" + header)
    body = struct.pack(">I", len(header)) + header + ciphertext
    return msgpack.packb([header, ciphertext, signer.sign("opening", body)])


def sealed_under(opening: bytes, secret: bytes, request: bytes = REQUEST) -> bytes:
    opening_hash = hash_opening(opening)
    return AESGCM(early_key(opening_hash, secret)).encrypt(bytes(12), request, opening_hash)


def with_long_formats(secret: bytes) -> bytes:
    """An opening that holds, each of its values in the longest format that MessagePack has."""
    fields = msgpack.unpackb(msgpack.unpackb(pending("opening").opening)[0])
    header = b"\xdd" + struct.pack(">I", len(fields)) + b"".join(map(long_format, fields))
    ciphertext = seal_to(KEY.public, secret, b"relay/1/opening-info\0" + header)
    signature = CALLER.sign("opening", struct.pack(">I", len(header)) + header + ciphertext)
    return b"\xdd\0\0\0\3" + b"".join(map(long_bin, (header, ciphertext, signature)))


def openings() -> None:
    good = pending("opening")
    received = accept_opening(
        CALLEE, {KEY.key_id: KEY}, NETWORK, CALLER.public, good.opening, good.sealed_request, NOW
    )
    secret = good._secret

    def opening(
        name: str,
        refusal: Refusal | None,
        data: bytes = good.opening,
        request: bytes = good.sealed_request,
        *,
        now: int = NOW,
        network: bytes = NETWORK,
        caller: bytes = CALLER.public,
        callee: Identity = CALLEE,
        keys: Sequence[HPKEKeyPair] = (KEY, OLD_KEY),
        more: Lines | None = None,
        remark: str = "",
    ) -> None:
        lines: Lines = [
            ("network", network),
            ("caller", caller),
            ("callee-seed", callee.seed),
            *(("hpke-seed", key.seed) for key in keys),
            ("now", now),
            ("opening", data),
            ("sealed-request", request),
        ]
        if refusal is not None:
            lines.append(("refusal", int(refusal)))
        outcome = "success" if refusal is None else "refused"
        put(f"opening{name}", "opening", outcome, lines + (more or []), remark)

    expected: Lines = [
        ("session", received.session),
        ("purpose", int(received.purpose)),
        ("called", received.called),
        ("created", received.created),
        ("opening-hash", received.opening_hash),
        ("secret", secret),
        ("early-key", early_key(received.opening_hash, secret)),
        ("request", REQUEST),
    ]
    opening("", None, more=expected)
    opening("-oldest", None, now=NOW + MAXIMUM_AGE, more=expected)
    opening("-earliest", None, now=NOW - MAXIMUM_AGE, more=expected)

    malformed = Refusal.MALFORMED
    opening("-expired", Refusal.EXPIRED, now=NOW + MAXIMUM_AGE + 1)
    opening("-from-the-future", Refusal.EXPIRED, now=NOW - MAXIMUM_AGE - 1)
    opening("-wrong-network", malformed, network=bytes(16))
    opening("-wrong-callee", malformed, callee=OTHER)
    opening("-wrong-caller", malformed, caller=OTHER.public)
    opening("-wrong-key-id", Refusal.UNKNOWN_KEY, keys=[OLD_KEY])

    header, ciphertext, signature = msgpack.unpackb(good.opening)
    opening(
        "-flipped-ciphertext", malformed, msgpack.packb([header, flipped(ciphertext, 5), signature])
    )
    body = struct.pack(">I", len(header)) + header + ciphertext
    for name, wrong in [
        ("bad-signature", flipped(signature, 0)),
        ("signed-by-another", OTHER.sign("opening", body)),
        ("wrong-domain", CALLER.sign("answer", body)),
        ("signature-without-header-length", CALLER.sign("opening", header + ciphertext)),
        ("signature-not-reduced", with_unreduced_s(signature)),
    ]:
        resigned = msgpack.packb([header, ciphertext, wrong])
        remark = "The request is sealed under this very opening: the signature alone is at fault."
        opening(f"-{name}", malformed, resigned, sealed_under(resigned, secret), remark=remark)
    changed = flipped(ciphertext, 1121)
    body = struct.pack(">I", len(header)) + header + changed
    opening(
        "-ciphertext-does-not-open",
        malformed,
        msgpack.packb([header, changed, CALLER.sign("opening", body)]),
        remark="Signed well; it is HPKE that refuses.",
    )

    def other_caller(fields: list) -> None:
        fields[5] = OTHER.public

    stolen = msgpack.unpackb(header)
    other_caller(stolen)
    stolen_header = msgpack.packb(stolen)
    body = struct.pack(">I", len(stolen_header)) + stolen_header + ciphertext
    opening(
        "-passed-on-as-own",
        malformed,
        msgpack.packb([stolen_header, ciphertext, OTHER.sign("opening", body)]),
        caller=OTHER.public,
        remark="Another Router puts its own name over a ciphertext that it cannot read.",
    )

    def with_field(index: int, value: object) -> bytes:
        return repacked(good.opening, lambda fields: fields.__setitem__(index, value))

    again = drawn("secret again")(32)
    for name, data in [
        ("unknown-version", with_field(0, 2)),
        ("unknown-suite", with_field(1, 2)),
        ("unknown-purpose", with_field(4, 9)),
        ("short-session", with_field(3, b"s" * 15)),
        ("bad-called-title", with_field(9, "A\\B")),
        ("negative-time", with_field(10, -1)),
        ("float-time", with_field(10, float(NOW))),
        ("time-too-large", with_field(10, 2**63)),
        ("true-for-purpose", with_field(4, True)),
        ("purpose-zero", with_field(4, 0)),
        ("ephemeral-not-ml-kem", with_field(8, NOT_ML_KEM)),
        ("ephemeral-not-x25519", with_field(8, NOT_X25519)),
        ("ephemeral-short", with_field(8, KEY.public[:-1])),
        ("small-order-callee", with_field(6, SMALL_ORDER[0])),
        ("str-for-bin", with_field(3, "s" * 16)),
        ("field-missing", assembled(msgpack.packb(msgpack.unpackb(header)[:-1]))),
        ("field-more", assembled(msgpack.packb([*msgpack.unpackb(header), 0]))),
        ("header-trailing-bytes", assembled(header + b"\0")),
    ]:
        opening(f"-{name}", malformed, data, sealed_under(data, again))
    long = with_long_formats(again)
    received = accept_opening(
        CALLEE, {KEY.key_id: KEY}, NETWORK, CALLER.public, long, sealed_under(long, again), NOW
    )
    opening(
        "-long-formats",
        None,
        long,
        sealed_under(long, again),
        more=[
            ("session", received.session),
            ("purpose", int(received.purpose)),
            ("called", received.called),
            ("created", received.created),
            ("opening-hash", received.opening_hash),
            ("secret", again),
            ("early-key", early_key(received.opening_hash, again)),
            ("request", REQUEST),
        ],
        remark="No value is in its shortest MessagePack format.",
    )
    # The small-order key is the caller: it needs no private key for what it signs.
    stolen = msgpack.unpackb(header)
    for created in range(NOW, NOW + 64):
        stolen[5], stolen[10] = SMALL_ORDER[0], created
        unsigned = msgpack.packb(stolen)
        info = b"relay/1/opening-info\0" + unsigned
        ciphertext = seal_to(KEY.public, again, info)
        body = struct.pack(">I", len(unsigned)) + unsigned + ciphertext
        if holds_for_library(SMALL_ORDER[0], "opening", body, bytes(64)):
            break
    nobody = msgpack.packb([unsigned, ciphertext, bytes(64)])
    opening(
        "-small-order-caller",
        malformed,
        nobody,
        sealed_under(nobody, again),
        caller=SMALL_ORDER[0],
        remark="Nobody's signature, which holds for a verifier that takes such keys.",
    )
    opening("-trailing-bytes", malformed, good.opening + b"\0")
    opening("-not-an-array", malformed, msgpack.packb(good.opening[:1024]))
    opening("-map", malformed, b"\x83" + good.opening[1:])
    padded = good.opening + bytes(4097 - len(good.opening))
    opening("-over-limit", malformed, padded, sealed_under(padded, secret))
    opening("-truncated", malformed, good.opening[:-1])
    opening("-too-long", malformed, with_field(9, "A" * 3000))
    opening("-not-msgpack", malformed, b"\xc1" * 100)

    other = pending("another opening")
    opening(
        "-swapped-request",
        malformed,
        request=other.sealed_request,
        remark="The sealed request of another opening between the same two.",
    )
    opening("-flipped-request", malformed, request=flipped(good.sealed_request, 3))
    opening("-truncated-request", malformed, request=good.sealed_request[:-1])
    opening("-no-request", malformed, request=b"")
    opening("-request-of-15-bytes", malformed, request=good.sealed_request[:15])
    too_long = sealed_under(good.opening, secret, bytes(MAXIMUM_REQUEST + 1))
    opening("-request-too-long", malformed, request=too_long, remark="131,089 bytes, sealed well.")


def answers() -> None:
    opened = pending("answered")
    received = accept_opening(
        CALLEE,
        {KEY.key_id: KEY},
        NETWORK,
        CALLER.public,
        opened.opening,
        opened.sealed_request,
        NOW,
    )
    entropy = drawn("entropy")(32)
    good, keys = received.answer(lambda count: entropy[:count])
    secret, ephemeral = opened._secret, opened._ephemeral
    opening_hash, ciphertext, _ = msgpack.unpackb(good)
    request_hash = hashlib.sha256(opened.sealed_request).digest()

    def answer(name: str, data: bytes, request=opened.sealed_request, more=None, remark="") -> None:
        lines: Lines = [
            ("callee", CALLEE.public),
            ("ephemeral-seed", ephemeral.seed),
            ("secret", secret),
            ("opening", opened.opening),
            ("sealed-request", request),
            ("answer", data),
        ]
        outcome = "refused" if more is None else "success"
        put(f"answer{name}", "answer", outcome, lines + (more or []), remark)

    def made(
        body_hash: bytes, opening_hash: bytes, ciphertext: bytes, signer=CALLEE, domain="answer"
    ) -> bytes:
        signature = signer.sign(domain, opening_hash + body_hash + ciphertext)
        return msgpack.packb([opening_hash, ciphertext, signature])

    answer(
        "",
        good,
        more=[
            ("entropy", entropy),
            ("transcript", keys.transcript),
            ("flow-key-0", keys.caller_to_callee),
            ("flow-key-1", keys.callee_to_caller),
        ],
    )
    answer("-flipped-hash", flipped(good, 5))
    answer("-flipped-ciphertext", flipped(good, 100))
    answer("-flipped-signature", flipped(good, len(good) - 1))
    answer("-by-another", made(request_hash, opening_hash, ciphertext, OTHER))
    answer("-wrong-domain", made(request_hash, opening_hash, ciphertext, domain="opening"))
    answer("-to-another-opening", made(request_hash, bytes(32), ciphertext))
    wrong_info = seal_to(ephemeral.public, entropy, b"relay/1/answer-info\0" + bytes(32))
    answer("-does-not-open", made(request_hash, opening_hash, wrong_info))
    answer(
        "-swapped-request",
        good,
        request=pending("another request").sealed_request,
        remark="The callee got another sealed request than the caller sent.",
    )
    answer("-trailing-bytes", good + b"\0")
    answer("-over-limit", good + bytes(2049 - len(good)))
    answer("-not-an-array", msgpack.packb(good))
    answer("-map", b"\x83" + good[1:])
    answer("-truncated", good[:-1])


def notes() -> None:
    opened = pending("refused")
    other = pending("not refused")

    def note(kind: str, name: str, data: bytes, outcome: str, more: Lines | None = None) -> None:
        who, identity = ("callee", CALLEE) if kind == "refusal" else ("caller", CALLER)
        lines: Lines = [
            (who, identity.public),
            ("opening", opened.opening),
            (f"{kind}-note", data),
        ]
        put(f"{kind}{name}", kind, outcome, lines + (more or []))

    good = refuse_opening(CALLEE, opened.opening, Refusal.NOT_GRANTED)
    note("refusal", "", good, "success", [("reason", int(Refusal.NOT_GRANTED))])
    opening_hash, _, signature = msgpack.unpackb(good)
    for reason in (10, 255):
        signed = CALLEE.sign("refusal", opening_hash + bytes([reason]))
        unknown = msgpack.packb([opening_hash, reason, signed])
        note("refusal", f"-reason-{reason}", unknown, "success", [("reason", 0)])
    other_hash = hash_opening(other.opening)
    note("refusal", "-other-hash", msgpack.packb([other_hash, 4, signature]), "refused")
    note("refusal", "-over-limit", good + bytes(257 - len(good)), "refused")
    note("refusal", "-map", b"\x83" + good[1:], "refused")
    long = b"\xdd\0\0\0\3" + long_bin(opening_hash) + b"\xcd\0\4" + long_bin(signature)
    note("refusal", "-long-formats", long, "success", [("reason", 4)])
    note("refusal", "-other-reason", msgpack.packb([opening_hash, 5, signature]), "refused")
    note("refusal", "-reason-too-large", msgpack.packb([opening_hash, 256, signature]), "refused")
    note("refusal", "-by-another", refuse_opening(OTHER, opened.opening, Refusal.BUSY), "refused")
    another = refuse_opening(CALLEE, other.opening, Refusal.BUSY)
    note("refusal", "-of-another-opening", another, "refused")
    note("refusal", "-trailing-bytes", good + b"\0", "refused")

    good = opened.withdraw()
    note("withdrawal", "", good, "success")
    note("withdrawal", "-of-another-opening", other.withdraw(), "refused")
    opening_hash, signature = msgpack.unpackb(good)
    note("withdrawal", "-other-hash", msgpack.packb([other_hash, signature]), "refused")
    note("withdrawal", "-over-limit", good + bytes(257 - len(good)), "refused")
    note("withdrawal", "-map", b"\x82" + good[1:], "refused")
    forged = msgpack.packb([opening_hash, OTHER.sign("withdrawal", opening_hash)])
    note("withdrawal", "-by-another", forged, "refused")
    wrong = msgpack.packb([opening_hash, CALLER.sign("refusal", opening_hash)])
    note("withdrawal", "-wrong-domain", wrong, "refused")


def generate() -> None:
    hpke()
    openings()
    answers()
    notes()
