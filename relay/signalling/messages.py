"""The messages that Routers and the Bridge exchange over the WebSocket `/v1/signal`.

One class per message, one row per field, each with its bound: what does not fit is refused before
it is looked at. A message is one binary WebSocket frame: a msgpack array of the message's number
and then its fields in the order given here. Trailing fields that a newer peer may add are refused:
the version in `Hello` is what changes.

    Bridge                                   Router
      | Hello                                  |
      | ------------------------------------>  |
      |                         Authenticate   |
      | <------------------------------------  |
      | Welcome                                |
      | ------------------------------------>  |
      |           PublishKey, Publish, Grants  |   each answered by Done (same request number)
      | <------------------------------------  |
      | Listing (whole, then what changes)     |
      | Directory (whole, then what changes)   |
      | Granted (whole, after each change)     |
      | ------------------------------------>  |
      |                 Held (sessions I hold) |
      | <------------------------------------  |
      | Open ... Answer | Refuse | Withdraw    |   between two Routers, through the Bridge
      | Slots, Resign, Ahead                   |   a Router asks the Bridge for signed URLs
      | Seek, Look                             |   ... and for rows, for a person
      | Announce, InLine, Progress, End        |   between two Routers, through the Bridge
      | Ping, Pong                             |   both ways
"""

from collections.abc import Callable
from enum import IntEnum
from operator import attrgetter
from typing import Any, ClassVar, TypeVar, cast, dataclass_transform

import attrs
import msgpack

from relay.errors import SignallingError

PROTOCOL_VERSION = 1

# The largest message is an `Open` with a sealed A-ASSOCIATE-RQ of 128 KiB (DESIGN: an opening
# carries up to that much) and its keys; everything else is far smaller.
MAXIMUM_MESSAGE = 256 * 1024
MAXIMUM_REQUEST = 128 * 1024 + 16  # a sealed A-ASSOCIATE-RQ and its tag
MAXIMUM_OPENING = 4096  # as the tunnel takes them: an opening is 2.6 kB, an answer 1.3 kB
MAXIMUM_ANSWER = 2048
MAXIMUM_IN_LINE = 16 * 1024 + 64  # a small chunk's plaintext, its header and its tag
MAXIMUM_BUNDLED = 64  # chunks that are announced, and stored, together
MAXIMUM_URL = 4096
MAXIMUM_PUBLICATIONS = 512  # AE titles that one Router may publish
MAXIMUM_DIRECTORY_PART = 64  # rows in one Directory message, so that it fits MAXIMUM_MESSAGE
MAXIMUM_LISTED = 2048  # Routers in one Listing: of typical ones as many as fit MAXIMUM_MESSAGE
MAXIMUM_PRESENT = 4096  # Routers in Present: all that a Router remembers (its peers)
MAXIMUM_SERVICES = 64  # named for one AE title, as in a publication (relay.identity)
MAXIMUM_GRANTED = 2048  # rows in Granted: of typical ones as many as fit MAXIMUM_MESSAGE
MAXIMUM_SESSIONS = 1024  # sessions that one Router may hold at once
MAXIMUM_SLOTS = 16  # signed URLs in one Slots reply


class Direction(IntEnum):
    """A flow's direction, as the session's keys, slots and progress number them."""

    CALLER_TO_CALLEE = 0
    CALLEE_TO_CALLER = 1

    @property
    def other(self) -> "Direction":
        return Direction(1 - self)


class EndReason(IntEnum):
    """Why a session is no more."""

    FINISHED = 0
    CALLEE_OFFLINE = 1
    NOT_PUBLISHED = 2
    NOT_GRANTED = 3
    LIMIT_REACHED = 4
    REVOKED = 5
    UNKNOWN_SESSION = 6
    PEER_FORGOT = 7
    PROTOCOL_VIOLATION = 8
    EXPIRED = 9
    STORE_UNAVAILABLE = 10


Check = Callable[[Any], bool]


def _octets(exactly: int | None = None, at_most: int = 0) -> Any:
    if exactly is not None:
        return attrs.field(metadata={"check": lambda v: isinstance(v, bytes) and len(v) == exactly})
    return attrs.field(metadata={"check": lambda v: isinstance(v, bytes) and len(v) <= at_most})


