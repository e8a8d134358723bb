import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from relay.router.federation import attributes
from relay.router.federation.keys import (
    decode_keys,
    encode_keys,
    is_narrow,
    matches,
    terms_of,
    texts_of,
)
from tests.router.federation.datasets import EXPLICIT, dataset, decoded, encoded


def read(made: Dataset) -> Dataset:
    return decode_keys(attributes.read(encoded(made), EXPLICIT))


def written(keys: Dataset, *terms: str) -> Dataset:
    """As a reader sees it that knows the character set."""
    found = encode_keys(keys, terms)
    found[0x0008_0005] = b"CS", "\\".join(terms).encode()
    return decoded(attributes.write(found, EXPLICIT))


def test_items_have_the_character_set_of_what_they_stand_in() -> None:
    inner = dataset(CodeMeaning="Gefäß")
    own = dataset(SpecificCharacterSet="ISO_IR 192", CodeMeaning="Gefäß")
    keys = read(dataset(SpecificCharacterSet="ISO_IR 100", ProcedureCodeSequence=[inner, own]))
    assert [item.CodeMeaning for item in keys.ProcedureCodeSequence] == ["Gefäß", "Gefäß"]
    again = written(keys, "ISO_IR 192")
    assert [item.CodeMeaning for item in again.ProcedureCodeSequence] == ["Gefäß", "Gefäß"]
    assert not any("SpecificCharacterSet" in item for item in again.ProcedureCodeSequence)


def test_a_backslash_within_a_character_divides_nothing() -> None:
    character = next(c for c in map(chr, range(0x4E00, 0x9FFF)) if b"\\" in c.encode("gb18030"))
    data = attributes.write(
        {0x0008_0005: (b"CS", b"GB18030"), 0x0010_0020: (b"LO", character.encode("gb18030"))},
        EXPLICIT,
    )
    keys = decode_keys(attributes.read(data, EXPLICIT))
    assert keys.PatientID == character


def test_text_of_one_value_keeps_its_backslashes() -> None:
    keys = read(dataset(StudyComments="a\\b", OtherPatientNames=["A^B", "C^D"]))
    assert keys.StudyComments == "a\\b"
    assert texts_of(keys["OtherPatientNames"]) == ["A^B", "C^D"]
    again = written(keys, "ISO_IR 192")
    assert again.StudyComments == "a\\b"
    assert again.OtherPatientNames == ["A^B", "C^D"]


def test_nothing_is_replaced() -> None:
    keys = read(dataset(SpecificCharacterSet="ISO_IR 192", PatientName="山田"))
    with pytest.raises(UnicodeError):
        encode_keys(keys, ["ISO_IR 100"])
    with pytest.raises(LookupError):
        encode_keys(keys, ["KLINGON"])


@pytest.mark.filterwarnings("ignore:Unknown encoding")
def test_what_cannot_be_read() -> None:
    wrong = dataset(SpecificCharacterSet="ISO_IR 192")
    data = encoded(wrong) + encoded(dataset(PatientID="xx")).replace(b"xx", b"\xff\xfe")
    with pytest.raises(UnicodeError):
        decode_keys(attributes.read(data, EXPLICIT))


def test_texts() -> None:
    keys = read(dataset(PatientSize="1.50", SeriesNumber="007", StudyDate="", PatientID=None))
    assert texts_of(keys["PatientSize"]) == ["1.50"]
    assert texts_of(keys["SeriesNumber"]) == ["007"]
    assert texts_of(keys["StudyDate"]) == texts_of(keys["PatientID"]) == texts_of(None) == []


def test_terms() -> None:
    found = attributes.read(encoded(dataset(SpecificCharacterSet=["", "ISO 2022 IR 87"])), EXPLICIT)
    assert terms_of(found) == ["", "ISO 2022 IR 87"]
    assert terms_of({}) == [""]


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("A", "A", True),
        ("A", "AB", False),
        ("A*", "AB", True),
        ("?B", "AB", True),
        ("a", "A", False),
        ("X\\A ", "A", True),
        ("A.", "AB", False),
        ("", "", True),
        ("*", "", True),
    ],
)
def test_wild_cards(pattern: str, text: str, fits: bool) -> None:
    assert matches(pattern, text) is fits


def test_what_is_narrow() -> None:
    assert is_narrow(dataset(PatientID="7")["PatientID"])
    assert not is_narrow(dataset(PatientID="*")["PatientID"])
    assert not is_narrow(dataset(PatientID="")["PatientID"])
    assert is_narrow(dataset(Rows=512)["Rows"])


NAMES = st.text(st.sampled_from("AZé^=*?山田ÿ "), max_size=12).map(str.rstrip)


@given(NAMES, st.sampled_from(["ISO_IR 192", "GB18030", "\\ISO 2022 IR 87", "ISO_IR 100"]))
def test_a_name_arrives_or_is_not_sent(name: str, character_set: str) -> None:
    keys = read(dataset(SpecificCharacterSet="ISO_IR 192", PatientName=name))
    try:
        again = written(keys, *character_set.split("\\"))
    except UnicodeError:
        return
    assert str(again.PatientName) == str(keys.PatientName)


def test_no_pattern_takes_long() -> None:
    """By a regular expression this would outlast the Router."""
    assert not matches("*?" * 31 + "x", "1" * 64)
    assert matches("*?" * 31 + "1", "1" * 64)


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_wild_cards_are_those_of_the_standard(pattern: str, text: str) -> None:
    as_expression = pattern.replace("*", ".*").replace("?", ".")
    assert matches(pattern, text) is bool(re.fullmatch(as_expression, text))
