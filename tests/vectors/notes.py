"""Generates the vectors of notes."""

import msgpack

from relay.tunnel import notes
from relay.tunnel.notes import Message, Outcome
from tests.vectors.making import drawn, flipped, long_format, put

draw = drawn("notes")
IDS = [draw(16) for _ in range(3)]
HASH = draw(32)

ITEM = notes.Item(IDS[0], HASH, 524_288)
RESULT = notes.Result(IDS[0], Outcome.ANSWERED, 0, "")
KNOWLEDGE = notes.Knowledge(
    serial=1_790_000_000,
    lifetime=7 * 86_400,
    split=1,
    window=8,
    commitment=True,
    groups=(
        (
            ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"),
            ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70"),
        ),
        (("1.2.840.10008.5.1.4.1.1.7",), ("1.2.840.10008.1.2",)),
    ),
    issuer="NORTH",
    character_set="ISO 2022 IR 6\\ISO 2022 IR 87",
)

GOOD: dict[str, Message] = {
    "item": ITEM,
    "item-blake3": notes.Item(IDS[0], b"\1" + HASH, 524_288),
    "item-of-no-bytes": notes.Item(IDS[0], HASH, 0),
    "item-of-most-bytes": notes.Item(IDS[0], HASH, 2**63 - 1),
    "question": notes.Question([(id_, HASH) for id_ in IDS]),
    "question-blake3": notes.Question([(IDS[0], HASH), (IDS[1], b"\1" + HASH)]),
    "question-of-nothing": notes.Question(()),
    "answers": notes.Answers(
        [(IDS[0], Outcome.ANSWERED, 0xB000, "coerced"), (IDS[2], Outcome.CONFLICT, 0, "")]
    ),
    "answers-of-nothing": notes.Answers(()),
    "result": RESULT,
    "result-of-refused": notes.Result(IDS[0], Outcome.REFUSED, 0x0124, "~" * 64),
    "result-of-changed": notes.Result(IDS[0], Outcome.CHANGED, 0, ""),
    "forget": notes.Forget(IDS),
    "forget-1024": notes.Forget([bytes(16)] * 1024),
    "ended": notes.Ended(notes.EndedBy.DEVICE, 2, 6, ""),
    "ended-by-the-router": notes.Ended(notes.EndedBy.ROUTER, 255, 255, " " * 200),
    "knowledge": KNOWLEDGE,
    "knowledge-of-nothing": notes.Knowledge(0, 0, 255, 65_535, 0, ()),
    "knowledge-of-most-pairs": notes.Knowledge(
        2**63 - 1,
        366 * 86_400,
        1,
        0,
        1,
        ((tuple(f"1.{n}" for n in range(512)), tuple(f"2.{n}" for n in range(64))),),
    ),
    "knowledge-of-512-groups": notes.Knowledge(1, 1, 1, 1, 1, ((("1",), ("2",)),) * 512),
    "knowledge-uid-of-64": notes.Knowledge(1, 1, 1, 1, 1, ((("1." * 32,), ("0" * 64,)),)),
    "knowledge-of-longest-texts": notes.Knowledge(0, 0, 1, 1, 0, (), "~" * 64, "\\" * 128),
}

# What each differs from by one thing, as plain values.
ITEM_ = [1, IDS[0], HASH, 524_288]
QUESTION_ = [2, [[IDS[0], HASH]]]
ANSWERS_ = [3, [[IDS[0], 0, 0, ""]]]
RESULT_ = [4, IDS[0], 0, 0, ""]
FORGET_ = [5, IDS]
ENDED_ = [6, 0, 2, 0, ""]
KNOWLEDGE_ = [7, 1, 86_400, 1, 1, 0, [[["1.2"], ["1.2.3"]]], "NORTH", "ISO_IR 100"]
CLASSES = [f"1.{n}" for n in range(512)]
SYNTAXES = [f"2.{n}" for n in range(64)]


