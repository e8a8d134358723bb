"""Notes: what two Routers say to one another in a delivery or a knowledge session.

    near Router                                          far Router
      |                                 A-ASSOCIATE-AC     |   delivery: the device's own answer
      | Question ----------------------------------------> |   of what was sent before
      | <--------------------------------------- Answers   |
      | Item, then its C-STORE-RQ -----------------------> |   as many as the near Router has
      | <---------------------------------------- Result   |   each once the far side has it durably
      | Forget ------------------------------------------> |   the near side has the results durably
      | <----------------------------- Ended, if aborted   |
      | <-------------------------------------- Knowledge  |   knowledge: this, and nothing else

Each is a msgpack array that begins with its number (PROTOCOL.md §10.1); what does not fit its
bounds is refused before anybody looks at it. The order in which they come is their session's
(PROTOCOL.md §10.3, §10.4), and not judged here.
"""

import re
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

import attrs
import msgpack

from relay.dicom.pdu import is_uid
from relay.digest import is_digest
from relay.errors import IdentityError, LocalProtocolError, RemoteProtocolError
from relay.packed import Packed, bounded, octets, unsigned
from relay.tunnel.records import MAXIMUM_NOTE, Note

ID_LENGTH = 16  # bytes of an item's id: 128 random bits, so that no two Routers draw the same
# Rows of one Question, its Answers, or one Forget: with the longest comments they still fit a note,
# and the far side's disk answers that many in well under a second.
MAXIMUM_ROWS = 1024
# Bytes of an object: whatever a column of the queue's database holds.
MAXIMUM_LENGTH = 2**63 - 1
MAXIMUM_STATUS = 0xFFFF  # (0000,0900) is US (PS3.7 §C)
MAXIMUM_COMMENT = 64  # (0000,0902) is LO: 64 characters (PS3.5 §6.2)
MAXIMUM_WORDS = 200  # a line of a log
MAXIMUM_ABORT = 255  # source and reason of an A-ABORT have a byte each (PS3.8 §9.3.8)
# Seconds that knowledge may be held: a device that nobody has asked for a year is another one.
MAXIMUM_LIFETIME = 366 * 86400
MAXIMUM_SPLIT = 255  # associations at once, far more than a PACS takes from one peer
MAXIMUM_WINDOW = 0xFFFF  # operations invoked: 2 bytes, 0 is without a limit (PS3.7 §D.3.3.3)
MAXIMUM_ISSUER = 64  # (0010,0021) is LO: 64 characters (PS3.5 §6.2)
# All values of (0008,0005) with their backslashes: seven of the longest terms.
MAXIMUM_CHARACTER_SET = 128
# Of one device. The standard has some 200 storage SOP classes and 50 transfer syntaxes; the rest is
# for private ones. All pairs together bound what a reader makes of a note of one-digit UIDs.
MAXIMUM_SOP_CLASSES = 512
MAXIMUM_TRANSFER_SYNTAXES = 64
MAXIMUM_PAIRS = MAXIMUM_SOP_CLASSES * MAXIMUM_TRANSFER_SYNTAXES

_NOT_PLAIN = re.compile("[^ -~]")

# Bytes of a note whose arrays and integers all come in msgpack's longest format.
_ITEM_LIMIT = 128
_QUESTION_LIMIT = 65 * 1024
_ANSWERS_LIMIT = MAXIMUM_NOTE
_RESULT_LIMIT = 128
_FORGET_LIMIT = 24 * 1024
_ENDED_LIMIT = 256


class Outcome(IntEnum):
    """What became of an item at the far side."""

    ANSWERED = 0  # the device did: the status is that of its C-STORE-RSP
    CONFLICT = 1  # this id was another object's before
    CHANGED = 2  # what arrived has another digest or length; the device never got it whole
    REFUSED = 3  # the far Router did not let the command pass, with this status


class EndedBy(IntEnum):
    """Who ended the device's association."""

    DEVICE = 0
    ROUTER = 1  # the far one, for what its words say


class Asked(NamedTuple):
    """A row of a Question."""

    id: bytes
    digest: bytes


class Answer(NamedTuple):
    """A row of Answers: what a Result would say."""

    id: bytes
    outcome: Outcome
    status: int
    comment: str


