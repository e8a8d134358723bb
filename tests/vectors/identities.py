"""Generates the vectors of primitives, identities, statements, strings and enrolment."""

import base64
import hashlib
import hmac
from collections.abc import Callable

import msgpack

from relay.identity import Identity, KeyStatement, Publication, seal_statement, signal_body
from relay.invitation import (
    Contact,
    EnrolmentAnswer,
    EnrolmentRequest,
    Invitation,
    ReceivedEnrolmentRequest,
)
from tests.vectors.making import (
    BRIDGE,
    CALLEE,
    CALLER,
    KEY,
    NETWORK,
    NOT_CANONICAL,
    NOT_ML_KEM,
    NOT_X25519,
    NOW,
    OTHER,
    SMALL_ORDER,
    Lines,
    drawn,
    flipped,
    holds_for_library,
    long_format,
    put,
    with_unreduced_s,
)


def primitives() -> None:
    put(
        "hkdf-rfc5869-1",
        "hkdf",
        "success",
        [
            ("ikm", b"\x0b" * 22),
            ("salt", bytes(range(13))),
            ("info", bytes(range(0xF0, 0xFA))),
            ("output", "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"),
        ],
        "The first 32 bytes of the 42 there: HKDF's output is a prefix of its longer output.",
        source="RFC 5869, appendix A.1",
    )
    put(
        "aes-gcm-16",
        "aes-gcm",
        "success",
        [
            ("key", "feffe9928665731c6d6a8f9467308308" * 2),
            ("nonce", "cafebabefacedbaddecaf888"),
            ("aad", "feedfacedeadbeeffeedfacedeadbeefabaddad2"),
            (
                "plaintext",
                "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            ),
            (
                "ciphertext",
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
                "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
                "76fc6ece0f4e1768cddf8853bb2d551b",
            ),
        ],
        source="McGrew and Viega, The Galois/Counter Mode of Operation, appendix B, test case 16",
    )


def identities() -> None:
    connection = signal_body(NETWORK, CALLER.public, BRIDGE.public, b"r" * 32, b"b" * 32)
    for name, identity, domain, body in [
        ("identity", CALLER, "publication", b"any bytes"),
        ("identity-signal-router", CALLER, "signal-router", connection),
        ("identity-signal-bridge", BRIDGE, "signal-bridge", connection),
    ]:
        put(
            name,
            "identity",
            "success",
            [
                ("seed", identity.seed),
                ("domain", domain),
                ("body", body),
                ("public", identity.public),
                ("fingerprint", identity.fingerprint),
                ("signature", identity.sign(domain, body)),
            ],
        )


def statements() -> None:
    publication = Publication(NETWORK, "PACS_B", ("echo", "store", "private:1.2.3"), 7)
    key = KeyStatement(NETWORK, KEY.public, NOW, NOW + 86400)

    def statement(name: str, domain: str, data: bytes, succeeds: bool, network=NETWORK, remark=""):
        lines: Lines = [("domain", domain), ("network", network), ("statement", data)]
        if succeeds:
            owner, body, _ = msgpack.unpackb(data)
            lines += [("owner", owner), ("body", body)]
        put(f"statement-{name}", "statement", "success" if succeeds else "refused", lines, remark)

    good = publication.sign(CALLEE)
    statement("publication", "publication", good, True)
    statement("hpke-key", "hpke-key", key.sign(CALLEE), True)
    statement("wrong-domain", "hpke-key", good, False)
    statement("wrong-network", "publication", good, False, bytes(16))
    _, body, signature = msgpack.unpackb(good)
    statement("flipped-body", "publication", flipped(good, good.index(body) + 25), False)
    statement("flipped-signature", "publication", flipped(good, len(good) - 1), False)
    statement("other-signer", "publication", msgpack.packb([OTHER.public, body, signature]), False)
    statement("trailing-bytes", "publication", good + b"\0", False)
    statement(
        "str-for-bin",
        "publication",
        seal_statement(CALLEE, "publication", msgpack.packb(["n" * 16, "PACS_B", ["echo"], 7])),
        False,
        remark="The network is a str of 16 characters: signed well, and of the wrong type.",
    )
    for name, title in [("path-for-ae-title", "../secret"), ("blank-ae-title", " PACS")]:
        data = seal_statement(CALLEE, "publication", msgpack.packb([NETWORK, title, ["echo"], 7]))
        # `../secret` is an AE title like any other: wire names are data and are never a path.
        statement(name, "publication", data, succeeds=title == "../secret")
    many = ["private:" + "1" * 62] * 54
    for title, size in [("A" * 12, 4096), ("A" * 13, 4097)]:
        # Exactly as long as a statement may be, and a byte more; but for its length both hold.
        body = msgpack.packb([NETWORK, title, many, 7])
        body = fitted(body, size)
        statement(f"of-{size}-bytes", "publication", signed(body), succeeds=size == 4096)
    fields = [NETWORK, "PACS_B", ["echo"], 7]
    long = b"\xdd\0\0\0\4" + b"".join(map(long_format, fields))
    envelope = [CALLEE.public, long, CALLEE.sign("publication", long)]
    statement(
        "long-formats",
        "publication",
        b"\xdd\0\0\0\3" + b"".join(map(long_format, envelope)),
        True,
        remark="No value is in its shortest MessagePack format.",
    )
    for name, data in [
        ("not-an-array", msgpack.packb(good)),
        ("nil", b"\xc0"),
        ("no-bytes", b""),
        ("map", b"\x83" + good[1:]),
        ("extension", msgpack.packb(msgpack.ExtType(1, good[:255]))),
        ("body-not-an-array", signed(msgpack.packb("publication"))),
        ("body-trailing-bytes", signed(msgpack.packb(fields) + b"\0")),
        ("serial-too-large", signed(msgpack.packb([*fields[:3], 2**63]))),
        ("service-in-capitals", signed(msgpack.packb([*fields[:2], ["Echo"], 7]))),
        ("65-services", signed(msgpack.packb([*fields[:2], ["echo"] * 65, 7]))),
        ("signature-not-reduced", resigned(good, with_unreduced_s)),
    ]:
        statement(name, "publication", data, False)
    for index, public in enumerate(SMALL_ORDER):
        statement(
            f"small-order-identity-{index}",
            "publication",
            nobodys(public),
            False,
            remark="Nobody's signature, which holds for a verifier that takes such keys.",
        )
    for index, public in enumerate(NOT_CANONICAL):
        statement(
            f"not-canonical-identity-{index}",
            "publication",
            msgpack.packb([public, *msgpack.unpackb(good)[1:]]),
            False,
        )
    for name, public in [("ml-kem", NOT_ML_KEM), ("x25519", NOT_X25519)]:
        fields = [NETWORK, public, NOW, NOW + 86400]
        data = seal_statement(CALLEE, "hpke-key", msgpack.packb(fields))
        statement(f"hpke-key-not-{name}", "hpke-key", data, False)
    statement(
        "hpke-key-long-past",
        "hpke-key",
        KeyStatement(NETWORK, KEY.public, 1, 2).sign(CALLEE),
        True,
        remark="Whether a key has expired is not for whoever only reads its statement.",
    )
    statement(
        "true-for-serial",
        "publication",
        seal_statement(CALLEE, "publication", msgpack.packb([NETWORK, "PACS_B", ["echo"], True])),
        False,
    )


def signed(body: bytes) -> bytes:
    """A publication statement of any body and length."""
    return msgpack.packb([CALLEE.public, body, CALLEE.sign("publication", body)])


def fitted(body: bytes, size: int) -> bytes:
    """A publication's body with one more service, so that its statement has that size."""
    network, title, services, serial = msgpack.unpackb(body)
    last = "private:" + "1" * 30
    more = size - len(signed(msgpack.packb([network, title, [*services, last], serial])))
    return msgpack.packb([network, title, [*services, last + "1" * more], serial])


def resigned(statement: bytes, change: Callable[[bytes], bytes]) -> bytes:
    owner, body, signature = msgpack.unpackb(statement)
    return msgpack.packb([owner, body, change(signature)])


def nobodys(public: bytes) -> bytes:
    """A publication that holds under a key of small order, if that is all that is looked at.

    With S = 0 the equation is R = -kA, which any of the eight points can be.
    """
    points = [*SMALL_ORDER, *(point[:31] + bytes([point[31] | 0x80]) for point in SMALL_ORDER)]
    for serial in range(64):
        body = msgpack.packb([NETWORK, "PACS_B", ["echo"], serial])
        for point in points:
            signature = point + bytes(32)
            if holds_for_library(public, "publication", body, signature):
                return msgpack.packb([public, body, signature])
    raise AssertionError("no such body")


def strings() -> None:
    contact = Contact(CALLER.public, "Hospital São João")
    invitation = Invitation(
        "https://bridge.example:8443", NETWORK, b"i" * 16, BRIDGE.public, b"c" * 16, NOW
    )
    for name, thing in [("contact", contact), ("invitation", invitation)]:
        string = thing.to_string()
        put(f"string-{name}", "string", "success", [("string", string), ("payload", thing.pack())])
    string = contact.to_string()
    swapped = string[:-3] + string[-2] + string[-3] + string[-1]
    long = invited("https://" + "b" * 504)
    put(
        "string-longest-url", "string", "success", [("string", long), ("payload", payload_of(long))]
    )
    spaced = "\t".join((string[:20], string[20:40], string[40:])).replace("\t", " \t\u00a0", 1)
    put(
        "string-white-space",
        "string",
        "success",
        [("string", spaced), ("payload", contact.pack())],
        "TAB, space and no-break space are removed.",
    )
    uneven = next(
        one
        for one in (contacted([1, CALLER.public, "Hospital" + "B" * more]) for more in range(3))
        if len(one.partition(":")[2]) % 4 == 2
    )
    for name, wrong, remark in [
        ("other-white-space", string[:20] + "\u3000" + string[20:], "An ideographic space."),
        ("too-long", string[:20] + " " * (2049 - len(string)) + string[20:], "Most of it spaces."),
        ("unknown-prefix", checked("relay-visitor:", contact.pack()), "The checksum is right."),
        ("prefix-in-capitals", string.replace("relay", "Relay"), ""),
        ("padded", uneven + "==", ""),
        ("padded-too-much", uneven + "======", ""),
        ("trailing-bits", uneven[:-1] + chr(ord(uneven[-1]) + 1), "Decodes to the same bytes."),
        ("letter-of-base64", string + "+/", "The letters of base64, not base64url."),
        ("not-base64url", "relay-contact:" + "*" * 40, ""),
        ("one-letter-more", string + "A", ""),
        ("no-payload", "relay-contact:", ""),
        ("checksum-only", checked("relay-contact:", b""), ""),
        ("not-an-array", checked("relay-contact:", msgpack.packb("contact")), ""),
        ("version-2", contacted([2, CALLER.public, "Hospital A"]), ""),
        ("blank-at-the-end-of-name", contacted([1, CALLER.public, "Hospital A "]), ""),
        ("no-name", contacted([1, CALLER.public, ""]), ""),
        ("format-character-in-name", contacted([1, CALLER.public, "Hospital\u202eA"]), ""),
        ("small-order-contact", contacted([1, SMALL_ORDER[0], "Hospital A"]), ""),
        ("not-canonical-contact", contacted([1, NOT_CANONICAL[2], "Hospital A"]), ""),
        ("small-order-bridge", invited(bridge=SMALL_ORDER[3]), ""),
        ("url-of-513", invited("https://" + "b" * 505), ""),
        ("url-without-host", invited("https:///path"), ""),
        ("url-with-query", invited("https://bridge.example/?a=b"), ""),
        ("url-with-user", invited("https://user@bridge.example"), ""),
        ("url-of-ftp", invited("ftp://bridge.example"), ""),
    ]:
        put(f"string-{name}", "string", "refused", [("string", wrong)], remark)
    emoji = contacted([1, CALLER.public, "Hospital \U0001fae8"])
    put(
        "string-newer-character-in-name",
        "string",
        "success",
        [("string", emoji), ("payload", payload_of(emoji))],
        "U+1FAE8 came with Unicode 15: what is assigned does not matter.",
    )
    put("string-slip-of-the-hand", "string", "refused", [("string", swapped)])
    put("string-cut", "string", "refused", [("string", string[:-8])])
    put(
        "string-other-prefix",
        "string",
        "refused",
        [("string", string.replace("contact", "invitation"))],
    )


def checked(prefix: str, payload: bytes) -> str:
    data = payload + hashlib.sha256(prefix.encode() + payload).digest()[:4]
    return prefix + base64.urlsafe_b64encode(data).decode().rstrip("=")


def payload_of(string: str) -> bytes:
    letters = string.partition(":")[2]
    return base64.urlsafe_b64decode(letters + "=" * (-len(letters) % 4))[:-4]


def contacted(fields: list) -> str:
    return checked("relay-contact:", msgpack.packb(fields))


def invited(url: str = "https://bridge.example", bridge: bytes = BRIDGE.public) -> str:
    fields = [1, url, NETWORK, b"i" * 16, bridge, b"c" * 16, NOW]
    return checked("relay-invitation:", msgpack.packb(fields))


def enrolments() -> None:
    invitation = Invitation(
        "https://bridge.example", NETWORK, b"i" * 16, BRIDGE.public, drawn("code")(16), NOW
    )
    statement = KeyStatement(NETWORK, KEY.public, NOW, NOW + 86400).sign(CALLEE)
    request = EnrolmentRequest(
        NETWORK, invitation.invitation_id, CALLEE.public, "Hospital B", statement
    )
    sealed = request.seal(CALLEE, invitation.code, BRIDGE.public)
    answer = ReceivedEnrolmentRequest.parse(sealed).answer(BRIDGE, invitation.code, request.name)
    EnrolmentAnswer.open(answer, invitation, sealed, CALLEE.public)

    def enrolment(name: str, outcome: str, sealed=sealed, answer=answer, code=invitation.code):
        put(
            f"enrolment{name}",
            "enrolment",
            outcome,
            [
                ("network", NETWORK),
                ("invitation-id", invitation.invitation_id),
                ("code", code),
                ("bridge", BRIDGE.public),
                ("router", CALLEE.public),
                ("request", sealed),
                ("answer", answer),
            ],
        )

    enrolment("", "success")
    enrolment("-wrong-code", "refused", code=bytes(16))
    enrolment("-flipped-request", "refused", flipped(sealed, 60))
    enrolment("-flipped-answer", "refused", answer=flipped(answer, 60))
    enrolment(
        "-answer-by-another",
        "refused",
        answer=ReceivedEnrolmentRequest.parse(sealed).answer(OTHER, invitation.code, request.name),
    )

    def requested(**changes) -> bytes:
        """A request with some fields changed, its MAC and signature right all the same."""
        fields = {
            "network": NETWORK,
            "invitation_id": invitation.invitation_id,
            "router": CALLEE.public,
            "name": "Hospital B",
            "key_statement": statement,
        } | changes
        return enveloped("request", CALLEE, list(fields.values()), BRIDGE.public)

    def answered(signer=BRIDGE, sealed=sealed, **changes) -> bytes:
        fields = {
            "network": NETWORK,
            "invitation_id": invitation.invitation_id,
            "bridge": BRIDGE.public,
            "router": CALLEE.public,
            "name": "Hospital B",
            "request_hash": hashlib.sha256(sealed).digest(),
        } | changes
        return enveloped("answer", signer, list(fields.values()), CALLEE.public)

    def enveloped(what: str, signer: Identity, fields: list, reader: bytes) -> bytes:
        domain, body = f"enrolment-{what}", msgpack.packb(fields)
        message = f"relay/1/{domain}\0".encode() + body + reader
        mac = hmac.digest(invitation.code, message, "sha256")
        return msgpack.packb([body, mac, signer.sign(domain, body + mac)])

    assert requested() == sealed
    assert answered() == answer
    body, mac, _ = msgpack.unpackb(sealed)
    by_another = msgpack.packb([body, mac, OTHER.sign("enrolment-request", body + mac)])
    others = KeyStatement(NETWORK, KEY.public, NOW, NOW + 86400).sign(OTHER)
    elsewhere = KeyStatement(bytes(16), KEY.public, NOW, NOW + 86400).sign(CALLEE)
    publication = Publication(NETWORK, "PACS_B", ("echo",), NOW).sign(CALLEE)
    unusable = msgpack.packb([NETWORK, NOT_ML_KEM, NOW, NOW + 86400])
    for name, wrong in [
        ("request-signed-by-another", by_another),
        ("request-to-another-network", requested(network=bytes(16))),
        ("request-by-another-invitation", requested(invitation_id=bytes(16))),
        ("request-of-another-router", requested(router=OTHER.public)),
        ("request-of-small-order", requested(router=SMALL_ORDER[0])),
        ("request-with-unprintable-name", requested(name="Hospital\nB")),
        ("key-by-another", requested(key_statement=others)),
        ("key-for-another-network", requested(key_statement=elsewhere)),
        ("key-flipped", requested(key_statement=flipped(statement, 100))),
        ("key-malformed", requested(key_statement=b"key")),
        ("key-is-a-publication", requested(key_statement=publication)),
        ("key-not-ml-kem", requested(key_statement=seal_statement(CALLEE, "hpke-key", unusable))),
        ("request-over-limit", sealed + bytes(8193 - len(sealed))),
        ("request-not-an-array", msgpack.packb(sealed)),
    ]:
        # The answer is to this very request, so that the request alone is at fault.
        enrolment(f"-{name}", "refused", wrong, answered(sealed=wrong))
    body, mac, _ = msgpack.unpackb(answer)
    by_another = msgpack.packb([body, mac, OTHER.sign("enrolment-answer", body + mac)])
    for name, wrong in [
        ("answer-signed-by-another", by_another),
        ("answer-for-another-network", answered(network=bytes(16))),
        ("answer-to-another-invitation", answered(invitation_id=bytes(16))),
        ("answer-in-another-bridge", answered(bridge=OTHER.public)),
        ("answer-to-another-router", answered(router=OTHER.public)),
        ("answer-with-another-hash", answered(request_hash=bytes(32))),
        ("answer-with-unprintable-name", answered(name="Hospital\u200bB")),
        ("answer-over-limit", answer + bytes(8193 - len(answer))),
        ("answer-map", b"\x83" + answer[1:]),
    ]:
        enrolment(f"-{name}", "refused", answer=wrong)
    enrolment("-under-another-name", "success", answer=answered(name="Hospital B (2)"))
    expired = KeyStatement(NETWORK, KEY.public, 1, 2).sign(CALLEE)
    late = requested(key_statement=expired)
    enrolment("-with-expired-key", "success", late, answered(sealed=late))
    other = EnrolmentRequest(NETWORK, b"i" * 16, CALLEE.public, "Hospital B2", statement)
    enrolment(
        "-answer-to-another-request",
        "refused",
        answer=ReceivedEnrolmentRequest.parse(
            other.seal(CALLEE, invitation.code, BRIDGE.public)
        ).answer(BRIDGE, invitation.code, other.name),
    )


def generate() -> None:
    primitives()
    identities()
    statements()
    strings()
    enrolments()
