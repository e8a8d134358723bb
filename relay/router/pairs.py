"""What a device takes: pairs of a SOP class and a transfer syntax.

In a note and in the database they are grouped, since most devices take the same few transfer
syntaxes of all classes (relay.tunnel.notes); people write them as a JSON object of lists.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from sys import intern
from types import MappingProxyType
from typing import Any

import attrs
import msgpack

from relay.dicom import uids
from relay.dicom.pdu import is_uid
from relay.errors import Refused
from relay.router.services import may_be_stored, service_of
from relay.router.storage import STORAGE_SOP_CLASSES
from relay.tunnel.notes import MAXIMUM_SOP_CLASSES, MAXIMUM_TRANSFER_SYNTAXES, Group

Pair = tuple[str, str]

# Of what a person declares of one device, as it travels: less than a note holds
# (relay.tunnel.records.MAXIMUM_NOTE), so that what was entered can also be told.
MAXIMUM_DECLARED = 96 * 1024


def in_words(pair: Pair) -> str:
    """What kind of object it is, for people; a UID where there is no name."""
    sop_class, syntax = pair
    return (
        f"{STORAGE_SOP_CLASSES.get(sop_class, sop_class)} in"
        f" {uids.TRANSFER_SYNTAXES.get(syntax, syntax)}"
    )


@attrs.frozen(slots=True)
class Pairs:
    """Transfer syntaxes by SOP class; iterates over (SOP class, transfer syntax), in order."""

    taken: Mapping[str, frozenset[str]] = attrs.field(factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> "Pairs":
        """These pairs."""
        return cls.of_groups((((sop_class,), (syntax,)) for sop_class, syntax in pairs))

    @classmethod
    def of_groups(cls, groups: Iterable[tuple[Iterable[str], Iterable[str]]]) -> "Pairs":
        """Each class of a group with each of its syntaxes."""
        taken: dict[str, frozenset[str]] = {}
        # Many classes, and many devices, have the same few syntaxes: each set is held once.
        same: dict[frozenset[str], frozenset[str]] = {}
        for sop_classes, syntaxes in groups:
            added = frozenset(map(intern, syntaxes))
            for sop_class in sop_classes:
                both = taken.get(sop_class, frozenset()) | added
                taken[intern(sop_class)] = same.setdefault(both, both)
        return cls(taken)

    @classmethod
    def unpack(cls, packed: bytes) -> "Pairs":
        """What `pack` made."""
        return cls.of_groups(msgpack.unpackb(packed, use_list=False))

    @classmethod
    def from_json(cls, value: object) -> "Pairs":
        """What a person declares: {SOP class: [transfer syntax, …]}; None and {} are nothing.

        Raises Refused (400) naming what does not hold.
        """
        if value is None:
            return cls()
        if not isinstance(value, dict):
            raise Refused(400, "is no object of SOP classes, each with a list of transfer syntaxes")
        if len(value) > MAXIMUM_SOP_CLASSES:
            raise Refused(400, f"{len(value)} SOP classes; at most {MAXIMUM_SOP_CLASSES} fit")
        for sop_class, syntaxes in value.items():
            _check_class(sop_class)
            _check_syntaxes(sop_class, syntaxes)
        pairs = cls.of_groups(((sop_class,), syntaxes) for sop_class, syntaxes in value.items())
        if len(pairs.pack()) > MAXIMUM_DECLARED:
            raise Refused(400, f"more than {MAXIMUM_DECLARED} bytes, as other Routers are told it")
        return pairs

    def __iter__(self) -> Iterator[Pair]:
        for sop_class, syntaxes in sorted(self.taken.items()):
            for syntax in sorted(syntaxes):
                yield sop_class, syntax

    def __len__(self) -> int:
        """How many SOP classes."""
        return len(self.taken)

    def __contains__(self, pair: object) -> bool:
        assert isinstance(pair, tuple), "a SOP class and a transfer syntax"
        sop_class, syntax = pair
        return syntax in self.taken.get(sop_class, ())

    def only(self, keep: Callable[[str], bool]) -> "Pairs":
        """Those of the SOP classes for which `keep` is true."""
        return Pairs({c: syntaxes for c, syntaxes in self.taken.items() if keep(c)})

    def groups(self) -> tuple[Group, ...]:
        """The same, SOP classes of equal syntaxes together: as a note has them."""
        grouped: dict[tuple[str, ...], list[str]] = {}
        for sop_class, syntaxes in sorted(self.taken.items()):
            grouped.setdefault(tuple(sorted(syntaxes)), []).append(sop_class)
        return tuple(Group(tuple(classes), syntaxes) for syntaxes, classes in grouped.items())

    def pack(self) -> bytes:
        """The same as bytes, for the database."""
        packed: bytes = msgpack.packb(self.groups())
        return packed

    def to_json(self) -> dict[str, Any]:
        """The same as people write it."""
        return {c: sorted(syntaxes) for c, syntaxes in sorted(self.taken.items())}


def _check_class(sop_class: object) -> None:
    if not isinstance(sop_class, str) or not is_uid(sop_class):
        raise Refused(400, f"no SOP class: {str(sop_class)[:80]!r}")
    if not may_be_stored(service_of(sop_class)) and (
        sop_class != uids.STORAGE_COMMITMENT_PUSH_MODEL
    ):
        raise Refused(400, f"{sop_class} is not of Storage, private, or Storage Commitment")


def _check_syntaxes(sop_class: str, syntaxes: object) -> None:
    if not isinstance(syntaxes, list) or not 1 <= len(syntaxes) <= MAXIMUM_TRANSFER_SYNTAXES:
        raise Refused(
            400, f"{sop_class} has no list of 1 to {MAXIMUM_TRANSFER_SYNTAXES} transfer syntaxes"
        )
    for syntax in syntaxes:
        if not isinstance(syntax, str) or not is_uid(syntax):
            raise Refused(400, f"{sop_class}: no transfer syntax: {str(syntax)[:80]!r}")
