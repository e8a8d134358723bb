"""One element near the beginning of a data set: found in every encoding, replaced in place."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from relay.dicom import uids
from relay.dicom.elements import (
    ITEM,
    LONGEST_VALUE,
    MAXIMUM_DEPTH,
    RETRIEVE_AE_TITLE,
    TRANSACTION_UID,
    Element,
    Encoding,
    Missing,
    encode,
    encoding_of,
    find,
    replace,
    top_level,
)

IMPLICIT = Encoding(explicit_vr=False)
EXPLICIT = Encoding()
BIG = Encoding(little_endian=False)
ENCODINGS = (IMPLICIT, EXPLICIT, BIG)
NAMES = {IMPLICIT: "implicit", EXPLICIT: "explicit", BIG: "big"}
LONG = (b"OB", b"OW", b"SQ", b"UN", b"UT")
UNDEFINED = 0xFFFF_FFFF

encodings = pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: NAMES[e])


def element(
    encoding: Encoding, tag: int, vr: bytes, value: bytes = b"", length: int | None = None
) -> bytes:
    """An element, spelled out by PS3.5 §7.1; `length` may lie."""
    order = "<" if encoding.little_endian else ">"
    size = len(value) if length is None else length
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if not encoding.explicit_vr or tag >> 16 == 0xFFFE:
        return head + struct.pack(f"{order}I", size) + value
    if vr in LONG:
        return head + vr + bytes(2) + struct.pack(f"{order}I", size) + value
    return head + vr + struct.pack(f"{order}H", size) + value


def item(encoding: Encoding, *inside: bytes, undefined: bool = True) -> bytes:
    content = b"".join(inside)
    if not undefined:
        return element(encoding, 0xFFFE_E000, b"", content)
    opened = element(encoding, 0xFFFE_E000, b"", length=UNDEFINED)
    return opened + content + element(encoding, 0xFFFE_E00D, b"")


def sequence(encoding: Encoding, *items: bytes, tag: int = 0x0008_0006, vr: bytes = b"SQ") -> bytes:
    """A sequence of undefined length."""
    opened = element(encoding, tag, vr, length=UNDEFINED)
    return opened + b"".join(items) + element(encoding, 0xFFFE_E0DD, b"")


def nested(encoding: Encoding, depth: int) -> bytes:
    """A sequence with others in it, in all `depth` of undefined length."""
    inside = b""
    for _ in range(depth):
        inside = sequence(encoding, item(encoding, inside))
    return inside


def before(encoding: Encoding) -> dict[str, bytes]:
    """What may stand before an element of group 0008, by what it is."""
    name = element(encoding, 0x0008_0005, b"CS", b"ISO_IR 100")
    odd = element(encoding, 0x0008_0054, b"AE", b"PACS")  # of the same VR, inside of an item
    decoy = element(encoding, TRANSACTION_UID, b"UI", b"9.9.9\0")
    return {
        "nothing": b"",
        "group 0004": element(encoding, 0x0004_1130, b"CS", b"FILESET"),
        "a group length": element(encoding, 0x0008_0000, b"UL", bytes(4)),
        "a text": name,
        "an empty value": element(encoding, 0x0008_0005, b"CS"),
        "a private one": element(encoding, 0x0007_0010, b"LO", b"PRIVATE "),
        "long VRs": element(encoding, 0x0008_0001, b"UT", b"text")
        + element(encoding, 0x0008_0002, b"OB", b"\1\2"),
        "a sequence of known length": element(
            encoding, 0x0008_0006, b"SQ", item(encoding, decoy, undefined=False)
        ),
        "a sequence": sequence(encoding, item(encoding, name, odd, decoy)),
        "items of both kinds": sequence(
            encoding,
            item(encoding, decoy, undefined=False),
            item(encoding, decoy),
            item(encoding),
            item(encoding, undefined=False),
        ),
        "a sequence without items": sequence(encoding),
        "sequences in sequences": nested(encoding, MAXIMUM_DEPTH),
        # PS3.5 §6.2.2: of undefined length it is implicit VR little endian, whatever is around it.
        "an unknown VR of undefined length": element(encoding, 0x0008_0006, b"UN", length=UNDEFINED)
        + item(IMPLICIT, element(IMPLICIT, TRANSACTION_UID, b"", b"9.9.9\0"))
        + element(IMPLICIT, 0xFFFE_E0DD, b"")
        if encoding is not BIG
        else b"",
        "fragments": element(encoding, 0x0008_0006, b"OB", length=UNDEFINED)
        + item(encoding, b"\xff\xd8\xff\xd9", undefined=False)
        + element(encoding, 0xFFFE_E0DD, b""),
    }


CASES = [
    pytest.param(encoding, stands, id=f"{NAMES[encoding]}, {what}")
    for encoding in ENCODINGS
    for what, stands in before(encoding).items()
]
VALUE = b"1.2.840.10008.1\0"
AFTER = (0x0008_1199, b"SQ")


@pytest.mark.parametrize(("encoding", "stands"), CASES)
def test_an_element_is_found_behind_whatever_stands_before_it(
    encoding: Encoding, stands: bytes
) -> None:
    """Whole, with what follows, and with every byte less."""
    wanted = element(encoding, TRANSACTION_UID, b"UI", VALUE)
    whole = stands + wanted
    for data in (whole, whole + b"\xff" * 7, whole + element(encoding, *AFTER)):
        found = find(data, TRANSACTION_UID, encoding)
        assert isinstance(found, Element)
        assert (found.tag, found.start, found.end) == (TRANSACTION_UID, len(stands), len(whole))
        assert found.text(data) == "1.2.840.10008.1"
    for length in range(len(whole)):
        prefix = whole[:length]
        assert find(prefix, TRANSACTION_UID, encoding) is Missing.NEED_MORE
        assert find(prefix, TRANSACTION_UID, encoding, whole=True) is Missing.ABSENT


@pytest.mark.parametrize(("encoding", "stands"), CASES)
def test_where_it_would_stand_another_one_says_that_it_is_absent(
    encoding: Encoding, stands: bytes
) -> None:
    following = element(encoding, *AFTER)
    assert find(stands + following, TRANSACTION_UID, encoding) is Missing.ABSENT
    # Known as soon as the tag is: nobody waits for a pixel value of gigabytes.
    huge = element(encoding, 0x7FE0_0010, b"OW", length=2**31)
    assert find(stands + huge, TRANSACTION_UID, encoding) is Missing.ABSENT


UNREADABLE = {
    "no VR": lambda e: element(EXPLICIT, 0x0008_0005, b"\0\0", b"xx"),
    "lower case for a VR": lambda e: element(EXPLICIT, 0x0008_0005, b"cs", b"xx"),
    "no item in a sequence": lambda e: sequence(e, element(e, 0x0008_0005, b"CS", b"x ")),
    "too deep": lambda e: nested(e, MAXIMUM_DEPTH + 1),
    "much too deep": lambda e: (
        element(e, 0x0008_0006, b"SQ", length=UNDEFINED)
        + element(e, 0xFFFE_E000, b"", length=UNDEFINED)
        + (
            element(e, 0x0008_0006, b"SQ", length=UNDEFINED)
            + element(e, 0xFFFE_E000, b"", length=UNDEFINED)
        )
        * 5000
    ),
}


@pytest.mark.parametrize("encoding", [EXPLICIT, BIG], ids=lambda e: NAMES[e])
@pytest.mark.parametrize("what", UNREADABLE)
def test_behind_what_cannot_be_read_there_is_nothing(what: str, encoding: Encoding) -> None:
    data = UNREADABLE[what](encoding) + element(encoding, TRANSACTION_UID, b"UI", VALUE)
    assert find(data, TRANSACTION_UID, encoding) is Missing.ABSENT


def test_depth_is_bounded_where_nothing_names_a_vr() -> None:
    deep = nested(IMPLICIT, MAXIMUM_DEPTH + 1) + element(IMPLICIT, TRANSACTION_UID, b"", VALUE)
    assert find(deep, TRANSACTION_UID, IMPLICIT) is Missing.ABSENT


@encodings
def test_an_element_of_undefined_length_has_no_value(encoding: Encoding) -> None:
    found = sequence(encoding, tag=TRANSACTION_UID, vr=b"SQ")
    assert find(found, TRANSACTION_UID, encoding) is Missing.ABSENT


@encodings
def test_a_length_past_the_end_is_waited_for_and_then_missed(encoding: Encoding) -> None:
    data = element(encoding, 0x0008_0005, b"UT", b"short", length=2**31)
    assert find(data, TRANSACTION_UID, encoding) is Missing.NEED_MORE
    assert find(data, TRANSACTION_UID, encoding, whole=True) is Missing.ABSENT


def test_what_a_transfer_syntax_means() -> None:
    assert encoding_of(uids.IMPLICIT_VR_LITTLE_ENDIAN) == IMPLICIT
    assert encoding_of(uids.EXPLICIT_VR_BIG_ENDIAN) == BIG
    assert encoding_of("1.2.840.10008.1.2.4.90") == EXPLICIT
    assert encoding_of(uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN) is None


# --- replaced -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "stands"), [case for case in CASES if "group length" not in str(case.id)]
)
@pytest.mark.parametrize("vr", [b"AE", b"UN"])
@pytest.mark.parametrize("title", ["PACS", "NORTH_PACS", "X", "", "A\\NORTH"])
def test_another_value_changes_nothing_else(
    encoding: Encoding, stands: bytes, vr: bytes, title: str
) -> None:
    behind = element(encoding, *AFTER) + b"whatever it is"
    data = stands + element(encoding, RETRIEVE_AE_TITLE, vr, b"SOUTH ") + behind
    found = find(data, RETRIEVE_AE_TITLE, encoding)
    assert isinstance(found, Element)
    value = title.encode() + b" " * (len(title) % 2)
    changed = replace(data, found, title, encoding)
    assert changed == stands + element(encoding, RETRIEVE_AE_TITLE, vr, value) + behind
    again = find(changed, RETRIEVE_AE_TITLE, encoding)
    assert isinstance(again, Element)
    assert again.text(changed) == title


@encodings
@pytest.mark.parametrize(
    ("said", "then"), [(18, 22), (0, 4), (2**32 - 1, 3)], ids=["true", "too small", "too large"]
)
def test_a_group_length_follows_and_lies_on_where_it_lied(
    encoding: Encoding, said: int, then: int
) -> None:
    order = "<" if encoding.little_endian else ">"

    def data(length: int, title: bytes) -> bytes:
        return (
            element(encoding, 0x0004_0000, b"UL", struct.pack(f"{order}I", 99))  # another group's
            + element(encoding, 0x0008_0000, b"UL", struct.pack(f"{order}I", length))
            + element(encoding, RETRIEVE_AE_TITLE, b"AE", title)
        )

    found = find(data(said, b"PACS"), RETRIEVE_AE_TITLE, encoding)
    assert isinstance(found, Element)
    changed = replace(data(said, b"PACS"), found, "NORTHPAC", encoding)
    assert changed == data(then, b"NORTHPAC")
    # and back
    again = find(changed, RETRIEVE_AE_TITLE, encoding)
    assert isinstance(again, Element)
    assert replace(changed, again, "PACS", encoding) == data(said, b"PACS")


@encodings
def test_a_group_length_that_is_none_stays(encoding: Encoding) -> None:
    stands = element(encoding, 0x0008_0000, b"US", b"\1\2")
    data = stands + element(encoding, RETRIEVE_AE_TITLE, b"AE", b"PACS")
    found = find(data, RETRIEVE_AE_TITLE, encoding)
    assert isinstance(found, Element)
    assert replace(data, found, "NORTHPACS1", encoding).startswith(stands)


@encodings
def test_the_longest_value_fits(encoding: Encoding) -> None:
    data = element(encoding, RETRIEVE_AE_TITLE, b"AE", b"PACS")
    found = find(data, RETRIEVE_AE_TITLE, encoding)
    assert isinstance(found, Element)
    longest = "A" * LONGEST_VALUE
    changed = replace(data, found, longest, encoding)
    again = find(changed, RETRIEVE_AE_TITLE, encoding)
    assert isinstance(again, Element)
    assert again.text(changed) == longest


# --- any bytes, and other people's ----------------------------------------------------------------

TAGS = st.sampled_from([RETRIEVE_AE_TITLE, TRANSACTION_UID, 0x0008_0000, 0xFFFE_E000, 0])


@given(st.binary(max_size=200), TAGS, st.sampled_from(ENCODINGS), st.booleans())
def test_no_bytes_are_too_strange(data: bytes, tag: int, encoding: Encoding, whole: bool) -> None:
    found = find(data, tag, encoding, whole=whole)
    if isinstance(found, Element):
        assert found.tag == tag
        assert 0 <= found.start < found.value <= found.end <= len(data)
        found.text(data)
    else:
        assert not (whole and found is Missing.NEED_MORE)


PIECES = st.sampled_from(
    [piece for encoding in ENCODINGS for piece in before(encoding).values()]
    + [element(encoding, RETRIEVE_AE_TITLE, b"AE", b"PACS") for encoding in ENCODINGS]
)
TITLES = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", max_size=16)


@given(st.lists(PIECES, max_size=6), st.binary(max_size=20), TITLES, st.sampled_from(ENCODINGS))
def test_what_is_replaced_is_found(
    pieces: list[bytes], rest: bytes, title: str, encoding: Encoding
) -> None:
    data = b"".join(pieces) + rest
    found = find(data, RETRIEVE_AE_TITLE, encoding)
    if not isinstance(found, Element):
        return
    changed = replace(data, found, title, encoding)
    again = find(changed, RETRIEVE_AE_TITLE, encoding)
    assert isinstance(again, Element)
    assert again.text(changed) == title
    assert changed[again.end :] == data[found.end :]


def written(data_set: Dataset, encoding: Encoding) -> bytes:
    stream = DicomBytesIO()
    stream.is_little_endian = encoding.little_endian
    stream.is_implicit_VR = not encoding.explicit_vr
    write_dataset(stream, data_set)
    return stream.getvalue()


@encodings
@pytest.mark.parametrize("undefined", [True, False])
def test_as_pydicom_writes_it(encoding: Encoding, undefined: bool) -> None:
    code = Dataset()
    code.CodeValue = "1234"
    code.TransactionUID = "9.9.9"
    inner = Dataset()
    inner.PurposeOfReferenceCodeSequence = [code, code]
    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 192"
    data_set.LanguageCodeSequence = [inner, Dataset()]
    data_set.RetrieveAETitle = ["SOUTH_PACS", "ARCHIVE"]
    data_set.QueryRetrieveLevel = "STUDY"
    data_set.TransactionUID = "1.2.3.4.5"
    data_set.PatientName = "Nobody^At^All"
    for inside in data_set.LanguageCodeSequence:
        inside.is_undefined_length_sequence_item = undefined
    data_set["LanguageCodeSequence"].is_undefined_length = undefined
    data = written(data_set, encoding)
    found = find(data, TRANSACTION_UID, encoding)
    assert isinstance(found, Element)
    assert found.text(data) == "1.2.3.4.5"
    found = find(data, RETRIEVE_AE_TITLE, encoding)
    assert isinstance(found, Element)
    assert found.text(data) == "SOUTH_PACS\\ARCHIVE"
    changed = replace(data, found, "PACS\\ARCHIVE", encoding)
    data_set.RetrieveAETitle = ["PACS", "ARCHIVE"]
    assert changed == written(data_set, encoding)


@encodings
def test_what_is_encoded_is_as_pydicom_writes_it(encoding: Encoding) -> None:
    data_set = Dataset()
    data_set.LongCodeValue = "twelve bytes"  # UC, of those with a length of four bytes
    data_set.TransactionUID = "1.2.3.4.5"
    long = encode(0x0008_0119, b"UC", b"twelve bytes", encoding)
    short = encode(TRANSACTION_UID, b"UI", b"1.2.3.4.5\0", encoding)
    assert long + short == written(data_set, encoding)
    head = "<HHI" if encoding.little_endian else ">HHI"
    assert encode(ITEM, b"", b"ab", encoding) == struct.pack(head, 0xFFFE, 0xE000, 2) + b"ab"


@encodings
def test_all_top_level_elements_are_found(encoding: Encoding) -> None:
    inner = element(encoding, 0x0008_0100, b"SH", b"ab")
    data = (
        element(encoding, 0x0008_0005, b"CS", b"ISO_IR 6")
        + element(encoding, 0x0008_1140, b"SQ", item(encoding, inner), UNDEFINED)
        + element(encoding, 0xFFFE_E0DD, b"")
        + element(encoding, 0x0010_0010, b"PN", b"")
    )
    found = top_level(data, encoding)
    assert found is not None
    assert [(e.tag, e.length) for e in found] == [
        (0x0008_0005, 8),
        (0x0008_1140, 0),
        (0x0010_0010, 0),
    ]
    assert found[0].text(data) == "ISO_IR 6"
    assert top_level(b"", encoding) == []
    assert all(top_level(data[:end], encoding) is None for end in (1, 9, len(data) - 3))
