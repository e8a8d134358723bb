"""A second implementation of what the two ends of a session compute, to judge the test vectors.

Written from relay/tunnel/PROTOCOL.md alone, without a look at Relay's own code and importing none
of it: what both agree on is what the text says. It only reads. Sections cited are PROTOCOL.md's.

    python tests/second_implementation.py [directory of vectors]

prints a line for each vector and a total, and exits with 1 if it disagrees with any.
"""

import base64
import hashlib
import hmac
import itertools
import re
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import msgpack
import zstandard
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Results = dict[str, bytes | int | str | list[str]]

VECTORS = Path(__file__).parent / "vectors"

UNSPECIFIED, EXPIRED, UNKNOWN_KEY, MALFORMED, LAST_REASON = 0, 1, 2, 7, 9  # §8.4
OPENING_AGE = 10_800
SEALED_REQUEST = 131_072 + 16
CHUNK = 4 * 1024 * 1024
NOTE = 131_072


class Refused(Exception):
    """The input is refused; reason is what the callee of an opening answers (§8.4)."""

    def __init__(self, why: str, reason: int = MALFORMED) -> None:
        super().__init__(why)
        self.reason = reason
        self.results: Results = {}


def require(holds: bool, why: str, reason: int = MALFORMED) -> None:
    if not holds:
        raise Refused(why, reason)


# Primitives (§2, §3, §7).


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def hkdf_expand(prk: bytes, info: bytes) -> bytes:
    """The first block of RFC 5869's output, 32 bytes; nothing here needs a second."""
    return hmac_sha256(prk, info + b"\x01")


def hkdf(salt: bytes, ikm: bytes, info: bytes) -> bytes:
    return hkdf_expand(hmac_sha256(salt or bytes(32), ikm), info)


def aes_open(key: bytes, nonce: bytes, aad: bytes, sealed: bytes, what: str) -> bytes:
    try:
        return AESGCM(key).decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise Refused(f"{what}: the tag does not hold") from None


def signed_bytes(domain: str, body: bytes) -> bytes:
    return b"relay/1/" + domain.encode("ascii") + b"\0" + body


FIELD = 2**255 - 19
SMALL_ORDER = {
    0,
    1,
    FIELD - 1,
    int.from_bytes(
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
    ),
    int.from_bytes(
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"
    ),
}


def is_identity(value: object) -> bool:
    """§3: canonical, and of no point of small order."""
    if type(value) is not bytes or len(value) != 32:
        return False
    y = int.from_bytes(value, "little") % 2**255
    return y < FIELD and y not in SMALL_ORDER


def verify(identity: bytes, domain: str, body: bytes, signature: bytes) -> None:
    require(is_identity(identity), f"{domain}: no identity")
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, signed_bytes(domain, body))
    except (InvalidSignature, ValueError):
        raise Refused(f"{domain}: the signature does not hold") from None


def ed25519_public(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def hpke_public(private: bytes) -> bytes:
    kem = MLKEM768PrivateKey.from_seed_bytes(private[:64]).public_key().public_bytes_raw()
    return kem + X25519PrivateKey.from_private_bytes(private[64:]).public_key().public_bytes_raw()


def check_hpke_public(public: bytes) -> None:
    """FIPS 203 §7.2, and that X25519 with it does not give 32 zero bytes (§7)."""
    try:
        MLKEM768PublicKey.from_public_bytes(public[:1184])
    except ValueError:
        raise Refused("ML-KEM refuses the public key") from None
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public[1184:]))
    except ValueError:
        raise Refused("X25519 refuses the public key") from None


