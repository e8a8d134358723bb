"""What travels as a msgpack array, one class for each kind, one row with its bound for each field.

PROTOCOL.md §2 has the rules. Everything that is signed or sealed has this form; the signalling
messages have their own, since they come in a table.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import attrs
import msgpack

from relay.errors import IdentityError


def bounded(check: Callable[[Any], bool], **options: Any) -> Any:
    """A field of a `Packed` class that holds only what passes `check`."""
    return attrs.field(metadata={"check": check}, **options)


def octets(exactly: int) -> Any:
    """msgpack bin of that length."""
    return bounded(lambda v: type(v) is bytes and len(v) == exactly)


def octets_up_to(at_most: int) -> Any:
    """msgpack bin, at most that long."""
    return bounded(lambda v: type(v) is bytes and len(v) <= at_most)


def unsigned(at_most: int = 2**63 - 1) -> Any:
    """msgpack integer from 0 to that."""
    return bounded(lambda v: type(v) is int and 0 <= v <= at_most)


class Packed:
    """What travels as a msgpack array: `LEADING` numbers, then its fields, and nothing behind."""

    __slots__ = ()
    WHAT: ClassVar[str]
    LIMIT: ClassVar[int]
    LEADING: ClassVar[tuple[int, ...]] = ()

    def pack(self) -> bytes:
        """The array, each value in its shortest form. IdentityError if one is out of bounds."""
        values = attrs.astuple(self, recurse=False)  # type: ignore[arg-type]
        self._check(values)
        packed: bytes = msgpack.packb((*self.LEADING, *values))
        if len(packed) > self.LIMIT:
            raise IdentityError(f"{self.WHAT} of {len(packed)} bytes; at most {self.LIMIT} fit")
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """What `data` holds. Raises IdentityError, naming the field that is out of bounds."""
        if len(data) > cls.LIMIT:
            raise IdentityError(f"{cls.WHAT} of {len(data)} bytes; at most {cls.LIMIT} are taken")
        try:
            array = msgpack.unpackb(data, use_list=False, raw=False, max_ext_len=0)
        except ValueError as error:  # msgpack's own errors and UnicodeDecodeError are ValueErrors
            raise IdentityError(f"{cls.WHAT} is not msgpack: {type(error).__name__}") from None
        count = len(cls.LEADING)
        if type(array) is not tuple or len(array) < count:
            raise IdentityError(f"{cls.WHAT} is not an array")
        leading, values = array[:count], array[count:]
        if [*map(type, leading)] != [int] * count or leading != cls.LEADING:
            raise IdentityError(f"{cls.WHAT} is of a version or suite that is not known here")
        cls._check(values)
        return cls(*values)

    @classmethod
    def _check(cls, values: tuple[Any, ...]) -> None:
        fields = attrs.fields(cls)  # type: ignore[arg-type]
        if len(values) != len(fields):
            raise IdentityError(f"{cls.WHAT}: {len(values)} fields, not {len(fields)}")
        for field, value in zip(fields, values, strict=True):
            if not field.metadata["check"](value):
                raise IdentityError(f"{cls.WHAT}: field {field.name} is out of bounds")
