"""Generates the vectors of records and of flows of sealed chunks."""

import struct

import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AReleaseRP,
    AReleaseRQ,
    PresentationContextResult,
)
from relay.tunnel import notes, records
from relay.tunnel.chunks import Chunk
from relay.tunnel.compression import MAXIMUM_CHUNK
from relay.tunnel.keys import SessionKeys
from relay.tunnel.records import Record
from relay.tunnel.seal import ChunkSealer
from tests.vectors.making import (
    REQUEST,
    Lines,
    flipped,
    put,
)
from tests.vectors.notes import KNOWLEDGE

AC = AAssociateAC(
    "PACS_B",
    "WORKSTATION_A",
    (PresentationContextResult(1, 0, "1.2.840.10008.1.2"),),
)


def record_vectors() -> None:
    def put_records(
        name: str, data: bytes, rows: list[tuple[int, bytes]] | None, remark=""
    ) -> None:
        lines: Lines = [("data", data)]
        lines += [
            ("record", f"{number} {payload.hex()}".rstrip()) for number, payload in rows or []
        ]
        put(f"records{name}", "records", "refused" if rows is None else "success", lines, remark)

    said: list[Record] = [
        AC,
        AAssociateRJ(1, 1, 7),
        PDV(1, True, True, b"command!"),
        PDV(1, False, False, b"data"),
        PDV(1, False, True, b""),
        AReleaseRQ(),
        AReleaseRP(),
        AAbort(2, 0),
    ]
    encoded = [records.encode(record) for record in said]
    rows = [(record[0], record[5:]) for record in encoded]
    put_records("", b"".join(encoded), rows)
    put_records("-none", b"", [])
    release = records.encode(AReleaseRQ())
    pdv = records.encode(PDV(1, True, True, b"command!"))
    put_records("-length-lies", flipped(pdv, 4, 0x10), None, "The length says 26, 10 are there.")
    put_records("-length-huge", pdv[:1] + b"\xff" * 4 + pdv[5:], None)
    put_records("-length-short", pdv[:4] + b"\x09" + pdv[5:], None, "The last byte is left over.")
    put_records("-header-cut", pdv + b"\x06\0\0", None)
    put_records("-unknown-type", b"\x07" + release[1:], None)
    put_records("-type-zero", b"\0\0\0\0\0", None)
    put_records("-pdu-of-another-type", b"\x04" + release[1:], None)
    put_records("-associate-rq", struct.pack(">BI", 1, len(REQUEST)) + REQUEST, None)
    put_records("-pdu-cut", struct.pack(">BI", 3, len(release) - 6) + release[5:-1], None)
    associate = records.encode(AC)[5:]
    for name, payload in [
        ("associate-ac-short", associate[:2] + (66).to_bytes(4, "big") + associate[6:72]),
        ("associate-ac-item-cut", associate[:5] + bytes([associate[5] - 1]) + associate[6:-1]),
    ]:
        put_records(f"-{name}", struct.pack(">BI", 1, len(payload)) + payload, None)
    put_records("-pdu-length-lies", flipped(release, 10), None, "The PDU says 5 where 4 follow.")
    for length in (0, 5):
        payload = release[5 : 5 + length]
        put_records(f"-pdu-of-{length}-bytes", struct.pack(">BI", 3, length) + payload, None)
    long = b"\x05\0\0\0\0\x05" + bytes(5)
    put_records("-release-rq-too-long", struct.pack(">BI", 3, len(long)) + long, None)
    put_records("-pdv-empty", b"\x06\0\0\0\0", None)
    put_records("-pdv-without-control", b"\x06\0\0\0\x01\x01", None)
    put_records("-pdv-even-context", flipped(pdv, 5), None)
    put_records("-pdv-control-bits", flipped(pdv, 6, 0x80), None)
    note = records.encode(notes.encode(notes.Forget((bytes(16),))))
    put_records("-notes", note + pdv + note, [(one[0], one[5:]) for one in (note, pdv, note)])
    put_records("-note-of-no-bytes", b"\x10\0\0\0\0", None)
    put_records("-note-cut", note[:-1], None)
    too_long = records.MAXIMUM_NOTE + 1
    put_records("-note-too-long", struct.pack(">BI", 16, too_long) + bytes(too_long), None)