def _unsigned(at_most: int = 2**63 - 1, default: Any = attrs.NOTHING) -> Any:
    return attrs.field(
        default=default,
        metadata={"check": lambda v: type(v) is int and 0 <= v <= at_most},
    )


def _text(at_most: int) -> Any:
    return attrs.field(metadata={"check": lambda v: isinstance(v, str) and len(v) <= at_most})


def _flag() -> Any:
    return attrs.field(metadata={"check": lambda v: isinstance(v, bool)})


def _rows(row: Check, at_most: int) -> Any:
    """A list of at most `at_most` rows that each pass `row`; a tuple on our side."""
    return attrs.field(
        converter=tuple,
        metadata={
            "check": lambda v: (
                isinstance(v, (list, tuple)) and len(v) <= at_most and all(row(r) for r in v)
            )
        },
    )


def _record(*checks: Check) -> Check:
    return lambda v: (
        isinstance(v, (list, tuple))
        and len(v) == len(checks)
        and all(check(part) for check, part in zip(checks, v, strict=True))
    )


def _is_octets(at_most: int, at_least: int = 0) -> Check:
    return lambda v: isinstance(v, bytes) and at_least <= len(v) <= at_most


def _is_text(at_most: int) -> Check:
    return lambda v: isinstance(v, str) and len(v) <= at_most


def _is_unsigned(v: Any) -> bool:
    return type(v) is int and 0 <= v < 2**63


def _is_flag(v: Any) -> bool:
    return isinstance(v, bool)


def _is_signed_request(v: Any) -> bool:
    """(method, url, headers, expires), as `relay.providers.SignedRequest` has them."""
    header = _record(_is_text(64), _is_text(1024))
    return _record(
        _is_text(8),
        _is_text(MAXIMUM_URL),
        lambda rows: isinstance(rows, (list, tuple)) and len(rows) <= 8 and all(map(header, rows)),
        _is_unsigned,
    )(v)


def _is_services(v: Any) -> bool:
    return isinstance(v, (list, tuple)) and len(v) <= MAXIMUM_SERVICES and all(map(_is_text(80), v))


# A signed statement (relay.identity.Signed): publication, HPKE key.
MAXIMUM_STATEMENT = 4096

# Class, and the name and bound of each field.
_MESSAGES: dict[int, tuple[type["Message"], tuple[str, ...], tuple[Check, ...]]] = {}
M = TypeVar("M", bound="Message")


class Message:
    """What all messages share. `number` is the first element of the msgpack array.

    `parts` gives it and the fields behind it. It is made once for each class, as the bounds are
    looked up once: a Progress is so encoded in 0.8 µs and not in 1.4.
    """

    __slots__ = ()
    number: ClassVar[int]
    parts: ClassVar[Callable[["Message"], tuple[Any, ...]]]


@dataclass_transform(
    frozen_default=True, field_specifiers=(attrs.field, _octets, _unsigned, _text, _flag, _rows)
)
def _message(number: int) -> Callable[[type[M]], type[M]]:
    def register(cls: type[M]) -> type[M]:
        frozen = attrs.frozen(cls, slots=True)
        frozen.number = number
        assert number not in _MESSAGES
        fields = attrs.fields(frozen)  # type: ignore[arg-type]
        names = tuple(field.name for field in fields)
        frozen.parts = property(attrgetter("number", *names))  # type: ignore[assignment]
        _MESSAGES[number] = frozen, names, tuple(field.metadata["check"] for field in fields)
        return frozen

    return register


# --- who is there -------------------------------------------------------------------------------


@_message(1)
class Hello(Message):
    """Bridge to Router, first: who I am and a nonce for you to sign."""

    version: int = _unsigned(2**16)
    network: bytes = _octets(16)
    bridge: bytes = _octets(32)
    nonce: bytes = _octets(32)


@_message(2)
class Authenticate(Message):
    """Router to Bridge: who I am, my nonce, and `identity.sign` over network, both and both."""

    router: bytes = _octets(32)
    nonce: bytes = _octets(32)
    signature: bytes = _octets(64)


