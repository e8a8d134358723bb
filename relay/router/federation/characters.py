"""Text in the character sets of DICOM: the keys of a query in each device's own (PS3.5 §6.1).

Nothing is ever replaced by a question mark: what a character set does not have raises an error, and
whoever asks for it learns that the device cannot be asked.

With code extensions (several terms) each stretch of text begins in the first of them, and an escape
sequence leads to another: one of 94 × 94 characters in G0, which leaves by another escape sequence
before the stretch ends, or one in G1, which is left with the stretch (PS3.5 §6.1.2.5.3). Stretches
end with a line and, in a person's name, at ^ and =; and at the backslash between two values.
"""

from collections.abc import Sequence

# Python's names of the single-byte sets, by their numbers in the terms: PS3.3 Table C.12-2.
_SINGLE_BYTE = {
    "100": "iso8859_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "144": "iso8859_5",
    "127": "iso8859_6",
    "126": "iso8859_7",
    "138": "iso8859_8",
    "148": "iso8859_9",
    "166": "iso8859_11",
    "13": "shift_jis",
    "6": "ascii",
}
_ALONE = {"": "ascii", "ISO_IR 192": "utf_8", "GB18030": "gb18030", "GBK": "gbk"}
_ALONE |= {f"ISO_IR {number}": codec for number, codec in _SINGLE_BYTE.items()}
_ALONE |= {f"ISO 2022 IR {number}": codec for number, codec in _SINGLE_BYTE.items()}

# Of the terms with code extensions: what leads to them (PS3.3 Tables C.12-3 and C.12-4), and how
# many bytes a character has.
_ASCII = b"\x1b(B"
_JIS_ROMAN = b"\x1b(J"
_G0 = {"ISO 2022 IR 87": b"\x1b$B", "ISO 2022 IR 159": b"\x1b$(D"}
_G1 = {
    "ISO 2022 IR 100": b"\x1b-A",
    "ISO 2022 IR 101": b"\x1b-B",
    "ISO 2022 IR 109": b"\x1b-C",
    "ISO 2022 IR 110": b"\x1b-D",
    "ISO 2022 IR 144": b"\x1b-L",
    "ISO 2022 IR 127": b"\x1b-G",
    "ISO 2022 IR 126": b"\x1b-F",
    "ISO 2022 IR 138": b"\x1b-H",
    "ISO 2022 IR 148": b"\x1b-M",
    "ISO 2022 IR 166": b"\x1b-T",
    "ISO 2022 IR 13": b"\x1b)I",
    "ISO 2022 IR 149": b"\x1b$)C",
    "ISO 2022 IR 58": b"\x1b$)A",
}
_G1_CODECS = {"ISO 2022 IR 149": "euc_kr", "ISO 2022 IR 58": "gb2312"}  # two bytes each
_G0_CODECS = {"ISO 2022 IR 87": "iso2022_jp", "ISO 2022 IR 159": "iso2022_jp_2"}
_ESCAPES = {sequence: term for term, sequence in (_G0 | _G1).items()} | {_ASCII: "", _JIS_ROMAN: ""}

_LINES = "\t\n\f\r\\"


def encode(text: str, terms: Sequence[str], *, name: bool = False) -> bytes:
    """`text`, with the backslashes between its values, in the character set of `terms`.

    `terms` are the values of Specific Character Set (0008,0005); `name`: a person's. Raises
    UnicodeError for a character that is not in it, and LookupError for a term that is not known.
    """
    if text.isascii():
        return text.encode("ascii")
    terms = _with_first(terms)
    if len(terms) > 1:
        return _Writer(terms, _LINES + "^=" if name else _LINES).encode(text)
    codec = _codec(terms[0] if terms else "")
    if codec == "shift_jis":
        return b"".join(_katakana(character) for character in text)
    return text.encode(codec)


def decode(data: bytes, terms: Sequence[str], *, name: bool = False) -> str:
    """The text in `data`. Raises as `encode`.

    Without terms it is read as Latin-1: most who write so mean that, and no byte is lost.
    """
    if data.isascii() and b"\x1b" not in data:
        return data.decode("ascii")
    terms = _with_first(terms)
    if len(terms) > 1:
        return _decode_extended(data, terms, (_LINES + "^=" if name else _LINES).encode())
    codec = _codec(terms[0] if terms else "")
    if codec == "shift_jis":
        return "".join(bytes([byte]).decode(codec) for byte in data)
    return data.decode("iso8859_1" if codec == "ascii" else codec)