KEYS = SessionKeys.derive(bytes(32), bytes(32), b"answer", b"s" * 32, b"e" * 32)
OTHER_KEYS = SessionKeys.derive(bytes(32), bytes(32), b"another", b"s" * 32, b"e" * 32)
FRAGMENT = struct.pack("<600H", *(1000 + i * i % 97 for i in range(600)))

ECHO = Chunk(records.encode(PDV(1, True, True, b"command " * 4)))
STORE = Chunk(
    records.encode(PDV(3, True, True, b"command " * 4)),
    records.encode(PDV(3, False, True, FRAGMENT)),
)
LAST = Chunk(records.encode(AReleaseRP()), final=True)
RELEASE = records.encode(AReleaseRQ())

SECOND = records.encode(PDV(3, False, True, b"second"))
# Sealed well, and no chunk: what is wrong shows when the records are parsed (§11, step 6).
UNPARSABLE = {
    "record-cut-in-head": Chunk(ECHO.head + b"\x06\0\0"),
    "record-cut-in-body": Chunk(STORE.head, STORE.body[:-1]),
    "record-of-unknown-type-in-head": Chunk(b"\x07\0\0\0\0" + ECHO.head),
    "record-of-unknown-type-in-body": Chunk(STORE.head, STORE.body + b"\x07\0\0\0\0"),
    "record-across-head-and-body": Chunk(STORE.head + STORE.body[:9], STORE.body[9:]),
    "command-in-body": Chunk(b"", ECHO.head),
    "release-rq-in-body": Chunk(ECHO.head, records.encode(AReleaseRQ())),
    "abort-in-body": Chunk(ECHO.head, records.encode(AAbort(2, 0)), True),
    "two-data-sets-in-body": Chunk(STORE.head, STORE.body + SECOND),
    "two-contexts-in-body": Chunk(
        STORE.head, records.encode(PDV(5, False, False, b"first!")) + SECOND
    ),
    "release-rp-and-not-final": Chunk(LAST.head),
    "abort-and-not-final": Chunk(records.encode(AAbort(2, 0))),
    "associate-rj-and-not-final": Chunk(records.encode(AAssociateRJ(1, 1, 7))),
    "final-without-end": Chunk(ECHO.head, final=True),
    "record-behind-the-end": Chunk(LAST.head + ECHO.head, final=True),
    "two-ends": Chunk(LAST.head + LAST.head, final=True),
    "body-behind-the-end": Chunk(LAST.head, STORE.body, True),
}


def differences(data: bytes) -> bytes:
    """Each byte less the one before it."""
    return bytes((byte - before) % 256 for before, byte in zip(b"\0" + data, data, strict=False))


def forged(
    number: int,
    chunk: Chunk,
    *,
    version: int = 1,
    compression: int = 0,
    filter_: int = 0,
    flags: int | None = None,
    head_length: int | None = None,
    body_length: int | None = None,
    reserved: int = 0,
    payload: bytes | None = None,
    stated: int | None = None,
    keys: SessionKeys = KEYS,
) -> bytes:
    """A chunk with anything in its header, sealed with the right key over just that header."""
    header = struct.pack(
        ">BBBBIIIQ",
        version,
        compression,
        filter_,
        int(chunk.final) if flags is None else flags,
        len(chunk.head) if head_length is None else head_length,
        len(chunk.body) if body_length is None else body_length,
        reserved,
        number if stated is None else stated,
    )
    plain = bytes(chunk.head) + (bytes(chunk.body) if payload is None else payload)
    sealed = AESGCM(keys.caller_to_callee).encrypt(
        number.to_bytes(12, "big"), plain, keys.transcript + b"\0" + header
    )
    return header + sealed


# Bytes of a zstd frame's header here: magic, descriptor, content size (RFC 8878 §3.1.1.1).
FRAME_HEADER = 4 + 1 + 2


def framed(body: bytes, blocks: bytes, window: int | None = None) -> bytes:
    """A zstd frame of these blocks that states the body's length, with a window descriptor."""
    descriptor = [0x60] if window is None else [0x40, window]
    return b"\x28\xb5\x2f\xfd" + bytes(descriptor) + struct.pack("<H", len(body) - 256) + blocks


