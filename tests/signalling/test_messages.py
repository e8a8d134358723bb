"""The messages: each comes back as it was, each field has its bound, and nothing else gets in."""

from typing import Any

import attrs
import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.errors import SignallingError
from relay.signalling import messages
from relay.signalling.messages import (
    MAXIMUM_ANSWER,
    MAXIMUM_BUNDLED,
    MAXIMUM_DIRECTORY_PART,
    MAXIMUM_GRANTED,
    MAXIMUM_IN_LINE,
    MAXIMUM_LISTED,
    MAXIMUM_MESSAGE,
    MAXIMUM_OPENING,
    MAXIMUM_PRESENT,
    MAXIMUM_PUBLICATIONS,
    MAXIMUM_REQUEST,
    MAXIMUM_SESSIONS,
    MAXIMUM_SLOTS,
    MAXIMUM_STATEMENT,
    MAXIMUM_URL,
    Ahead,
    AheadURLs,
    Announce,
    Answer,
    Ask,
    Authenticate,
    Direction,
    Directory,
    Done,
    End,
    Granted,
    Grants,
    Held,
    Hello,
    InLine,
    Listing,
    Look,
    Message,
    Open,
    Ping,
    Pong,
    Present,
    Progress,
    Publish,
    PublishKey,
    Refuse,
    Resign,
    Resigned,
    Seek,
    Slots,
    SlotURLs,
    Welcome,
    Withdraw,
    decode,
    encode,
)

UNSIGNED = 2**63 - 1


# --- what each field may hold -------------------------------------------------------------------


@attrs.frozen
class Field:
    """A field's strategy, values at its bound, and values beyond it."""

    values: st.SearchStrategy[Any]
    at_bound: tuple[Any, ...]
    beyond: tuple[Any, ...]


def octets(exactly: int) -> Field:
    wrong = (b"", bytes(exactly - 1), bytes(exactly + 1), "x" * exactly, None, 0, [0] * exactly)
    return Field(st.binary(min_size=exactly, max_size=exactly), (bytes(exactly),), wrong)


def octets_up_to(most: int) -> Field:
    wrong: tuple[Any, ...] = (bytes(most + 1), "", None, 0, [])
    return Field(st.binary(max_size=min(most, 300)), (b"", bytes(most)), wrong)


def unsigned(most: int = UNSIGNED) -> Field:
    wrong = (-1, most + 1, True, 1.0, "1", b"1", None, [1])
    return Field(st.integers(0, most), (0, most), wrong)


def text(most: int) -> Field:
    wrong = ("x" * (most + 1), b"x", None, 1)
    return Field(st.text(max_size=most), ("", "é" * most), wrong)


FLAG = Field(st.booleans(), (True, False), (0, 1, None, "true", b"\1"))


def rows(row: Field, most: int, *, full: bool = True) -> Field:
    """A list of rows; each wrong row is also wrong inside the list."""
    one = row.at_bound[0]
    wrong: tuple[Any, ...] = (
        (one,) * (most + 1),
        one,
        None,
        0,
        {},
        *((one, bad) for bad in row.beyond),
    )
    # An empty list is one, whatever its elements would be.
    wrong = tuple(value for value in wrong if value not in ((), []))
    at_bound = ((), (one,) * most) if full else ((), (one,))
    return Field(st.lists(row.values, max_size=min(most, 5)).map(tuple), at_bound, wrong)


def record(*fields: Field) -> Field:
    """A row of fields: wrong if one is, or if one is missing or too many."""
    good = tuple(field.at_bound[-1] for field in fields)
    wrong = [good[:-1], (*good, 0), None, 0]
    for index, field in enumerate(fields):
        wrong += [(*good[:index], bad, *good[index + 1 :]) for bad in field.beyond]
    return Field(st.tuples(*(field.values for field in fields)), (good,), tuple(wrong))


