"""Specific Character Set: which terms there are, and which may stand together."""

import pydicom.charset
import pytest

from relay.dicom.character_sets import DEFINED_TERMS, problem, values


@pytest.mark.parametrize(
    "character_set",
    [
        "",
        "ISO_IR 100",
        "ISO_IR 192",
        "GB18030",
        "ISO 2022 IR 6",
        "ISO 2022 IR 100",
        "\\ISO 2022 IR 87",
        "ISO 2022 IR 6\\ISO 2022 IR 87\\ISO 2022 IR 159",
        "ISO 2022 IR 13 \\ ISO 2022 IR 87",
        "ISO 2022 IR 100\\ISO 2022 IR 144",
    ],
)
def test_what_may_be_said(character_set: str) -> None:
    assert problem(character_set) == ""


@pytest.mark.parametrize(
    ("character_set", "words"),
    [
        ("UTF-8", "no defined term of DICOM: 'UTF-8'; Unicode is ISO_IR 192"),
        ("ISO_IR_192", "did you mean ISO_IR 192?"),
        ("iso_ir 100", "did you mean ISO_IR 100?"),
        ("ISO 2022 IR 87", "stands behind another: \\ISO 2022 IR 87"),
        ("ISO_IR 100\\ISO 2022 IR 87", "ISO_IR 100 is not the first of several"),
        ("ISO_IR 192\\ISO 2022 IR 87", "ISO_IR 192 is not the first of several"),
        ("ISO 2022 IR 87\\ISO 2022 IR 6", "ISO 2022 IR 87 is not the first of several"),
        ("ISO 2022 IR 6\\ISO_IR 192", "ISO_IR 192 does not stand behind another"),
        ("ISO 2022 IR 6\\", "an empty value does not stand behind another"),
        ("\\", "an empty value does not stand behind another"),
        ("ISO 2022 IR 6\\ISO 2022 IR 87\\ISO 2022 IR 87", "named twice"),
        ("\\ISO 2022 IR 1", "no defined term of DICOM: 'ISO 2022 IR 1'; did you mean ISO 2022"),
    ],
)
def test_what_may_not(character_set: str, words: str) -> None:
    assert words in problem(character_set)


def test_spaces_around_a_value_do_not_count() -> None:
    assert values(" ISO 2022 IR 6 \\ISO 2022 IR 87") == ["ISO 2022 IR 6", "ISO 2022 IR 87"]


def test_what_is_read_elsewhere_has_each_term() -> None:
    # The library that reads data sets for the federation has aliases besides, of no standard.
    assert set(pydicom.charset.python_encoding) >= DEFINED_TERMS
