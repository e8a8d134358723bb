"""Generates the vectors of HPKE, openings, answers, refusals and withdrawals."""

import hashlib
import struct
from collections.abc import Callable, Sequence

import msgpack
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.errors import Refusal
from relay.identity import (
    Identity,
)
from relay.tunnel.handshake import (
    MAXIMUM_AGE,
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
    NOW,
    OLD_KEY,
    OTHER,
    REQUEST,
    Lines,
    drawn,
    flipped,
    put,
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


def sealed_under(opening: bytes, secret: bytes) -> bytes:
    opening_hash = hash_opening(opening)
    return AESGCM(early_key(opening_hash, secret)).encrypt(bytes(12), REQUEST, opening_hash)


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
    opening("-bad-signature", malformed, flipped(good.opening, len(good.opening) - 1))
    opening(
        "-flipped-ciphertext", malformed, msgpack.packb([header, flipped(ciphertext, 5), signature])
    )
    body = struct.pack(">I", len(header)) + header + ciphertext
    resigned = msgpack.packb([header, ciphertext, OTHER.sign("opening", body)])
    opening("-signed-by-another", malformed, resigned)
    opening(
        "-wrong-domain", malformed, msgpack.packb([header, ciphertext, CALLER.sign("answer", body)])
    )
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
        ("str-for-bin", with_field(3, "s" * 16)),
        ("field-missing", assembled(msgpack.packb(msgpack.unpackb(header)[:-1]))),
        ("field-more", assembled(msgpack.packb([*msgpack.unpackb(header), 0]))),
        ("header-trailing-bytes", assembled(header + b"\0")),
    ]:
        opening(f"-{name}", malformed, data, sealed_under(data, again))
    opening("-trailing-bytes", malformed, good.opening + b"\0")
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
    note("refusal", "-other-reason", msgpack.packb([opening_hash, 5, signature]), "refused")
    note("refusal", "-reason-too-large", msgpack.packb([opening_hash, 256, signature]), "refused")
    note("refusal", "-by-another", refuse_opening(OTHER, opened.opening, Refusal.BUSY), "refused")
    another = refuse_opening(CALLEE, other.opening, Refusal.BUSY)
    note("refusal", "-of-another-opening", another, "refused")
    note("refusal", "-trailing-bytes", good + b"\0", "refused")

    good = opened.withdraw()
    note("withdrawal", "", good, "success")
    note("withdrawal", "-of-another-opening", other.withdraw(), "refused")
    opening_hash, _ = msgpack.unpackb(good)
    forged = msgpack.packb([opening_hash, OTHER.sign("withdrawal", opening_hash)])
    note("withdrawal", "-by-another", forged, "refused")
    wrong = msgpack.packb([opening_hash, CALLER.sign("refusal", opening_hash)])
    note("withdrawal", "-wrong-domain", wrong, "refused")


def generate() -> None:
    hpke()
    openings()
    answers()
    notes()