class Group(NamedTuple):
    """A row of Knowledge: each of these SOP classes is taken in each of these syntaxes."""

    sop_classes: tuple[str, ...]
    transfer_syntaxes: tuple[str, ...]


def plain(text: str, at_most: int) -> str:
    """`text` as a note carries it: cut, with "?" for all but the characters 20H to 7EH.

    A device's comment goes through a log and onto a terminal at the other side.
    """
    return _NOT_PLAIN.sub("?", text[:at_most])


# --- checks -------------------------------------------------------------------------------------


def _is_octets(value: Any, length: int) -> bool:
    return type(value) is bytes and len(value) == length


def _is_digest(value: Any) -> bool:
    return type(value) is bytes and is_digest(value)


def _is_unsigned(value: Any, at_most: int) -> bool:
    return type(value) is int and 0 <= value <= at_most


def _is_plain(value: Any, at_most: int) -> bool:
    return type(value) is str and len(value) <= at_most and _NOT_PLAIN.search(value) is None


def _is_one_of(value: Any, kind: type[IntEnum]) -> bool:
    return type(value) in (int, kind) and value in frozenset(kind)


def _is_rows(value: Any, length: int, at_most: int = MAXIMUM_ROWS) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) <= at_most
        and all(isinstance(row, tuple) and len(row) == length for row in value)
    )


def _is_asked(value: Any) -> bool:
    return _is_rows(value, 2) and all(
        _is_octets(id_, ID_LENGTH) and _is_digest(digest) for id_, digest in value
    )


def _is_answers(value: Any) -> bool:
    return _is_rows(value, 4) and all(
        _is_octets(id_, ID_LENGTH)
        and _is_one_of(outcome, Outcome)
        and _is_unsigned(status, MAXIMUM_STATUS)
        and _is_plain(comment, MAXIMUM_COMMENT)
        for id_, outcome, status, comment in value
    )


def _is_ids(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) <= MAXIMUM_ROWS
        and all(_is_octets(id_, ID_LENGTH) for id_ in value)
    )


def _is_uids(value: Any, at_most: int) -> bool:
    return (
        isinstance(value, tuple)
        and 0 < len(value) <= at_most
        and all(type(uid) is str and is_uid(uid) for uid in value)
    )


def _is_groups(value: Any) -> bool:
    return (
        _is_rows(value, 2, MAXIMUM_SOP_CLASSES)
        and all(
            _is_uids(classes, MAXIMUM_SOP_CLASSES) and _is_uids(syntaxes, MAXIMUM_TRANSFER_SYNTAXES)
            for classes, syntaxes in value
        )
        and sum(len(classes) * len(syntaxes) for classes, syntaxes in value) <= MAXIMUM_PAIRS
    )


def _text(at_most: int) -> Any:
    """Made to fit when a note is made: what a device says must not end a session."""
    return bounded(
        lambda v: _is_plain(v, at_most), converter=lambda v: plain(v, at_most), repr=False
    )


# --- the notes ----------------------------------------------------------------------------------


@attrs.frozen(slots=True)
class Item(Packed):
    """Near to far: an item, whose C-STORE-RQ follows. `length` is that of its data set."""

    WHAT = "item"
    LIMIT = _ITEM_LIMIT
    LEADING = (1,)
    id: bytes = octets(ID_LENGTH)
    digest: bytes = bounded(_is_digest)
    length: int = unsigned(MAXIMUM_LENGTH)


@attrs.frozen(slots=True)
class Question(Packed):
    """Near to far: which of these, that were attempted before, have a receipt?"""

    WHAT = "question"
    LIMIT = _QUESTION_LIMIT
    LEADING = (2,)
    rows: tuple[Asked, ...] = bounded(
        _is_asked, converter=lambda rows: tuple(Asked(*row) for row in rows)
    )


def _answers(rows: Iterable[tuple[bytes, int, int, str]]) -> tuple[Answer, ...]:
    return tuple(
        Answer(id_, Outcome(outcome), status, plain(comment, MAXIMUM_COMMENT))
        for id_, outcome, status, comment in rows
    )


@attrs.frozen(slots=True)
class Answers(Packed):
    """Far to near: those of the Question that have a receipt, maybe none."""

    WHAT = "answers"
    LIMIT = _ANSWERS_LIMIT
    LEADING = (3,)
    rows: tuple[Answer, ...] = bounded(_is_answers, converter=_answers)


