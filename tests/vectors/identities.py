"""Generates the vectors of primitives, identities, statements, strings and enrolment."""

import msgpack

from relay.identity import (
    Contact,
    EnrolmentAnswer,
    EnrolmentRequest,
    Invitation,
    KeyStatement,
    Publication,
    ReceivedEnrolmentRequest,
    seal_statement,
    signal_body,
)
from tests.vectors.making import (
    BRIDGE,
    CALLEE,
    CALLER,
    KEY,
    NETWORK,
    NOW,
    OTHER,
    Lines,
    drawn,
    flipped,
    put,
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
    statement(
        "true-for-serial",
        "publication",
        seal_statement(CALLEE, "publication", msgpack.packb([NETWORK, "PACS_B", ["echo"], True])),
        False,
    )


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
    put("string-slip-of-the-hand", "string", "refused", [("string", swapped)])
    put("string-cut", "string", "refused", [("string", string[:-8])])
    put(
        "string-other-prefix",
        "string",
        "refused",
        [("string", string.replace("contact", "invitation"))],
    )


def enrolments() -> None:
    invitation = Invitation(
        "https://bridge.example", NETWORK, b"i" * 16, BRIDGE.public, drawn("code")(16), NOW
    )
    statement = KeyStatement(NETWORK, KEY.public, NOW, NOW + 86400).sign(CALLEE)
    request = EnrolmentRequest(
        NETWORK, invitation.invitation_id, CALLEE.public, "Hospital B", statement
    )
    sealed = request.seal(CALLEE, invitation.code, BRIDGE.public)
    answer = ReceivedEnrolmentRequest.parse(sealed).answer(BRIDGE, invitation.code)
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
        answer=ReceivedEnrolmentRequest.parse(sealed).answer(OTHER, invitation.code),
    )
    other = EnrolmentRequest(NETWORK, b"i" * 16, CALLEE.public, "Hospital B2", statement)
    enrolment(
        "-answer-to-another-request",
        "refused",
        answer=ReceivedEnrolmentRequest.parse(
            other.seal(CALLEE, invitation.code, BRIDGE.public)
        ).answer(BRIDGE, invitation.code),
    )


def generate() -> None:
    primitives()
    identities()
    statements()
    strings()
    enrolments()