def _with_first(terms: Sequence[str]) -> Sequence[str]:
    """A set of several bytes stands behind another one; there are devices that name it alone."""
    return ("", *terms) if len(terms) == 1 and terms[0] in _G0 | _G1_CODECS else terms


def _codec(term: str) -> str:
    try:
        return _ALONE[term]
    except KeyError:
        raise LookupError(f"no character set is called {term[:20]!r}") from None


def _katakana(character: str) -> bytes:
    encoded = character.encode("shift_jis")
    # The codec has more than JIS X 0201, and writes the yen sign where ASCII has the backslash.
    if len(encoded) > 1 or (encoded[0] < 0x80) != character.isascii():
        raise UnicodeEncodeError("JIS X 0201", character, 0, 1, "not in it")
    return encoded


def _in_set(character: str, term: str) -> bytes | None:
    """The bytes of one that is not ASCII, without escape sequences; None: `term` has it not."""
    try:
        if term in _G0:
            encoded = character.encode(_G0_CODECS[term])
            # Leads to the set, two bytes, leads back.
            lead = _G0[term]
            return encoded[len(lead) : len(lead) + 2] if encoded.startswith(lead) else None
        codec = _G1_CODECS.get(term)
        if codec is None:
            codec = _codec(term)
        return _katakana(character) if codec == "shift_jis" else character.encode(codec)
    except UnicodeError:
        return None


class _Writer:
    def __init__(self, terms: Sequence[str], ends: str) -> None:
        # There are devices that name the first as if it stood alone.
        first = (terms[0] or "ISO_IR 6").replace("ISO_IR", "ISO 2022 IR")
        self._terms = [first, *terms[1:]]
        for term in self._terms[1:]:
            if term not in _G0 and term not in _G1:
                raise LookupError(f"{term[:20]!r} does not stand behind another character set")
        _codec(self._terms[0])
        self._back = _JIS_ROMAN if self._terms[0] == "ISO 2022 IR 13" else _ASCII
        self._ends = ends
        self._g0, self._g1 = "", self._terms[0]

    def encode(self, text: str) -> bytes:
        return b"".join(map(self._one, text)) + self._leave()

    def _one(self, character: str) -> bytes:
        if character.isascii():
            left = self._leave()
            if character in self._ends:
                self._g1 = self._terms[0]
            return left + character.encode("ascii")
        # As long as possible in the set that it is in: each change is an escape sequence.
        for term in (self._g0, self._g1, *self._terms):
            encoded = _in_set(character, term) if term else None
            if encoded is not None:
                return self._enter(term) + encoded
        raise UnicodeEncodeError("Specific Character Set", character, 0, 1, "in none of its sets")

    def _enter(self, term: str) -> bytes:
        if term in _G0:
            lead = b"" if self._g0 == term else _G0[term]
            self._g0 = term
            return lead
        left = self._leave()
        lead = b"" if self._g1 == term else _G1[term]
        self._g1 = term
        return left + lead

    def _leave(self) -> bytes:
        if not self._g0:
            return b""
        # What is in G1 stays there by ISO 2022; there are readers to which it does not.
        self._g0 = self._g1 = ""
        return self._back


def _decode_extended(data: bytes, terms: Sequence[str], ends: bytes) -> str:
    first = terms[0] or "ISO 2022 IR 6"
    # A first set of ASCII has no characters in G1: what stands there is most likely Latin-1.
    first = "ISO 2022 IR 100" if first == "ISO 2022 IR 6" else first
    g0, g1, at = "", first, 0
    text: list[str] = []
    while at < len(data):
        byte = data[at]
        if byte == 0x1B:
            sequence = next((lead for lead in _ESCAPES if data.startswith(lead, at)), None)
            if sequence is None:
                raise UnicodeDecodeError("Specific Character Set", data, at, at + 1, "escape")
            term = _ESCAPES[sequence]
            g0, g1 = (g0, term) if term in _G1 else (term, g1)
            at += len(sequence)
        elif byte < 0x20 or (byte < 0x80 and not g0):
            if byte < 0x20:
                g0 = ""
            if byte in ends:
                g1 = first
            text.append(chr(byte))
            at += 1
        elif byte < 0x80:
            pair = _G0[g0] + data[at : at + 2] + _ASCII
            text.append(pair.decode(_G0_CODECS[g0]))
            at += 2
        else:
            size = 2 if g1 in _G1_CODECS else 1
            codec = _G1_CODECS[g1] if g1 in _G1_CODECS else _codec(g1)
            text.append(data[at : at + size].decode(codec))
            at += size
    return "".join(text)
