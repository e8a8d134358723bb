import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from relay.router.federation.attributes import items, read, sequence, text, write
from tests.router.federation.datasets import EXPLICIT, IMPLICIT, dataset, decoded, encoded

NAME, UID = 0x0010_0010, 0x0020_000D


def answer() -> Dataset:
    inner = dataset(CodeValue="1", CodeMeaning="Gefäß")
    return dataset(
        SpecificCharacterSet="ISO_IR 100",
        PatientName="Müller^Jörg",
        StudyInstanceUID="1.2.3",
        Rows=512,
        ModalitiesInStudy=["CT", "MR"],
        ProcedureCodeSequence=[
            inner,
            dataset(CodeValue="2", PurposeOfReferenceCodeSequence=[inner]),
        ],
        InstanceNumber="7",
        StudyComments="one\\two",
    )


@pytest.mark.parametrize("source", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT])
def test_goes_from_either_transfer_syntax_into_either(source: str, target: str) -> None:
    assert write(read(encoded(answer(), source), source), target) == encoded(answer(), target)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_reads_sequences_of_undefined_length(syntax: str) -> None:
    made = answer()
    made["ProcedureCodeSequence"].is_undefined_length = True
    for item in made.ProcedureCodeSequence:
        item.is_undefined_length_sequence_item = True
    open_ended = encoded(made, syntax)
    assert b"\xff\xff\xff\xff" in open_ended
    assert write(read(open_ended, syntax), EXPLICIT) == encoded(answer())


def test_reads_a_sequence_of_unknown_vr_as_implicit() -> None:
    """PS3.5 §6.2.2, note 4."""
    inner = encoded(dataset(CodeValue="1"), IMPLICIT)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    unknown = struct.pack("<HH2s2xI", 0x0009, 0x1010, b"UN", 0xFFFFFFFF) + item + end
    after = encoded(dataset(PatientID="7"))
    found = read(unknown + after, EXPLICIT)
    assert found[0x0009_1010][0] == b"SQ"
    assert text(found[0x0010_0020]) == "7"
    assert list(items(found[0x0009_1010][1])) == [encoded(dataset(CodeValue="1"))]


FRAGMENTS = b"\xfe\xff\0\xe0\0\0\0\0" + b"\xfe\xff\0\xe0\x04\0\0\0jpeg"
ICON = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + FRAGMENTS


def test_compressed_pixel_data_of_an_icon_is_passed_over() -> None:
    end = b"\xfe\xff\xdd\xe0\0\0\0\0"
    rows = b"\x28\0\x10\0US\2\0\x40\0"
    icons = b"\x88\0\0\2SQ\0\0" + struct.pack("<I", 8 + len(rows + ICON + end))
    item = b"\xfe\xff\0\xe0" + struct.pack("<I", len(rows + ICON + end)) + rows + ICON + end
    found = read(icons + item, EXPLICIT)
    (icon,) = items(found[0x0088_0200][1])
    assert read(icon, EXPLICIT) == {0x0028_0010: (b"US", b"\x40\0"), 0x7FE0_0010: (b"OB", b"")}
    for wrong in (ICON, ICON[:-2], ICON + b"\xe0\x7f\x10\0\0\0\0\0"):
        with pytest.raises(ValueError, match=r"fragment|middle|no VR"):
            read(wrong, EXPLICIT)


def test_keeps_what_is_wanted_and_no_group_lengths() -> None:
    group_length = struct.pack("<HH2sHI", 0x0008, 0x0000, b"UL", 4, 4711)
    found = read(group_length + encoded(answer()), EXPLICIT)
    assert 0x0008_0000 not in found
    assert NAME in found
    assert set(read(encoded(answer()), EXPLICIT, {UID, 0x0008_0000})) == {UID}


def test_private_attributes_have_the_vr_that_says_nothing_wrong() -> None:
    made = Dataset()
    made.add_new(0x0009_0010, "LO", "ACME")
    made.add_new(0x0009_1001, "SH", "x")
    found = read(encoded(made, IMPLICIT), IMPLICIT)
    assert found == {0x0009_0010: (b"LO", b"ACME"), 0x0009_1001: (b"UN", b"x ")}


def test_a_value_too_long_for_its_vr_becomes_unknown() -> None:
    """PS3.5 §6.2.2, note 5."""
    long = {NAME: (b"PN", b"x" * 0x10000)}
    again = read(write(long, IMPLICIT), IMPLICIT)
    assert again == long
    assert read(write(again, EXPLICIT), EXPLICIT) == {NAME: (b"UN", b"x" * 0x10000)}


def test_odd_values_are_padded() -> None:
    assert write({UID: (b"UI", b"1.2")}, EXPLICIT).endswith(b"1.2\0")
    assert write({NAME: (b"PN", b"A^B")}, IMPLICIT).endswith(b"A^B ")


BAD = {
    "cut in a header": encoded(answer())[:-9],
    "cut in a value": encoded(answer())[:-1],
    "twice": encoded(dataset(PatientID="7")) * 2,
    "no VR": struct.pack("<HH2sH", 0x0010, 0x0010, b"\0\1", 0),
    "endless": struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF),
    "no item": struct.pack("<HH2s2xI", 0x0008, 0x1032, b"SQ", 8) + encoded(dataset(PatientID="")),
    "never ends": struct.pack("<HH2s2xI", 0x0008, 0x1032, b"SQ", 0xFFFFFFFF),
    "item past its sequence": struct.pack("<HH2s2xI", 0x0008, 0x1032, b"SQ", 10)
    + struct.pack("<HHI", 0xFFFE, 0xE000, 8)
    + bytes(8),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_refuses_what_is_no_data_set(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^[a-zA-Z ]+$"):
        read(data, EXPLICIT)


def test_sequences_in_sequences_are_bounded() -> None:
    data = b""
    for _ in range(200):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data
        data = struct.pack("<HH2s2xI", 0x0008, 0x1032, b"SQ", len(item)) + item
    with pytest.raises(ValueError, match="too many sequences"):
        read(data, EXPLICIT)


@given(st.binary(max_size=200), st.sampled_from([EXPLICIT, IMPLICIT]))
def test_any_bytes_are_read_or_refused(data: bytes, syntax: str) -> None:
    try:
        found = read(data, syntax)
    except ValueError:
        return
    assert read(write(found, EXPLICIT), EXPLICIT).keys() == found.keys()


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "PatientName": st.sampled_from(["", "DOE^JANE", "A" * 63]),
        "StudyInstanceUID": st.sampled_from(["", "1.2", "1.2.34"]),
        "Rows": st.integers(0, 65535),
        "ReferencedStudySequence": st.lists(
            st.builds(lambda uid: dataset(ReferencedSOPInstanceUID=uid), st.just("1.2.3")),
            max_size=3,
        ),
        "AccessionNumber": st.text("ABC123", max_size=16),
    },
)


@given(VALUES, st.sampled_from([EXPLICIT, IMPLICIT]))
def test_agrees_with_pydicom(values: dict[str, Any], syntax: str) -> None:
    made = dataset(**values)
    ours = write(read(encoded(made, syntax), syntax), EXPLICIT)
    assert ours == encoded(made)
    assert decoded(ours) == made


def test_sequence_and_items_are_each_other_s_reverse() -> None:
    assert list(items(sequence([b"ab", b"", b"cdef"]))) == [b"ab", b"", b"cdef"]
