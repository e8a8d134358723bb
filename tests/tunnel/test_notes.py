"""relay.tunnel.notes, against the vectors, and what may be in a note."""

import random

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import LocalProtocolError, RemoteProtocolError
from relay.tunnel.notes import (
    ID_LENGTH,
    MAXIMUM_COMMENT,
    MAXIMUM_LENGTH,
    MAXIMUM_LIFETIME,
    MAXIMUM_ROWS,
    MAXIMUM_SOP_CLASSES,
    MAXIMUM_TRANSFER_SYNTAXES,
    MAXIMUM_WORDS,
    Answer,
    Answers,
    Asked,
    Ended,
    EndedBy,
    Forget,
    Group,
    Item,
    Knowledge,
    Message,
    Outcome,
    Question,
    Result,
    decode,
    encode,
    plain,
)
from relay.tunnel.records import MAXIMUM_NOTE, Note
from tests.vectors.making import long_format
from tests.vectors.reading import Vector, vectors

ID, HASH = b"i" * ID_LENGTH, b"h" * 32

IDS = st.binary(min_size=ID_LENGTH, max_size=ID_LENGTH)
HASHES = st.binary(min_size=32, max_size=32).flatmap(
    lambda made: st.sampled_from((made, b"\x01" + made))
)
STATUSES = st.integers(0, 0xFFFF)
PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
COMMENTS = st.text(PRINTABLE, max_size=MAXIMUM_COMMENT)
OUTCOMES = st.sampled_from(Outcome)
UIDS = st.text("0123456789.", min_size=1, max_size=64)
SOME_UIDS = st.lists(UIDS, min_size=1, max_size=5)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Item, IDS, HASHES, st.integers(0, MAXIMUM_LENGTH)),
    st.builds(Question, st.lists(st.tuples(IDS, HASHES), max_size=5)),
    st.builds(Answers, st.lists(st.tuples(IDS, OUTCOMES, STATUSES, COMMENTS), max_size=5)),
    st.builds(Result, IDS, OUTCOMES, STATUSES, COMMENTS),
    st.builds(Forget, st.lists(IDS, max_size=5)),
    st.builds(
        Ended,
        st.sampled_from(EndedBy),
        st.integers(0, 255),
        st.integers(0, 255),
        st.text(PRINTABLE, max_size=MAXIMUM_WORDS),
    ),
    st.builds(
        Knowledge,
        st.integers(0, 2**63 - 1),
        st.integers(0, MAXIMUM_LIFETIME),
        st.integers(1, 255),
        st.integers(0, 0xFFFF),
        st.booleans(),
        st.lists(st.tuples(SOME_UIDS, SOME_UIDS), max_size=5),
    ),
)


@pytest.mark.parametrize("vector", vectors("note"), ids=str)
def test_note_vector(vector: Vector) -> None:
    note = Note(vector.octets("note"))
    if not vector.succeeds:
        with pytest.raises(RemoteProtocolError):
            decode(note)
        return
    message = decode(note)
    assert message.LEADING[0] == vector.number("number")
    assert encode(message).payload == vector.octets("packed")


@given(MESSAGES)
def test_round_trip(message: Message) -> None:
    assert decode(encode(message)) == message


def read_or_refused(payload: bytes) -> None:
    try:
        message = decode(Note(payload))
    except RemoteProtocolError:
        return
    assert decode(encode(message)) == message


@given(st.binary(max_size=200))
def test_decode_survives_anything(payload: bytes) -> None:
    read_or_refused(payload)


@given(MESSAGES, st.integers(0, 255), st.data())
def test_a_changed_byte_is_read_or_refused(
    message: Message, value: int, data: st.DataObject
) -> None:
    payload = bytearray(encode(message).payload)
    payload[data.draw(st.integers(0, len(payload) - 1))] = value
    read_or_refused(bytes(payload))


@pytest.mark.parametrize("depth", [100, 10_000, MAXIMUM_NOTE])
def test_arrays_in_arrays_are_refused(depth: int) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(Note(b"\x91" * depth))
    with pytest.raises(RemoteProtocolError):
        decode(Note(b"\x92\x05" + b"\x91" * (depth - 2)))


def test_rows_have_names() -> None:
    question = decode(encode(Question([(ID, HASH)])))
    assert question == Question((Asked(ID, HASH),))
    assert question.rows[0].digest == HASH
    answers = decode(encode(Answers([(ID, 1, 0x0110, "no")])))
    assert answers.rows == (Answer(ID, Outcome.CONFLICT, 0x0110, "no"),)
    assert answers.rows[0].outcome is Outcome.CONFLICT
    result = decode(encode(Result(ID, 2, 0, "")))
    assert result.outcome is Outcome.CHANGED
    ended = decode(encode(Ended(1, 2, 0, "")))
    assert ended.by is EndedBy.ROUTER
    knowledge = decode(encode(Knowledge(1, 1, 1, 1, True, [(["1.2"], ["1.3"])])))
    assert knowledge.groups == (Group(("1.2",), ("1.3",)),)
    assert knowledge.commitment == 1
    assert (knowledge.issuer, knowledge.character_set) == ("", "")


def longest() -> list[Message]:
    """One of each kind of which nothing longer can be, but of a Knowledge."""
    rows = range(MAXIMUM_ROWS)
    return [
        Item(ID, b"\x01" + HASH, MAXIMUM_LENGTH),
        Question([(ID, b"\x01" + HASH) for _ in rows]),
        Answers([(ID, 3, 0xFFFF, "~" * MAXIMUM_COMMENT) for _ in rows]),
        Result(ID, 3, 0xFFFF, "~" * MAXIMUM_COMMENT),
        Forget([ID for _ in rows]),
        Ended(1, 255, 255, "~" * MAXIMUM_WORDS),
    ]


