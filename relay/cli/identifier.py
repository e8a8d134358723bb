"""Query identifiers: from what a person types to a data set, and back to what a person reads.

Unlike everything on Relay's confirmed path, this has to understand data sets: pydicom does.
"""

import io
import warnings
from collections.abc import Iterable, Sequence

import pydicom
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.multival import MultiValue

from relay.errors import RelayError

UTF_8 = "ISO_IR 192"  # PS3.3 §C.12.1.1.2

# What is asked for where the person names no key: enough to choose by, and the UID to go on with.
_DEFAULT_KEYS: dict[str | None, Sequence[str]] = {
    "PATIENT": ("PatientName", "PatientID", "PatientBirthDate"),
    "STUDY": (
        "PatientName",
        "PatientID",
        "StudyDate",
        "StudyDescription",
        "AccessionNumber",
        "StudyInstanceUID",
    ),
    "SERIES": ("Modality", "SeriesNumber", "SeriesDescription", "SeriesInstanceUID"),
    "IMAGE": ("InstanceNumber", "SOPClassUID", "SOPInstanceUID"),
    None: (
        "PatientName",
        "PatientID",
        "AccessionNumber",
        "ScheduledProcedureStepSequence.Modality",
        "ScheduledProcedureStepSequence.ScheduledProcedureStepStartDate",
        "ScheduledProcedureStepSequence.ScheduledProcedureStepDescription",
    ),
}


def is_key(word: str) -> bool:
    """Whether `word` is a `KEY` or `KEY=VALUE`, and no AE title: these have no DICOM keywords."""
    keyword, equals, _ = word.partition("=")
    return bool(equals) or tag_for_keyword(keyword.partition(".")[0]) is not None


def build(keys: Iterable[str], level: str | None) -> Dataset:
    """The identifier for these `KEY` and `KEY=VALUE`; the level's usual keys if no KEY is alone.

    Raises ValueError, in words for the person, for a keyword that DICOM does not have.
    """
    query = Dataset()
    pairs = [key.partition("=") for key in keys]
    if all(equals for _, equals, _ in pairs):
        pairs += [(key, "", "") for key in _DEFAULT_KEYS[level]]
    for key, _, text in pairs:
        _put(query, key.split("."), text)
    if level is not None:
        query.QueryRetrieveLevel = level
    if not all(text.isascii() for _, _, text in pairs):
        query.SpecificCharacterSet = UTF_8
    return query


def _put(query: Dataset, path: Sequence[str], text: str) -> None:
    """Set the element at the end of `path` (keywords, all but the last of sequences)."""
    # The dictionary has retired elements without a keyword.
    tag = tag_for_keyword(path[0]) if path[0] else None
    if tag is None:
        raise ValueError(f"{path[0] or 'nothing'} is no DICOM keyword")
    vr = dictionary_VR(tag)
    if (vr == "SQ") != (len(path) > 1):
        raise ValueError(
            f"{path[0]} is a sequence: name an element in it, {path[0]}.KEY"
            if vr == "SQ"
            else f"{path[0]} is not a sequence"
        )
    if vr == "SQ":
        if tag not in query:
            query.add(DataElement(tag, vr, [Dataset()]))
        _put(query[tag].value[0], path[1:], text)
    elif tag not in query or text:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # wildcards and ranges are no plain values
            query.add(DataElement(tag, vr, text))


def keywords(query: Dataset, prefix: str = "") -> list[str]:
    """The dotted keywords of the query's elements, without those that steer the query itself."""
    names = []
    for element in query:
        keyword = prefix + keyword_for_tag(element.tag)
        if element.VR == "SQ":
            names += keywords(element.value[0], f"{keyword}.")
        elif element.keyword not in ("SpecificCharacterSet", "QueryRetrieveLevel"):
            names.append(keyword)
    return names


def value(answer: Dataset, keyword: str) -> str:
    """What `answer` has at the dotted `keyword`, for people; of a sequence, all its items'."""
    head, _, rest = keyword.partition(".")
    found = answer.get(head)
    if found is None:
        return ""
    if rest:
        return ", ".join(filter(None, (value(item, rest) for item in found)))
    return ", ".join(map(str, found)) if isinstance(found, MultiValue) else str(found)


def encode(query: Dataset, *, implicit: bool) -> bytes:
    """The identifier as it goes over the wire, little endian, implicit or explicit VR."""
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = implicit
    write_dataset(buffer, query)
    return buffer.getvalue()


def decode(data: bytes, *, implicit: bool) -> Dataset:
    """The data set in `data`. Raises RelayError if it cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a device's invalid value is shown as it is
        try:
            answer = read_dataset(io.BytesIO(data), implicit, True)
            answer.decode()
        except Exception as error:  # pydicom raises what its parsers happen to meet
            raise RelayError(f"an answer cannot be read: {type(error).__name__}") from error
    return answer


# A number with a wildcard or an empty one is legal in a query, and pydicom is not to argue.
pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
