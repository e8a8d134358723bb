"""The sub-items of the user information, each a class (PS3.7 §D.3.3, PS3.8 §D.1).

A relay hands the sub-items on as bytes (`UserItem`) and reads only those that it must: `decode`
from that verbatim form raises `RemoteProtocolError`, `encode` to it raises `LocalProtocolError`.
"""

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import ClassVar, Protocol, Self, TypeVar

import attrs

from relay.dicom.atoms import UserItem, encode_uid, is_uid, unpadded_uid
from relay.errors import LocalProtocolError, RemoteProtocolError


class TypedItem(Protocol):
    """A sub-item of the user information that Relay can read."""

    TYPE: ClassVar[int]

    @classmethod
    def decode(cls, item: UserItem) -> Self: ...

    def encode(self) -> UserItem: ...


@attrs.frozen(slots=True)
class MaximumLength:
    """What its sender takes in a P-DATA-TF, in bytes; 0 is unlimited (PS3.8 §D.1)."""

    TYPE: ClassVar[int] = 0x51
    length: int

    @classmethod
    def decode(cls, item: UserItem) -> Self:
        fields = _Fields(item, "Maximum Length")
        length = fields.number(4)
        fields.end()
        return cls(length)

    def encode(self) -> UserItem:
        return UserItem(self.TYPE, _number(self.length, 4))


@attrs.frozen(slots=True)
class ImplementationClassUID:
    """PS3.7 §D.3.3.2.1."""

    TYPE: ClassVar[int] = 0x52
    uid: str

    @classmethod
    def decode(cls, item: UserItem) -> Self:
        return cls(_uid(item.value, "Implementation Class UID"))

    def encode(self) -> UserItem:
        return UserItem(self.TYPE, encode_uid(self.uid))


@attrs.frozen(slots=True)
class AsynchronousOperationsWindow:
    """Operations outstanding at once; 0 is unlimited, no item is 1 and 1 (PS3.7 §D.3.3.3)."""

    TYPE: ClassVar[int] = 0x53
    invoked: int
    performed: int

    @classmethod
    def decode(cls, item: UserItem) -> Self:
        fields = _Fields(item, "Asynchronous Operations Window")
        invoked, performed = fields.number(2), fields.number(2)
        fields.end()
        return cls(invoked, performed)

    def encode(self) -> UserItem:
        return UserItem(self.TYPE, _number(self.invoked, 2) + _number(self.performed, 2))


@attrs.frozen(slots=True)
class RoleSelection:
    """The requestor's roles for one SOP class, proposed or accepted (PS3.7 §D.3.3.4)."""

    TYPE: ClassVar[int] = 0x54
    sop_class: str
    scu: bool
    scp: bool

    @classmethod
    def decode(cls, item: UserItem) -> Self:
        fields = _Fields(item, "SCP/SCU Role Selection")
        sop_class = _uid(fields.sized(), "SCP/SCU Role Selection")
        scu, scp = fields.number(1), fields.number(1)
        fields.end()
        return cls(sop_class, scu == 1, scp == 1)

    def encode(self) -> UserItem:
        return UserItem(self.TYPE, _sized(encode_uid(self.sop_class)) + bytes((self.scu, self.scp)))


@attrs.frozen(slots=True)
class ImplementationVersionName:
    """1 to 16 characters (PS3.7 §D.3.3.2.3)."""

    TYPE: ClassVar[int] = 0x55
    name: str

    @classmethod
    def decode(cls, item: UserItem) -> Self:
        # Informative only, and devices fill it with anything: never a reason to refuse.
        return cls(bytes(item.value).decode("ascii", "replace"))

    def encode(self) -> UserItem:
        if not (1 <= len(self.name) <= 16 and self.name.isascii()):
            raise LocalProtocolError("Implementation Version Name: 1 to 16 ASCII characters")
        return UserItem(self.TYPE, self.name.encode("ascii"))


@attrs.frozen(slots=True)
class SOPClassExtended:
    """What a service class lets two AEs agree on for one SOP class (PS3.7 §D.3.3.5)."""

    TYPE: ClassVar[int] = 0x56
    sop_class: str
    information: bytes

    @classmethod
    def decode(cls, item: UserItem) -> Self:
        fields = _Fields(item, "SOP Class Extended Negotiation")
        sop_class = _uid(fields.sized(), "SOP Class Extended Negotiation")
        return cls(sop_class, fields.rest())

    def encode(self) -> UserItem:
        return UserItem(self.TYPE, _sized(encode_uid(self.sop_class)) + self.information)


