"""Query identifiers: what a caller asks, what of it each device is asked, what each has answered.

PS3.4 Annex C without relational queries, which are never negotiated: a query names one entity of
each level above its own. Pure: bytes in, bytes out. The keys of a query are understood, since each
device is asked in its own character set and about patients of its own issuer; of an answer, only
what tells which entity it is.
"""

from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import TypeAlias

import attrs
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.tag import Tag

from relay.dicom import character_sets, uids
from relay.dicom.dimse import Status
from relay.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from relay.errors import RelayError
from relay.router.federation import attributes, characters
from relay.router.federation.attributes import Attribute
from relay.router.federation.keys import (
    SPECIFIC_CHARACTER_SET,
    decode_keys,
    encode_keys,
    is_narrow,
    matches,
    terms_of,
    texts_of,
)
from relay.router.federation.sources import Description

QUERY_RETRIEVE_LEVEL = 0x0008_0052
RETRIEVE_AE_TITLE = 0x0008_0054
PATIENT_ID = 0x0010_0020
ISSUER_OF_PATIENT_ID = 0x0010_0021
STUDY_INSTANCE_UID = 0x0020_000D

# A list of UIDs matches each of them (PS3.4 §C.2.2.2.2). Longer ones are somebody's whole archive.
MAXIMUM_UIDS = 1000

# Characters of an ID: PS3.5 §6.2 has 64 for a UID and for a Patient ID, and devices have more.
MAXIMUM_IDENTITY = 256

# Steer the query, and match nothing. The view (0008,0053) is for enhanced multi-frame conversion,
# which is negotiated; who retrieves is answered by the federation itself.
_NO_KEYS = frozenset({SPECIFIC_CHARACTER_SET, QUERY_RETRIEVE_LEVEL, 0x0008_0053, RETRIEVE_AE_TITLE})
# ... nor do these say which entities are meant: availability, and the time zone of dates.
_NOT_NARROWING = _NO_KEYS | {0x0008_0056, 0x0008_0201}


class QueryRefused(RelayError):
    """An identifier that is not answered; `status` and the ASCII `comment` are the C-FIND-RSP's."""

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment[:64]  # (0000,0902), LO


class Unrepresentable(RelayError):
    """The character set of a device has not the characters of a key."""


class NotTheIssuer(RelayError):
    """A device's patients are not of the issuer that is asked for; not `known`: nobody has said
    whose they are, so that they may be."""

    def __init__(self, message: str, *, known: bool) -> None:
        super().__init__(message)
        self.known = known


