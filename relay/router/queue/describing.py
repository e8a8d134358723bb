"""What the beginning of a data set says of its study: for people who search, and for nothing else.

It is read from a copy, once for each study, and whatever cannot be read is left out: delivery never
depends on it (DESIGN §6).
"""

from collections.abc import Mapping

from relay.dicom import elements
from relay.dicom.elements import Element, Encoding
from relay.spool.index import Study

SPECIFIC_CHARACTER_SET = 0x0008_0005
STUDY_DATE = 0x0008_0020
ACCESSION_NUMBER = 0x0008_0050
MODALITY = 0x0008_0060
STUDY_DESCRIPTION = 0x0008_1030
PATIENT_NAME = 0x0010_0010
PATIENT_ID = 0x0010_0020

# Of each value: what one line of a page takes. Longer ones are no names.
MAXIMUM_VALUE = 128

# PS3.3 §C.12.1.1.2: the character sets that one codec reads whole. In any other, what is not ASCII
# is shown by a mark: a page is no place for half of a name.
_CODECS: Mapping[str, str] = {
    "ISO_IR 192": "utf-8",
    "GB18030": "gb18030",
    "GBK": "gbk",
    "ISO_IR 100": "latin-1",
    "ISO_IR 101": "iso8859-2",
    "ISO_IR 109": "iso8859-3",
    "ISO_IR 110": "iso8859-4",
    "ISO_IR 144": "iso8859-5",
    "ISO_IR 127": "iso8859-6",
    "ISO_IR 126": "iso8859-7",
    "ISO_IR 138": "iso8859-8",
    "ISO_IR 148": "iso8859-9",
    "ISO_IR 166": "tis-620",
}


def study_in(uid: str, prefix: bytes, transfer_syntax: str) -> Study:
    """What `prefix` says of the study `uid`."""
    encoding = elements.encoding_of(transfer_syntax)
    if encoding is None:
        return Study(uid=uid)
    codec = _CODECS.get(_bytes(prefix, SPECIFIC_CHARACTER_SET, encoding).decode("latin-1"), "ascii")

    def text(tag: int) -> str:
        value = _bytes(prefix, tag, encoding).decode(codec, "replace").strip()
        return value[:MAXIMUM_VALUE]

    return Study(
        uid=uid,
        patient_id=text(PATIENT_ID),
        patient_name=_plain_name(text(PATIENT_NAME)),
        accession=text(ACCESSION_NUMBER),
        date=text(STUDY_DATE),
        modality=text(MODALITY),
        description=text(STUDY_DESCRIPTION),
    )


def _bytes(prefix: bytes, tag: int, encoding: Encoding) -> bytes:
    found = elements.find(prefix, tag, encoding, whole=True)
    if not isinstance(found, Element):
        return b""
    return bytes(prefix[found.value : found.end]).strip(b" \0")


def _plain_name(name: str) -> str:
    """A Person Name (PS3.5 §6.2.1) as people read it: its first group that says anything."""
    groups = [group.strip("^ ") for group in name.split("=")]
    return next(filter(None, groups), "").replace("^", " ").strip()