@attrs.frozen(slots=True)
class SOPClassCommonExtended:
    """The service class and related general SOP classes of one SOP class (PS3.7 §D.3.3.6)."""

    TYPE: ClassVar[int] = 0x57
    sop_class: str
    service_class: str
    related_general: tuple[str, ...] = ()
    version: int = 0

    @classmethod
    def decode(cls, item: UserItem) -> Self:
        name = "SOP Class Common Extended Negotiation"
        fields = _Fields(item, name)
        sop_class, service_class = _uid(fields.sized(), name), _uid(fields.sized(), name)
        related = _Fields(UserItem(item.type, fields.sized()), name)
        if item.reserved == 0:  # later versions may add fields, not to be read (PS3.7 §D.3.3.6)
            fields.end()
        general: list[str] = []
        while related.left:
            general.append(_uid(related.sized(), name))
        return cls(sop_class, service_class, tuple(general), item.reserved)

    def encode(self) -> UserItem:
        related = b"".join(_sized(encode_uid(uid)) for uid in self.related_general)
        value = (
            _sized(encode_uid(self.sop_class))
            + _sized(encode_uid(self.service_class))
            + _sized(related)
        )
        return UserItem(self.TYPE, value, self.version)


class UserIdentityType(IntEnum):
    """PS3.7 Table D.3-14."""

    USERNAME = 1
    USERNAME_AND_PASSCODE = 2
    KERBEROS = 3
    SAML = 4
    JWT = 5


@attrs.frozen(slots=True)
class UserIdentityRQ:
    """Who the requestor's user is (PS3.7 §D.3.3.7.1). Its representation never shows the fields."""

    TYPE: ClassVar[int] = 0x58
    type: UserIdentityType
    response_requested: bool
    primary: bytes = attrs.field(repr=False)
    secondary: bytes = attrs.field(default=b"", repr=False)

    @classmethod
    def decode(cls, item: UserItem) -> Self:
        fields = _Fields(item, "User Identity")
        identity_type, response = fields.number(1), fields.number(1)
        primary, secondary = fields.sized(), fields.sized()
        fields.end()
        try:
            known = UserIdentityType(identity_type)
        except ValueError:
            raise RemoteProtocolError(f"User Identity type {identity_type}: reserved") from None
        return cls(known, response == 1, primary, secondary)

    def encode(self) -> UserItem:
        head = bytes((self.type, self.response_requested))
        return UserItem(self.TYPE, head + _sized(self.primary) + _sized(self.secondary))


@attrs.frozen(slots=True)
class UserIdentityAC:
    """The acceptor's answer, only where one was asked for (PS3.7 §D.3.3.7.2)."""

    TYPE: ClassVar[int] = 0x59
    response: bytes = attrs.field(repr=False)

    @classmethod
    def decode(cls, item: UserItem) -> Self:
        fields = _Fields(item, "User Identity response")
        response = fields.sized()
        fields.end()
        return cls(response)

    def encode(self) -> UserItem:
        return UserItem(self.TYPE, _sized(self.response))


T = TypeVar("T", bound=TypedItem)


def find(user_items: Iterable[UserItem], cls: type[T]) -> tuple[T, ...]:
    """All sub-items of this class, in order. Raises `RemoteProtocolError` if one is unreadable."""
    return tuple(cls.decode(item) for item in user_items if item.type == cls.TYPE)


def without(user_items: Iterable[UserItem], *classes: type[TypedItem]) -> tuple[UserItem, ...]:
    """The sub-items but those of these classes."""
    types = {cls.TYPE for cls in classes}
    return tuple(item for item in user_items if item.type not in types)


def replace(user_items: Sequence[UserItem], item: TypedItem) -> tuple[UserItem, ...]:
    """The sub-items with `item` in the place of all of its type, or in front if there was none."""
    others = without(user_items, type(item))
    at = next((i for i, old in enumerate(user_items) if old.type == item.TYPE), 0)
    return (*others[:at], item.encode(), *others[at:])


# --- fields -----------------------------------------------------------------------------------


class _Fields:
    """The fields of one sub-item, taken from its front."""

    def __init__(self, item: UserItem, name: str) -> None:
        self._value = item.value
        self._name = name
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._value) - self._at

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise RemoteProtocolError(f"{self._name}: {length} bytes expected, {self.left} left")
        self._at += length
        return self._value[self._at - length : self._at]

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def sized(self) -> bytes:
        return self.take(self.number(2))

    def rest(self) -> bytes:
        return self.take(self.left)

    def end(self) -> None:
        if self.left:
            raise RemoteProtocolError(f"{self._name}: {self.left} bytes too many")


def _uid(value: bytes, name: str) -> str:
    uid = unpadded_uid(value)
    if not is_uid(uid):
        raise RemoteProtocolError(f"{name}: not a UID")
    return uid


def _number(value: int, length: int) -> bytes:
    try:
        return value.to_bytes(length, "big")
    except OverflowError:
        raise LocalProtocolError(f"{value} does not fit {length} bytes") from None


def _sized(value: bytes) -> bytes:
    return _number(len(value), 2) + value
