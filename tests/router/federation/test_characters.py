from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.valuerep import PN_DELIMS

from relay.router.federation.characters import decode, encode

JAPANESE = ["", "ISO 2022 IR 87"]

# Text, terms, bytes: PS3.5 Annexes H, I, J and K have most of these.
EXAMPLES = [
    ("Buc^Jérôme", ["ISO_IR 100"], b"Buc^J\xe9r\xf4me"),
    ("Buc^Jérôme", ["ISO_IR 192"], "Buc^Jérôme".encode()),
    (
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
        JAPANESE,
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    (
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
        ["ISO 2022 IR 13", "ISO 2022 IR 87"],
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J="
        b"\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
    ),
    (
        "Hong^Gildong=洪^吉洞=홍^길동",
        ["", "ISO 2022 IR 149"],
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7="
        b"\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ),
    (
        "Wang^XiaoDong=王^小东",
        ["GB18030"],
        b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab",
    ),
    (
        "Zhang^XiaoDong=张^小东=",
        ["", "ISO 2022 IR 58"],
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
    ),
    ("Люкceмбypг", ["ISO_IR 144"], b"\xbb\xee\xdace\xdc\xd1yp\xd3"),
    ("é^Ж", ["ISO 2022 IR 100", "ISO 2022 IR 144"], b"\xe9^\x1b-L\xb6"),
    # G1 is said anew after a set in G0: there are readers that forget it there.
    (
        "Ж山 Ж",
        ["ISO 2022 IR 100", "ISO 2022 IR 144", "ISO 2022 IR 87"],
        b"\x1b-L\xb6\x1b$B;3\x1b(B \x1b-L\xb6",
    ),
    ("DOE^J*", [], b"DOE^J*"),
    ("DOE^J*", ["ISO 2022 IR 6", "ISO 2022 IR 87"], b"DOE^J*"),
]


@pytest.mark.parametrize(("text", "terms", "data"), EXAMPLES)
def test_the_examples_of_the_standard(text: str, terms: list[str], data: bytes) -> None:
    assert encode(text, terms, name=True) == data
    assert decode(data, terms, name=True) == text


MISSING = [
    ("é", []),
    ("é", ["ISO_IR 6"]),
    ("山", ["ISO_IR 100"]),
    ("é", JAPANESE),
    ("é", ["GBK"]),
    ("山", ["ISO_IR 13"]),
    ("¥", ["ISO_IR 13"]),
    ("홍", ["", "ISO 2022 IR 58"]),
]


@pytest.mark.parametrize(("text", "terms"), MISSING)
def test_nothing_is_replaced(text: str, terms: list[str]) -> None:
    if terms == ["GBK"]:
        text = "\U0001f600"
    with pytest.raises(UnicodeError):
        encode(text, terms)


@pytest.mark.parametrize("terms", [["KLINGON"], ["", "ISO_IR 192"], ["KLINGON", "ISO 2022 IR 87"]])
def test_a_term_that_is_not_known(terms: list[str]) -> None:
    with pytest.raises(LookupError):
        encode("é", terms)
    assert encode("E", terms) == b"E"  # ASCII is in all of them


def test_without_a_character_set_bytes_are_read_as_latin_1() -> None:
    assert decode(b"J\xe9r", []) == decode(b"J\xe9r", [""]) == "Jér"
    assert decode(b"J\xe9r\x1b$B;3\x1b(B", JAPANESE) == "Jér山"


def test_a_set_of_several_bytes_that_is_named_alone_stands_behind_ascii() -> None:
    assert decode(b"\x1b$B;3ED\x1b(B", ["ISO 2022 IR 87"]) == "山田"
    assert encode("山田", ["ISO 2022 IR 87"]) == b"\x1b$B;3ED\x1b(B"


@pytest.mark.parametrize("data", [b"\x1b$Z!!", b"\x1b$B;", b"\x1b$)C\xff", b"\x1b"])
def test_what_cannot_be_read_is_an_error(data: bytes) -> None:
    with pytest.raises(UnicodeError):
        decode(data, ["", "ISO 2022 IR 87", "ISO 2022 IR 149"])


def test_each_value_begins_in_the_first_set() -> None:
    terms = ["ISO 2022 IR 100", "ISO 2022 IR 144"]
    assert encode("Ж\\Ж", terms) == b"\x1b-L\xb6\\\x1b-L\xb6"
    assert decode(b"\x1b-L\xb6\\\xe9", terms) == "Ж\\é"
    assert encode("山\\山", JAPANESE) == b"\x1b$B;3\x1b(B\\\x1b$B;3\x1b(B"


def test_a_backslash_in_a_character_is_no_delimiter() -> None:
    """The second byte of 92 is one: 曾 in GB18030, 表 has it in Shift JIS."""
    data = "\u8e61".encode("gb18030")
    for character in map(chr, range(0x4E00, 0x9FFF)):
        data = character.encode("gb18030")
        if b"\\" in data:
            break
    assert decode(data + b"\\x", ["GB18030"]) == f"{character}\\x"


SETS = [
    (["ISO_IR 100"], "aé^=*ß "),
    (["ISO_IR 192"], "a山é홍^= "),
    (["GB18030"], "a山小홍^= "),
    (JAPANESE, "ab山田^=たろ "),
    (["", "ISO 2022 IR 149"], "ab홍길^=洪 "),
    (["ISO 2022 IR 100", "ISO 2022 IR 144", "ISO 2022 IR 87"], "aéЖ山^=Я "),
    (["ISO 2022 IR 13", "ISO 2022 IR 87"], "aﾔﾏ山^= "),
]


@given(st.sampled_from(SETS).flatmap(lambda s: st.tuples(st.just(s[0]), st.text(s[1]))))
def test_what_is_written_is_read_here_and_by_pydicom(case: tuple[list[str], str]) -> None:
    terms, text = case
    data = encode(text, terms, name=True)
    assert decode(data, terms, name=True) == text
    assert decode_bytes(data, convert_encodings(list(terms)), {*PN_DELIMS, 0x3D}) == text


@given(st.binary(max_size=40), st.sampled_from([s[0] for s in SETS]))
def test_any_bytes_are_read_or_refused(data: bytes, terms: list[str]) -> None:
    with suppress(UnicodeError):
        decode(data, terms)
