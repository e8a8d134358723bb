"""relay.packed: a field of the wrong type or size never gets in, either way."""

import attrs
import msgpack
import pytest

from relay.errors import IdentityError
from relay.packed import Packed, bounded, octets, octets_up_to, unsigned


@attrs.frozen(slots=True)
class Thing(Packed):
    WHAT = "thing"
    LIMIT = 64
    LEADING = (1, 7)
    key: bytes = octets(4)
    rest: bytes = octets_up_to(8)
    count: int = unsigned(100)
    word: str = bounded(lambda v: v in ("yes", "no"))


GOOD = [1, 7, b"abcd", b"", 3, "yes"]


def test_round_trip() -> None:
    thing = Thing(b"abcd", b"12345678", 100, "no")
    assert Thing.unpack(thing.pack()) == thing
    assert thing.pack() == msgpack.packb([1, 7, b"abcd", b"12345678", 100, "no"])


@pytest.mark.parametrize(
    ("index", "value", "field"),
    [
        (2, b"abc", "key"),
        (2, "abcd", "key"),
        (2, None, "key"),
        (3, b"123456789", "rest"),
        (4, -1, "count"),
        (4, 101, "count"),
        (4, True, "count"),
        (4, 3.0, "count"),
        (5, b"yes", "word"),
        (5, ["yes"], "word"),
    ],
)
def test_field_out_of_bounds_is_named(index: int, value: object, field: str) -> None:
    array = [*GOOD[:index], value, *GOOD[index + 1 :]]
    with pytest.raises(IdentityError, match=f"thing: field {field} is out of bounds"):
        Thing.unpack(msgpack.packb(array))


@pytest.mark.parametrize("leading", [[1, 8], [2, 7], [True, 7], [1.0, 7], ["1", 7]])
def test_leading_numbers_must_be_known(leading: list[object]) -> None:
    with pytest.raises(IdentityError, match="version or suite"):
        Thing.unpack(msgpack.packb([*leading, *GOOD[2:]]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x93\x01",
        msgpack.packb(GOOD)[:-1],
        msgpack.packb(GOOD) + b"\0",
        msgpack.packb(GOOD[:-1]),
        msgpack.packb([*GOOD, 0]),
        msgpack.packb([1]),
        msgpack.packb({1: 7}),
        msgpack.packb({b"k": 1}),
        msgpack.packb(7),
        msgpack.packb([msgpack.ExtType(5, b"x"), *GOOD[1:]]),
        msgpack.packb([msgpack.Timestamp(1), *GOOD[1:]]),
        b"\xa1\xff",
        b"\x91" * 60 + b"\0",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
    ],
    ids=lambda data: data[:8].hex(),
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(IdentityError):
        Thing.unpack(data)


def test_length_is_checked_before_anything_is_read() -> None:
    with pytest.raises(IdentityError, match="at most 64 are taken"):
        Thing.unpack(b"\xc1" * 65)


def test_what_cannot_be_read_is_not_written() -> None:
    with pytest.raises(IdentityError, match="count"):
        Thing(b"abcd", b"", -1, "yes").pack()