@attrs.frozen(slots=True)
class Result(Packed):
    """Far to near, once it is durable there: what became of an item."""

    WHAT = "result"
    LIMIT = _RESULT_LIMIT
    LEADING = (4,)
    id: bytes = octets(ID_LENGTH)
    outcome: Outcome = bounded(lambda v: _is_one_of(v, Outcome), converter=Outcome)  # noqa: RUF009
    status: int = unsigned(MAXIMUM_STATUS)
    comment: str = _text(MAXIMUM_COMMENT)


@attrs.frozen(slots=True)
class Forget(Packed):
    """Near to far: what became of these is durable here, their receipts need not be kept."""

    WHAT = "forget"
    LIMIT = _FORGET_LIMIT
    LEADING = (5,)
    ids: tuple[bytes, ...] = bounded(_is_ids, converter=tuple)


@attrs.frozen(slots=True)
class Ended(Packed):
    """Far to near: the device's association was aborted, with these of PS3.8 §9.3.8, and why."""

    WHAT = "ended"
    LIMIT = _ENDED_LIMIT
    LEADING = (6,)
    by: EndedBy = bounded(lambda v: _is_one_of(v, EndedBy), converter=EndedBy)  # noqa: RUF009
    source: int = unsigned(MAXIMUM_ABORT)
    reason: int = unsigned(MAXIMUM_ABORT)
    words: str = _text(MAXIMUM_WORDS)


@attrs.frozen(slots=True)
class Knowledge(Packed):
    """Far to near: what the device takes. `lifetime` is in seconds from when it is received.

    `split` associations at once, `window` operations in each; `commitment` is 1 where it answers
    Storage Commitment. `issuer` is the Issuer of Patient ID (0010,0021) of all its patients, and
    `character_set` the Specific Character Set (0008,0005) of the queries that it understands;
    empty: its owner says nothing of it.
    """

    WHAT = "knowledge"
    LIMIT = MAXIMUM_NOTE
    LEADING = (7,)
    serial: int = unsigned()
    lifetime: int = unsigned(MAXIMUM_LIFETIME)
    split: int = bounded(lambda v: _is_unsigned(v, MAXIMUM_SPLIT) and v > 0)
    window: int = unsigned(MAXIMUM_WINDOW)
    commitment: int = bounded(lambda v: _is_unsigned(v, 1), converter=int)
    groups: tuple[Group, ...] = bounded(
        _is_groups, converter=lambda groups: tuple(Group(*map(tuple, group)) for group in groups)
    )
    # Never made to fit: another issuer or character set would be meant.
    issuer: str = bounded(
        lambda v: _is_plain(v, MAXIMUM_ISSUER) and "\\" not in v, default="", repr=False
    )
    character_set: str = bounded(
        lambda v: _is_plain(v, MAXIMUM_CHARACTER_SET), default="", repr=False
    )


Message: TypeAlias = Item | Question | Answers | Result | Forget | Ended | Knowledge

_KINDS: dict[int, type[Message]] = {
    kind.LEADING[0]: kind for kind in (Item, Question, Answers, Result, Forget, Ended, Knowledge)
}


def encode(message: Message) -> Note:
    """The note that says `message`. Raises LocalProtocolError if a field is out of bounds."""
    try:
        return Note(message.pack())
    except IdentityError as error:
        raise LocalProtocolError(str(error)) from None


def decode(note: Note) -> Message:
    """What `note` says.

    Raises RemoteProtocolError, naming the field that is out of bounds.
    """
    kind = _KINDS.get(_number(note.payload))
    if kind is None:
        raise RemoteProtocolError("note of a kind that is not known here")
    try:
        return kind.unpack(note.payload)
    except IdentityError as error:
        raise RemoteProtocolError(f"note: {error}") from None


def _number(payload: bytes) -> int:
    """The number that the array begins with; the rest is not looked at yet. -1: there is none."""
    unpacker = msgpack.Unpacker(max_ext_len=0, max_buffer_size=MAXIMUM_NOTE)
    try:
        unpacker.feed(payload)
        if unpacker.read_array_header() == 0:
            return -1
        number = unpacker.unpack()
    except (ValueError, msgpack.OutOfData, msgpack.BufferFull):
        return -1
    return number if type(number) is int else -1