def flow(
    name: str,
    outcome: str,
    data: list[bytes],
    opened: list[Chunk],
    *,
    at: int | None = None,
    direction: int = 0,
    keys: SessionKeys = KEYS,
    remark: str = "",
) -> None:
    lines: Lines = [
        ("key", keys.callee_to_caller if direction else keys.caller_to_callee),
        ("transcript", keys.transcript),
        ("direction", direction),
        *(("sealed", one) for one in data),
    ]
    for chunk in opened:
        final = "final" if chunk.final else "more"
        parts = [bytes(part).hex() or "-" for part in (chunk.head, chunk.body)]
        lines.append(("chunk", " ".join([final, *parts])))
    if at is not None:
        lines.append(("at", at))
    put(f"flow{name}", "flow", outcome, lines, remark)


def flows() -> None:
    sealer = ChunkSealer(KEYS.caller_to_callee, KEYS.transcript, 0)
    chunks = [ECHO, STORE, LAST]
    sealed = [sealer.seal(chunk) for chunk in chunks]
    assert sealed[1][1:3] == b"\1\1", "the fragment is meant to be shuffled and compressed"

    def refused(name: str, data: list[bytes], at: int, remark: str = "") -> None:
        flow(name, "refused", data, chunks[:at], at=at, remark=remark)

    flow("", "success", sealed, chunks)
    for name, ending in [
        ("abort", Chunk(records.encode(AAbort(0, 0)), final=True)),
        ("rejection", Chunk(records.encode(AAssociateRJ(1, 1, 7)), final=True)),
        ("data-and-release-in-one-chunk", Chunk(ECHO.head + LAST.head, final=True)),
    ]:
        flow(f"-{name}", "success", [forged(0, ending)], [ending])
    refused("-empty-final-chunk", [forged(0, Chunk(b"", b"", True))], 0)
    for name, wrong in UNPARSABLE.items():
        refused(f"-{name}", [forged(0, wrong)], 0)
    back = ChunkSealer(KEYS.callee_to_caller, KEYS.transcript, 1)
    flow("-callee-to-caller", "success", [back.seal(one) for one in chunks], chunks, direction=1)
    body = bytes(STORE.body)
    zstd = zstandard.ZstdCompressor(level=1)
    plain = zstd.compress(body)
    plain_blocks = plain[FRAME_HEADER:]
    assert plain[4] == 0x60, "a single segment, its content size in 2 bytes"
    flow(
        "-zstd-without-filter",
        "success",
        [sealed[0], forged(1, STORE, compression=1, payload=plain), sealed[2]],
        chunks,
    )
    flow("-not-compressed", "success", [sealed[0], forged(1, STORE), sealed[2]], chunks)

    flow("-no-chunk", "unfinished", [], [])
    flow("-no-final-chunk", "unfinished", sealed[:2], chunks[:2])
    refused("-reordered", [sealed[1], sealed[0], sealed[2]], 0)
    refused("-chunk-missing", [sealed[0], sealed[2]], 1)
    refused("-replayed", [sealed[0], sealed[0], sealed[2]], 1)
    two = [sealed[0], sealed[1], sealed[2], forged(3, LAST)]
    refused("-two-final-chunks", two, 3)
    refused("-chunk-after-final", [*sealed, forged(3, ECHO)], 3)
    refused("-truncated", [sealed[0], sealed[1][:-1], sealed[2]], 1)
    refused("-tag-missing", [sealed[0], sealed[1][:-16], sealed[2]], 1)
    refused("-header-only", [sealed[0][:24]], 0)
    refused("-empty", [b""], 0)
    refused("-trailing-bytes", [sealed[0] + b"\0"], 0)
    refused("-trailing-bytes-after-zstd-chunk", [sealed[0], sealed[1] + b"\0"], 1)
    for field, place, bit in [
        ("version", 0, 2),
        ("compression", 1, 1),
        ("filter", 2, 1),
        ("final", 3, 1),
        ("flags", 3, 0x80),
        ("head-length", 7, 1),
        ("body-length", 11, 1),
        ("reserved", 15, 1),
        ("number", 23, 2),
        ("head", 24, 1),
        ("body", 24 + len(STORE.head) + 5, 1),
        ("tag", -1, 1),
    ]:
        refused(f"-flipped-{field}", [sealed[0], flipped(sealed[1], place, bit), sealed[2]], 1)
    refused(
        "-final-removed",
        [sealed[0], sealed[1], flipped(sealed[2], 3)],
        2,
        "The final flag is taken off.",
    )
    flow(
        "-wrong-direction",
        "refused",
        [forged(0, ECHO)],
        [],
        at=0,
        direction=1,
        remark="Caller to callee, played back to the caller.",
    )
    reflected = SessionKeys(KEYS.transcript, KEYS.caller_to_callee, KEYS.caller_to_callee)
    flow(
        "-wrong-direction-same-key",
        "refused",
        [sealed[0]],
        [],
        at=0,
        direction=1,
        keys=reflected,
        remark="Were both directions sealed with one key, the associated data would still tell.",
    )
    flow("-wrong-session", "refused", sealed, [], at=0, keys=OTHER_KEYS)
    mixed = SessionKeys(OTHER_KEYS.transcript, KEYS.caller_to_callee, KEYS.callee_to_caller)
    flow("-wrong-transcript", "refused", sealed, [], at=0, keys=mixed)
    spliced = [sealed[0], forged(1, STORE, keys=OTHER_KEYS), sealed[2]]
    refused("-chunk-of-another-session", spliced, 1)

    # Sealed with the right key: what a writer that breaks the protocol could send.
    refused("-unknown-version", [forged(0, ECHO, version=2)], 0)
    shuffled = body[0::2] + body[1::2]
    packed = zstd.compress(shuffled)
    deltas = zstd.compress(differences(shuffled))
    for name, compression, filter_, payload, remark in [
        ("unknown-compression", 2, 0, body, "The body is there as it is."),
        ("unknown-compression-of-zstd", 2, 0, plain, "The body is a zstd frame."),
        ("unknown-filter", 1, 3, plain, "It would be valid with filter 0."),
        ("unknown-filter-of-shuffle", 1, 3, packed, "It would be valid with filter 1."),
        ("unknown-filter-of-delta", 1, 3, deltas, "It would be valid with filter 2."),
        ("filter-without-compression", 0, 1, body, "It would be valid with filter 0."),
        (
            "filter-without-compression-shuffled",
            0,
            1,
            shuffled,
            "Shuffled, not compressed.",
        ),
        (
            "filter-without-compression-delta",
            0,
            2,
            differences(shuffled),
            "Shuffled, and differences, not compressed.",
        ),
    ]:
        one = forged(1, STORE, compression=compression, filter_=filter_, payload=payload)
        refused(f"-{name}", [sealed[0], one], 1, remark)
    refused("-unknown-flag", [forged(0, ECHO, flags=2)], 0)
    refused("-reserved-set", [forged(0, ECHO, reserved=1)], 0)
    refused("-nonce-of-another-number", [forged(1, ECHO, stated=0)], 0)
    refused("-head-length-lies", [forged(0, ECHO, head_length=len(ECHO.head) + 1)], 0)
    refused("-body-length-lies", [forged(0, ECHO, body_length=1)], 0)
    refused("-body-length-huge", [forged(0, ECHO, compression=1, body_length=2**32 - 1)], 0)
    refused(
        "-head-beyond-chunk", [forged(0, ECHO, compression=1, head_length=4096, body_length=1)], 0
    )
    refused("-no-records", [forged(0, Chunk(b""))], 0)
    too_long = Chunk(
        b"", records.encode(PDV(1, False, True, bytes(MAXIMUM_CHUNK + 1 - records.PDV_OVERHEAD)))
    )
    refused(
        "-chunk-too-long",
        [forged(0, too_long, compression=1, payload=zstd.compress(too_long.body))],
        0,
        "Small when sealed; when open a record that is one byte over 4 MiB.",
    )

    def store(payload: bytes, **options: int) -> list[bytes]:
        return [sealed[0], forged(1, STORE, compression=1, payload=payload, **options)]

    bomb = zstd.compress(bytes(1024 * 1024))
    refused("-zstd-bomb", store(bomb), 1, "1 MiB of zeros where the header says less.")
    # FCS field of 4 bytes behind magic and descriptor (RFC 8878 §3.1.1.1); 1 MiB needs 4.
    assert bomb[4] >> 6 == 2
    at = 5 if bomb[4] & 0x20 else 6
    lying = bomb[:at] + struct.pack("<I", len(body)) + bomb[at + 4 :]
    refused("-zstd-bomb-that-lies", store(lying), 1, "The frame, too, says less than it holds.")
    streamed = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(body)
    refused("-zstd-without-content-size", store(streamed), 1)
    refused("-zstd-of-another-length", store(zstd.compress(body[:-1])), 1)
    blocks = zstd.compress(body[:-1])[FRAME_HEADER:]
    refused("-zstd-shorter-than-stated", store(framed(body, blocks)), 1)
    flow(
        "-zstd-widest-window",
        "success",
        [*store(framed(body, plain_blocks, 0x60)), sealed[2]],
        chunks,
    )
    refused("-zstd-window-too-wide", store(framed(body, plain_blocks, 0x61)), 1, "4.5 MiB.")
    with_dictionary = bytes([0x61, 7]).join((plain[:4], plain[5:]))
    refused("-zstd-with-dictionary-id", store(with_dictionary), 1, "Valid but for the id.")
    checked = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(body)
    flow("-zstd-with-checksum", "success", [*store(checked), sealed[2]], chunks)
    refused("-zstd-wrong-checksum", store(flipped(checked, -1)), 1)
    skippable = b"\x50\x2a\x4d\x18" + struct.pack("<I", len(body)) + body
    refused("-zstd-skippable-frame", store(skippable), 1)
    refused("-zstd-behind-a-skippable-frame", store(skippable + plain), 1)
    refused("-zstd-truncated", store(plain[:-3]), 1)
    refused("-zstd-trailing-bytes", store(plain + b"\0"), 1)
    refused("-zstd-two-frames", store(plain + zstd.compress(b"more")), 1)
    refused("-zstd-in-two-halves", store(zstd.compress(body[:600]) + zstd.compress(body[600:])), 1)
    refused("-zstd-nothing", store(b""), 1)
    refused("-zstd-junk", store(b"junk" * 9), 1)
    refused("-zstd-of-no-bytes", [forged(0, ECHO, compression=1, payload=zstd.compress(b""))], 0)
    assert shuffled != body
    flow("-delta", "success", [*store(deltas, filter_=2), sealed[2]], chunks)