@_message(3)
class Welcome(Message):
    """Bridge to Router: my signature over the same; now we know each other."""

    signature: bytes = _octets(64)
    time: int = _unsigned()


@_message(4)
class Ping(Message):
    """Are you there? Either way; answered by Pong with the same number."""

    sequence: int = _unsigned()


@_message(5)
class Pong(Message):
    """I am."""

    sequence: int = _unsigned()


# --- what a Router tells the Bridge -------------------------------------------------------------


@_message(10)
class PublishKey(Message):
    """Router to Bridge: my HPKE key (a signed statement), answered by Done."""

    request: int = _unsigned()
    statement: bytes = _octets(at_most=MAXIMUM_STATEMENT)


@_message(11)
class Publish(Message):
    """Router to Bridge: all my publications (signed statements), answered by Done."""

    request: int = _unsigned()
    statements: tuple[bytes, ...] = _rows(_is_octets(MAXIMUM_STATEMENT), MAXIMUM_PUBLICATIONS)


@_message(12)
class Grants(Message):
    """Router to Bridge: a copy of all my grants, without calling AE titles, answered by Done.

    Each row: grantee's identity, published AE title, services.
    """

    request: int = _unsigned()
    rows: tuple[tuple[bytes, str, tuple[str, ...]], ...] = _rows(
        _record(
            _is_octets(32, 32),
            _is_text(16),
            _is_services,
        ),
        4096,
    )


@_message(13)
class Done(Message):
    """Bridge to Router: request carried out, or refused in part: one line for each refusal."""

    request: int = _unsigned()
    refusals: tuple[str, ...] = _rows(_is_text(512), MAXIMUM_PUBLICATIONS)


@_message(14)
class Directory(Message):
    """Bridge to Router: the Routers that concern you, and what they publish, as they signed it.

    Those are you, who grants you anything, whom you grant anything, and whom you sought. `whole`
    begins a new snapshot that forgets all before; the parts that follow add to it. Each router:
    identity, name, HPKE key statement (empty: none yet, or as before), connected. Each publication:
    the owner's signed statement. `gone_routers` and `gone_titles` name what is no more, of all.
    """

    whole: bool = _flag()
    routers: tuple[tuple[bytes, str, bytes, bool], ...] = _rows(
        _record(_is_octets(32, 32), _is_text(64), _is_octets(MAXIMUM_STATEMENT), _is_flag),
        MAXIMUM_DIRECTORY_PART,
    )
    publications: tuple[bytes, ...] = _rows(_is_octets(MAXIMUM_STATEMENT), MAXIMUM_DIRECTORY_PART)
    gone_routers: tuple[bytes, ...] = _rows(_is_octets(32, 32), MAXIMUM_DIRECTORY_PART)
    gone_titles: tuple[str, ...] = _rows(_is_text(16), MAXIMUM_DIRECTORY_PART)


@_message(15)
class Held(Message):
    """Router to Bridge on each connection: the sessions that I hold; end my others."""

    sessions: tuple[bytes, ...] = _rows(_is_octets(16, 16), MAXIMUM_SESSIONS)


@_message(16)
class Ask(Message):
    """Router to Router: a sealed request of a person (for a grant); answered by Done to the asker.

    `router` is the callee on the way to the Bridge and the caller on the way from it.
    """

    request: int = _unsigned()
    router: bytes = _octets(32)
    sealed: bytes = _octets(at_most=8192)


@_message(17)
class Granted(Message):
    """Bridge to Router: all that others grant you of what they publish now.

    Each row: owner's identity, published AE title, services. A copy without calling AE titles, to
    show people and to refuse early: the owner's Router decides. `left_out` rows found no room.
    """

    rows: tuple[tuple[bytes, str, tuple[str, ...]], ...] = _rows(
        _record(_is_octets(32, 32), _is_text(16), _is_services), MAXIMUM_GRANTED
    )
    left_out: int = _unsigned()


