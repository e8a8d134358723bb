"""The JSON model: of made data sets value by value, of real ones as pydicom reads it back."""

import json
import warnings
from typing import Any

import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from relay.dicom.elements import encoding_of
from relay.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from relay.router.dicomweb import json_model
from relay.router.dicomweb.frames import encoded_in
from relay.router.dicomweb.json_model import INLINE, model
from relay.router.dicomweb.scanning import BulkBegun, Scanner, UnreadableError
from tests import images


def encode(data_set: pydicom.Dataset, *, implicit: bool = False) -> bytes:
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, implicit
    write_dataset(file, data_set)
    return file.getvalue()


def raw(tag: int, vr: bytes, value: bytes) -> bytes:
    long = vr in (b"OB", b"OW", b"UN", b"UT", b"UC", b"SV", b"UV")
    length = len(value).to_bytes(4 if long else 2, "little")
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr
    return head + (b"\0\0" if long else b"") + length + value


@pytest.mark.parametrize(
    ("vr", "value", "expected"),
    [
        (b"LO", b"a \\b ", {"Value": ["a", "b"]}),
        (b"LO", b"a\\\\b", {"Value": ["a", None, "b"]}),
        (b"LO", b"", {}),
        (b"LO", b"\\ ", {}),
        (b"LT", b" a\\b ", {"Value": [" a\\b"]}),
        (b"UI", b"1.2\0", {"Value": ["1.2"]}),
        (b"IS", b"12\\-3 ", {"Value": [12, -3]}),
        (b"IS", b"1.5 ", {"Value": ["1.5"]}),
        (b"IS", b"1_0 ", {"Value": ["1_0"]}),
        (b"IS", b"9007199254740993", {"Value": ["9007199254740993"]}),
        (b"DS", b"1.50\\2 \\-3e400 ", {"Value": [1.5, 2, "-3e400"]}),
        (b"DS", b"1_0 ", {"Value": ["1_0"]}),
        (b"US", b"\x01\0\xff\xff", {"Value": [1, 65535]}),
        (b"US", b"\x01\0\xff", {"Value": [1]}),
        (b"SS", b"\xff\xff", {"Value": [-1]}),
        (b"FL", b"\0\0\xc0\x7f\0\0\x80\xff\0\0\x80?", {"Value": ["NaN", "-inf", 1.0]}),
        (b"UV", b"\xff" * 8, {"Value": ["18446744073709551615"]}),
        (b"AT", b"\x10\0\x20\0", {"Value": ["00100020"]}),
        (b"OB", b"ab", {"InlineBinary": "YWI="}),
        (b"OB", b"", {}),
        (b"PN", b"A^B=C=D \\E", {
            "Value": [
                {"Alphabetic": "A^B", "Ideographic": "C", "Phonetic": "D"},
                {"Alphabetic": "E"},
            ]
        }),
        (b"PN", b"=C^D", {"Value": [{"Ideographic": "C^D"}]}),
    ],
)  # fmt: skip
def test_a_value(vr: bytes, value: bytes, expected: dict[str, Any]) -> None:
    found = model(raw(0x0009_1001, vr, value), EXPLICIT_VR_LITTLE_ENDIAN)
    assert found == {"00091001": {"vr": vr.decode()} | expected}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("terms", "name"),
    [
        ("ISO_IR 100", "Buc^Jérôme"),
        ("ISO_IR 192", "王^小東"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
)
def test_text_is_unicode_whatever_it_was(terms: str | list[str], name: str) -> None:
    data_set = pydicom.Dataset()
    data_set.SpecificCharacterSet = terms
    data_set.PatientName = name
    inner = pydicom.Dataset()
    inner.StudyDescription = "ä" if terms == "ISO_IR 100" else name.partition("=")[2]
    data_set.ReferencedStudySequence = [inner]
    found = model(encode(data_set), EXPLICIT_VR_LITTLE_ENDIAN)
    assert found["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert "=".join(found["00100010"]["Value"][0].values()) == name
    # A sequence's items have the character set of what they are in (PS3.5 §7.5.3).
    [item] = found["00081110"]["Value"]
    assert item["00081030"].get("Value", [""]) == [inner.StudyDescription]


def test_text_that_is_not_in_its_character_set_does_not_stop_the_rest() -> None:
    data = raw(0x0008_0005, b"CS", b"ISO_IR 192") + raw(0x0010_0010, b"PN", b"J\xe9r\xf4me ")
    assert model(data, EXPLICIT_VR_LITTLE_ENDIAN)["00100010"]["Value"] == [{"Alphabetic": "Jérôme"}]
    data = raw(0x0008_0005, b"CS", b"NO SUCH ") + raw(0x0010_0010, b"PN", b"J\xe9")
    assert model(data, EXPLICIT_VR_LITTLE_ENDIAN)["00100010"]["Value"] == [{"Alphabetic": "Jé"}]


def test_implicit_values_have_the_vr_of_the_dictionary() -> None:
    data_set = pydicom.Dataset()
    data_set.PixelRepresentation = 1
    data_set.SmallestImagePixelValue = -5
    data_set["SmallestImagePixelValue"].VR = "SS"
    data_set.add(DataElement(0x0009_0010, "LO", "CREATOR"))
    data_set.add(DataElement(0x0009_1001, "UN", b"ab"))
    found = model(encode(data_set, implicit=True), IMPLICIT_VR_LITTLE_ENDIAN)
    assert found == {
        "00090010": {"vr": "LO", "Value": ["CREATOR"]},
        "00091001": {"vr": "UN", "InlineBinary": "YWI="},
        "00280103": {"vr": "US", "Value": [1]},
        "00280106": {"vr": "SS", "Value": [-5]},
    }


def test_long_values_are_bulk_data_with_the_path_of_their_element() -> None:
    waveform = pydicom.Dataset()
    waveform.add_new(0x5400_1010, "OW", bytes(INLINE + 2))
    waveform.add_new(0x5400_1004, "US", 16)
    data_set = pydicom.Dataset()
    data_set.WaveformSequence = [pydicom.Dataset(), waveform]
    pixels = BulkBegun(0x7FE0_0010, b"OW", 99)
    encoded = encode(data_set)
    found = model(
        encoded, EXPLICIT_VR_LITTLE_ENDIAN, bulk=[pixels], uri=lambda path: f"/bulkdata/{path}"
    )
    assert found["54000100"]["Value"][1]["54001010"] == {
        "vr": "OW",
        "BulkDataURI": "/bulkdata/54000100/1/54001010",
    }
    assert found["7FE00010"] == {"vr": "OW", "BulkDataURI": "/bulkdata/7FE00010"}
    assert "54001010" not in model(encoded, EXPLICIT_VR_LITTLE_ENDIAN)["54000100"]["Value"][1]


def test_real_objects_are_as_pydicom_reads_them() -> None:
    seen = 0
    wrong: list[str] = []
    for image in images.shipped():
        encoding = encoding_of(image.transfer_syntax)
        if encoding is None or not encoding.little_endian:
            continue
        scanner = Scanner(encoding)
        try:
            scanner.feed(image.data_set())
        except UnreadableError:  # in another transfer syntax than its meta information says
            continue
        if not scanner.whole:
            continue  # cut short on purpose
        try:
            found = model(scanner.head, encoded_in(image.transfer_syntax), bulk=scanner.bulk)
        except ValueError:
            wrong.append(image.path.name)
            continue
        json.dumps(found, allow_nan=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            original = pydicom.dcmread(image.path)
            for element in original:
                if not element.tag.element or element.tag.is_private:
                    continue  # the length of a group; pydicom knows some makers' attributes
                if element.VR in ("UI", "CS", "US", "UL", "DA", "TM") and not element.is_empty:
                    expected = element.value if element.VM > 1 else [element.value]
                    if element.tag == json_model.SPECIFIC_CHARACTER_SET:
                        expected = ["ISO_IR 192"]
                    assert found[f"{int(element.tag):08X}"] == {
                        "vr": element.VR,
                        "Value": [
                            one.strip() or None if isinstance(one, str) else one for one in expected
                        ],
                    }, (image.path, element.tag)
        seen += 1
    assert seen > 50
    assert wrong == ["winter.dcm"]  # an element stands twice in it


def test_what_is_no_data_set_is_told_without_a_word_of_it() -> None:
    with pytest.raises(ValueError, match="longer than what") as error:
        model(raw(0x0010_0010, b"PN", b"Doe^John")[:-3], EXPLICIT_VR_LITTLE_ENDIAN)
    assert "Doe" not in str(error.value)