def changed(values: list, at: int, value: object) -> list:
    return [*values[:at], value, *values[at + 1 :]]


def of(*groups: object) -> list:
    """The Knowledge of these groups."""
    return changed(KNOWLEDGE_, 6, list(groups))


REFUSED: dict[str, object] = {
    "number-0": changed(FORGET_, 0, 0),
    "number-8": changed(FORGET_, 0, 8),
    "number-true": changed(ITEM_, 0, True),
    "number-float": changed(FORGET_, 0, 5.0),
    "number-str": changed(FORGET_, 0, "5"),
    "of-no-elements": [],
    "of-a-number-only": [5],
    "map": {5: IDS},
    "nil": None,
    "item-field-more": [*ITEM_, 0],
    "item-field-missing": ITEM_[:-1],
    "item-id-of-15": changed(ITEM_, 1, IDS[0][:-1]),
    "item-id-of-17": changed(ITEM_, 1, IDS[0] + b"\0"),
    "item-id-str": changed(ITEM_, 1, "0" * 16),
    "item-digest-of-another-kind": changed(ITEM_, 2, b"\2" + HASH),
    "item-digest-of-34": changed(ITEM_, 2, b"\1" + HASH + b"\0"),
    "item-digest-str": changed(ITEM_, 2, "1" * 33),
    "item-hash-of-31": changed(ITEM_, 2, HASH[:-1]),
    "item-length-negative": changed(ITEM_, 3, -1),
    "item-length-too-large": changed(ITEM_, 3, 2**63),
    "item-length-float": changed(ITEM_, 3, 1.0),
    "question-row-of-3": changed(QUESTION_, 1, [[IDS[0], HASH, 0]]),
    "question-row-is-an-id": changed(QUESTION_, 1, [IDS[0]]),
    "question-digest-of-another-kind": changed(QUESTION_, 1, [[IDS[0], b"\0" + HASH]]),
    "question-hash-of-31": changed(QUESTION_, 1, [[IDS[0], HASH[:-1]]]),
    "question-rows-map": changed(QUESTION_, 1, {IDS[0]: HASH}),
    "answers-row-of-3": changed(ANSWERS_, 1, [[IDS[0], 0, 0]]),
    "answers-outcome-4": changed(ANSWERS_, 1, [[IDS[0], 4, 0, ""]]),
    "answers-comment-of-65": changed(ANSWERS_, 1, [[IDS[0], 0, 0, "~" * 65]]),
    "result-id-of-15": changed(RESULT_, 1, IDS[0][:-1]),
    "result-outcome-4": changed(RESULT_, 2, 4),
    "result-outcome-true": changed(RESULT_, 2, True),
    "result-status-65536": changed(RESULT_, 3, 65_536),
    "result-comment-of-65": changed(RESULT_, 4, "~" * 65),
    "result-comment-with-newline": changed(RESULT_, 4, "a\nb"),
    "result-comment-with-del": changed(RESULT_, 4, "\x7f"),
    "result-comment-beyond-ascii": changed(RESULT_, 4, "é"),
    "result-comment-bin": changed(RESULT_, 4, b""),
    "forget-1025": changed(FORGET_, 1, [bytes(16)] * 1025),
    "forget-id-of-15": changed(FORGET_, 1, [IDS[0], IDS[1][:-1]]),
    "ended-by-2": changed(ENDED_, 1, 2),
    "ended-source-256": changed(ENDED_, 2, 256),
    "ended-reason-256": changed(ENDED_, 3, 256),
    "ended-words-of-201": changed(ENDED_, 4, "~" * 201),
    "knowledge-serial-too-large": changed(KNOWLEDGE_, 1, 2**63),
    "knowledge-lifetime-too-long": changed(KNOWLEDGE_, 2, 366 * 86_400 + 1),
    "knowledge-split-0": changed(KNOWLEDGE_, 3, 0),
    "knowledge-split-256": changed(KNOWLEDGE_, 3, 256),
    "knowledge-window-65536": changed(KNOWLEDGE_, 4, 65_536),
    "knowledge-commitment-2": changed(KNOWLEDGE_, 5, 2),
    "knowledge-commitment-true": changed(KNOWLEDGE_, 5, True),
    "knowledge-513-groups": of(*[[["1"], ["2"]]] * 513),
    "knowledge-group-of-3": of([["1"], ["2"], ["3"]]),
    "knowledge-group-without-sop-class": of([[], ["2"]]),
    "knowledge-group-without-transfer-syntax": of([["1"], []]),
    "knowledge-513-sop-classes": of([[*CLASSES, "1"], ["2"]]),
    "knowledge-65-transfer-syntaxes": of([["1"], [*SYNTAXES, "2"]]),
    "knowledge-32769-pairs": of([CLASSES, SYNTAXES], [["1"], ["2"]]),
    "knowledge-uid-empty": of([[""], ["2"]]),
    "knowledge-uid-of-65": of([["1"], ["2" * 65]]),
    "knowledge-uid-with-letter": of([["1.2.a"], ["2"]]),
    "knowledge-uid-with-other-digit": of([["1.٢"], ["2"]]),
    "knowledge-uid-bin": of([[b"1.2"], ["2"]]),
    "knowledge-uids-str": of(["1.2", ["2"]]),
    "knowledge-without-texts": KNOWLEDGE_[:-2],
    "knowledge-without-character-set": KNOWLEDGE_[:-1],
    "knowledge-field-more": [*KNOWLEDGE_, ""],
    "knowledge-issuer-of-65": changed(KNOWLEDGE_, 7, "~" * 65),
    "knowledge-issuer-of-two": changed(KNOWLEDGE_, 7, "NORTH\\SOUTH"),
    "knowledge-issuer-with-newline": changed(KNOWLEDGE_, 7, "NORTH\n"),
    "knowledge-issuer-beyond-ascii": changed(KNOWLEDGE_, 7, "Süd"),
    "knowledge-issuer-bin": changed(KNOWLEDGE_, 7, b"NORTH"),
    "knowledge-issuer-nil": changed(KNOWLEDGE_, 7, None),
    "knowledge-character-set-of-129": changed(KNOWLEDGE_, 8, "~" * 129),
    "knowledge-character-set-with-del": changed(KNOWLEDGE_, 8, "\x7f"),
    "knowledge-character-set-beyond-ascii": changed(KNOWLEDGE_, 8, "é"),
    "knowledge-character-set-array": changed(KNOWLEDGE_, 8, ["ISO_IR 100"]),
}