@_message(18)
class Listing(Message):
    """Bridge to Router: who is in the network and which AE titles they publish, in brief.

    `whole` begins anew; the parts that follow add to it, and all of it comes before the whole
    Directory. Each router: identity, name, and each AE title with its services; all that was said
    of that Router before is void. This is the Bridge's word alone: enough to show people and to
    refuse, never to send.
    """

    whole: bool = _flag()
    routers: tuple[tuple[bytes, str, tuple[tuple[str, tuple[str, ...]], ...]], ...] = _rows(
        _record(
            _is_octets(32, 32),
            _is_text(64),
            lambda rows: (
                isinstance(rows, (list, tuple))
                and len(rows) <= MAXIMUM_PUBLICATIONS
                and all(map(_record(_is_text(16), _is_services), rows))
            ),
        ),
        MAXIMUM_LISTED,
    )


@_message(19)
class Seek(Message):
    """Router to Bridge: show me, in Directory, who publishes this AE title; answered by Done."""

    request: int = _unsigned()
    ae_title: str = _text(16)


# --- one session --------------------------------------------------------------------------------


@_message(20)
class Open(Message):
    """Caller to callee: an opening and the sealed request under its early key.

    The Bridge fills in nothing: `router` is the callee on the way to the Bridge and the caller on
    the way from it, as the Bridge authenticated them; the opening names both.
    """

    session: bytes = _octets(16)
    router: bytes = _octets(32)
    called: str = _text(16)
    opening: bytes = _octets(at_most=MAXIMUM_OPENING)
    request: bytes = _octets(at_most=MAXIMUM_REQUEST)


@_message(21)
class Answer(Message):
    """Callee to caller: the session stands."""

    session: bytes = _octets(16)
    answer: bytes = _octets(at_most=MAXIMUM_ANSWER)


@_message(22)
class Refuse(Message):
    """Callee to caller: the session is refused (signed, with its reason)."""

    session: bytes = _octets(16)
    refusal: bytes = _octets(at_most=256)


@_message(23)
class Withdraw(Message):
    """Caller to callee: no need to answer any more (signed)."""

    session: bytes = _octets(16)
    withdrawal: bytes = _octets(at_most=256)


@_message(24)
class InLine(Message):
    """Writer to reader: a small sealed chunk."""

    session: bytes = _octets(16)
    chunk: int = _unsigned()
    sealed: bytes = _octets(at_most=MAXIMUM_IN_LINE)


@_message(25)
class Announce(Message):
    """Writer to reader: chunk `chunk` and those behind it, `count` in all, are stored in `slot`.

    `size` is that of the whole object, in bytes. The writer leaves `get` and `delete` empty; the
    Bridge fills them in for the reader, `delete` only where it does not delete by itself.
    """

    session: bytes = _octets(16)
    chunk: int = _unsigned()
    count: int = _unsigned(MAXIMUM_BUNDLED)
    slot: int = _unsigned()
    size: int = _unsigned(64 * 1024 * 1024)
    get: tuple[Any, ...] = _rows(_is_signed_request, 1)
    delete: tuple[Any, ...] = _rows(_is_signed_request, 1)


@attrs.frozen(slots=True)
class FlowProgress:
    """Where one end stands with one direction of a session. All counts are of chunks from 0.

    The writer's end fills in `announced`, the reader's end the rest. Counts say how many: a count
    of n means chunks 0 to n-1.
    """

    announced: int = 0  # chunks announced, each only once stored, in order
    received: int = 0  # announcements received
    opened: int = 0  # chunks opened: the acknowledgement
    chunk_credit: int = 0  # chunks that may be announced in all
    in_line_credit: int = 0  # in-line bytes (sealed) that may be announced in all


@_message(26)
class Progress(Message):
    """Either end to the other: both directions, the caller-to-callee one first.

    `slots` is for the Bridge: of the direction that the sender reads, the slots from 0 whose
    objects are opened, and so of no use to anybody.
    """

    session: bytes = _octets(16)
    outward: tuple[int, int, int, int, int] = attrs.field(
        converter=tuple, metadata={"check": _record(*[_is_unsigned] * 5)}
    )
    inward: tuple[int, int, int, int, int] = attrs.field(
        converter=tuple, metadata={"check": _record(*[_is_unsigned] * 5)}
    )
    slots: int = _unsigned(default=0)