def hpke_open(private: bytes, info: bytes, sealed: bytes) -> bytes:
    """HPKE by hand, as in §7, from the shared secret's two halves on."""
    require(len(sealed) >= 1136, "HPKE: shorter than a key and a tag")
    ct_m, ct_x, ciphertext = sealed[:1088], sealed[1088:1120], sealed[1120:]
    ours = X25519PrivateKey.from_private_bytes(private[64:])
    try:
        ss_x = ours.exchange(X25519PublicKey.from_public_bytes(ct_x))
    except ValueError:
        raise Refused("HPKE: X25519 gives 32 zero bytes") from None
    ss_m = MLKEM768PrivateKey.from_seed_bytes(private[:64]).decapsulate(ct_m)
    pk_x = ours.public_key().public_bytes_raw()
    shared = hashlib.sha3_256(ss_m + ss_x + ct_x + pk_x + bytes.fromhex("5c2e2f2f5e5c")).digest()

    labelled = b"HPKE-v1" + b"HPKE" + bytes.fromhex("647a00010002")

    def extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac_sha256(salt or bytes(32), labelled + label + ikm)

    def expand(prk: bytes, label: bytes, length: int) -> bytes:
        return hkdf_expand(prk, struct.pack(">H", length) + labelled + label + context)[:length]

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    key, nonce = expand(secret, b"key", 32), expand(secret, b"base_nonce", 12)
    return aes_open(key, nonce, b"", ciphertext, "HPKE")


# MessagePack, as far as §2 lets it in, in the notation of its tables.


UNPRINTABLE = [
    tuple(int(bound, 16) for bound in (part.split("-") * 2)[:2])
    for part in re.findall(
        "[^,]+",
        "0-1F,7F-A0,AD,600-605,61C,6DD,70F,890-891,8E2,1680,180E,2000-200F,2028-202F,205F-206F,3000,"
        "D800-F8FF,FDD0-FDEF,FEFF,FFF0-FFFF,110BD,110CD,13430-1343F,1BCA0-1BCAF,1D173-1D17A,"
        "E0000-10FFFF",
    )
]


def is_name(value: str) -> bool:
    hidden = any(low <= ord(letter) <= high for letter in value for low, high in UNPRINTABLE)
    return 1 <= len(value) <= 64 and not hidden and value == value.strip(" ")


def is_ae(value: str) -> bool:
    return re.fullmatch(r"(?! )[\x20-\x5b\x5d-\x7e]{1,16}(?<! )", value) is not None


URL = r"https?://[A-Za-z0-9._:\[\]-]+(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?"


def is_url(value: str) -> bool:
    return len(value) <= 512 and re.fullmatch(URL, value) is not None


def is_service(value: object) -> bool:
    service = r"[a-z][a-z-]{0,15}|private:[0-9.]{1,64}"
    return type(value) is str and re.fullmatch(service, value) is not None


def is_plain(value: object, most: int) -> bool:
    return type(value) is str and len(value) <= most and all(" " <= c <= "~" for c in value)


def is_uid(value: object) -> bool:
    return type(value) is str and re.fullmatch(r"[0-9.]{1,64}", value) is not None


def is_array(value: object, least: int, most: int, holds: Callable[[object], bool]) -> bool:
    return type(value) is list and least <= len(value) <= most and all(map(holds, value))


def is_row(notations: str, value: object) -> bool:
    """Whether value is an array of just these."""
    elements = notations.split()
    return type(value) is list and len(value) == len(elements) and all(map(is_of, elements, value))


# §10.1: the rows of notes.
ROWS = {"asked": "bin(16) digest", "answers": "bin(16) uint(≤3) uint(≤65535) plain(≤64)"}


def is_group(value: object) -> bool:
    return (
        type(value) is list
        and len(value) == 2
        and is_array(value[0], 1, 512, is_uid)
        and is_array(value[1], 1, 64, is_uid)
    )


def is_groups(value: object) -> bool:
    if type(value) is not list or not is_array(value, 0, 512, is_group):
        return False
    return sum(len(classes) * len(syntaxes) for classes, syntaxes in value) <= 32_768