@pytest.mark.parametrize("message", longest(), ids=lambda message: message.WHAT)
def test_the_longest_fits_also_in_the_longest_formats(message: Message) -> None:
    payload = long_format(msgpack.unpackb(encode(message).payload))
    assert len(payload) <= message.LIMIT <= MAXIMUM_NOTE
    assert decode(Note(payload)) == message


@pytest.mark.parametrize(
    ("sop_classes", "syntaxes", "length"),
    [(200, 40, 64), (MAXIMUM_SOP_CLASSES, MAXIMUM_TRANSFER_SYNTAXES, 64)],
)
def test_a_device_that_takes_all_syntaxes_of_all_classes(
    sop_classes: int, syntaxes: int, length: int
) -> None:
    group = (
        [f"1.2.840.{n}".ljust(length, "1") for n in range(sop_classes)],
        [f"1.2.841.{n}".ljust(length, "1") for n in range(syntaxes)],
    )
    knowledge = Knowledge(1, 86_400, 1, 1, 0, [group])
    assert decode(encode(knowledge)) == knowledge


def test_a_device_that_takes_others_of_each_class() -> None:
    """200 SOP classes and 40 transfer syntaxes as long as DICOM's own, in 200 different sets."""
    rng = random.Random(1)
    syntaxes = [f"1.2.840.10008.1.2.4.{n}" for n in range(100, 140)]
    groups = [([f"1.2.840.10008.5.1.4.1.1.{n}"], rng.sample(syntaxes, 20)) for n in range(200)]
    knowledge = Knowledge(1, 86_400, 1, 1, 0, groups)
    assert decode(encode(knowledge)) == knowledge


def test_more_than_a_note_holds_is_not_sent() -> None:
    long = [("1" * 64,), tuple(f"{n}".ljust(64, "0") for n in range(10, 74))]
    with pytest.raises(LocalProtocolError, match=r"knowledge of \d+ bytes"):
        encode(Knowledge(1, 1, 1, 1, 0, [long] * 64))


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (Item(ID[:-1], HASH, 0), "id"),
        (Item(ID, HASH + b"\0", 0), "digest"),
        (Item(ID, b"\x02" + HASH, 0), "digest"),
        (Item(ID, HASH[1:], 0), "digest"),
        (Question([(ID, b"\x00" + HASH)]), "rows"),
        (Item(ID, HASH, MAXIMUM_LENGTH + 1), "length"),
        (Item(ID, HASH, True), "length"),
        (Question([(ID, HASH)] * (MAXIMUM_ROWS + 1)), "rows"),
        (Question([(HASH, ID)]), "rows"),
        (Answers([(ID, 0, 0, "")] * (MAXIMUM_ROWS + 1)), "rows"),
        (Answers([(ID, 0, 0x10000, "")]), "rows"),
        (Result(ID, 0, -1, ""), "status"),
        (Forget([ID] * (MAXIMUM_ROWS + 1)), "ids"),
        (Forget([HASH]), "ids"),
        (Ended(0, 256, 0, ""), "source"),
        (Ended(0, 0, -1, ""), "reason"),
        (Knowledge(-1, 1, 1, 1, 0, ()), "serial"),
        (Knowledge(1, MAXIMUM_LIFETIME + 1, 1, 1, 0, ()), "lifetime"),
        (Knowledge(1, 1, 0, 1, 0, ()), "split"),
        (Knowledge(1, 1, 1, -1, 0, ()), "window"),
        (Knowledge(1, 1, 1, 1, 2, ()), "commitment"),
        (Knowledge(1, 1, 1, 1, 0, [((), ("1",))]), "groups"),
        (Knowledge(1, 1, 1, 1, 0, [(("1.x",), ("1",))]), "groups"),
        (Knowledge(1, 1, 1, 1, 0, (), "Süd"), "issuer"),
        (Knowledge(1, 1, 1, 1, 0, (), "A\\B"), "issuer"),
        (Knowledge(1, 1, 1, 1, 0, (), "", "\n"), "character_set"),
    ],
    ids=str,
)
def test_what_is_out_of_bounds_is_not_sent(message: Message, field: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"field {field} is out of bounds"):
        encode(message)


def test_a_devices_comment_is_made_to_fit() -> None:
    """It may be anything, and no session ends by it."""
    comment = "Nicht genügend Platz\x1b[2J\n" + "x" * 100
    expected = "Nicht gen?gend Platz?[2J?" + "x" * 39
    assert plain(comment, MAXIMUM_COMMENT) == expected
    assert decode(encode(Result(ID, 0, 0xA700, comment))).comment == expected
    assert decode(encode(Answers([(ID, 0, 0, comment)]))).rows[0].comment == expected
    assert decode(encode(Ended(0, 2, 0, comment * 3))).words == plain(comment * 3, MAXIMUM_WORDS)
    assert decode(encode(Result(ID, 0, 0, "\ud800"))).comment == "?"


def test_what_a_device_says_is_in_no_log() -> None:
    for message in (Result(ID, 0, 0, "DOE^JANE"), Ended(0, 0, 0, "DOE^JANE")):
        assert "DOE" not in repr(message)
        assert "DOE" not in repr(encode(message))


def test_the_field_that_is_wrong_is_named() -> None:
    with pytest.raises(RemoteProtocolError, match="note: item: field digest is out of bounds"):
        decode(Note(msgpack.packb([1, ID, ID, 0])))
    with pytest.raises(RemoteProtocolError, match="of a kind that is not known"):
        decode(Note(msgpack.packb([8])))