@_message(27)
class Slots(Message):
    """Writer to Bridge: give me signed PUTs for `count` slots from `first` of my direction."""

    request: int = _unsigned()
    session: bytes = _octets(16)
    first: int = _unsigned()
    count: int = _unsigned(MAXIMUM_SLOTS)


@_message(28)
class SlotURLs(Message):
    """Bridge to writer: the signed PUTs asked for, in slot order."""

    request: int = _unsigned()
    session: bytes = _octets(16)
    first: int = _unsigned()
    puts: tuple[Any, ...] = _rows(_is_signed_request, MAXIMUM_SLOTS)


@_message(29)
class Resign(Message):
    """Reader to Bridge: sign GET and DELETE of this slot of the other end's direction again."""

    request: int = _unsigned()
    session: bytes = _octets(16)
    slot: int = _unsigned()


@_message(30)
class Resigned(Message):
    """Bridge to reader: the signed GET, and DELETE where the reader is to delete."""

    request: int = _unsigned()
    session: bytes = _octets(16)
    get: tuple[Any, ...] = _rows(_is_signed_request, 1)
    delete: tuple[Any, ...] = _rows(_is_signed_request, 1)


@_message(31)
class End(Message):
    """Any way: this session is over. From the Bridge it says why; nothing follows it."""

    session: bytes = _octets(16)
    reason: int = _unsigned(255)


@_message(32)
class Ahead(Message):
    """Reader to Bridge: sign GETs that may come before their objects, for `count` slots."""

    request: int = _unsigned()
    session: bytes = _octets(16)
    first: int = _unsigned()
    count: int = _unsigned(MAXIMUM_SLOTS)


@_message(33)
class AheadURLs(Message):
    """Bridge to reader: the signed GETs, in slot order; none where its store cannot.

    As many DELETEs, or none where the Bridge deletes by itself.
    """

    request: int = _unsigned()
    session: bytes = _octets(16)
    first: int = _unsigned()
    gets: tuple[Any, ...] = _rows(_is_signed_request, MAXIMUM_SLOTS)
    deletes: tuple[Any, ...] = _rows(_is_signed_request, MAXIMUM_SLOTS)


@_message(34)
class Look(Message):
    """Router to Bridge: who is connected now? Answered by Present, and by Done only if refused."""

    request: int = _unsigned()


@_message(35)
class Present(Message):
    """Bridge to Router: the Routers that are connected now."""

    request: int = _unsigned()
    routers: tuple[bytes, ...] = _rows(_is_octets(32, 32), MAXIMUM_PRESENT)


SessionMessage = Answer | Refuse | Withdraw | InLine | Announce | Progress | End


def encode(message: Message) -> bytes:
    """The frame for `message`."""
    return cast(bytes, msgpack.packb(message.parts))


def decode(frame: bytes) -> Message:
    """The message in `frame`.

    Raises SignallingError, naming the message and the field, if a bound does not hold.
    """
    if len(frame) > MAXIMUM_MESSAGE:
        raise SignallingError(f"message of {len(frame)} bytes; at most {MAXIMUM_MESSAGE} are taken")
    try:
        parts = msgpack.unpackb(frame, use_list=False, strict_map_key=True, max_ext_len=0)
    except Exception as error:  # msgpack raises ValueError and several of its own
        raise SignallingError(f"message is not msgpack: {type(error).__name__}") from error
    if not isinstance(parts, tuple) or not parts or type(parts[0]) is not int:
        raise SignallingError("message is not an array that begins with its number")
    number, *values = parts
    if number not in _MESSAGES:
        raise SignallingError(f"unknown message number {number}")
    cls, names, checks = _MESSAGES[number]
    if len(values) != len(checks):
        raise SignallingError(f"{cls.__name__}: {len(values)} fields, not {len(checks)}")
    for index, check in enumerate(checks):
        if not check(values[index]):
            raise SignallingError(f"{cls.__name__}: field {names[index]} is out of bounds")
    return cls(*values)