def is_of(notation: str, value: object) -> bool:
    """Whether value is what the notation says, such as bin(32), bin(≤4096), uint or ae."""
    name, _, bound = notation.rstrip(")").partition("(")
    most = int(bound.removeprefix("≤") or 2**63 - 1)
    match name:
        case "plain":
            return is_plain(value, most)
        case "single":
            return is_plain(value, most) and "\\" not in str(value)
        case "positive":
            return type(value) is int and 1 <= value <= most
        case "ids":
            return is_array(value, 0, 1024, lambda one: is_of("bin(16)", one))
        case "asked" | "answers":
            return is_array(value, 0, 1024, lambda one: is_row(ROWS[name], one))
        case "groups":
            return is_groups(value)
        case "bin":
            least = 0 if bound.startswith("≤") else most
            return type(value) is bytes and least <= len(value) <= most
        case "digest":
            return is_of("bin(32)", value) or (is_of("bin(33)", value) and bytes(value)[0] == 1)
        case "identity":
            return is_identity(value)
        case "uint":
            return type(value) is int and 0 <= value <= most
        case "services":
            return type(value) is list and len(value) <= 64 and all(map(is_service, value))
        case "ae" | "name" | "url":
            holds = {"ae": is_ae, "name": is_name, "url": is_url}[name]
            return type(value) is str and holds(value)
        case _:
            return type(value) is int and value == int(name)


class Array:
    """An array of exactly these elements, and how long the whole may be."""

    def __init__(self, what: str, limit: int, elements: str) -> None:
        self.what, self.limit = what, limit
        self.elements = [element.split() for element in elements.split(", ")]

    def read(self, data: bytes) -> SimpleNamespace:
        require(len(data) <= self.limit, f"{self.what}: longer than {self.limit} bytes")
        try:
            values = msgpack.unpackb(data)
        except ValueError:
            raise Refused(f"{self.what}: not one MessagePack value") from None
        require(type(values) is list, f"{self.what}: not an array")
        require(len(values) == len(self.elements), f"{self.what}: not {len(self.elements)} long")
        read = SimpleNamespace()
        for (name, notation), value in zip(self.elements, values, strict=True):
            require(is_of(notation, value), f"{self.what}: {name} is no {notation}")
            setattr(read, name, value)
        return read


STATEMENT = Array("statement", 4096, "identity identity, body bin(≤4096), signature bin(64)")
STATEMENTS = {
    "publication": Array(
        "publication", 4096, "network bin(16), ae_title ae, services services, serial uint"
    ),
    "hpke-key": Array(
        "key statement", 4096, "network bin(16), public bin(1216), serial uint, expires uint"
    ),
}
STRINGS = {
    "relay-contact:": Array("contact", 2048, "version 1, identity identity, name name"),
    "relay-invitation:": Array(
        "invitation",
        2048,
        "version 1, url url, network bin(16), invitation_id bin(16), bridge identity, "
        "code bin(16), expires uint",
    ),
}
ENVELOPE = Array("envelope", 8192, "body bin(≤8192), mac bin(32), signature bin(64)")
ENROLMENT_REQUEST = Array(
    "enrolment request",
    8192,
    "network bin(16), invitation_id bin(16), router identity, name name, key_statement bin(≤4096)",
)
ENROLMENT_ANSWER = Array(
    "enrolment answer",
    8192,
    "network bin(16), invitation_id bin(16), bridge identity, router identity, name name, "
    "request_hash bin(32)",
)
OPENING = Array("opening", 4096, "header bin(≤4096), ciphertext bin(1168), signature bin(64)")
HEADER = Array(
    "header",
    4096,
    "version 1, suite 1, network bin(16), session bin(16), purpose uint, caller identity, "
    "callee identity, callee_key_id bin(32), ephemeral bin(1216), called ae, created uint",
)
ANSWER = Array("answer", 2048, "opening_hash bin(32), ciphertext bin(1168), signature bin(64)")
REFUSAL = Array("refusal", 256, "opening_hash bin(32), reason uint(≤255), signature bin(64)")
WITHDRAWAL = Array("withdrawal", 256, "opening_hash bin(32), signature bin(64)")
NOTES = {
    1: Array("Item", 128, "number 1, id bin(16), digest digest, length uint"),
    2: Array("Question", 66_560, "number 2, rows asked"),
    3: Array("Answers", NOTE, "number 3, rows answers"),
    4: Array(
        "Result",
        128,
        "number 4, id bin(16), outcome uint(≤3), status uint(≤65535), comment plain(≤64)",
    ),
    5: Array("Forget", 24_576, "number 5, ids ids"),
    6: Array(
        "Ended",
        256,
        "number 6, by uint(≤1), source uint(≤255), reason uint(≤255), words plain(≤200)",
    ),
    7: Array(
        "Knowledge",
        NOTE,
        "number 7, serial uint, lifetime uint(≤31622400), split positive(≤255), "
        "window uint(≤65535), commitment uint(≤1), groups groups, issuer single(≤64), "
        "character_set plain(≤128)",
    ),
}