SIGNED = record(text(8), text(MAXIMUM_URL), rows(record(text(64), text(1024)), 8), unsigned())
COUNTS = record(*[unsigned()] * 5)
SESSION, ROUTER, NONCE, SIGNATURE = octets(16), octets(32), octets(32), octets(64)
STATEMENT = octets_up_to(MAXIMUM_STATEMENT)
REQUEST = unsigned()

FIELDS: dict[type[Message], dict[str, Field]] = {
    Hello: {"version": unsigned(2**16), "network": SESSION, "bridge": ROUTER, "nonce": NONCE},
    Authenticate: {"router": ROUTER, "nonce": NONCE, "signature": SIGNATURE},
    Welcome: {"signature": SIGNATURE, "time": unsigned()},
    Ping: {"sequence": unsigned()},
    Pong: {"sequence": unsigned()},
    PublishKey: {"request": REQUEST, "statement": STATEMENT},
    Publish: {
        "request": REQUEST,
        "statements": rows(octets_up_to(MAXIMUM_STATEMENT), MAXIMUM_PUBLICATIONS),
    },
    Grants: {
        "request": REQUEST,
        "rows": rows(record(ROUTER, text(16), rows(text(80), 64)), 4096, full=False),
    },
    Done: {"request": REQUEST, "refusals": rows(text(512), MAXIMUM_PUBLICATIONS)},
    Directory: {
        "whole": FLAG,
        "routers": rows(
            record(ROUTER, text(64), STATEMENT, FLAG), MAXIMUM_DIRECTORY_PART, full=False
        ),
        "publications": rows(STATEMENT, MAXIMUM_DIRECTORY_PART),
        "gone_routers": rows(ROUTER, MAXIMUM_DIRECTORY_PART),
        "gone_titles": rows(text(16), MAXIMUM_DIRECTORY_PART),
    },
    Held: {"sessions": rows(SESSION, MAXIMUM_SESSIONS)},
    Granted: {
        "rows": rows(record(ROUTER, text(16), rows(text(80), 64)), MAXIMUM_GRANTED, full=False),
        "left_out": unsigned(),
    },
    Listing: {
        "whole": FLAG,
        "routers": rows(
            record(
                ROUTER,
                text(64),
                rows(record(text(16), rows(text(80), 64)), MAXIMUM_PUBLICATIONS, full=False),
            ),
            MAXIMUM_LISTED,
            full=False,
        ),
    },
    Seek: {"request": REQUEST, "ae_title": text(16)},
    Look: {"request": REQUEST},
    Present: {"request": REQUEST, "routers": rows(ROUTER, MAXIMUM_PRESENT)},
    Ask: {"request": REQUEST, "router": ROUTER, "sealed": octets_up_to(8192)},
    Open: {
        "session": SESSION,
        "router": ROUTER,
        "called": text(16),
        "opening": octets_up_to(MAXIMUM_OPENING),
        "request": octets_up_to(MAXIMUM_REQUEST),
    },
    Answer: {"session": SESSION, "answer": octets_up_to(MAXIMUM_ANSWER)},
    Refuse: {"session": SESSION, "refusal": octets_up_to(256)},
    Withdraw: {"session": SESSION, "withdrawal": octets_up_to(256)},
    InLine: {"session": SESSION, "chunk": unsigned(), "sealed": octets_up_to(MAXIMUM_IN_LINE)},
    Announce: {
        "session": SESSION,
        "chunk": unsigned(),
        "count": unsigned(MAXIMUM_BUNDLED),
        "slot": unsigned(),
        "size": unsigned(64 * 1024 * 1024),
        "get": rows(SIGNED, 1),
        "delete": rows(SIGNED, 1),
    },
    Progress: {"session": SESSION, "outward": COUNTS, "inward": COUNTS, "slots": unsigned()},
    Slots: {
        "request": REQUEST,
        "session": SESSION,
        "first": unsigned(),
        "count": unsigned(MAXIMUM_SLOTS),
    },
    SlotURLs: {
        "request": REQUEST,
        "session": SESSION,
        "first": unsigned(),
        "puts": rows(SIGNED, MAXIMUM_SLOTS),
    },
    Resign: {"request": REQUEST, "session": SESSION, "slot": unsigned()},
    Resigned: {
        "request": REQUEST,
        "session": SESSION,
        "get": rows(SIGNED, 1),
        "delete": rows(SIGNED, 1),
    },
    End: {"session": SESSION, "reason": unsigned(255)},
    Ahead: {
        "request": REQUEST,
        "session": SESSION,
        "first": unsigned(),
        "count": unsigned(MAXIMUM_SLOTS),
    },
    AheadURLs: {
        "request": REQUEST,
        "session": SESSION,
        "first": unsigned(),
        "gets": rows(SIGNED, MAXIMUM_SLOTS),
        "deletes": rows(SIGNED, MAXIMUM_SLOTS),
    },
}