def note(name: str, payload: bytes, message: Message | None, remark: str = "") -> None:
    if message is None:
        put(f"note-{name}", "note", "refused", [("note", payload)], remark)
        return
    packed = notes.encode(message).payload
    number = message.LEADING[0]
    lines = [("note", payload), ("number", number), ("packed", packed)]
    put(f"note-{name}", "note", "success", lines, remark)


def generate() -> None:
    for name, message in GOOD.items():
        note(name, notes.encode(message).payload, message)
    for name, values in REFUSED.items():
        note(name, msgpack.packb(values), None)
    item = notes.encode(ITEM).payload
    note("long-formats", long_format(ITEM_), ITEM, "Each value in its longest format.")
    note("nothing", b"", None)
    note("trailing-bytes", item + b"\0", None)
    note("cut", item[:-1], None)
    note("array-cut", item[:1], None)
    note("not-msgpack", b"\xc1" + item[1:], None)
    note("extension", b"\xc7\0\0", None)
    note("array-length-lies", flipped(item, 0), None, "The array says 5 elements.")
    words = msgpack.packb(ENDED_)[:-1] + b"\xa1\xff"
    note("ended-words-not-utf-8", words, None)
    over = long_format(ITEM_) + bytes(128 + 1 - len(long_format(ITEM_)))
    note("item-over-limit", over, None, "129 bytes; those behind the array are zeros.")