# Vectors (§20).


@dataclass(frozen=True)
class Vector:
    """One file: its keys, each with its values in their order."""

    values: dict[str, list[str]]

    @classmethod
    def read(cls, path: Path) -> "Vector":
        values: dict[str, list[str]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                key, colon, value = line.partition(":")
                if not colon:
                    raise ValueError(f"{path}: a line without a colon")
                values.setdefault(key, []).append(value.strip())
        return cls(values)

    def text(self, key: str) -> str:
        (value,) = self.values[key]
        return value

    def data(self, key: str) -> bytes:
        return bytes.fromhex(self.text(key))

    def all_data(self, key: str) -> list[bytes]:
        return [bytes.fromhex(value) for value in self.values.get(key, [])]


# What each kind of vector has computed: its keys besides the inputs.


def compute_hkdf(v: Vector) -> Results:
    return {"output": hkdf(v.data("salt"), v.data("ikm"), v.data("info"))}


def compute_aes_gcm(v: Vector) -> Results:
    sealed = AESGCM(v.data("key")).encrypt(v.data("nonce"), v.data("plaintext"), v.data("aad"))
    return {"ciphertext": sealed}


def compute_identity(v: Vector) -> Results:
    """§3."""
    public = ed25519_public(v.data("seed"))
    letters = base64.b32encode(sha256(public)[:20]).decode("ascii").lower()
    key = Ed25519PrivateKey.from_private_bytes(v.data("seed"))
    return {
        "public": public,
        "fingerprint": "-".join(letters[at : at + 4] for at in range(0, 32, 4)),
        "signature": key.sign(signed_bytes(v.text("domain"), v.data("body"))),
    }


def read_statement(domain: str, network: bytes, data: bytes) -> SimpleNamespace:
    """§4."""
    statement = STATEMENT.read(data)
    verify(statement.identity, domain, statement.body, statement.signature)
    body = STATEMENTS[domain].read(statement.body)
    require(body.network == network, "statement: another network")
    if domain == "hpke-key":
        check_hpke_public(body.public)
    return statement


def compute_statement(v: Vector) -> Results:
    statement = read_statement(v.text("domain"), v.data("network"), v.data("statement"))
    return {"owner": statement.identity, "body": statement.body}


def compute_string(v: Vector) -> Results:
    """§5."""
    string = v.text("string")
    require(len(string) <= 2048, "string: longer than 2048 characters")
    string = re.sub("[\t-\r \xa0]", "", string)
    prefix, colon, letters = string.partition(":")
    prefix += colon
    require(prefix in STRINGS, "string: unknown prefix")
    try:
        data = base64.b64decode(letters + "=" * (-len(letters) % 4), altchars=b"-_")
    except ValueError:
        raise Refused("string: not base64url") from None
    again = base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")
    require(again == letters, "string: not what base64url gives for these bytes")
    payload, checksum = data[:-4], data[-4:]
    require(checksum == sha256(prefix.encode("ascii") + payload)[:4], "string: wrong checksum")
    STRINGS[prefix].read(payload)
    return {"payload": payload}


def compute_enrolment(v: Vector) -> Results:
    """§6, as the Bridge reads the request and the Router the answer."""
    network, invitation_id, code = v.data("network"), v.data("invitation-id"), v.data("code")
    bridge, router = v.data("bridge"), v.data("router")

    def read(key: str, array: Array, signer: bytes, reader: bytes) -> SimpleNamespace:
        what = f"enrolment-{key}"
        envelope = ENVELOPE.read(v.data(key))
        body = array.read(envelope.body)
        require(body.network == network, f"{what}: another network")
        require(body.invitation_id == invitation_id, f"{what}: another invitation")
        require(body.router == router, f"{what}: another Router")
        mac = hmac_sha256(code, f"relay/1/{what}\0".encode("ascii") + envelope.body + reader)
        require(hmac.compare_digest(mac, envelope.mac), f"{what}: the MAC does not hold")
        verify(signer, what, envelope.body + envelope.mac, envelope.signature)
        return body

    request = read("request", ENROLMENT_REQUEST, router, bridge)
    statement = read_statement("hpke-key", network, request.key_statement)
    require(statement.identity == router, "enrolment: another Router's key statement")
    answer = read("answer", ENROLMENT_ANSWER, bridge, router)
    require(answer.bridge == bridge, "enrolment-answer: another Bridge")
    require(answer.request_hash == sha256(v.data("request")), "enrolment-answer: another request")
    return {}


def compute_hpke(v: Vector) -> Results:
    """§7."""
    public = hpke_public(v.data("seed"))
    plaintext = hpke_open(v.data("seed"), v.data("info"), v.data("sealed"))
    return {"public": public, "key-id": sha256(public), "plaintext": plaintext}


def hash_of_opening(opening: bytes) -> bytes:
    return sha256(b"relay/1/opening-hash\0" + opening)


def compute_opening(v: Vector) -> Results:
    """§8.2, steps 1 to 7; one opening meets no replay cache, and nobody is asked for grants."""
    try:
        return open_opening(v)
    except Refused as refused:
        refused.results = {"refusal": refused.reason}
        raise


def open_opening(v: Vector) -> Results:
    opening, sealed_request = v.data("opening"), v.data("sealed-request")
    callee = ed25519_public(v.data("callee-seed"))
    held = {sha256(hpke_public(seed)): seed for seed in v.all_data("hpke-seed")}

    require(16 <= len(sealed_request) <= SEALED_REQUEST, "sealed request: length")
    envelope = OPENING.read(opening)
    header = HEADER.read(envelope.header)
    require(header.purpose in (1, 2, 3), "header: unknown purpose")
    check_hpke_public(header.ephemeral)

    require(header.network == v.data("network"), "header: another network")
    require(header.callee == callee, "header: another callee")
    require(header.caller == v.data("caller"), "header: not the caller that the Bridge knows")

    length = struct.pack(">I", len(envelope.header))
    signed = length + envelope.header + envelope.ciphertext
    verify(header.caller, "opening", signed, envelope.signature)

    away = abs(int(v.text("now")) - header.created)
    require(away <= OPENING_AGE, f"header: created {away} s away", EXPIRED)
    require(header.callee_key_id in held, "header: a key that is not held", UNKNOWN_KEY)

    info = b"relay/1/opening-info\0" + envelope.header
    secret = hpke_open(held[header.callee_key_id], info, envelope.ciphertext)
    opening_hash = hash_of_opening(opening)
    early_key = hkdf(opening_hash, secret, b"relay/1/early")
    request = aes_open(early_key, bytes(12), opening_hash, sealed_request, "sealed request")
    return {
        "session": header.session,
        "purpose": header.purpose,
        "called": header.called,
        "created": header.created,
        "opening-hash": opening_hash,
        "secret": secret,
        "early-key": early_key,
        "request": request,
    }


def compute_answer(v: Vector) -> Results:
    """§8.3 and §9."""
    opening, secret = v.data("opening"), v.data("secret")
    opening_hash, request_hash = hash_of_opening(opening), sha256(v.data("sealed-request"))
    answer = ANSWER.read(v.data("answer"))
    require(answer.opening_hash == opening_hash, "answer: to another opening")
    signed = opening_hash + request_hash + answer.ciphertext
    verify(v.data("callee"), "answer", signed, answer.signature)
    info = b"relay/1/answer-info\0" + opening_hash
    entropy = hpke_open(v.data("ephemeral-seed"), info, answer.ciphertext)
    parts = opening_hash + request_hash + sha256(v.data("answer"))
    transcript = sha256(b"relay/1/transcript\0" + parts)
    return {
        "entropy": entropy,
        "transcript": transcript,
        "flow-key-0": hkdf(transcript, secret + entropy, b"relay/1/flow/0"),
        "flow-key-1": hkdf(transcript, secret + entropy, b"relay/1/flow/1"),
    }


def compute_refusal(v: Vector) -> Results:
    """§8.4."""
    refusal = REFUSAL.read(v.data("refusal-note"))
    opening_hash = hash_of_opening(v.data("opening"))
    require(refusal.opening_hash == opening_hash, "refusal: of another opening")
    signed = opening_hash + bytes([refusal.reason])
    verify(v.data("callee"), "refusal", signed, refusal.signature)
    return {"reason": refusal.reason if refusal.reason <= LAST_REASON else UNSPECIFIED}


def compute_withdrawal(v: Vector) -> Results:
    """§8.4."""
    withdrawal = WITHDRAWAL.read(v.data("withdrawal-note"))
    opening_hash = hash_of_opening(v.data("opening"))
    require(withdrawal.opening_hash == opening_hash, "withdrawal: of another opening")
    verify(v.data("caller"), "withdrawal", opening_hash, withdrawal.signature)
    return {}


def compute_note(v: Vector) -> Results:
    """§10.1: the payload of a NOTE record."""
    data = v.data("note")
    require(1 <= len(data) <= NOTE, "note: its length")
    try:
        values = msgpack.unpackb(data)
    except ValueError:
        raise Refused("note: not one MessagePack value") from None
    require(type(values) is list and values != [], "note: not an array with a number")
    number = values[0]
    require(type(number) is int and number in NOTES, "note: unknown number")
    NOTES[number].read(data)
    return {"number": number, "packed": msgpack.packb(values)}


PDU_OF_RECORD = {1: 0x02, 2: 0x03, 3: 0x05, 4: 0x06, 5: 0x07}
PDV_RECORD, NOTE_RECORD = 6, 16
ENDING = (2, 4, 5)


def read_records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """§10."""
    count = 0
    while data:
        count += 1
        require(count <= 8192, "more than 8192 records")
        require(len(data) >= 5, "record: its header is cut short")
        kind, length = struct.unpack_from(">BI", data)
        require(len(data) >= 5 + length, "record: cut short")
        payload, data = data[5 : 5 + length], data[5 + length :]
        if kind == PDV_RECORD:
            require(length >= 2, "PDV: no context or no control header")
            require(payload[0] % 2 == 1, "PDV: an even context")
            require(payload[1] <= 3, "PDV: unknown bits in the control header")
        elif kind == NOTE_RECORD:
            require(1 <= length <= NOTE, "note: its length")
        else:
            require(kind in PDU_OF_RECORD, "record: unknown type")
            require(length >= 6, "PDU: its header is cut short")
            require(payload[0] == PDU_OF_RECORD[kind], "PDU: of another type than the record")
            require(int.from_bytes(payload[2:6]) == length - 6, "PDU: not whole")
            if kind == 1:
                check_items(payload[74:], length >= 74)
            else:
                require(length == 10, "PDU: not of 10 bytes")
        yield kind, payload


def check_items(items: bytes, fixed_part: bool) -> None:
    """§10: an A-ASSOCIATE-AC's items are whole and fill the rest of it."""
    require(fixed_part, "A-ASSOCIATE-AC: shorter than its fixed part")
    while items:
        require(len(items) >= 4, "A-ASSOCIATE-AC: an item's header is cut short")
        end = 4 + int.from_bytes(items[2:4])
        require(len(items) >= end, "A-ASSOCIATE-AC: an item is cut short")
        items = items[end:]


def check_chunk(head: bytes, body: bytes, final: bool) -> None:
    """§11, step 6."""
    said, data = list(read_records(head)), list(read_records(body))
    require(
        all(kind == PDV_RECORD and not pdv[1] & 1 for kind, pdv in data), "body: not a data set"
    )
    require(len({pdv[0] for _, pdv in data}) <= 1, "body: two contexts")
    require(not any(pdv[1] & 2 for _, pdv in data[:-1]), "body: goes on behind its end")
    ends = [kind in ENDING for kind, _ in said + data]
    require(ends.count(True) == final, "chunk: final and its end do not agree")
    require(not final or ends[-1], "chunk: something behind the end")


def compute_records(v: Vector) -> Results:
    records = read_records(v.data("data"))
    return {"record": [f"{kind} {payload.hex()}".rstrip() for kind, payload in records]}


def unshuffle(data: bytes) -> bytes:
    half = (len(data) + 1) // 2
    plain = bytearray(len(data))
    plain[0::2], plain[1::2] = data[:half], data[half:]
    return bytes(plain)


def sums(data: bytes) -> bytes:
    return bytes(total % 256 for total in itertools.accumulate(data))


def decompress(payload: bytes, length: int) -> bytes:
    """One zstd frame that states length: libzstd's output is a buffer of just that size."""
    require(payload[:4] == bytes.fromhex("28b52ffd"), "zstd: not a frame")
    try:
        frame = zstandard.get_frame_parameters(payload)
        require(frame.content_size == length, "zstd: another content size than body_length")
        require(frame.dict_id == 0, "zstd: a dictionary")
        require(frame.window_size <= CHUNK, "zstd: too wide a window")
        body = zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Refused(f"zstd: {error}") from None
    require(len(body) == length, "zstd: gives another length")
    return body


@dataclass
class FlowReader:
    """The reading end of a flow: opens each chunk as the next, or refuses it (§11)."""

    key: bytes
    transcript: bytes
    direction: int
    opened: int = 0
    finished: bool = False

    def open(self, sealed: bytes) -> tuple[bytes, bytes]:
        """Head and body. The checks stand in the order of §11."""
        length = len(sealed)
        require(40 <= length <= CHUNK + 40, "chunk: its length")
        fields = struct.unpack_from(">BBBBIIIQ", sealed)
        version, compression, filtered, flags, head_length, body_length, reserved, number = fields

        require(version == 1, "chunk: unknown version")
        require(compression <= 1, "chunk: unknown compression")
        require(filtered <= 2 * compression, "chunk: unknown filter, or one without compression")
        require(flags <= 1, "chunk: unknown flag")
        require(reserved == 0, "chunk: reserved is not zero")
        require(head_length + body_length <= CHUNK, "chunk: longer than 4 MiB in plain")
        if compression:
            require(head_length <= length - 40, "chunk: its head ends beyond it")
            require(body_length >= 1, "chunk: no body is compressed")
        else:
            require(head_length + body_length == length - 40, "chunk: lengths do not add up")
        require(head_length + body_length > 0, "chunk: empty")

        require(number == self.opened, f"chunk: number {number} where {self.opened} is next")
        require(not self.finished, "chunk: behind the final one")

        nonce = struct.pack(">IQ", 0, number)
        aad = self.transcript + bytes([self.direction]) + sealed[:24]
        plain = aes_open(self.key, nonce, aad, sealed[24:], "chunk")

        head, body = plain[:head_length], plain[head_length:]
        if compression:
            body = decompress(body, body_length)
        if filtered == 2:
            body = sums(body)
        if filtered:
            body = unshuffle(body)
        check_chunk(head, body, flags == 1)

        self.opened += 1
        self.finished = flags == 1
        return head, body


def compute_flow(v: Vector) -> Results:
    """§11, of one direction; the first chunk that is refused ends it."""
    reader = FlowReader(v.data("key"), v.data("transcript"), int(v.text("direction")))
    chunks: list[str] = []
    for sealed in v.all_data("sealed"):
        try:
            head, body = reader.open(sealed)
        except Refused as refused:
            refused.results = {"chunk": chunks, "at": reader.opened}
            raise
        place = "final" if reader.finished else "more"
        chunks.append(f"{place} {head.hex() or '-'} {body.hex() or '-'}")
    return {"chunk": chunks, "outcome": "success" if reader.finished else "unfinished"}


@dataclass(frozen=True)
class Kind:
    """How a kind is computed, the keys it is computed from, and which of all are MessagePack."""

    compute: Callable[[Vector], Results]
    inputs: str
    packed: str = ""


KINDS = {
    "hkdf": Kind(compute_hkdf, "salt ikm info"),
    "aes-gcm": Kind(compute_aes_gcm, "key nonce aad plaintext"),
    "identity": Kind(compute_identity, "seed domain body"),
    "statement": Kind(compute_statement, "domain network statement", "statement body"),
    "string": Kind(compute_string, "string", "payload"),
    "enrolment": Kind(
        compute_enrolment,
        "network invitation-id code bridge request router answer",
        "request answer",
    ),
    "hpke": Kind(compute_hpke, "seed info sealed"),
    "opening": Kind(
        compute_opening,
        "network caller callee-seed hpke-seed now opening sealed-request",
        "opening",
    ),
    "answer": Kind(
        compute_answer,
        "callee ephemeral-seed secret opening sealed-request answer",
        "opening answer",
    ),
    "refusal": Kind(compute_refusal, "callee opening refusal-note", "opening refusal-note"),
    "withdrawal": Kind(
        compute_withdrawal, "caller opening withdrawal-note", "opening withdrawal-note"
    ),
    "note": Kind(compute_note, "note", "note packed"),
    "records": Kind(compute_records, "data"),
    "flow": Kind(compute_flow, "key transcript direction sealed"),
}


def is_shortest(packed: bytes) -> bool:
    """Whether this is what a writer writes, who takes the shortest format for every value (§2)."""
    return bool(msgpack.packb(msgpack.unpackb(packed)) == packed)


def as_written(value: bytes | int | str | list[str]) -> list[str]:
    if isinstance(value, list):
        return value
    return [value.hex() if isinstance(value, bytes) else str(value)]


def judge(v: Vector) -> tuple[str, list[str]]:
    """What the second implementation makes of the vector, and where the vector says otherwise."""
    kind = KINDS.get(v.text("kind"))
    if kind is None:
        return "not judged", [f"unknown kind {v.text('kind')}"]
    try:
        results: Results = {"outcome": "success"} | kind.compute(v)
        verdict = str(results["outcome"])
    except Refused as refused:
        results = {"outcome": "refused"} | refused.results
        verdict = f"refused, {refused}"
    found = {key: as_written(value) for key, value in results.items() if value != []}
    inputs = {"name", "source", "kind", *kind.inputs.split()}
    given = {key: values for key, values in v.values.items() if key not in inputs}
    disagreements = [
        f"{key}: the vector has {given.get(key)}, here it is {found.get(key)}"
        for key in sorted(given.keys() | found.keys())
        if given.get(key) != found.get(key)
    ]
    if verdict == "success" and not disagreements and not v.text("name").endswith("-long-formats"):
        disagreements = [
            f"{key}: not the shortest MessagePack"
            for key in kind.packed.split()
            if not is_shortest(v.data(key))
        ]
    return verdict, disagreements


def main(arguments: list[str]) -> int:
    directory = Path(arguments[0]) if arguments else VECTORS
    paths = sorted(directory.glob("*.txt"))
    disagreeing = 0
    for path in paths:
        verdict, disagreements = judge(Vector.read(path))
        disagreeing += bool(disagreements)
        print(f"{'DISAGREES' if disagreements else 'agrees'}  {path.stem}: {verdict}")
        for disagreement in disagreements:
            print(f"           {disagreement}")
    print(f"{len(paths)} vectors, {disagreeing} disagreements")
    return 1 if disagreeing or not paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