def note_flows() -> None:
    """What two Routers say to one another, and what no flow may hold."""
    near = [
        Chunk(
            records.encode(notes.encode(notes.Item(bytes(16), bytes(32), len(FRAGMENT))))
            + bytes(STORE.head),
            STORE.body,
        ),
        Chunk(records.encode(notes.encode(notes.Forget((bytes(16),)))) + RELEASE),
    ]
    sealer = ChunkSealer(KEYS.caller_to_callee, KEYS.transcript, 0)
    flow(
        "-delivery-near",
        "unfinished",
        [sealer.seal(chunk) for chunk in near],
        near,
        remark="The final chunk of a delivery is the far Router's.",
    )
    result = records.encode(
        notes.encode(notes.Result(bytes(16), notes.Outcome.ANSWERED, 0xB007, "coerced"))
    )
    far = [Chunk(records.encode(AC)), Chunk(result), LAST]
    sealer = ChunkSealer(KEYS.callee_to_caller, KEYS.transcript, 1)
    flow("-delivery-far", "success", [sealer.seal(chunk) for chunk in far], far, direction=1)
    ended = records.encode(notes.encode(notes.Ended(notes.EndedBy.DEVICE, 2, 0, "")))
    known = records.encode(notes.encode(KNOWLEDGE))
    for name, chunk in [
        ("delivery-ended", Chunk(result + ended + bytes(LAST.head), final=True)),
        ("knowledge", Chunk(known + bytes(LAST.head), final=True)),
    ]:
        sealer = ChunkSealer(KEYS.callee_to_caller, KEYS.transcript, 1)
        flow(f"-{name}", "success", [sealer.seal(chunk)], [chunk], direction=1)
    opaque = Chunk(b"\x10\0\0\0\x01\xc1" + bytes(LAST.head), final=True)
    flow(
        "-note-that-is-no-msgpack",
        "success",
        [forged(0, opaque)],
        [opaque],
        remark="A chunk's reader does not look into notes.",
    )
    for name, wrong in [
        ("note-in-body", Chunk(STORE.head, bytes(STORE.body) + result)),
        ("note-in-front-of-a-body", Chunk(STORE.head, result + bytes(STORE.body))),
        ("note-behind-the-end", Chunk(bytes(LAST.head) + ended, final=True)),
        ("note-for-an-end", Chunk(ended, final=True)),
        ("note-of-no-bytes", Chunk(b"\x10\0\0\0\0" + bytes(ECHO.head))),
        ("note-cut", Chunk(result[:-1])),
    ]:
        flow(f"-{name}", "refused", [forged(0, wrong)], [], at=0)


def generate() -> None:
    record_vectors()
    flows()
    note_flows()