EVERY = sorted(FIELDS, key=lambda cls: cls.number)
MESSAGES = st.one_of(
    *(
        st.builds(cls, **{name: field.values for name, field in fields.items()})
        for cls, fields in FIELDS.items()
    )
)


def frame(cls: type[Message], **replaced: Any) -> bytes:
    """A frame whose fields are right but for those replaced."""
    values = {name: field.at_bound[0] for name, field in FIELDS[cls].items()} | replaced
    packed: bytes = msgpack.packb((cls.number, *values.values()))
    return packed


# --- tests --------------------------------------------------------------------------------------


def test_the_table_names_every_message_and_field() -> None:
    every = {
        cls
        for cls in vars(messages).values()
        if isinstance(cls, type) and issubclass(cls, Message) and cls is not Message
    }
    assert every == set(FIELDS)
    for cls, fields in FIELDS.items():
        assert list(fields) == [field.name for field in attrs.fields(cls)]  # type: ignore[arg-type]


def test_numbers_stay_what_they_are() -> None:
    """They are the wire: a changed number is another protocol version."""
    assert {cls.__name__: cls.number for cls in EVERY} == {
        "Hello": 1,
        "Authenticate": 2,
        "Welcome": 3,
        "Ping": 4,
        "Pong": 5,
        "PublishKey": 10,
        "Publish": 11,
        "Grants": 12,
        "Done": 13,
        "Directory": 14,
        "Listing": 18,
        "Seek": 19,
        "Look": 34,
        "Present": 35,
        "Held": 15,
        "Ask": 16,
        "Granted": 17,
        "Open": 20,
        "Answer": 21,
        "Refuse": 22,
        "Withdraw": 23,
        "InLine": 24,
        "Announce": 25,
        "Progress": 26,
        "Slots": 27,
        "SlotURLs": 28,
        "Resign": 29,
        "Resigned": 30,
        "End": 31,
        "Ahead": 32,
        "AheadURLs": 33,
    }


@given(MESSAGES)
def test_what_is_encoded_comes_back(message: Message) -> None:
    encoded = encode(message)
    assert decode(encoded) == message
    assert encode(decode(encoded)) == encoded


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_every_field_is_taken_up_to_its_bound(cls: type[Message]) -> None:
    for name, field in FIELDS[cls].items():
        for value in field.at_bound:
            data = frame(cls, **{name: value})
            if len(data) <= MAXIMUM_MESSAGE:
                assert getattr(decode(data), name) == value