class Level(Enum):
    """Query/Retrieve Level (0008,0052)."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"

    @property
    def unique_key(self) -> int:
        """The tag that tells entities of this level apart (PS3.4 §C.6.1.1)."""
        return _UNIQUE_KEYS[self]


_UNIQUE_KEYS = {
    Level.PATIENT: PATIENT_ID,
    Level.STUDY: STUDY_INSTANCE_UID,
    Level.SERIES: 0x0020_000E,
    Level.IMAGE: 0x0008_0018,
}
_LEVELS = tuple(Level)

Kind: TypeAlias = tuple[Level, frozenset[int]]
"""The level of queries, and the keys by which they narrow: a list of all studies of a week takes an
archive longer than those of one patient, and than the series of one of them."""

# Well-known keys of each level but the highest: of one below its own, a query is not narrower.
KEYS_OF_LEVEL = {
    Level.STUDY: frozenset(
        {0x0008_0020, 0x0008_0030, 0x0008_0050, 0x0008_0061, 0x0008_0062, 0x0008_0090, 0x0008_1030}
        | {0x0020_000D, 0x0020_0010}
    ),
    Level.SERIES: frozenset(
        {0x0008_0021, 0x0008_0031, 0x0008_0060, 0x0008_103E, 0x0018_0015, 0x0018_1030}
        | {0x0020_000E, 0x0020_0011, 0x0040_0244, 0x0040_0245}
    ),
    Level.IMAGE: frozenset({0x0008_0008, 0x0008_0016, 0x0008_0018, 0x0008_0023, 0x0020_0013}),
}


class Model(Enum):
    """Query/Retrieve information models by their SOP classes: FIND, MOVE, GET (PS3.4 §C.6)."""

    PATIENT_ROOT = (uids.PATIENT_ROOT_FIND, uids.PATIENT_ROOT_MOVE, uids.PATIENT_ROOT_GET)
    STUDY_ROOT = (uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE, uids.STUDY_ROOT_GET)

    @classmethod
    def of(cls, sop_class: str) -> "Model | None":
        """The model that this SOP class is of, if it is one of these."""
        return next((model for model in cls if sop_class in model.value), None)

    @property
    def find(self) -> str:
        return self.value[0]

    @property
    def move(self) -> str:
        return self.value[1]

    @property
    def get(self) -> str:
        return self.value[2]

    @property
    def levels(self) -> tuple[Level, ...]:
        """From the highest."""
        return _LEVELS if self is Model.PATIENT_ROOT else _LEVELS[1:]

    def down_to(self, level: Level) -> tuple[Level, ...]:
        """This level and those above it, from the highest."""
        return self.levels[: self.levels.index(level) + 1]


@attrs.frozen(slots=True)
class Query:
    """What a caller asks. `keys` are text as people read it, whatever it came in; their Specific
    Character Set is the caller's own, and stands for devices that do not declare theirs. Its
    answers are in `syntax`, one of `attributes.TRANSFER_SYNTAXES`."""

    model: Model
    level: Level
    keys: Dataset = attrs.field(eq=False, repr=False)  # may name a patient
    syntax: str = EXPLICIT_VR_LITTLE_ENDIAN
    wanted: frozenset[int] = attrs.field(init=False, repr=False)
    """The tags that the caller asks for."""
    read: frozenset[int] = attrs.field(init=False, eq=False, repr=False)
    """What is read of an answer: of the rest nothing is looked at."""
    unique_key: int = attrs.field(init=False, eq=False, repr=False)
    """That of its level."""
    issuer: str = attrs.field(init=False, eq=False, repr=False)
    """The key Issuer of Patient ID, as `value` gives it. Each answer is held against it."""
    narrowing: frozenset[int] = attrs.field(init=False, eq=False, repr=False)
    """The tags of the keys that leave less than all there is."""

    def __attrs_post_init__(self) -> None:
        wanted = frozenset(map(int, self.keys.keys())) - _NO_KEYS
        beside = {self.level.unique_key, SPECIFIC_CHARACTER_SET, ISSUER_OF_PATIENT_ID}
        object.__setattr__(self, "wanted", wanted)
        object.__setattr__(self, "read", wanted | beside)
        object.__setattr__(self, "unique_key", self.level.unique_key)
        object.__setattr__(self, "issuer", self.value(ISSUER_OF_PATIENT_ID))
        narrow = frozenset(int(element.tag) for element in self.keys if is_narrow(element))
        object.__setattr__(self, "narrowing", narrow - _NOT_NARROWING)

    @property
    def narrows(self) -> bool:
        """Whether some key of its level, or of one above, leaves less than all there is."""
        below = _LEVELS[_LEVELS.index(self.level) + 1 :]
        ignored = frozenset[int]().union(*(KEYS_OF_LEVEL[level] for level in below))
        return not self.narrowing <= ignored

    def value(self, tag: int) -> str:
        """The key `tag` as text, several values with backslashes between; "" for none."""
        return "\\".join(texts_of(self.keys.get(Tag(tag))))

    def for_source(self, description: Description, transfer_syntax: str) -> bytes:
        """The identifier for a device, in one of `attributes.TRANSFER_SYNTAXES`.

        The unique keys and (0008,0005) are always asked for: a device that is not asked for its
        character set does not tell it (PS3.4 §C.4.1.1.3.2). Raises Unrepresentable, NotTheIssuer.
        """
        found = self._converted(description)
        for level in self.model.down_to(self.level):
            vr = b"LO" if level is Level.PATIENT else b"UI"
            found.setdefault(level.unique_key, (vr, b""))
        found[QUERY_RETRIEVE_LEVEL] = (b"CS", self.level.value.encode("ascii"))
        self.check_issuer(description)
        if self.asks_issuer:
            # All of its patients are of that one; it may well not have noted it with each.
            found[ISSUER_OF_PATIENT_ID] = (b"LO", b"")
        return attributes.write(found, transfer_syntax)

    @property
    def asks_issuer(self) -> bool:
        """Whether patients of certain issuers only are meant."""
        return bool(self.issuer.strip("*"))

    @property
    def is_by_uid(self) -> bool:
        """Whether it asks for studies by their UIDs, and every device that has a part of one has
        an answer."""
        return self.level is Level.STUDY and self.narrowing == {STUDY_INSTANCE_UID}

    @property
    def kind(self) -> Kind:
        """What it has in common with queries that take a device about as long."""
        return self.level, self.narrowing

    def check_issuer(self, description: Description) -> None:
        """Raise NotTheIssuer if there is no asking that device for patients of the issuer."""
        if not self.asks_issuer:
            return
        if not description.issuer:
            raise NotTheIssuer("its Issuer of Patient ID is not declared", known=False)
        if not matches(self.issuer, description.issuer):
            raise NotTheIssuer("its patients are of another issuer", known=True)

    def _converted(self, description: Description) -> dict[int, Attribute]:
        declared = description.character_set
        own = [term.strip(" ") for term in texts_of(self.keys.get(Tag(SPECIFIC_CHARACTER_SET)))]
        try:
            if declared:
                terms = character_sets.values(declared)
                found = encode_keys(self.keys, terms)
            else:
                terms = own
                # What came without a character set was read as Latin-1, and goes on as it came.
                found = encode_keys(self.keys, own if any(own) else ["ISO_IR 100"])
        except (UnicodeError, LookupError):
            raise Unrepresentable("its character set has not the characters asked for") from None
        found = {tag: found[tag] for tag in found if tag not in _NO_KEYS}
        found[SPECIFIC_CHARACTER_SET] = (b"CS", "\\".join(terms).encode("ascii", "replace"))
        return found


def parse(model: Model, encoded: bytes, transfer_syntax: str) -> Query:
    """The query in an identifier, in one of `attributes.TRANSFER_SYNTAXES`.

    Raises QueryRefused: A900 for what is no hierarchical query of the model (PS3.4 Table C.4-1),
    C000 for what cannot be read.
    """
    try:
        keys = decode_keys(attributes.read(encoded, transfer_syntax))
    except UnicodeError:
        raise _unable("a key is not in the Specific Character Set") from None
    except LookupError:
        raise _unable("the Specific Character Set is not known") from None
    except (ValueError, TypeError, ArithmeticError, NotImplementedError, BytesLengthException):
        raise _unable("the identifier cannot be read") from None
    query = Query(model, _level(model, keys), keys, transfer_syntax)
    for level in model.down_to(query.level)[:-1]:
        value = query.value(level.unique_key)
        if not value or not set(value).isdisjoint("\\*?"):
            raise _mismatch(f"one {_KEYWORDS[level]} is needed at this level")
    for level in model.levels:
        if query.value(level.unique_key).count("\\") >= MAXIMUM_UIDS:
            raise _mismatch(f"more than {MAXIMUM_UIDS} values of {_KEYWORDS[level]}")
    return query


_KEYWORDS = {
    Level.PATIENT: "Patient ID",
    Level.STUDY: "Study Instance UID",
    Level.SERIES: "Series Instance UID",
    Level.IMAGE: "SOP Instance UID",
}


def _level(model: Model, keys: Dataset) -> Level:
    element = keys.get(Tag(QUERY_RETRIEVE_LEVEL))
    said = str(element.value or "").strip() if element is not None else ""
    if not said:
        raise _mismatch("Query/Retrieve Level (0008,0052) is missing")
    for level in model.levels:
        if level.value == said:
            return level
    raise _mismatch("the model has no such Query/Retrieve Level")


def _mismatch(comment: str) -> QueryRefused:
    return QueryRefused(Status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, comment)


def _unable(comment: str) -> QueryRefused:
    return QueryRefused(Status.UNABLE_TO_PROCESS, comment)


# --- answers --------------------------------------------------------------------------------------


@attrs.frozen(slots=True)
class Answered:
    """One answer of a device. `key` tells which entity of the query's level it is; `encoded` is
    what the caller gets, in the `syntax` of the query."""

    key: tuple[str, ...] = attrs.field(repr=False)
    encoded: bytes = attrs.field(repr=False)


def take_answer(
    query: Query,
    encoded: bytes,
    transfer_syntax: str,
    source_title: str,
    description: Description,
    federation_title: str,
) -> Answered | None:
    """What a device has answered; None for an entity that was not asked for.

    Patients of different issuers, or of one that nobody has told, are different ones: without an
    issuer the device stands in its place. Raises ValueError, which names nothing of the content,
    for what cannot be read or does not say which entity it is.
    """
    read = attributes.read(encoded, transfer_syntax, query.read)
    own_issuer = read.get(ISSUER_OF_PATIENT_ID)
    issuer = _patient_text(own_issuer, read) or description.issuer
    if query.asks_issuer and not matches(query.issuer, issuer):
        return None
    if query.level is Level.PATIENT:
        identity = _patient_text(read.get(PATIENT_ID), read)
        key: tuple[str, ...] = ("", issuer, identity) if issuer else (source_title, "", identity)
    else:
        identity = attributes.text(read.get(query.unique_key))
        key = (identity,)
    if not identity:
        raise ValueError("an answer lacks the unique key of its level")
    if max(len(identity), len(issuer)) > MAXIMUM_IDENTITY:
        raise ValueError("an ID in an answer is too long to be one")
    kept = {tag: read[tag] for tag in read if tag in query.wanted or tag == SPECIFIC_CHARACTER_SET}
    if ISSUER_OF_PATIENT_ID in query.wanted and issuer and not attributes.text(own_issuer):
        # One that the answer's character set does not have stays unsaid.
        with suppress(UnicodeError, LookupError):
            kept[ISSUER_OF_PATIENT_ID] = (b"LO", characters.encode(issuer, terms_of(read)))
    kept[QUERY_RETRIEVE_LEVEL] = (b"CS", query.level.value.encode("ascii"))
    if federation_title:
        kept[RETRIEVE_AE_TITLE] = (b"AE", federation_title.encode("ascii"))
    return Answered(key, attributes.write(kept, query.syntax))


def patient_id(answer: bytes) -> str:
    """The Patient ID in an answer, in Explicit VR Little Endian, as `Query.value` has a key."""
    read = attributes.read(
        answer, EXPLICIT_VR_LITTLE_ENDIAN, frozenset({PATIENT_ID, SPECIFIC_CHARACTER_SET})
    )
    return _patient_text(read.get(PATIENT_ID), read)


def _patient_text(attribute: Attribute | None, read: Mapping[int, Attribute]) -> str:
    """An ID of a patient, or its issuer: text, and the same whatever character set it came in."""
    if attribute is None:
        return ""
    value = attribute[1]
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii").strip(" \0")
    try:
        return characters.decode(value, terms_of(read)).strip(" \0")
    except (UnicodeError, LookupError):
        return attributes.text(attribute)
