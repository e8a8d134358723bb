"""The keys of a query: from an identifier to text as people read it, and to each device's own.

A `Dataset` of pydicom between both, whose text is Unicode whatever it came in. pydicom reads and
writes what has no text in it; text is decoded here, since a value may have to be decoded before it
is split, and encoded here, since nothing may be replaced on the way.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pydicom
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import Tag

from relay.dicom import character_sets
from relay.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from relay.router.federation import attributes, characters
from relay.router.federation.attributes import Attribute

SPECIFIC_CHARACTER_SET = 0x0008_0005

# What may have another character set than the default one (PS3.5 §6.1.2.3).
_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_ONE_VALUE = frozenset({"LT", "ST", "UT"})  # of which a backslash is a part


def decode_keys(read: Mapping[int, Attribute]) -> Dataset:
    """The keys as text. Raises UnicodeError for what is not in their Specific Character Set,
    LookupError for one that is not known, and ValueError or the like for what cannot be read."""
    with _without_argument():
        return _decode(read, ())


def encode_keys(keys: Dataset, terms: Sequence[str]) -> dict[int, Attribute]:
    """The keys in the character set of `terms`, items in the same one as what they stand in.

    Raises UnicodeError for a character that it has not, LookupError for one that is not known.
    """
    encoded: dict[int, Attribute] = {}
    for element in keys:
        tag, vr = int(element.tag), str(element.VR)
        if vr == "SQ":
            items = (encode_keys(item, terms) for item in element.value or ())
            value = attributes.sequence(
                attributes.write(
                    {tag: item[tag] for tag in item if tag != SPECIFIC_CHARACTER_SET},
                    EXPLICIT_VR_LITTLE_ENDIAN,
                )
                for item in items
            )
        elif vr in _TEXT:
            value = characters.encode("\\".join(texts_of(element)), terms, name=vr == "PN")
        else:
            value = _without_text(element)
        encoded[tag] = vr.encode("ascii") if len(vr) == 2 else b"UN", value
    return encoded


def terms_of(read: Mapping[int, Attribute]) -> list[str]:
    """The values of Specific Character Set (0008,0005) in a data set."""
    return character_sets.values(attributes.text(read.get(SPECIFIC_CHARACTER_SET)))


def texts_of(element: DataElement | None) -> list[str]:
    """The values of an element as text: DS and IS are what they came as."""
    if element is None or element.is_empty:
        return []
    return list(map(str, element.value if element.VM > 1 else [element.value]))


def is_narrow(element: DataElement) -> bool:
    """Whether the key fits less than all there is (PS3.4 §C.2.2.2)."""
    if element.VR == "SQ":
        return any(is_narrow(inner) for item in element.value or () for inner in item)
    # Neither universal matching, nor a pattern or range without an end that everything fits.
    return any(text.strip("*?^=- ") for text in texts_of(element))


def matches(pattern: str, text: str) -> bool:
    """Wild card matching (PS3.4 §C.2.2.2.4) of one of the values of a key."""
    return any(_fits(one.strip(" "), text) for one in pattern.split("\\"))


def _fits(pattern: str, text: str) -> bool:
    """As a regular expression it would take a time that doubles with each `*?` of a caller's."""
    at = read = 0
    star, behind = -1, 0  # the last `*`, and where in the text it ends as far as was tried
    while read < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, behind = at, read
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[read]):
            at, read = at + 1, read + 1
        elif star >= 0:
            behind += 1
            at, read = star + 1, behind
        else:
            return False
    return not pattern[at:].strip("*")


def _decode(read: Mapping[int, Attribute], outer: Sequence[str]) -> Dataset:
    # An item has the character set of what it stands in, unless it has its own (PS3.5 §7.5.3).
    terms = terms_of(read) if SPECIFIC_CHARACTER_SET in read else outer
    keys = Dataset()
    for tag, (vr, value) in read.items():
        keys.add(_element(tag, vr.decode("ascii"), value, terms))
    return keys


def _element(tag: int, vr: str, value: bytes, terms: Sequence[str]) -> DataElement:
    if vr == "SQ":
        items = (attributes.read(i, EXPLICIT_VR_LITTLE_ENDIAN) for i in attributes.items(value))
        return DataElement(tag, vr, [_decode(item, terms) for item in items])
    if vr in _TEXT:
        # Decoded before it is split: a backslash may be the second byte of a character.
        text = characters.decode(value, terms, name=vr == "PN").rstrip(" \0")
        values = [text] if vr in _ONE_VALUE else text.split("\\")
        return DataElement(tag, vr, values[0] if len(values) == 1 else values)
    return convert_raw_data_element(RawDataElement(Tag(tag), vr, len(value), value, 0, False, True))


def _without_text(element: DataElement) -> bytes:
    """The value of an element that has no text in it, as pydicom writes it."""
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = True  # whose header is eight bytes, whatever the VR
    write_data_element(buffer, element)
    return buffer.getvalue()[8:]


@contextmanager
def _without_argument() -> Iterator[None]:
    """A number with a wildcard is legal in a query: pydicom is not to argue, which it does aloud,
    with the value. (Nothing else runs meanwhile.)"""
    settings = pydicom.config.settings
    before = settings.reading_validation_mode
    settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        yield
    finally:
        settings.reading_validation_mode = before