@pytest.mark.parametrize(
    ("cls", "name"),
    [(cls, name) for cls in EVERY for name in FIELDS[cls]],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
def test_every_field_is_refused_beyond_its_bound_by_name(cls: type[Message], name: str) -> None:
    for value in FIELDS[cls][name].beyond:
        try:
            data = frame(cls, **{name: value})
        except OverflowError:  # msgpack itself has no integers beyond 64 bits
            continue
        if len(data) <= MAXIMUM_MESSAGE:
            expected = f"^{cls.__name__}: field {name} is out of bounds$"
        else:
            expected = "bytes; at most"
        with pytest.raises(SignallingError, match=expected):
            decode(data)


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_a_field_too_many_or_too_few_is_refused(cls: type[Message]) -> None:
    parts = msgpack.unpackb(frame(cls), use_list=False)
    for wrong in ((*parts, 0), parts[:-1], parts[:1]):
        with pytest.raises(SignallingError, match=f"^{cls.__name__}: .* fields, not"):
            decode(msgpack.packb(wrong))


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_a_frame_cut_short_or_with_more_behind_it_is_refused(cls: type[Message]) -> None:
    data = frame(cls)
    for wrong in [data[:cut] for cut in range(len(data))] + [data + b"\0", data + data]:
        with pytest.raises(SignallingError):
            decode(wrong)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not msgpack"),
        (b"\xc1", "not msgpack"),
        (b"\x80", "not an array"),
        (b"\x90", "not an array"),
        (b"\x91\xc3", "not an array"),  # true is no number
        (b"\x91\xa14", "not an array"),
        (b"\x91\x63", "unknown message number 99"),
        (b"\x91\xff", "unknown message number -1"),
        (b"\xdd\xff\xff\xff\xff", "not msgpack"),  # an array of 2^32 - 1 elements
        (b"\xc6\xff\xff\xff\xff", "not msgpack"),  # 4 GiB of octets
        (b"\x92\x04\xd4\x01\x00", "not msgpack"),  # an extension type
        (b"\x92\x04\xa1\xff", "not msgpack"),  # text that is not UTF-8
        (b"\x91" * 2000 + b"\x04", "not msgpack"),  # deep
        (b"GET /v1/signal HTTP/1.1\r\n\r\n", "not msgpack"),
        (bytes(MAXIMUM_MESSAGE + 1), "bytes; at most"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(SignallingError, match=words):
        decode(data)


@given(st.binary(max_size=200))
@example(b"\x91\x04")
def test_fuzz_bytes(data: bytes) -> None:
    only_signalling_errors(data)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=70)
    | st.text(max_size=20)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@given(st.sampled_from(EVERY), st.data())
def test_fuzz_fields(cls: type[Message], data: st.DataObject) -> None:
    """Any msgpack values in place of some fields of a real message."""
    replaced = data.draw(st.dictionaries(st.sampled_from(list(FIELDS[cls])), ANYTHING))
    only_signalling_errors(frame(cls, **replaced))


@given(MESSAGES, st.data())
def test_fuzz_flipped_bytes(message: Message, data: st.DataObject) -> None:
    encoded = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    only_signalling_errors(bytes(encoded))


def only_signalling_errors(data: bytes) -> None:
    try:
        message = decode(data)
    except SignallingError:
        return
    assert decode(encode(message)) == message


def test_the_largest_of_each_kind_that_is_sent_fits() -> None:
    urls = ("PUT", "u" * MAXIMUM_URL, (("n" * 64, "v" * 1024),) * 8, 2**40)
    assert len(encode(SlotURLs(1, bytes(16), 0, (urls,) * MAXIMUM_SLOTS))) <= MAXIMUM_MESSAGE
    largest = Open(bytes(16), bytes(32), "x" * 16, bytes(MAXIMUM_OPENING), bytes(MAXIMUM_REQUEST))
    assert len(encode(largest)) <= MAXIMUM_MESSAGE
    assert len(encode(Held((bytes(16),) * MAXIMUM_SESSIONS))) <= MAXIMUM_MESSAGE


def test_directions_are_each_others_other() -> None:
    assert Direction.CALLER_TO_CALLEE.other is Direction.CALLEE_TO_CALLER
    assert Direction.CALLEE_TO_CALLER.other is Direction.CALLER_TO_CALLEE
